"""Raw videos into training data: aligned crops of one face a video, in `ROOT/{train,test}/<video>/<frame>.png`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from countervid.clip import Clip
from countervid.errors import ClipError, ConfigError, FaceError
from countervid.face import align
from countervid.face.align import FFHQ, Framing
from countervid.face.pipeline import FaceConfig, FacePipeline
from countervid.files.digests import sha256_of
from countervid.files.locks import alone_in
from countervid.files.whole import clear_partials_below, replacing_folder, write_whole

Person = Literal["video", "folder"]
Report = Callable[[str, int, int], None]  # what is being done, done, in all

RECORD = "align.json"
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """What becomes a training frame."""

    size: int = 256  # side of a crop, pixels
    framing: Framing = FFHQ
    every: int = 1  # of so many frames one is kept
    least_side: int = 128  # pixels of the face's square in its frame; smaller ones would only be enlarged
    least_sharpness: float = 15.0  # variance of the Laplacian of a crop's grey levels, 0..255; below it is a blur
    least_frames: int = 8  # of a video; with fewer it is left out
    test_share: float = 0.05  # of the people
    person: Person = "video"  # who is who: every video a person of its own, or every folder of videos

    def __post_init__(self) -> None:
        if not 0 <= self.test_share < 1:
            raise ConfigError(f"The test share lies in [0, 1), got {self.test_share:g}.")
        if self.person not in ("video", "folder"):
            raise ConfigError(f'A person is a "video" or a "folder" of them, got "{self.person}".')
        for name in ("size", "every", "least_frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {getattr(self, name)}.")


@dataclass(frozen=True)
class Aligned:
    """What became of one video."""

    video: str
    split: str  # "train", "test", or "" where it was left out
    kept: int  # frames
    skipped: dict[str, int]  # reason -> frames
    reason: str = ""  # why it was left out
    digest: str = ""  # of its frames' names and bytes; empty in data sets of older versions


def find_videos(paths: Sequence[Path]) -> list[Path]:
    """Video files among `paths` and in their folders, sorted.

    Raises:
        ConfigError: There are none.
    """
    found = []
    for path in paths:
        if path.is_dir():
            found += [p for p in path.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES]
        elif path.exists():
            found.append(path)
        else:
            raise ConfigError(f"There is no `{path}`.")
    if not found:
        raise ConfigError(f"No videos in {', '.join(map(str, paths))}. Known are {', '.join(VIDEO_SUFFIXES)}.")
    return sorted(set(found))


def align_videos(
    videos: Sequence[Path],
    out: Path,
    config: AlignConfig | None = None,
    *,
    pipeline: FacePipeline | None = None,
    report: Report | None = None,
) -> list[Aligned]:
    """Align the largest face of every video into `out`; videos that are done are not done again.

    Args:
        videos: Files; their names become folders, so two of one name get their folders' names too.
        out: The data set. `align.json` says what became of every video and frame.
        config: What is kept.
        pipeline: Finds the face; the bundled one, framed as `config` says, if None.
        report: Called with the video's name and (videos done, all).
    """
    config = config or AlignConfig()
    finder = pipeline or FacePipeline(config=FaceConfig(framing=config.framing))
    record = out / RECORD
    with alone_in(out):
        clear_partials_below(out)
        done = {name: entry for name, entry in _recorded(record, config).items() if _intact(entry, out)}
        for number, video in enumerate(videos):
            if report is not None:
                report(video.name, number, len(videos))
            if str(video) not in done:
                done[str(video)] = _align_one(video, out, config, finder)
                entries = {"config": asdict(config), "videos": [asdict(entry) for entry in done.values()]}
                write_whole(record, json.dumps(entries, indent=1) + "\n")
    if report is not None:
        report("done", len(videos), len(videos))
    return [done[str(video)] for video in videos]


def _align_one(video: Path, out: Path, config: AlignConfig, pipeline: FacePipeline) -> Aligned:
    skipped: dict[str, int] = {}
    name = _name_of(video)
    try:
        clip = Clip.read(video)
        track = pipeline.analyze(clip)
    except (ClipError, FaceError) as error:
        return Aligned(str(video), "", 0, skipped, str(error))
    kept = 0

    def skip(reason: str, frames: int = 1) -> None:
        if frames:
            skipped[reason] = skipped.get(reason, 0) + frames

    skip("no face", int((~track.present).sum()))
    sides = align.side(track.quads)
    split = _split(str(video.parent) if config.person == "folder" else str(video), config.test_share)
    target = out / split / name
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing_folder(target) as partial:  # what a run wrote that was stopped before it was recorded goes
            for crops in pipeline.crops(clip, track, config.size):
                for row, index in enumerate(crops.index.tolist()):
                    pixels = crops.frames[row].numpy()
                    if index % config.every:
                        continue
                    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
                    if sides[index] < config.least_side:
                        skip("face too small")
                    elif _outside(track.quads[index], clip.height, clip.width) > 0.25:
                        skip("face leaves the frame")
                    elif cv2.Laplacian(gray, cv2.CV_64F).var() < config.least_sharpness:
                        skip("blurred")
                    else:
                        Image.fromarray(np.ascontiguousarray(pixels)).save(partial / f"{index:07d}.png")
                        kept += 1
            if kept < config.least_frames:
                raise FaceError(f"{kept} usable frames, {config.least_frames} are needed")
    except FaceError as error:
        return Aligned(str(video), "", kept, skipped, str(error))
    return Aligned(str(video), split, kept, skipped, digest=_digest_of(target))


def _recorded(record: Path, config: AlignConfig) -> dict[str, Aligned]:
    """What became of the videos of an earlier call; nothing where the record is damaged: they are done again.

    Raises:
        ConfigError: It was made with other settings, and some video gave frames.
    """
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        before = known["config"]
        done = {entry["video"]: Aligned(**entry) for entry in known["videos"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if before != json.loads(json.dumps(asdict(config))):
        if any(entry.kept and entry.split for entry in done.values()):
            raise ConfigError(f"`{record.parent}` was aligned with other settings. Use those, or another folder.")
        return {}
    return done


def _intact(entry: Aligned, out: Path) -> bool:
    """Whether the frames of a video are there as they were left."""
    if not entry.split:
        return True
    folder = out / entry.split / _name_of(Path(entry.video))
    if not entry.digest:
        return len(list(folder.glob("*.png"))) == entry.kept
    return folder.is_dir() and _digest_of(folder) == entry.digest


def _digest_of(folder: Path) -> str:
    listed = "".join(f"{path.name} {sha256_of(path)}\n" for path in sorted(folder.glob("*.png")))
    return hashlib.sha256(listed.encode()).hexdigest()


def _name_of(video: Path) -> str:
    return f"{video.parent.name}-{video.stem}"


def _split(person: str, share: float) -> str:
    """`test` for a share of the people, by their name alone: more videos later move nobody."""
    place = int.from_bytes(hashlib.sha256(os.fsencode(person)).digest()[:4], "big") / 2**32
    return "test" if place < share else "train"


def _outside(quad: np.ndarray[tuple[int, ...], np.dtype[np.float64]], height: int, width: int) -> float:
    """About how much of a square lies outside the frame, 0..1, by its bounding box."""
    low, high = quad.min(0), quad.max(0)
    inside = np.clip(np.minimum(high, (width, height)) - np.maximum(low, 0), 0, None)
    return float(1 - inside.prod() / max((high - low).prod(), 1e-9))
