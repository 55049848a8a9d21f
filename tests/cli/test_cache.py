"""`countervid cache`: what is listed, what is counted, what is removed, and what stays."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from countervid.cli.main import app
from countervid.clip import Clip
from countervid.editors.store import Store

DAY = 86400


def entry(root: Path, name: str, size: int, edits: int = 0, days: float = 0, clip: Clip | None = None) -> Path:
    """A prepared clip of so many bytes, not used for so many days."""
    store = Store(root, "flatten", {"clip": name if clip is None else clip.digest()}, clip)
    store.fetch("prepared/0", lambda: {"x": torch.zeros(size, dtype=torch.uint8)})
    if edits:
        store.fetch("edits/abc/0", lambda: {"x": torch.zeros(edits, dtype=torch.uint8)})
    then = time.time() - days * DAY
    os.utime(store.folder / "origin.json", (then, then))
    return store.folder


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "a clip of somebody with a very long name, in a folder.mp4"
    Clip.from_frames(torch.full((3, 32, 32, 3), 90, dtype=torch.uint8)).write(path)
    return path


@pytest.fixture
def filled(tmp_path: Path, video: Path) -> dict[str, Path]:
    root = tmp_path / "cache"
    return {
        "root": root,
        "video": video,
        "old": entry(root, "0123456789abcdef", 500_000, 300_000, days=40),
        "new": entry(root, "", 200_000, 100_000, days=2, clip=Clip.read(video)),
    }


def call(filled: dict[str, Path], *words: Any) -> Any:
    return CliRunner().invoke(app, ["cache", *[str(word) for word in words], "--cache", str(filled["root"])])


def test_the_list_says_whose_how_large_and_when_in_80_columns(
    filled: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = call(filled, "list")
    assert result.exit_code == 0, result.output
    head, new, old, total = result.output.splitlines()[:4]
    assert head.split() == ["clip", "editor", "frames", "size", "edits", "used", "age"]
    assert new.startswith("a clip of somebody with") and "flatten" in new and "2 d" in new and "301 kB" in new
    assert old.startswith("0123456789ab") and "800 kB" in old and "300 kB" in old and "6 w" in old
    assert total.startswith("2 prepared clips, 1.1 MB of 20 GB that may be kept")
    assert all(len(line) <= 80 for line in (head, new, old))


def test_json_is_for_programs(filled: dict[str, Path]) -> None:
    entries = json.loads(call(filled, "list", "--json").output)
    assert [(found["editor"], found["frames"]) for found in entries] == [("flatten", 3), ("flatten", None)]
    assert entries[0]["digest"] == Clip.read(filled["video"]).digest()
    on_disk = sum(path.stat().st_size for path in filled["new"].rglob("*") if path.is_file())
    assert entries[0]["size"] == on_disk
    totals = json.loads(call(filled, "size", "--json", "--cache-limit", "3MB").output)
    assert totals["used"] == sum(found["size"] for found in entries) and totals["limit"] == 3_000_000


def test_a_cache_that_is_not_there_is_empty(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["cache", "list", "--cache", str(tmp_path / "none")])
    assert result.exit_code == 0 and result.output.startswith("0 prepared clips, 0 B of")
    assert not (tmp_path / "none").exists()


def test_pruning_shows_first_and_removes_when_told(filled: dict[str, Path]) -> None:
    shown = call(filled, "prune", "--older-than", "30d")
    assert shown.exit_code == 0 and "800 kB would be removed: 1 prepared clip. Do it with --yes." in shown.output
    assert filled["old"].exists()
    done = call(filled, "prune", "--older-than", "30d", "--yes")
    assert "800 kB removed: 1 prepared clip." in done.output
    assert not filled["old"].exists() and filled["new"].exists()
    assert "Nothing to remove." in call(filled, "prune", "--older-than", "30d", "--yes").output


def test_down_to_a_size_edits_go_first(filled: dict[str, Path]) -> None:
    assert "300 kB removed: the edits drawn of 1 other." in call(
        filled, "prune", "--max-size", "900kB", "--yes"
    ).output.replace("\n", " ").replace("  ", " ")
    assert not (filled["old"] / "edits").exists() and (filled["old"] / "prepared").exists()
    call(filled, "prune", "--max-size", "300kB", "--yes")
    assert not filled["old"].exists() and filled["new"].exists() and not (filled["new"] / "edits").exists()


def test_of_one_clip_and_of_all(filled: dict[str, Path]) -> None:
    call(filled, "prune", "--clip", filled["video"], "--yes")
    assert filled["old"].exists() and not filled["new"].exists()
    call(filled, "prune", "--all", "--yes")
    assert not filled["old"].exists()


def test_what_is_in_use_stays(filled: dict[str, Path]) -> None:
    used = Store(filled["root"], "flatten", {"clip": "in use"})
    used.fetch("x", lambda: {"x": torch.zeros(4)})
    result = call(filled, "prune", "--all", "--yes")
    assert "1 in use by running commands, and left." in result.output
    assert used.load("x") is not None and not filled["old"].exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["prune"], "Say what to remove"),
        (["prune", "--older-than", "soon"], "`soon` is not an age"),
        (["prune", "--max-size", "some"], "`some` is not a size"),
        (["size", "--cache-limit", "-3GB"], "`-3GB` is not a size"),
        (["prune", "--clip", "nowhere.mp4"], "nowhere.mp4"),
    ],
)
def test_wrong_words_get_one_line(filled: dict[str, Path], words: list[str], line: str) -> None:
    result = call(filled, *words)
    assert result.exit_code == 2
    assert line in result.output and len(result.output.strip().splitlines()) == 1
