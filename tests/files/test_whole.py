"""Temporary names: whole or not at all, and what killed processes left is removed, what living ones write is not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from countervid.errors import OutputError
from countervid.files import whole
from countervid.files.whole import clear_partials, replacing, replacing_folder, write_whole

WRITER = """
import signal, sys, time
from pathlib import Path
from countervid.files.whole import replacing, replacing_folder, scratch_folder
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
kind = {"file": replacing, "folder": replacing_folder, "scratch": scratch_folder}[sys.argv[2]]
with kind(Path(sys.argv[1])) as partial:
    (partial / "1.txt" if partial.is_dir() else partial).write_text("half")
    print(partial.name, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path):
    """Starts a real process that is in the middle of writing; gives it and the name that it writes under."""
    running = []

    def start(kind, name="talk.mp4"):
        command = [sys.executable, "-c", WRITER, str(tmp_path / name), kind]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_block_that_ends_well_replaces_the_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as partial:
        assert partial.parent == tmp_path and partial.name.startswith(".a.txt.")
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]


def test_a_block_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]
    with pytest.raises(OutputError, match="is a folder"), replacing(tmp_path):
        pass


def test_a_folder_is_replaced_whole(tmp_path):
    path = tmp_path / "pictures"
    path.mkdir()
    (path / "old.png").write_text("old")
    with pytest.raises(ZeroDivisionError), replacing_folder(path) as partial:
        (partial / "new.png").write_text("half")
        raise ZeroDivisionError
    assert os.listdir(path) == ["old.png"]
    with replacing_folder(path) as partial:
        (partial / "new.png").write_text("new")
    assert os.listdir(path) == ["new.png"] and os.listdir(tmp_path) == ["pictures"]


@pytest.mark.parametrize("kind", ["file", "folder", "scratch"])
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path, writer, kind):
    dead, left = writer(kind)
    _, alive = writer(kind)
    dead.send_signal(signal.SIGKILL)
    dead.wait()
    assert {left, alive} == set(os.listdir(tmp_path))
    assert [path.name for path in clear_partials(tmp_path)] == [left]
    assert os.listdir(tmp_path) == [alive]


def test_the_next_write_into_a_folder_clears_it_first(tmp_path, writer, monkeypatch):
    dead, left = writer("file")
    dead.kill()
    dead.wait()
    monkeypatch.setattr(whole, "_cleared", set())  # as in a new process
    write_whole(tmp_path / "other.json", "{}")
    assert os.listdir(tmp_path) == ["other.json"]


def test_files_of_others_with_a_like_name_stay(tmp_path):
    names = [".a.partial", ".a.deadbeef.partial", "a.countervid-deadbeef.partial", ".a.countervid-xyz.partial"]
    for name in names:
        (tmp_path / name).write_text("not ours")
    assert clear_partials(tmp_path) == [] and sorted(os.listdir(tmp_path)) == sorted(names)


def test_a_long_name_and_one_that_is_not_utf8(tmp_path):
    for name in ("n" * 250, os.fsdecode(b"caf\xe9.json"), os.fsdecode(b"\xff" * 250)):
        write_whole(tmp_path / name, "x")
        assert (tmp_path / name).read_text() == "x"
    assert len(os.listdir(tmp_path)) == 3


def test_a_name_in_json_comes_back_byte_for_byte(tmp_path):
    name = os.fsdecode(b"caf\xe9 \xc3\xa9.mp4")
    write_whole(tmp_path / "record.json", json.dumps({"source": name}, ensure_ascii=False))
    assert json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))["source"] == name


def test_a_written_file_may_be_read_by_whom_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_terminated_writer_removes_its_file(tmp_path, writer):
    process, name = writer("file")
    process.send_signal(signal.SIGINT)
    process.wait()
    deadline = time.monotonic() + 10
    while (tmp_path / name).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(tmp_path / name).exists()
