"""Real signals to real processes: SIGTERM ends as Ctrl-C does, and the corrected command finds the folder free."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from countervid.clip import Clip
from tiny_models import astronaut_frames, save_tiny_models


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopping")
    save_tiny_models(folder / "models")
    Clip.from_frames(astronaut_frames(12)).write(folder / "talk.mp4", crf=4)
    return folder


def started(place, out, steps):
    words = ["edit", place / "talk.mp4", "--do", "age=old", "--model", place / "models", "--cache", place / "cache",
             "--factual", "She is young, she has brown hair.", "--steps", steps, "--out", out, "--set", "window=2",
             "--set", "batch=1"]  # fmt: skip
    command = [sys.executable, "-m", "countervid.cli.main", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGKILL, -9, ""),
    ],
)
def test_a_stopped_edit_says_so_and_does_not_stand_in_the_way_of_another(place, tmp_path, number, code, word):
    out = tmp_path / "out"
    process = started(place, out, 500)
    deadline = time.monotonic() + 120
    while (
        not list((place / "cache").rglob("looks/00000010*")) and process.poll() is None and time.monotonic() < deadline
    ):
        time.sleep(0.05)  # it is in the middle of its preparation
    second = started(place, out, 500)
    _, said = second.communicate(timeout=120)
    assert second.returncode == 2 and "Another process is working in" in said and len(said.splitlines()) == 1
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    if word:
        assert said.splitlines() == [f"countervid: {word}. The same command goes on where this one stopped."]
        assert os.listdir(out) == ["run.json"]  # what it has cost so far
        assert json.loads((out / "run.json").read_text())["costs"]["unet_evaluations"] > 0
    corrected = started(place, out, 3)
    _, said = corrected.communicate(timeout=200)
    assert corrected.returncode == 0, said
    record = json.loads((out / "run.json").read_text())
    assert record["finished"] and record["settings"]["editor_settings"]["steps"] == 3
    assert not list(tmp_path.rglob(".*")) and not list((place / "cache").rglob("*.partial"))
