"""What is finished: digests, one process at a time, failures that leave nothing, costs over several stops."""

import json
import os
import subprocess
import sys

import pytest

from countervid.errors import OutputError
from countervid.files.whole import write_whole
from countervid.runs.folder import OtherRunError, RunFolder

ABOUT = {"versions": {}, "source": "talk.mp4", "notes": []}


def opened(path, seed=0, **more):
    return RunFolder(path, {"seed": seed, "do": {"age": "old"}}, ABOUT, **more)


def record_of(path):
    return json.loads((path / "run.json").read_text())


def damage(path):
    path.write_bytes(bytes(path.stat().st_size))


def test_a_zeroed_file_of_equal_length_is_made_again(tmp_path):
    made = []

    def write(path):
        made.append(path.name)
        write_whole(path, "a result")

    for _ in range(2):
        with opened(tmp_path / "run") as folder:
            folder.make("a.txt", write)
            folder.make("b.txt", write)
    assert made == ["a.txt", "b.txt"]
    damage(tmp_path / "run" / "a.txt")
    with opened(tmp_path / "run") as folder:
        assert not folder.has("a.txt") and folder.has("b.txt")
        folder.make("a.txt", write)
    assert made == ["a.txt", "b.txt", "a.txt"] and (tmp_path / "run" / "a.txt").read_text() == "a result"
    assert len(record_of(tmp_path / "run")["files"]["a.txt"]["sha256"]) == 64


def test_a_record_of_an_older_version_without_digests_is_read_and_its_files_made_again(tmp_path):
    with opened(tmp_path) as folder:
        folder.make("a.txt", lambda path: write_whole(path, "a result"))
    record = record_of(tmp_path)
    record["files"], record["seconds"], record["costs"] = {"a.txt": 8}, {"a.txt": "soon"}, ["much"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    with opened(tmp_path) as folder:
        assert not folder.has("a.txt")
        folder.make("a.txt", lambda path: write_whole(path, "again"))
    assert (tmp_path / "a.txt").read_text() == "again" and record_of(tmp_path)["files"]["a.txt"]["bytes"] == 5


def test_a_failure_before_the_first_result_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match="no face"), opened(tmp_path / "out" / "run") as folder:
        folder.make("target.json", lambda path: write_whole(path, "{}"))
        folder.make("factual.mp4", lambda path: write_whole(path, "source"))
        raise OutputError("no face")
    assert os.listdir(tmp_path) == []


def test_a_stopped_run_without_a_result_keeps_its_costs_and_makes_way_for_others(tmp_path):
    with pytest.raises(KeyboardInterrupt), opened(tmp_path / "run", costs=lambda: {"unet_evaluations": 7}) as folder:
        folder.make("factual.mp4", lambda path: write_whole(path, "source"))
        raise KeyboardInterrupt
    assert sorted(os.listdir(tmp_path / "run")) == ["factual.mp4", "run.json"]
    with opened(tmp_path / "run", seed=1) as folder:
        assert not folder.has("factual.mp4")
        folder.make("a.txt", lambda path: write_whole(path, "a result"))
    assert sorted(os.listdir(tmp_path / "run")) == ["a.txt", "run.json"]
    with pytest.raises(OtherRunError, match="seed was 1, is 0"), opened(tmp_path / "run"):
        pass
    assert sorted(os.listdir(tmp_path / "run")) == ["a.txt", "run.json"]


def test_a_failure_after_a_result_keeps_it(tmp_path):
    with pytest.raises(OutputError), opened(tmp_path) as folder:
        folder.make("a.txt", lambda path: write_whole(path, "a result"))
        raise OutputError("disk full")
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "run.json"]


def test_costs_and_seconds_of_several_processes_add_up(tmp_path):
    counts = {"unet_evaluations": 100, "model_loads": 1}  # an editor that has worked for others before

    def write(amount):
        def compute(path):
            counts["unet_evaluations"] += amount
            write_whole(path, str(amount))
            if amount == 30:
                raise KeyboardInterrupt

        return compute

    with pytest.raises(KeyboardInterrupt), opened(tmp_path, costs=lambda: dict(counts)) as folder:
        folder.took("prepare", 1.5)
        folder.make("a.txt", write(20))
        folder.make("b.txt", write(30))
    assert record_of(tmp_path)["costs"] == {"unet_evaluations": 50, "model_loads": 1}
    with opened(tmp_path, costs=lambda: dict(counts)) as folder:
        folder.took("prepare", 0.5)
        folder.make("a.txt", write(20))
        folder.make("b.txt", write(7))
        folder.finish()
    assert record_of(tmp_path)["costs"] == {"unet_evaluations": 57, "model_loads": 2}
    assert record_of(tmp_path)["seconds"]["prepare"] == 2.0
    with opened(tmp_path, costs=lambda: dict(counts)) as folder:  # all is there: nothing is counted any more
        counts["unet_evaluations"] += 1000
        folder.took("prepare", 9.0)
        folder.make("a.txt", write(20))
    assert record_of(tmp_path)["costs"] == {"unet_evaluations": 57, "model_loads": 2}
    assert record_of(tmp_path)["seconds"]["prepare"] == 2.0


def test_a_log_goes_on_unless_what_was_noted_of_it_is_damaged(tmp_path):
    with opened(tmp_path) as folder:
        (tmp_path / "verdicts.jsonl").write_text("one\n")
        folder.keep("verdicts.jsonl")
    with (tmp_path / "verdicts.jsonl").open("a") as file:
        file.write("two\n")  # killed before it was noted
    with opened(tmp_path) as folder:
        assert folder.log("verdicts.jsonl").read_text() == "one\ntwo\n"
    (tmp_path / "verdicts.jsonl").write_text("ane\ntwo\n")
    with opened(tmp_path) as folder:
        assert not folder.log("verdicts.jsonl").exists()


def test_a_damaged_record_is_said(tmp_path):
    with opened(tmp_path) as folder:
        folder.make("a.txt", lambda path: write_whole(path, "a result"))
    damage(tmp_path / "run.json")
    with pytest.raises(OutputError, match=r"`run.json` is damaged"), opened(tmp_path):
        pass


HOLDER = """
import sys, time
from pathlib import Path
from countervid.runs.folder import RunFolder
with RunFolder(Path(sys.argv[1]), {"seed": 0, "do": {"age": "old"}}, {}) as folder:
    partial = Path(sys.argv[1]) / ".a.txt.countervid-01234567.partial"
    partial.write_text("half")
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_processes_and_one_that_is_killed(tmp_path):
    path = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match="Another process is working in") as caught, opened(path):
            pass
        assert not isinstance(caught.value, OtherRunError)
        with pytest.raises(OtherRunError, match="seed was 0, is 1"), opened(path, seed=1):
            pass  # so that a run without a name of its own takes the next one
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert sorted(os.listdir(path)) == [".a.txt.countervid-01234567.partial", ".lock", "run.json"]
    with opened(path) as folder:
        folder.make("a.txt", lambda path: write_whole(path, "a result"))
    assert sorted(os.listdir(path)) == ["a.txt", "run.json"]
