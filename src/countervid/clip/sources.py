"""Where a clip's frames come from: the protocol, frames in memory, and frames computed from another source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

Progress = Callable[[int, int], None]
Pictures = Generator[None, np.ndarray, None]  # a writer: frames `(H, W, 3)` uint8 are sent in, in order

# Hostile files announce absurd sizes. Nothing here allocates before these are checked.
MAX_PIXELS = 1 << 26  # a frame of 8192 x 8192
MAX_FRAMES = 5_000_000  # a day at 60 fps


class Source(Protocol):
    """Frames in order, each with a time stamp in units of `time_base` seconds."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def stamps(self) -> Sequence[int]: ...
    @property
    def time_base(self) -> Fraction: ...
    @property
    def rate(self) -> Fraction: ...
    @property
    def path(self) -> Path | None: ...
    @property
    def metadata(self) -> Mapping[str, str]: ...
    @property
    def tracks(self) -> Tracks | None: ...
    @property
    def aspect(self) -> Fraction | None: ...
    @property
    def last(self) -> int | None: ...  # ticks that the last frame is shown; None: as long as frames last on average
    @property
    def notes(self) -> Sequence[str]: ...  # what a run must say of how the file was read, a sentence each
    def windows(self, size: int, start: int = 0) -> Iterator[tuple[int, Tensor]]: ...  # from frame `start` on
    def frames_at(self, indices: Sequence[int]) -> Tensor: ...  # ascending numbers; only what they need is computed
    def digest(self) -> str: ...


Shifts = Sequence[tuple[int, Fraction]]
"""Where a file's clock starts again: (packets before that place, seconds to add to the times from there on)."""


@dataclass(frozen=True)
class Tracks:
    """All that a video file holds beside its picture: read again when a clip is written."""

    path: Path
    origin: Fraction  # seconds in the file that are time 0 of the clip
    sound: bool  # whether there is any
    end: Fraction | None = None  # seconds of the clip after which all is cut
    moved: Mapping[int, Shifts] = field(default_factory=dict)  # of each stream of sound, by its own packets
    parts: Shifts = ()  # of everything else, by the packets of the picture


@dataclass(frozen=True, eq=False)
class MemorySource:
    """Frames `(F, H, W, 3)` uint8 held in memory."""

    held: Tensor
    stamps: Sequence[int]
    time_base: Fraction
    rate: Fraction
    path: Path | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    tracks: Tracks | None = None
    aspect: Fraction | None = None
    last: int | None = None
    notes: Sequence[str] = ()

    @property
    def height(self) -> int:
        return int(self.held.shape[1])

    @property
    def width(self) -> int:
        return int(self.held.shape[2])

    def windows(self, size: int, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        for first in range(start, len(self.held), size):
            yield first, self.held[first : first + size]

    def frames_at(self, indices: Sequence[int]) -> Tensor:
        return self.held[torch.tensor(indices)]

    def digest(self) -> str:
        return digest_of_frames(self)


class DerivedSource:
    """Base of sources that change another's pictures: all else is the other's."""

    base: Source
    path: Path | None = None

    @property
    def height(self) -> int:
        return self.base.height

    @property
    def width(self) -> int:
        return self.base.width

    @property
    def stamps(self) -> Sequence[int]:
        return self.base.stamps

    @property
    def time_base(self) -> Fraction:
        return self.base.time_base

    @property
    def rate(self) -> Fraction:
        return self.base.rate

    @property
    def metadata(self) -> Mapping[str, str]:
        return self.base.metadata

    @property
    def tracks(self) -> Tracks | None:
        return self.base.tracks

    @property
    def aspect(self) -> Fraction | None:
        return self.base.aspect

    @property
    def last(self) -> int | None:
        return self.base.last

    @property
    def notes(self) -> Sequence[str]:
        return self.base.notes

    def frames_at(self: Source, indices: Sequence[int]) -> Tensor:
        return frames_by_windows(self, indices)

    def digest(self: Source) -> str:
        return digest_of_frames(self)


@dataclass(frozen=True, eq=False)
class MappedSource(DerivedSource):
    """Frames computed from another source's, window by window."""

    base: Source
    function: Callable[[int, Tensor], Tensor]
    window: int
    size: tuple[int, int]

    @property
    def height(self) -> int:
        return self.size[0]

    @property
    def width(self) -> int:
        return self.size[1]

    def compute(self, start: int, frames: Tensor) -> Tensor:
        """A window of this source, of the base's window that begins with frame `start`."""
        result = self.function(start, frames)
        wanted = (len(frames), self.height, self.width, 3)
        if tuple(result.shape) != wanted or result.dtype != torch.uint8:
            raise ValueError(f"The function must return {wanted} uint8, got {tuple(result.shape)} {result.dtype}.")
        return result.cpu()

    def windows(self, size: int, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        # The function always sees windows of `self.window`, so a frame does not depend on how the clip is consumed.
        skipped = start % self.window
        pieces = (self.compute(*window) for window in self.base.windows(self.window, start - skipped))
        return regroup(pieces, size, start, skipped)

    def frames_at(self, indices: Sequence[int]) -> Tensor:
        return frames_by_windows(self, indices, self.window)


@dataclass(frozen=True, eq=False)
class FirstSource(DerivedSource):
    """The first frames of another source, with as much of its sound."""

    base: Source
    count: int

    @property
    def stamps(self) -> Sequence[int]:
        return self.base.stamps[: self.count]

    @property
    def tracks(self) -> Tracks | None:
        tracks = self.base.tracks
        return None if tracks is None else replace(tracks, end=self.base.stamps[self.count] * self.base.time_base)

    @property
    def last(self) -> int | None:
        return self.base.stamps[self.count] - self.base.stamps[self.count - 1]

    def digest(self) -> str:
        return hashlib.sha256(f"first {self.count} of {self.base.digest()}".encode()).hexdigest()

    def frames_at(self, indices: Sequence[int]) -> Tensor:
        return self.base.frames_at(indices)

    def windows(self, size: int, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        if start >= self.count:
            return
        for first, frames in self.base.windows(size, start):
            yield first, frames[: self.count - first]
            if first + size >= self.count:
                return


class MadeSource:
    """Base of sources that make their frames, at a steady rate. They add `count`, `fps`, a size and `windows`."""

    count: int
    fps: float
    path: Path | None = None
    metadata: Mapping[str, str] = MappingProxyType({})
    tracks: Tracks | None = None
    aspect: Fraction | None = None
    last: int | None = None
    notes: Sequence[str] = ()

    @property
    def rate(self) -> Fraction:
        return Fraction(self.fps).limit_denominator(1001)

    @property
    def time_base(self) -> Fraction:
        return 1 / self.rate

    @property
    def stamps(self) -> Sequence[int]:
        return range(self.count)

    def frames_at(self: Source, indices: Sequence[int]) -> Tensor:
        return frames_by_windows(self, indices)

    def digest(self: Source) -> str:
        return digest_of_frames(self)


def frames_by_windows(source: Source, indices: Sequence[int], size: int = 1) -> Tensor:
    """Frames by number, `(n, H, W, 3)` uint8, from those windows of `size` frames that hold them.

    Args:
        source: Read with `windows`.
        indices: Numbers, ascending, at least one.
    """
    wanted, parts = np.asarray(indices), list[Tensor]()
    running: Iterator[tuple[int, Tensor]] = iter(())
    expected = -1
    for first in np.unique(wanted // size) * size:
        if first != expected:
            running = source.windows(size, int(first))
        frames = next(running)[1]
        parts.append(frames[torch.from_numpy(wanted[(wanted >= first) & (wanted < first + size)] - first)])
        expected = first + size
    return torch.cat(parts)


def regroup(pieces: Iterator[Tensor], size: int, start: int = 0, skipped: int = 0) -> Iterator[tuple[int, Tensor]]:
    """Pieces of any length -> `(start, piece)` of exactly `size` frames, but for the last.

    Args:
        start: Number of the first frame that is given out.
        skipped: Frames before it, to be left out.
    """
    waiting = None
    for piece in pieces:
        piece, skipped = piece[skipped:], max(0, skipped - len(piece))
        if not len(piece):
            continue
        waiting = piece if waiting is None else torch.cat([waiting, piece])
        while len(waiting) >= size:
            yield start, waiting[:size]
            start, waiting = start + size, waiting[size:]
    if waiting is not None and len(waiting):
        yield start, waiting


def digest_of_frames(source: Source) -> str:
    """SHA-256 over size, times and pixels."""
    times = f"{source.time_base} {list(source.stamps)}" + ("" if source.last is None else f" {source.last}")
    sha = hashlib.sha256(f"frames {source.height} {source.width} {times}".encode())
    for _, frames in source.windows(32):
        sha.update(frames.contiguous().numpy().data)
    return sha.hexdigest()


def digest_of_files(paths: Sequence[Path]) -> str:
    """SHA-256 over the bytes of files, in order, and over their names where there are several."""
    sha = hashlib.sha256()
    for path in paths:
        if len(paths) > 1:
            sha.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()


def durations(stamps: Sequence[int], rate: Fraction, time_base: Fraction, last: int | None = None) -> list[int]:
    """Ticks that each frame is shown; the last one as long as a frame lasts on average, unless it is known."""
    gaps = [later - sooner for sooner, later in zip(stamps, stamps[1:], strict=False)]
    return [*gaps, last or max(1, round(1 / rate / time_base))]


def rounded(source: Source, time_base: Fraction) -> tuple[list[int], int]:
    """The stamps of a source in a coarser time base, still increasing, and the ticks that the last frame is shown."""
    stamps: list[int] = []
    for stamp in source.stamps:
        time = round(stamp * source.time_base / time_base)
        stamps.append(max(time, stamps[-1] + 1) if stamps else time)
    end = source.stamps[-1] + durations(source.stamps[-1:], source.rate, source.time_base, source.last)[0]
    return stamps, max(1, round(end * source.time_base / time_base) - stamps[-1])
