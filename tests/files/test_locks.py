"""One process at a time in a folder: real processes, and nothing left of the lock."""

import os
import subprocess
import sys

import pytest

from countervid.errors import OutputError
from countervid.files.locks import alone_in

HOLDER = """
import sys, time
from pathlib import Path
from countervid.files.locks import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_second_process_is_told_in_one_line(tmp_path, holder):
    with (
        pytest.raises(OutputError, match=r"Another process is working in .*run.*choose another `--out`"),
        alone_in(tmp_path / "run"),
    ):
        pass
    assert os.listdir(tmp_path / "run") == [".lock"]  # the holder's is still there


def test_a_killed_holder_does_not_stand_in_the_way(tmp_path, holder):
    holder.kill()
    holder.wait()
    with alone_in(tmp_path / "run"):
        assert os.listdir(tmp_path / "run") == [".lock"]
    assert os.listdir(tmp_path / "run") == []


def test_a_folder_that_stays_empty_is_removed_again(tmp_path):
    with pytest.raises(ZeroDivisionError), alone_in(tmp_path / "a" / "b"):
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []
    with alone_in(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "result").write_text("x")
    assert os.listdir(tmp_path / "a" / "b") == ["result"]
    (tmp_path / "there").mkdir()
    with alone_in(tmp_path / "there"):
        pass
    assert (tmp_path / "there").is_dir()  # it was there before


def test_a_folder_may_be_held_again_and_again(tmp_path):
    for _ in range(3):
        with alone_in(tmp_path / "run"):
            (tmp_path / "run" / "result").write_text("x")
    assert os.listdir(tmp_path / "run") == ["result"]
