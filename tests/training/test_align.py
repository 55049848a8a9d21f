import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from countervid.cli.main import app
from countervid.errors import ConfigError
from countervid.training.align import RECORD, AlignConfig, align_videos, find_videos
from countervid.training.videos import VideoFolders
from tiny_models import astronaut_frames

CONFIG = AlignConfig(size=64, least_side=60, least_frames=4, test_share=0.5)


@pytest.fixture(scope="module")
def videos(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three talks, of which one has a few frames without anybody, and a clip with nobody at all."""
    folder = tmp_path_factory.mktemp("raw")
    frames = astronaut_frames(10)
    gone = frames.clone()
    gone[:2] = 90
    for name, pixels in (
        ("first", frames),
        ("second", frames.flip(2)),
        ("third", gone),
        ("nobody", gone[:1].expand(6, -1, -1, -1)),
    ):
        make_video(pixels.contiguous(), f"{name}.mp4").rename(folder / f"{name}.mp4")
    return folder


def test_videos_become_folders_of_crops_that_training_takes(videos: Path, tmp_path: Path) -> None:
    found = find_videos([videos])
    results = {Path(result.video).stem: result for result in align_videos(found, tmp_path, CONFIG)}
    assert results["first"].kept == results["second"].kept == 10
    assert results["third"].kept == 8 and results["third"].skipped == {"no face": 2}
    assert results["nobody"].split == "" and "face" in results["nobody"].reason
    folders = {path.name: path for path in tmp_path.glob("*/*") if path.is_dir()}
    assert len(folders) == 3 and not list(tmp_path.rglob(".*"))
    pictures = sorted(folders[f"{videos.name}-third"].iterdir())
    assert [path.name for path in pictures][0] == "0000002.png" and Image.open(pictures[0]).size == (64, 64)
    for split in ("train", "test"):
        if sum(path.parent.name == split for path in folders.values()) > 1:
            assert VideoFolders.scan(tmp_path, split).videos


def test_what_is_done_is_not_done_again(videos: Path, tmp_path: Path) -> None:
    found = find_videos([videos / "first.mp4"])
    align_videos(found, tmp_path, CONFIG)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    again = align_videos(find_videos([videos]), tmp_path, CONFIG)
    assert len(again) == 4 and all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert len(json.loads((tmp_path / RECORD).read_text())["videos"]) == 4
    with pytest.raises(ConfigError, match="other settings"):
        align_videos(found, tmp_path, AlignConfig(size=32))


def test_small_and_blurred_faces_are_counted(videos: Path, tmp_path: Path) -> None:
    found = find_videos([videos / "first.mp4"])
    (small,) = align_videos(found, tmp_path / "a", AlignConfig(size=64))
    assert small.split == "" and small.skipped == {"face too small": 10}
    strict = AlignConfig(size=64, least_side=60, least_frames=4, least_sharpness=1e6)
    (blurred,) = align_videos(found, tmp_path / "b", strict)
    assert blurred.skipped == {"blurred": 10} and "0 usable frames, 4 are needed" in blurred.reason


def test_a_person_is_on_one_side_only(videos: Path, tmp_path: Path) -> None:
    config = AlignConfig(size=64, least_side=60, least_frames=4, test_share=0.5, person="folder")
    results = align_videos(find_videos([videos]), tmp_path, config)
    assert len({result.split for result in results if result.split}) == 1


def test_the_command_says_what_became_of_every_video(videos: Path, tmp_path: Path) -> None:
    call = CliRunner().invoke
    options = ["--out", str(tmp_path / "set"), "--size", "64", "--least-side", "60", "--least-frames", "4"]
    result = call(app, ["align", str(videos), *options])
    assert result.exit_code == 0, result.output
    assert "28 frames of 3 videos" in result.output and "left out" in result.output
    for arguments, words in (
        (["align", str(tmp_path / "none")], "There is no"),
        (["align", str(tmp_path)], "No videos in"),
        (["align", str(videos), "--person", "name"], 'A person is a "video"'),
        (["align", str(videos / "nobody.mp4"), "--out", str(tmp_path / "other")], "None of 1 videos"),
    ):
        refused = call(app, arguments)
        assert refused.exit_code == 2 and words in refused.stderr, refused.output
