"""Two results of which one editor is planted to be better."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from benchmark.planted import planted
from countervid.benchmark import results
from countervid.benchmark.compare import compare, markdown
from countervid.benchmark.results import Results
from countervid.cli.main import app
from countervid.errors import ConfigError

GRID = {"editors": ("tokenflow", "tune-a-video"), "steerings": ("none", "auto"), "references": False}


@pytest.fixture(scope="module")
def before() -> Results:
    return planted(**GRID)


@pytest.fixture(scope="module")
def after() -> Results:
    """Tune-A-Video does 0.2 more of what it should; the rest is what it was."""
    return planted(**GRID, better={"tune-a-video": 0.2}, absent=["phantom-2000000/tokenflow"])


def test_nothing_changed(before):
    same = compare(before, before)
    assert not same.changes and not same.configuration and same.same > 20 and same.unpaired == 0
    assert "are the same." in markdown(same, ("a", "b"))


def test_the_planted_change_is_found_and_only_that(before, after):
    found = compare(before, after)
    assert {change.editor for change in found.changes} == {"tune-a-video"}
    skill = next(c for c in found.changes if c.metric == "truth.skill" and c.steering == "none")
    assert skill.mark == "better" and skill.difference.mean == pytest.approx(0.2, abs=0.04)
    assert skill.difference.pairs == 32 and skill.p >= skill.difference.p
    error = next(c for c in found.changes if c.metric == "truth.edited_error" and c.steering == "none")
    assert error.mark == "better" and error.after < error.before
    sizes = [abs(change.size) for change in found.changes]
    assert sizes == sorted(sizes, reverse=True)


def test_what_only_one_has_is_said(before, after):
    rows = [row for row in after.rows if row.metric != "psnr"]
    rows = [row._replace(score=None) if row.metric == "ssim" and row.seed == 0 else row for row in rows]
    found = compare(before, Results({**after.config, "frames": 8}, rows))
    assert len(found.only[0]) == 8 and not found.only[1] and found.common == 120
    stops = compare(before, after, ["steering.false_stop"]).unpaired  # defined only where the critic was content
    assert found.metrics_only == (("psnr",), ()) and found.unpaired == 120 + stops
    text = markdown(found, ("old", "new"), 5)
    assert "8 jobs are only in old: phantom-2000000/tokenflow/auto/" in text and ", and 5 more." in text
    assert "Only in old: psnr." in text and "frames was null, is 8" in text
    assert f"{120 + stops} numbers of common jobs are only in one" in text and "The 5 largest are shown." in text


def test_order_turns_the_signs(before, after):
    there, back = compare(before, after, ["truth.skill"]), compare(after, before, ["truth.skill"])
    for one, other in zip(there.changes, back.changes, strict=True):
        assert one.difference.mean == pytest.approx(-other.difference.mean)
        assert {one.mark, other.mark} == {"better", "worse"}


def test_a_failure_is_a_change(before):
    broken = planted(**GRID, failed=["phantom-2000001/tokenflow/none"])
    found = compare(before, broken)
    failed = next(change for change in found.changes if change.metric == "failed")
    assert (failed.editor, failed.steering) == ("tokenflow", "none") and failed.difference.mean == pytest.approx(4 / 32)


def test_results_without_anything_in_common(before):
    other = planted(editors=("dva",), steerings=("none",), references=False)
    found = compare(before, other)
    assert found.common == 0 and not found.changes
    assert "There is nothing to compare." in markdown(found, ("a", "b"))
    with pytest.raises(ConfigError, match="no metric `beauty`"):
        compare(before, other, ["beauty"])


def test_command(before, after, tmp_path):
    results.write(tmp_path / "a", before.config, before.rows)
    results.write(tmp_path / "b", after.config, after.rows)
    said = CliRunner().invoke(app, ["benchmark", "compare", str(tmp_path / "a"), str(tmp_path / "b"), "--most", "3"])
    assert said.exit_code == 0 and "tune-a-video" in said.output and "▲" in said.output
