"""The report: one page, nothing from outside, and it works in a browser."""

import dataclasses
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from countervid.causal.graph import CausalGraph
from countervid.critics.base import Answer, Verdict
from countervid.runs.drawing import draw_graph
from countervid.runs.report import report_of
from countervid.steering.base import Round, Step
from countervid.steering.loop import Steered
from pages import parsed


@pytest.fixture(scope="module")
def page(finished):
    return (finished.folder / "report.html").read_text()


def test_the_page_is_well_nested_and_loads_nothing(page):
    for _tag, attributes in parsed(page):
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    assert not re.search(r"@import|url\((?!#)", page)


def test_the_page_says_what_changes_and_why(page):
    assert "follows from age = old" in page and "set by the intervention" in page
    assert "skill" in page and "TL-ID" in page
    assert len(page) < 2_000_000


def test_the_slider_reaches_every_frame(finished, page):
    numbers = json.loads(re.search(r"numbers: (\[[^]]*\])", page).group(1))
    assert numbers == list(range(len(finished.factual)))
    seek = next(attributes for tag, attributes in parsed(page) if attributes.get("id") == "seek")
    assert (seek["min"], seek["max"], seek["type"]) == ("0", str(len(numbers) - 1), "range")
    assert page.count('class="cursor"') >= 3  # the plots over time follow it


def test_everything_that_is_operated_or_seen_has_a_name(page):
    for tag, attributes in parsed(page):
        if tag in ("input", "button") and attributes.get("type") != "radio":  # those stand in labels
            assert attributes.get("aria-label")
        if tag == "img":
            assert attributes.get("alt")
        if attributes.get("role") == "img":
            assert attributes.get("aria-label")


def test_numbers_are_those_of_the_metrics(finished, page):
    metrics = json.loads((finished.folder / "metrics.json").read_text())
    truth, examiner = metrics["truth"]["face"], metrics["examiner"]
    shown = dict(re.findall(r"<dt>([^<]+)<small>[^<]*</small></dt><dd>([^<]+)</dd>", page))
    assert shown["skill"] == f"{truth['skill']:.2f}" and shown["spill"] == f"{truth['spill']:.3f}"
    assert shown["kept"] == f"{examiner['kept_kept']:.0%}"
    assert shown["pixels touched"] == f"{metrics['changed_share']:.1%}"
    glance = {what: value for value, what in re.findall(r"<div><dd>([^<]+)</dd><dt>([^<]+)</dt></div>", page)}
    known = [name for name in finished.target.kept if name in examiner["counterfactual"]]
    assert glance["other attributes kept"] == f"{round(examiner['kept_kept'] * len(known))} of {len(known)}"
    for name, score in metrics["scores"].items():
        assert f"<small>{name}</small></th><td" in page and (score is None or f"{score:.4g}" in page)


def test_what_should_have_stayed_and_did_not_is_named(finished, page):
    examiner = finished.metrics["examiner"]["counterfactual"]
    gone = [name for name, kept in finished.target.kept.items() if name in examiner and examiner[name]["value"] != kept]
    moved = page.split("What moved that should not have")[1].split("</dl>")[0]
    assert all(f"{name} should stay" in moved for name in gone)
    assert "attributes" in moved and "pixels" in moved and "light" in moved and "identity" in moved


def test_every_round_is_shown_with_what_changed_in_words(finished):
    first = finished.target
    second = dataclasses.replace(first, prompt=first.prompt.replace("old", "very old"), strengths={"age": 1.5})
    rounds = []
    for number, target in enumerate([first, second]):
        answers = {"age": Answer(value="old", confidence=0.9 if number else 0.6)}
        verdict = Verdict(critic="test", frames=(0,), answers=answers, critique=f"critique {number}")
        rounds.append(
            Round(number=number, step=Step(target=target, note=f"note {number}"), verdict=verdict, distance=3.0)
        )
    steered = Steered(clip=finished.clip, chosen=rounds[1], rounds=tuple(rounds), stopped="all is seen")
    record = {**finished.record, "steering": {"stopped": "all is seen"}}
    page = report_of(dataclasses.replace(finished, steered=steered, record=record))
    for round in rounds:
        assert f"Round {round.number}" in page and round.step.note in page and round.verdict.critique in page
    assert "<ins>very</ins>" in page and "age: strength 100% → 150%" in page
    assert page.count('<span class="badge">kept</span>') == 1


def test_a_round_shows_before_and_after_and_only_controls_that_the_editor_has(finished):
    first, second = finished.target, dataclasses.replace(finished.target, seed=4)
    votes = {"old": 0.6, "young": 0.4}
    before = Verdict(critic="test", frames=(0,), answers={"age": Answer(value="young", confidence=0.9)})
    after = Verdict(critic="test", frames=(0,), answers={"age": Answer(value="old", confidence=0.6, votes=votes)})
    rounds = tuple(
        Round(number=number, step=Step(target=target, note=""), verdict=None if number == 1 else after,
              failure="nobody answers" if number == 1 else "", source=before)
        for number, target in enumerate([first, second, second])
    )  # fmt: skip
    steered = Steered(clip=finished.clip, chosen=rounds[0], rounds=rounds, stopped="all is seen")

    def page(*controls):
        record = {**finished.record, "steering": {"stopped": "all is seen"}, "controls": list(controls)}
        return report_of(dataclasses.replace(finished, steered=steered, record=record))

    shown, drawn = page("strength"), page("strength", "seed")
    assert "2 edits: all is seen" in shown and "age young → old, in 60% of the frames" in shown
    assert "seed 0 → 4" in drawn and "seed 0 → 4" not in shown
    table = "<dt>seed</dt>"
    assert (table in drawn) and table not in shown


def test_names_from_outside_are_escaped(finished, monkeypatch):
    monkeypatch.setitem(finished.record, "source", "<script>alert(1)</script>.mp4")
    page = report_of(finished)
    assert "<script>alert(1)" not in page and "&lt;script&gt;alert(1)" in page


def test_the_graph_shows_what_the_intervention_cut():
    graph = CausalGraph.load("face")
    factual = {"age": "old", "gender": "man", "beard": "yes", "bald": "yes"}
    drawing = draw_graph(graph, graph.counterfactual(factual, {"beard": "no"}))
    assert drawing.count('class="edge cut"') == 2  # age -> beard and gender -> beard
    assert 'class="node set"' in drawing and "do(beard)" in drawing


def test_a_browser_draws_it(finished, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium here: the page is not looked at")
    shot = tmp_path / "page.png"
    subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,1400",
         "--timeout=4000", f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}",
         (finished.folder / "report.html").as_uri()],
        capture_output=True, timeout=100, check=True,
    )  # fmt: skip
    picture = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    stage = picture[300:700, 350:850]  # the large picture: a photograph, not an empty canvas
    assert stage.std() > 25 and len(np.unique(stage.reshape(-1, 3), axis=0)) > 2000
