"""Animated WebP and PNG files as clips, through Pillow: every frame whole, with its own delay."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from countervid.clip.images import is_turnable, pixels_of, size_of
from countervid.clip.sources import MAX_FRAMES, Tracks, digest_of_files
from countervid.errors import ClipError

_SHORTEST = Fraction(1, 10)  # seconds; what browsers show where a file asks for no delay
_FINEST = 90_000  # ticks a second where the delays have no common measure


@dataclass(frozen=True, eq=False)
class AnimatedSource:
    """A picture file of several frames. Blending and disposal are done; transparency is laid over black."""

    path: Path
    height: int
    width: int
    stamps: Sequence[int]
    time_base: Fraction
    rate: Fraction
    last: int
    first: int  # frames of the file that are not shown: a still picture for viewers without animation
    metadata: Mapping[str, str] = field(default_factory=dict)
    tracks: Tracks | None = None
    aspect: Fraction | None = None
    notes: Sequence[str] = ()

    @staticmethod
    def probe(path: Path) -> AnimatedSource | None:
        """Look at a file, whatever its name says; None where it is no animated WebP or PNG.

        Raises:
            ClipError: An animation that is damaged or too large.
        """
        if not is_animation(path):
            return None
        width, height = size_of(path)
        delays: list[Fraction] = []
        try:
            with Image.open(path) as image:
                count = int(getattr(image, "n_frames", 1))
                first = int(bool(getattr(image, "default_image", False)))
                if count - first < 2:
                    return None
                if count - first > MAX_FRAMES:
                    raise ClipError(f"`{path}` has more than {MAX_FRAMES} frames. Cut it into parts.")
                for number in range(first, count):
                    image.seek(number)
                    image.load()  # Pillow knows WebP's delay only then
                    delay = Fraction(image.info.get("duration") or 0).limit_denominator(10_000) / 1000
                    delays.append(delay if delay > 0 else _SHORTEST)
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise ClipError(f"`{path}` is damaged or cut off and cannot be decoded. Replace it.") from error
        ticks = math.lcm(*(delay.denominator for delay in delays))
        ticks = ticks if ticks <= 1_000_000 else _FINEST
        lengths = [max(1, round(delay * ticks)) for delay in delays]
        stamps = [0, *accumulate(lengths)]
        rate = Fraction(len(delays) * ticks, stamps[-1]).limit_denominator(1001)
        return AnimatedSource(path, height, width, stamps[:-1], Fraction(1, ticks), rate, lengths[-1], first)

    def windows(self, size: int, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        for first in range(start, len(self.stamps), size):
            yield first, self.frames_at(range(first, min(first + size, len(self.stamps))))

    def frames_at(self, indices: Sequence[int]) -> Tensor:
        pictures: list[np.ndarray] = []
        try:
            with Image.open(self.path) as image:
                for index in indices:
                    image.seek(self.first + index)
                    image.load()
                    pictures.append(pixels_of(ImageOps.exif_transpose(image) if is_turnable(image) else image))
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise ClipError(f"`{self.path}` is damaged or cut off and cannot be decoded. Replace it.") from error
        return torch.from_numpy(np.stack(pictures))

    def digest(self) -> str:
        return digest_of_files([self.path])


def is_gif(path: Path) -> bool:
    """Whether a file's content is a GIF, whatever its name says."""
    with path.open("rb") as file:
        return file.read(6) in (b"GIF87a", b"GIF89a")


def is_animation(path: Path) -> bool:
    """Whether a file's content is a WebP or PNG that is marked as animated."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X":
        return bool(head[20] & 2)
    return head[:8] == b"\x89PNG\r\n\x1a\n" and b"acTL" in head.partition(b"IDAT")[0]
