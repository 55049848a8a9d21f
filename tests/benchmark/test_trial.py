"""Scores that were planted to agree with the truth, to disagree, to know nothing, and to fake it."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from benchmark.planted import planted
from countervid.benchmark import results
from countervid.benchmark.results import Results
from countervid.benchmark.trial import CASE, INTERVENTION, POOLED, markdown, plot, table, trial, write
from countervid.cli.main import app
from countervid.errors import OutputError


@pytest.fixture(scope="module")
def edits() -> Results:
    """`mse` follows the error (oriented: lower is better), `ssim` the skill turned round, `l1` nothing, and
    `clip.consistency` only how hard an intervention is."""
    plain = planted(steerings=("none", "auto"))
    errors = {row.job: row.score for row in plain.scores("truth.edited_error")}
    rng = np.random.default_rng(0)
    hard = {"age": 0.0, "gender": 1.0, "beard": 2.0, "bald": 3.0}
    shift = dict(zip(hard, (0.0, 0.2, 0.4, 0.6), strict=True))
    rows = []
    for row in plain.rows:
        error = errors.get(row.job)
        if row.metric == "truth.edited_error":
            row = row._replace(score=row.score + shift[row.variable])
        elif row.metric == "truth.skill":
            row = row._replace(score=1 - error)
        elif row.metric == "ssim":
            row = row._replace(score=error)
        elif row.metric == "clip.consistency":
            row = row._replace(score=1 - 0.1 * hard[row.variable] + 1e-6 * rng.normal())
        elif row.metric == "psnr":
            row = row._replace(score=20.0)
        rows.append(row)
        if row.metric == "psnr":
            rows += [row._replace(metric="mse", score=error + shift[row.variable]),
                     row._replace(metric="l1", score=float(rng.random())),
                     row._replace(metric="mse.truth", score=error)]  # fmt: skip
    return Results(plain.config, sorted(rows, key=lambda row: (row.job, row.metric)))


@pytest.fixture(scope="module")
def done(edits):
    return trial(edits, draws=500)


def found(done, metric):
    return next(verdict for verdict in done.verdicts if verdict.metric == metric).found


def test_a_score_that_follows_the_truth_is_believed(done):
    """`mse` is better when lower, and the error is turned, too: +1."""
    assert done.verdicts[0].metric == "mse"
    assert all(found(done, "mse")["error", way].mean == pytest.approx(1) for way in (POOLED, INTERVENTION, CASE))


def test_a_score_that_prefers_the_wrong_edits_is_below_zero(done):
    for way in (INTERVENTION, CASE):
        one = found(done, "ssim")["error", way]
        assert one.mean == pytest.approx(-1) and one.high < 0
    assert found(done, "ssim")["skill", POOLED].mean == pytest.approx(-1)


def test_a_score_that_knows_nothing_may_be_chance(done):
    for one in found(done, "l1").values():
        assert abs(one.mean) < 0.2 and one.low < 0 < one.high


def test_hard_interventions_do_not_fake_agreement(done):
    fake = found(done, "clip.consistency")
    assert fake["error", POOLED].mean > 0.8
    assert abs(fake["error", INTERVENTION].mean) < 0.2 and abs(fake["error", CASE].mean) < 0.2


def test_pooled_is_scipys(done, edits):
    jobs = sorted({row.job for row in edits.rows if row.kind == "edit"})
    by_job = {metric: {row.job: row.score for row in edits.scores(metric)} for metric in ("ssim", "truth.edited_error")}
    one, two = ([by_job[metric][job] for job in jobs] for metric in by_job)
    theirs = stats.spearmanr(one, -np.array(two)).statistic
    assert found(done, "ssim")["error", POOLED].mean == pytest.approx(theirs)
    cases = {}
    for job, x, y in zip(jobs, one, two, strict=True):
        clip, _, _, intervention, _ = job.split("/")
        cases.setdefault((clip, intervention), []).append((x, -y))
    inside = [stats.spearmanr(*zip(*pairs, strict=True)).statistic for pairs in cases.values()]
    assert found(done, "ssim")["error", CASE].mean == pytest.approx(np.mean(inside))


def test_only_edits_and_only_scores_without_the_truth_are_tried(done):
    names = {verdict.metric for verdict in done.verdicts}
    assert not any(name.startswith(("truth.", "cost.", "failed")) or name == "mse.truth" for name in names)
    assert {"effectiveness.target", "steering.satisfied", "identity.likeness"} <= names
    assert done.edits == 4 * 2 * 4 * 8 and done.clips == 8  # no references
    assert done.left_out == {"psnr": "the same for all edits"}
    assert "identity.likeness°" in markdown(done) and "Left out: psnr (the same for all edits)." in markdown(done)


def test_without_the_truth_there_is_no_trial(edits):
    rows = [row for row in edits.rows if not row.metric.startswith("truth.")]
    with pytest.raises(OutputError, match="Run the benchmark on phantoms"):
        trial(Results({}, rows))


def test_text_and_pictures(done, tmp_path):
    lines = [line for line in markdown(done).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1 and len(lines) == len(done.verdicts) + 2
    rows = list(csv.DictReader(io.StringIO(table(done))))
    assert len(rows) == 6 * len(done.verdicts)
    first, second = (write(done, tmp_path / name) for name in "ab")
    assert [path.name for path in first] == ["trial.md", "trial.csv", "trial.png", "trial.svg"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert all(verdict.metric in first[3].read_text() for verdict in done.verdicts)
    assert len(plot(done).axes) == 3


def test_command(edits, tmp_path):
    results.write(tmp_path, edits.config, edits.rows)
    said = CliRunner().invoke(app, ["benchmark", "trial", str(tmp_path), "--to", str(tmp_path / "out")])
    assert said.exit_code == 0, said.output
    assert "### Metrics on trial" in said.output and (tmp_path / "out" / "trial.png").is_file()
