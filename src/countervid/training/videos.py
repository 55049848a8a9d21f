"""Folders of aligned face frames as training data: `ROOT/{train,test}/<video>/<frame>.png`, as DVA wants them.

A draw depends on the seed and the number of the step alone, so that a run that was stopped and resumed sees what one
that was not would have seen, on however many processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from countervid.clip.images import natural_key
from countervid.errors import ConfigError

SPLITS = ("train", "test")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class VideoFolders:
    """One split of a data set.

    Attributes:
        folder: Of the split.
        videos: Frame files of every video that has enough of them.
        skipped: What was left out, and why; one line each.
    """

    folder: Path
    videos: tuple[tuple[Path, ...], ...]
    skipped: tuple[str, ...] = field(default=())

    @classmethod
    def scan(
        cls, root: Path, split: str, *, least: int = 4, check: Callable[[int, int], None] | None = None
    ) -> VideoFolders:
        """List a split's videos.

        Frames that are no pictures or not square are left out, since they cannot be aligned faces; videos with fewer
        than `least` frames too. The reasons are in `skipped`.

        Args:
            root: Holds the folders `train` and `test`.
            split: Which of them.
            least: Frames that a video must have: as many as a step draws from it.
            check: Called with (videos done, all).

        Raises:
            ConfigError: There is no such split, no video in it, or only one (its person would be all there is).
        """
        folder = root / split
        if not folder.is_dir():
            raise ConfigError(
                f"`{root}` is not a data set: it has no folder `{split}`. It needs {root}/{{train,test}}/<video>/"
                "<frame>.png; `countervid align VIDEOS --out DIR` makes one."
            )
        videos, skipped = [], []
        folders = sorted((path for path in folder.iterdir() if path.is_dir()), key=natural_key)
        for done, video in enumerate(folders, start=1):
            frames = []
            for path in sorted((p for p in video.iterdir() if p.suffix.lower() in SUFFIXES), key=natural_key):
                try:
                    with Image.open(path) as picture:  # reads the header alone
                        width, height = picture.size
                except OSError:
                    skipped.append(f"{path}: not a picture")
                    continue
                if width != height:
                    skipped.append(f"{path}: {width} x {height}, an aligned crop is square")
                else:
                    frames.append(path)
            if len(frames) < least:
                skipped.append(f"{video}: {len(frames)} usable frames, {least} are needed")
            else:
                videos.append(tuple(frames))
            if check is not None:
                check(done, len(folders))
        if len(videos) < (2 if split == "train" else 1):
            found = f"{len(videos)} usable video{'' if len(videos) == 1 else 's'}"
            why = f" ({skipped[0]}{', ...' if len(skipped) > 1 else ''})" if skipped else ""
            raise ConfigError(f"`{folder}` holds {found}; training needs at least two people, a test one{why}.")
        return cls(folder, tuple(videos), tuple(skipped))

    def draw(self, generator: torch.Generator, videos: Sequence[int], frames: int, size: int) -> Tensor:
        """Frames of the given videos, drawn without repetition, each mirrored or not.

        Args:
            generator: Decides.
            videos: Their numbers.
            frames: From each.
            size: Side of the pictures, pixels.

        Returns:
            `(videos * frames, 3, size, size)` in [-1, 1].
        """
        chosen: list[tuple[Path, bool]] = []
        for number in videos:
            files = self.videos[number]
            places = torch.randperm(len(files), generator=generator)[:frames].tolist()
            mirrored = (torch.rand(frames, generator=generator) < 0.5).tolist()
            chosen += [(files[place], flip) for place, flip in zip(places, mirrored, strict=True)]
        with ThreadPoolExecutor(max_workers=4) as pool:  # decoding lets go of the interpreter
            pictures = list(pool.map(lambda item: read_frame(item[0], item[1], size), chosen))
        return torch.stack(pictures)

    def epoch(self, number: int, seed: int) -> list[int]:
        """The videos' numbers in the order of an epoch."""
        generator = torch.Generator().manual_seed(seed * 7919 + number)
        return torch.randperm(len(self.videos), generator=generator).tolist()


def read_frame(path: Path, mirrored: bool, size: int) -> Tensor:
    """A frame `(3, size, size)` in [-1, 1]."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1
    return image.flip(2) if mirrored else image
