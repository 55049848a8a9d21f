"""A benchmark's page: everything in it, nothing from outside, and its numbers are those of the tables."""

import base64
import io
import re
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from benchmark.planted import planted
from countervid.benchmark import figures
from countervid.benchmark.page import render_page, write_page
from countervid.benchmark.results import Results, write
from countervid.benchmark.scored import Scored
from countervid.benchmark.tables import paper
from countervid.cli.benchmark import app
from countervid.clip.sheets import write_rows
from pages import parsed

FAILED = "phantom-2000001/flatten/auto/age"


@pytest.fixture(scope="module")
def results():
    return planted(
        editors=("flatten", "dva"),
        steerings=("none", "auto"),
        clips=3,
        failed=(FAILED,),
        absent=("phantom-2000002/dva/auto",),
    )


@pytest.fixture(scope="module")
def folder(results, tmp_path_factory):
    """Their folder, with a sheet of each edit: 6 frames, rows of one grey each."""
    out = tmp_path_factory.mktemp("bench")
    levels = {"factual": -0.5, "edit": 0.0, "truth": 0.5}
    rows = {name: torch.full((6, 3, 32, 32), level) for name, level in levels.items()}
    for job in {row.job for row in results.rows if row.kind == "edit" and not row.job.startswith(FAILED)}:
        write_rows(out / "jobs" / job / "sheet.png", rows)
    failed = next(row.job for row in results.rows if row.job.startswith(FAILED))
    (out / "jobs" / failed).mkdir(parents=True)
    (out / "jobs" / failed / "state.json").write_text('{"status": "failed", "error": "ClipError: <b>no frames</b>"}')
    write(out, results.config, results.rows, results.record)
    return out


@pytest.fixture(scope="module")
def page(results, folder):
    return render_page(results, folder, folder)


def test_the_page_is_well_nested_light_and_loads_nothing(page):
    for _tag, attributes in parsed(page):
        assert attributes.get("src", "data:").startswith("data:")
        target = attributes.get("href", "#")
        assert target.startswith("#") or "://" not in target
    assert not re.search(r"@import|url\((?!#)|<script|https?://", page)
    assert len(page) < 3_000_000


def test_names_within_the_page_are_unique_and_meet(page):
    tags = parsed(page)
    names = [attributes["id"] for _tag, attributes in tags if "id" in attributes]
    assert len(names) == len(set(names))
    within = {attributes["href"][1:] for _tag, attributes in tags if attributes.get("href", "").startswith("#")}
    within |= set(re.findall(r"url\(#([^)]+)\)", page))
    assert within <= set(names)


def test_tables_show_the_numbers_of_the_tables(results, page):
    main = paper(results)[0]
    assert main.name == "main"
    shown = page.split('id="tables"')[1].split("</table>")[0]
    means = re.findall(r'<span class="mean(?: best)?">([^<]+)</span>', shown)
    cells = [cell for line in main.lines for cell in line.cells if cell is not None]
    assert len(means) == len(cells)
    for text, cell in zip(means, cells, strict=True):
        if np.isnan(cell.estimate.mean):
            assert text == "–"
        else:
            places = len(text.partition(".")[2])
            assert float(text.replace("−", "-")) == pytest.approx(cell.estimate.mean, abs=0.51 * 10**-places)
    assert all(f"<h2>{table.title}" in page or f"<summary>{table.title}" in page for table in paper(results))


def test_every_failure_is_listed_with_its_error_and_its_folder(results, page):
    failed = [row.job for row in results.rows if row.metric == "failed" and row.score]
    listed = page.split('id="failures"')[1].split('id="made"')[0]
    assert failed
    for job in failed:
        assert f">{job}</a>" in listed
    assert "ClipError: &lt;b&gt;no frames" in listed
    assert "<dd>1</dd><dt>failed, listed below</dt>" in page and "not done" in page


def test_cases_are_best_median_and_worst_and_lead_to_their_folders(results, page, folder):
    skill = {row.job: row.score for row in results.scores("truth.skill", kind="edit")}
    for editor in ("flatten", "dva"):
        ranked = sorted((job for job in skill if f"/{editor}/" in job), key=lambda job: (-skill[job], job))
        section = page.split(f"<h3>{editor} ")[1].split("<h3>")[0].split('id="trial"')[0]
        links = re.findall(r'<figure><a href="([^"]+)"', section)
        assert [unquote(link) for link in links] == [
            f"jobs/{ranked[place]}/" for place in (0, len(ranked) // 2, len(ranked) - 1)
        ]
        assert all((folder / unquote(link)).is_dir() for link in links)
        assert re.findall(r"<b>(\w+) <", section) == ["best", "median", "worst"]


def test_a_sheet_is_shown_without_its_captions(page):
    text = re.search(r'<figure><a [^>]*><img [^>]*base64,([^"]+)"', page).group(1)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("L")).astype(float)
    lanes = np.split(picture, 3)
    assert picture.shape[0] == picture.shape[1]  # three frames, three rows
    for lane, level in zip(lanes, (64, 128, 191), strict=True):
        assert np.abs(np.median(lane) - level) < 4 and lane.max() < level + 70  # no white caption between


def test_links_follow_the_page_elsewhere(results, folder, tmp_path):
    path = write_page(results, folder, tmp_path / "pages" / "report.html")
    link = re.search(r'<figure><a href="([^"]+)"', path.read_text()).group(1)
    assert (path.parent / unquote(link)).resolve().is_dir()


def test_figures_take_the_pages_colours_and_are_the_same_every_time(results):
    scored = Scored.of(results)
    for draw in (figures.fronts, figures.prices, figures.directions):
        one, two = (figures.inline(draw(scored), "name") for _ in range(2))
        assert one == two and one.startswith("<svg") and one.endswith("</svg>")
        assert "var(--series-0)" in one and "var(--series-1)" in one
        assert not re.search(r"#0[0-9a-f]{5}\b", one)  # no stand-in is left


@pytest.mark.parametrize("seed", range(5))
def test_nothing_beats_the_front_and_the_front_beats_the_rest(seed):
    points = np.random.default_rng(seed).integers(0, 6, (20, 2)).astype(float)
    points[3] = np.nan
    on = figures.front([tuple(point) for point in points])
    known = [index for index in range(20) if np.isfinite(points[index]).all()]
    for index in known:
        beaten = any((points[o] >= points[index]).all() and (points[o] > points[index]).any() for o in known)
        assert beaten == (index not in on)


def test_results_without_truth_or_pictures_still_make_a_page(results, tmp_path):
    rows = [row for row in results.rows if not row.metric.startswith(("truth.", "cost."))]
    page = render_page(Results(results.config, rows, {}), tmp_path, tmp_path)
    parsed(page)
    assert 'id="cases"' not in page and 'id="trial"' not in page and 'id="prices"' not in page
    assert 'id="fronts"' in page and "best effectiveness.changed" in page


def test_the_command_writes_the_page_and_refuses_what_is_no_benchmark(folder, tmp_path):
    done = CliRunner().invoke(app, ["report", str(folder), "--to", str(tmp_path / "page.html")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    refused = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert refused.exit_code != 0 and "holds no benchmark" in str(refused.exception)
