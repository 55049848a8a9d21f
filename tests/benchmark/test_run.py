"""A benchmark survives: killed, damaged, failing, out of room, or asked for something else."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from typer.testing import Result

from benchmark.conftest import command
from countervid.benchmark import job as jobs
from countervid.benchmark.clips import people
from countervid.benchmark.grid import BenchmarkConfig
from countervid.benchmark.results import COSTS, read
from countervid.benchmark.run import Benchmark, How
from countervid.clip import Clip
from countervid.phantom.world import render_clip

TESTS = Path(__file__).parents[1]
Run = Callable[..., Result]
SMALL = BenchmarkConfig(  # what `finished` is of
    clips=("phantom:2",), editors=("tint",), modules=("benchmark.tint",), steering=("none",), size=128, frames=4,
    interventions=("age", "beard"), metrics=("psnr", "truth.skill"), references=False,
)  # fmt: skip


def numbers(out: Path) -> dict[tuple[str, str], float | None]:
    """(job, metric) -> score of everything that does not depend on the machine's mood."""
    return {(row.job, row.metric): row.score for row in read(out).rows if row.metric not in COSTS}


def started(out: Path, *more: str, clips: str = "phantom:2") -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent / "src")])}
    arguments = command(out, *more, clips=clips)
    return subprocess.Popen([sys.executable, "-m", "countervid.cli.main", *arguments], env=environment)


def done(out: Path) -> dict[Path, int]:
    """State files of finished jobs, with the times they were written."""
    states = sorted(out.glob("jobs/**/state.json"))
    return {path: path.stat().st_mtime_ns for path in states if '"done"' in path.read_text()}


def wait_for(happened: Callable[[], Any], seconds: float = 240) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.05)


def test_a_finished_benchmark_has_everything(finished: Path) -> None:
    found = read(finished)
    assert {row.clip for row in found.rows} == {f"phantom-{person.seed}" for person in people(2)}
    assert {row.intervention.split("=")[0] for row in found.rows} == {"age", "beard"}
    assert {*COSTS, "psnr", "truth.skill"} <= set(found.metrics)
    assert {row.score for row in found.scores("failed")} == {0.0}
    assert found.scores("cost.prepare_evaluations")[0].score == 7 and found.scores("cost.evaluations")[0].score == 3
    assert all(row.score is None for row in found.scores("steering.false_stop")) or found.scores("steering.satisfied")
    folder = finished / "jobs" / found.rows[0].job
    names = {"state.json", "target.json", "verdicts.jsonl", "counterfactual.mp4", "sheet.png", "scores.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert len(Clip.read(folder / "counterfactual.mp4")) == 4
    assert not (finished / "prepared").exists()  # nothing is left to do with it
    assert found.record["jobs"] == {"all": 4, "done": 4, "failed": {}, "undefined": {}, "damaged": []}


def test_the_same_command_does_nothing_twice(finished: Path, benchmark_run: Run) -> None:
    before, table = done(finished), (finished / "results.parquet").read_bytes()
    result = benchmark_run(finished, clips="phantom:2")
    assert result.exit_code == 0 and "4 of 4 jobs done, 4 of them before" in result.output
    assert done(finished) == before and (finished / "results.parquet").read_bytes() == table


def test_another_configuration_is_refused_and_shown(finished: Path, benchmark_run: Run) -> None:
    before = (finished / "benchmark.json").read_bytes()
    result = benchmark_run(finished, "--fps", "9", "--set", "tint.amount=0.5", clips="phantom:2")
    assert result.exit_code == 2 and result.stdout == ""
    assert "editors.tint.amount was 0.2, is 0.5" in result.stderr and "fps was 8.0, is 9.0" in result.stderr
    assert (finished / "benchmark.json").read_bytes() == before


def test_a_benchmark_may_grow(finished: Path, benchmark_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    before = done(out)
    assert benchmark_run(out, "--grow", "--fps", "9", clips="phantom:2").exit_code == 2  # that would be another one
    assert benchmark_run(out, "--grow", clips="phantom:1").exit_code == 2
    result = benchmark_run(out, "--grow", "--seeds", "2", clips="phantom:2")
    assert result.exit_code == 0 and "8 of 8 jobs done, 4 of them before" in result.output
    assert all(done(out)[path] == when for path, when in before.items())
    known = numbers(finished)
    assert {key: value for key, value in numbers(out).items() if key in known} == known
    assert "8 of 8 jobs done, 8 of them before" in benchmark_run(out, "--seeds", "2", clips="phantom:2").output


def test_damaged_files_are_noticed_said_and_made_again(finished: Path, benchmark_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    states = sorted(out.glob("jobs/**/state.json"))
    states[0].write_text('{"status": "do')
    (states[1].parent / "scores.json").write_text('{"job": "another", "scores": {}}')
    (out / "clips" / f"phantom-{people(1)[0].seed}" / "factual.safetensors").write_bytes(b"noise")
    (out / "results.parquet").write_bytes(b"noise")
    kept = done(out)
    result = benchmark_run(out, clips="phantom:2")
    assert result.exit_code == 0 and result.output.count("done again") == 2
    assert "state.json` is damaged" in result.output and "scores.json` is damaged" in result.output
    assert numbers(out) == numbers(finished)
    assert all(done(out)[path] == kept[path] for path in states[2:])


def test_a_failing_job_is_recorded_tried_again_and_reported(benchmark_run: Run, tmp_path: Path) -> None:
    out, mended = tmp_path / "out", tmp_path / "mended"
    failing = ("--set", "tint.fails_on=beard", "--set", f"tint.mended_by={mended}")
    result = benchmark_run(out, *failing)
    assert result.exit_code == 1
    assert "1 of 2 jobs done" in result.output and "the brush is worn" in result.output
    state_path = next(path for path in out.glob("jobs/**/state.json") if "beard" in str(path))
    state = json.loads(state_path.read_text())
    assert state["status"] == "failed" and state["tries"] == 2 and "the brush is worn" in state["error"]
    assert "Traceback" in (state_path.parent / "error.txt").read_text()
    rows = [row for row in read(out).rows if row.variable == "beard"]
    assert [(row.metric, row.score) for row in rows] == [("failed", 1.0)]
    mended.touch()
    result = benchmark_run(out, *failing)
    assert result.exit_code == 0 and "2 of 2 jobs done, 1 of them before" in result.output
    assert not (state_path.parent / "error.txt").exists()


def test_a_full_disk_stops_everything_and_loses_nothing(
    benchmark_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write = tmp_path / "out", jobs.write_whole

    def no_room(path: Path, content: str | bytes) -> None:
        if path.name == "scores.json" and "beard" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    monkeypatch.setattr(jobs, "write_whole", no_room)
    result = benchmark_run(out)
    assert result.exit_code == 2 and "disk is full" in result.stderr and len(result.stderr.splitlines()) == 1
    assert len(done(out)) == 1
    monkeypatch.undo()
    result = benchmark_run(out)
    assert result.exit_code == 0 and "2 of 2 jobs done, 1 of them before" in result.output


def test_what_is_not_a_number_is_said(benchmark_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = benchmark_run(
        out, "--metrics", "truth.direction", "--interventions", "beard", references=True
    )  # fmt: skip
    assert "no number in some jobs: truth.direction (1)" in " ".join(result.output.split())  # nothing has no direction
    assert read(out).scores("truth.direction", editor="nothing")[0].score is None
    skills = {row.editor: row.score for row in read(out).scores("truth.direction")}
    oracle = skills["oracle"]
    assert oracle is not None and oracle > 0.9  # the truth through the VAE goes the true way
    assert read(out).record["jobs"]["undefined"] == {"truth.direction": 1}


@pytest.mark.timeout(600)
def test_killed_in_the_middle_it_goes_on(finished: Path, benchmark_run: Run, tmp_path: Path) -> None:
    """Two workers, of which nothing is left when their parent is killed."""
    out = tmp_path / "out"
    process = started(out, "--workers", "2", "--set", "tint.pause=1.5")
    wait_for(lambda: done(out))
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(child.is_running() and child.status() != "zombie" for child in family), 20)
    before = done(out)
    assert 0 < len(before) < 4
    result = benchmark_run(out, "--set", "tint.pause=1.5", clips="phantom:2")
    assert result.exit_code == 0, result.output
    assert all(done(out)[path] == when for path, when in before.items())  # finished jobs were not touched
    assert numbers(out) == numbers(finished)  # as in one process, and never stopped


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_that_dies_is_replaced(finished: Path, tmp_path: Path) -> None:
    out, victims = tmp_path / "out", []

    def kill_one(outcome: Any) -> None:
        if not victims:
            victims.append(psutil.Process().children()[-1])
            victims[0].kill()

    summary = Benchmark(out, SMALL, How(workers=2, device="cpu")).run(kill_one)
    assert victims and summary.done == 4 and not summary.failed
    assert numbers(out) == numbers(finished)
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_ray_a_worker_that_dies_is_replaced(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    out, victims = tmp_path / "out", []

    def kill_one(outcome: Any) -> None:
        if not victims:
            actors = [p for p in psutil.process_iter(["cmdline"]) if "ray::Actor" in " ".join(p.info["cmdline"] or ())]
            mine = [p for p in actors if psutil.Process() in p.parents()]
            victims.append(mine[-1])
            mine[-1].kill()

    summary = Benchmark(out, SMALL, How(engine="ray", workers=2, device="cpu")).run(kill_one)
    assert victims and summary.done == 4 and not summary.failed
    assert numbers(out) == numbers(finished)


def test_footage_is_measured_without_a_truth(benchmark_run: Run, tmp_path: Path) -> None:
    person = people(1)[0]
    made = render_clip(person, frames=4, fps=8.0, size=128)
    Clip.from_frames(torch.from_numpy(made.frames), 8.0).write(tmp_path / "talk.mp4", crf=8)
    entry = {"factual": "He is old.", "counterfactual": {"age": "He is young.", "beard": "He is old, he has beard."}}
    (tmp_path / "prompts.json").write_text(json.dumps({"talk": entry, "lost": entry}))
    out = tmp_path / "out"
    result = benchmark_run(
        out, "--prompts", str(tmp_path / "prompts.json"), clips=f"celebv:{tmp_path}", references=True
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = read(out)
    assert {row.editor for row in found.rows} == {"nothing", "tint"}
    assert {row.intervention for row in found.rows} == {"age=young", "beard=yes"}
    assert not found.scores("truth.skill") and len(found.scores("psnr")) == 4
    assert found.record["left_out"]["lost"].startswith("not in")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--editors", "tokenflw"), "Did you mean `tokenflow`?"),
        (("--critic", "nobody"), "`nobody` is no critic"),
        (("--metrics", "beauty"), "no metric `beauty`"),
        (("--engine", "steam"), "no engine `steam`"),
        (("--address", "auto"), "--engine ray"),
        (("--workers", "0"), "workers"),
        (("--device", "abacus"), "abacus"),
        (("--clips", "phantom:0"), "phantom:0"),
    ],
)
def test_wrong_input_is_one_line(benchmark_run: Run, tmp_path: Path, more: tuple[str, ...], words: str) -> None:
    result = benchmark_run(tmp_path / "out", *more)
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1 and words in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(benchmark_run: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    result = benchmark_run(tmp_path)
    assert result.exit_code == 2 and "holds no benchmark" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_at_once_are_refused(finished: Path, benchmark_run: Run) -> None:
    with open(finished / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = benchmark_run(finished, clips="phantom:2")
    assert result.exit_code == 2 and "Another process" in result.stderr


def test_a_dry_run_shows_the_grid_and_writes_nothing(benchmark_run: Run, tmp_path: Path) -> None:
    result = benchmark_run(tmp_path / "out", "--dry-run", "--seeds", "3")
    assert result.exit_code == 0 and "6 jobs, 6 left to do" in result.output and "tint" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["scores.json", "target.json", "counterfactual.mp4", "sheet.png"])
def test_a_zeroed_file_of_a_finished_job_is_made_again(
    finished: Path, benchmark_run: Run, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    path = sorted(out.glob(f"jobs/**/{name}"))[0]
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    result = benchmark_run(out, clips="phantom:2")
    assert result.exit_code == 0 and "done again" in result.output, result.output
    assert numbers(out) == numbers(finished)
    if name != "scores.json":  # which tells seconds, too
        assert path.read_bytes() == whole


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_terminated_benchmark_says_so_and_leaves_no_half_file(tmp_path: Path, workers: str) -> None:
    process = started(tmp_path, "--workers", workers)
    try:
        wait_for(lambda: list(tmp_path.glob("jobs/**/state.json")))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    finally:
        process.kill()
        process.wait()
    assert not [path for path in tmp_path.rglob(".*") if path.name.endswith((".partial", ".lock"))]
    assert json.loads((tmp_path / "benchmark.json").read_text())["jobs"]["all"] == 4


def test_frames_of_a_clip_that_were_damaged_are_made_again(finished: Path, benchmark_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    path = sorted(out.glob("clips/*/factual.safetensors"))[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 255]) + whole[-8:])
    sorted(out.glob(f"jobs/{path.parent.name}/**/state.json"))[0].unlink()  # a job to be done again with these frames
    assert benchmark_run(out, clips="phantom:2").exit_code == 0
    assert path.read_bytes() == whole and numbers(out) == numbers(finished)
