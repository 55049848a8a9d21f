"""The examiner's answers, streamed, against the whole clip read at once."""

import doctest
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from countervid.errors import ModelError
from countervid.metrics import effectiveness
from countervid.metrics.base import Asked, Eyes, catalogue, measured
from countervid.metrics.effectiveness import Votes, blink, examined, share_right, track_error
from countervid.metrics.examiner import Examiner
from countervid.phantom.scm import DOMAINS
from countervid.phantom.world import render_clip, sample_person
from rendered_windows import EYES, faces, pictures, squares, windows

FRAMES = 5


@pytest.fixture(scope="module")
def aged():
    """A young woman, the same grown old, the squares of her face, and what was asked."""
    person = sample_person(2_000_003)
    outcome = person.counterfactual({"age": "old"})
    young, old = (
        render_clip(person, frames=FRAMES, size=128, attributes=state)
        for state in (person.attributes, outcome.attributes)
    )
    asked = Asked(factual=outcome.factual, do={"age": "old"}, counterfactual=outcome.attributes)
    return pictures(young), pictures(old), squares(young), asked


def scores(aged, edited, *, size=2, asked=None, eyes=EYES, truth=True):
    young, old, where, meant = aged
    clips = {"factual": young, "counterfactual": edited} | ({"truth": old} if truth else {})
    has = ("face", "attributes", "truth") if truth else ("face", "attributes")
    found = measured(["effectiveness"], windows(clips, where, size=size, asked=asked or meant, eyes=eyes), has)
    return {name.removeprefix("effectiveness."): value for name, value in found.items()}


def test_doctests():
    assert doctest.testmod(effectiveness).failed == 0


def test_the_truth_reaches_the_ceiling(aged):
    found = scores(aged, aged[1])
    assert found["target"] == 1 and found["confidence"] > 0.5
    assert found["changed"] == found["ceiling"] and found["kept"] == found["ceiling_kept"]
    assert found["track_error"] == 0
    assert {name for name in found if name in DOMAINS} == set(DOMAINS)


def test_doing_nothing_keeps_all_and_changes_nothing(aged):
    found = scores(aged, aged[0])
    assert found["target"] == 0 and found["age"] == 0 and found["gender"] == 1
    assert found["kept"] == 1 and found["confidence"] < 0.5 and found["track_error"] > 0.5


def test_only_what_changed_is_gained(aged):
    young, old, where, asked = aged
    nothing, truth = scores(aged, young), scores(aged, old)
    assert nothing["gained"] == nothing["target_gained"] == 0 and truth["target_gained"] == 1
    assert truth["gained"] == truth["ceiling_gained"] <= truth["changed"]
    # Somebody who was old already: the published share is full, though nothing was done.
    told = replace(asked, factual={"age": "young"}, do={"age": "old"}, counterfactual={"age": "old"})
    found = measured(
        ["effectiveness"], windows({"factual": old, "counterfactual": old}, where, size=2, asked=told, eyes=EYES),
        ("face", "attributes"),
    )  # fmt: skip
    assert found["effectiveness.changed"] == found["effectiveness.target"] == 1
    assert found["effectiveness.gained"] == found["effectiveness.target_gained"] == 0


def test_windows_agree_with_the_whole_clip_read_at_once(aged):
    young, old, where, asked = aged
    edited = 0.5 * (young + old)
    examiner = EYES.get("examiner", Examiner.from_folder)
    crops = faces(edited, where)
    said = examiner.read(crops * 2 - 1)
    found = scores(aged, edited)
    assert {name: found[name] for name in DOMAINS} == {n: float(said[n] == asked.counterfactual[n]) for n in DOMAINS}
    q, q_true = (
        examiner(faces(frames, where) * 2 - 1)["age"].exp()[:, 1].detach().double().numpy() for frames in (edited, old)
    )
    assert found["blink"] == pytest.approx(q.std(), abs=1e-6)
    assert found["track_error"] == pytest.approx(np.abs(q - q_true).mean(), abs=1e-6)
    for size in (1, 3, FRAMES):
        assert scores(aged, edited, size=size) == pytest.approx(found, abs=1e-6)


def test_an_attribute_that_comes_and_goes_blinks(aged):
    young, old, _, _ = aged
    flickering = torch.stack([(old if number % 2 else young)[number] for number in range(FRAMES)])
    assert scores(aged, flickering)["blink"] > 0.3 > scores(aged, old)["blink"]


def test_without_the_truth_there_is_no_ceiling(aged):
    found = scores(aged, aged[1], truth=False)
    assert not {"track_error", "ceiling", "ceiling_gained", "ceiling_kept"} & set(found)


def test_what_nobody_asked_about_is_left_out_and_nothing_to_change_is_not_defined(aged):
    asked = replace(aged[3], factual={"age": "young"}, do={"age": "young"}, counterfactual={"age": "young"})
    found = scores(aged, aged[0], asked=asked)
    assert math.isnan(found["changed"]) and math.isnan(found["gained"]) and found["kept"] == 1 and found["target"] == 1
    assert "gender" not in found
    assert effectiveness.Effectiveness.undefined["effectiveness.changed"] == "nothing was asked to change"


def test_frames_without_a_face_have_no_vote(aged):
    young, old, where, asked = aged
    parts = list(windows({"factual": young, "counterfactual": old}, where, size=2, asked=asked))
    empty = replace(parts[-1], faces={name: crops[:0] for name, crops in parts[-1].faces.items()}, rows=torch.arange(0))
    found = measured(["effectiveness"], [*parts[:-1], empty], ("face", "attributes"))
    assert found["effectiveness.target"] == 1
    nobody = measured(["effectiveness.target"], [empty], ("face", "attributes"))
    assert math.isnan(nobody["effectiveness.target"])


def test_the_networks_look_once_whoever_asks(aged):
    young, _, where, asked = aged
    (window,) = windows({"factual": young, "counterfactual": young}, where, size=FRAMES, asked=asked)
    one, other = examined(window, "factual"), examined(window, "factual")
    assert one is other
    votes = Votes()
    votes.update(window, "factual")
    assert votes.values() == window.eyes.get("examiner", Examiner.from_folder).read(window.faces["factual"] * 2 - 1)
    assert all(0 < said["confidence"] <= 1 for said in votes.reading().values())


def test_missing_weights_are_an_error_or_a_line(aged, tmp_path):
    eyes = Eyes(folders={"examiner": str(tmp_path)})
    with pytest.raises(ModelError, match="No model in"):
        scores(aged, aged[0], eyes=eyes)
    missing = {}
    young, _, where, asked = aged
    clips = {"factual": young, "counterfactual": young}
    found = measured(
        ["effectiveness", "psnr"],
        windows(clips, where, size=4, asked=asked, eyes=eyes),
        ("face", "attributes"),
        missing,
    )
    assert found == {"psnr": 100.0}
    assert set(missing) == {name for name in catalogue() if name.startswith("effectiveness.")}


def test_tracks_of_different_frames_are_refused():
    with pytest.raises(ValueError, match="of the same frames"):
        track_error(torch.zeros(3), torch.zeros(2))
    assert math.isnan(blink(torch.zeros(0))) and math.isnan(share_right({}, {"age": "old"}))
