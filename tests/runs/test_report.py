"""The report: one page, nothing from outside, and it works in a browser."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from countervid.causal.graph import CausalGraph
from countervid.runs.drawing import draw_graph


@pytest.fixture(scope="module")
def page(finished):
    return (finished.folder / "report.html").read_text()


class Tags(HTMLParser):
    """Collects tags and whether they are well nested."""

    VOID = {"meta", "input", "img", "link", "br"}

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_the_page_is_well_nested_and_loads_nothing(page):
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    for _tag, attributes in tags.seen:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    assert not re.search(r"@import|url\((?!#)", page)


def test_the_page_says_what_changes_and_why(page):
    assert "follows from age = old" in page and "set by the intervention" in page
    assert "skill" in page and "TL-ID" in page
    assert len(page) < 2_000_000


def test_names_from_outside_are_escaped(finished, monkeypatch):
    monkeypatch.setitem(finished.record, "source", "<script>alert(1)</script>.mp4")
    from countervid.runs.report import render_report

    page = render_report(finished)
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
