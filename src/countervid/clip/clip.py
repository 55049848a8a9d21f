"""`Clip`: the frames of a video with their times and sound, read in windows and written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from countervid.clip.animation import AnimatedSource, is_gif
from countervid.clip.encoding import CONTAINERS
from countervid.clip.images import SUFFIXES, FolderSource
from countervid.clip.sources import FirstSource, MappedSource, MemorySource, Progress, Source, durations
from countervid.clip.tracks import lost_in
from countervid.clip.video import VideoSource
from countervid.clip.writers import write_clip, writing
from countervid.clip.zipped import ZippedSource, zip_windows
from countervid.errors import ClipError


class Clip:
    """Frames `(F, H, W, 3)` RGB uint8 with a time each, and the sound that goes with them.

    A clip that was read from a file holds no frames: every pass decodes them again, `size` at a time. So a clip may be
    of any length. Rotation marks are applied; pictures of any depth and colour become RGB, BT.709 as on an SDR display;
    transparent ones are laid over black.
    """

    def __init__(self, source: Source) -> None:
        """Use `Clip.read` or `Clip.from_frames`."""
        self._source = source

    @staticmethod
    def read(path: str | Path, *, fps: float | None = None) -> Clip:
        """Open a video file, a picture, or a folder of numbered pictures (PNG, JPEG, WebP; natural order).

        Animated WebP, PNG and GIF files are clips. HDR and wide gamuts become SDR BT.709, interlaced frames
        progressive; `notes` says so, and which frames are damaged as far as they were decoded until it is asked.

        Only local files are read. The packets are listed and the first frame is decoded, no more.

        Args:
            path: The file or folder.
            fps: Frames a second of a folder that does not say so itself; 25 when left out. Not for video files.

        Raises:
            ClipError: Nothing there, no video in it, cut off, damaged, too large, or pictures of different sizes.
        """
        path = Path(path)
        if path.is_dir():
            return Clip(FolderSource.probe(path, fps))
        if not path.exists():
            raise ClipError(f"`{path}` does not exist. Give a video file or a folder of pictures on this machine.")
        if not path.is_file():
            raise ClipError(f"`{path}` is not a regular file. Give a video file or a folder of pictures.")
        if (animation := AnimatedSource.probe(path)) is not None:
            return Clip(animation)
        if path.suffix.lower() in SUFFIXES and not is_gif(path):
            return Clip(FolderSource.probe_files([path], fps))
        return Clip(VideoSource.probe(path))

    @staticmethod
    def from_frames(
        frames: Tensor, fps: float = 25.0, *, times: Sequence[float] | None = None, end: float | None = None
    ) -> Clip:
        """A clip of frames in memory.

        Args:
            frames: `(F, H, W, 3)` RGB uint8, F >= 1.
            fps: Frames a second, > 0; ignored when `times` are given.
            times: Seconds at which each frame appears, strictly increasing, from 0; kept to 1/90000 s.
            end: Seconds at which the last frame ends; when left out it is shown as long as frames last on average.
                Only with `times`.

        Raises:
            ClipError: Wrong shape or dtype, no frames, times that do not increase, or an end before the last of them.
        """
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != torch.uint8 or 0 in frames.shape:
            raise ClipError(
                f"`frames` must be (F, H, W, 3) uint8 with F >= 1, got {tuple(frames.shape)} {frames.dtype}."
            )
        if times is None:
            if not 0 < fps < 10_000:
                raise ClipError(f"`fps` must be above 0 and below 10000, got {fps}.")
            if end is not None:
                raise ClipError("`end` goes with `times`: frames at a steady rate all last equally long.")
            rate = Fraction(fps).limit_denominator(1001)  # 30000/1001 and its kin stay exact
            return Clip(MemorySource(frames.cpu(), list(range(len(frames))), 1 / rate, rate))
        time_base = Fraction(1, 90_000)
        stamps = [round(Fraction(float(seconds)) / time_base) for seconds in times]
        if len(stamps) != len(frames):
            raise ClipError(f"{len(frames)} frames need as many times, got {len(stamps)}.")
        if stamps[0] < 0 or any(later <= sooner for sooner, later in zip(stamps, stamps[1:], strict=False)):
            raise ClipError("`times` must start at 0 or later and increase from frame to frame by 1/90000 s or more.")
        span = (stamps[-1] - stamps[0]) * time_base
        rate = Fraction((len(stamps) - 1) / span).limit_denominator(1001) if span else Fraction(25)
        last = None if end is None else round(Fraction(float(end)) / time_base) - stamps[-1]
        if last is not None and last < 1:
            raise ClipError(f"`end` must be later than the last of the `times`, {times[-1]} s; got {end} s.")
        return Clip(MemorySource(frames.cpu(), stamps, time_base, rate, last=last))

    def __len__(self) -> int:
        return len(self._source.stamps)

    def __repr__(self) -> str:
        name = f"{self.source}, " if self.source else ""
        return f"Clip({name}{len(self)} frames, {self.width} x {self.height}, {self.fps:g} fps)"

    @property
    def height(self) -> int:
        """Pixels, as shown: after rotation."""
        return self._source.height

    @property
    def width(self) -> int:
        """Pixels, as shown: after rotation."""
        return self._source.width

    @property
    def fps(self) -> float:
        """Frames a second: nominal for a steady rate, the mean for a variable one."""
        return float(self._source.rate)

    @property
    def times(self) -> np.ndarray:
        """Seconds at which each frame appears, `(F,)` float64, strictly increasing."""
        base = self._source.time_base
        return np.asarray(self._source.stamps, dtype=np.float64) * base.numerator / base.denominator

    @property
    def duration(self) -> float:
        """Seconds from the appearance of the first frame to the end of the last."""
        source = self._source
        last = durations(source.stamps[-1:], source.rate, source.time_base, source.last)[0]
        return float((source.stamps[-1] + last - source.stamps[0]) * source.time_base)

    @property
    def source(self) -> Path | None:
        """The file or folder that the frames come from, or None when they never were in one."""
        return self._source.path

    @property
    def metadata(self) -> dict[str, str]:
        """What the container says about itself (title, marks of synthetic video, ...)."""
        return dict(self._source.metadata)

    @property
    def notes(self) -> list[str]:
        """What a run must say of how the file was read, a sentence each; empty where it was read as it is."""
        return list(self._source.notes)

    @property
    def has_audio(self) -> bool:
        """Whether sound goes with the frames."""
        return self._source.tracks is not None and self._source.tracks.sound

    def digest(self) -> str:
        """SHA-256 (hex) of the content: a file's bytes, or the frames and their times. The key of caches."""
        return self._source.digest()

    @property
    def frames(self) -> Tensor:
        """All frames, `(F, H, W, 3)` uint8. Decodes everything, every time: keep the result."""
        everything = torch.empty((len(self), self.height, self.width, 3), dtype=torch.uint8)
        for start, window in self.windows():
            everything[start : start + len(window)] = window
        return everything

    def windows(self, size: int = 32, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        """Pass over the frames in order: `(index of the first, (f, H, W, 3) uint8)`, f = `size` but for the last.

        Args:
            size: Frames a window.
            start: Number of the frame to begin with.

        Raises:
            ClipError: The file turns out to be damaged on the way.
        """
        if size < 1 or start < 0:
            raise ValueError(f"`size` must be at least 1 and `start` at least 0, got {size} and {start}.")
        return self._source.windows(size, start)

    def frames_at(self, indices: Sequence[int]) -> Tensor:
        """Frames by number, `(n, H, W, 3)` uint8, as asked for; only what they need is decoded or computed.

        Args:
            indices: Numbers in ascending order, at least one.

        Raises:
            ClipError: The file turns out to be damaged on the way.
        """
        numbers = [int(index) for index in indices]
        inside = bool(numbers) and numbers[0] >= 0 and numbers[-1] < len(self)
        if not inside or any(later < sooner for sooner, later in zip(numbers, numbers[1:], strict=False)):
            raise ValueError(f"`indices` must ascend within 0..{len(self) - 1}, got {numbers}.")
        return self._source.frames_at(numbers)

    def first(self, count: int) -> Clip:
        """The first `count` frames, lazily, with as much of the sound; the clip itself where it has no more.

        Raises:
            ClipError: `count` is below 1.
        """
        if count < 1:
            raise ClipError(f"A clip needs at least 1 frame, got {count}.")
        return self if count >= len(self) else Clip(FirstSource(self._source, count))

    def mapped(
        self,
        function: Callable[[int, Tensor], Tensor],
        window: int = 32,
        *,
        size: tuple[int, int] | None = None,
    ) -> Clip:
        """A lazy clip whose frames are `function(index of the first, frames)`; times and sound are this clip's.

        Args:
            function: Maps `(f, H, W, 3)` uint8 to as many frames, same dtype. Called in order, again in every pass.
            window: Frames a call.
            size: `(height, width)` of what the function returns, when it is not this clip's.
        """
        return Clip(MappedSource(self._source, function, window, size or (self.height, self.width)))

    def zipped(
        self,
        function: Callable[..., Tensor],
        *others: Clip,
        window: int = 8,
        size: tuple[int, int] | None = None,
    ) -> Clip:
        """A lazy clip of `function(frames of this clip, frames of the others ...)`; times and sound are this clip's.

        Args:
            function: Takes one `(f, H, W, 3)` uint8 tensor a clip, gives as many frames, same dtype.
            others: Clips of this clip's length; their sizes may differ.
            window: Frames a call.
            size: `(height, width)` of what the function returns, when it is not this clip's.

        Raises:
            ClipError: The clips differ in length.
        """
        for other in others:
            if len(other) != len(self):
                raise ClipError(f"The clips have {len(self)} and {len(other)} frames. Cut them to one length.")
        sources = [other._source for other in others]
        return Clip(ZippedSource(self._source, sources, function, window, size or (self.height, self.width)))

    def lost_in(self, suffix: str) -> list[str]:
        """What a file of this kind, such as `.mp4`, does not keep of the tracks beside the picture, a sentence each.

        Sound that must be converted, subtitles and attached files that do not fit, labels of tracks that are lost.
        """
        return lost_in(self._source, CONTAINERS.get(suffix.lower()))

    def write(
        self,
        path: str | Path,
        *,
        crf: int = 16,
        lossless: bool = False,
        metadata: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """Write the clip; the name chooses the form. The final name never holds half a file.

        `.mp4`, `.mov`, `.mkv`: H.264, every frame at its time (in mkv to 1/1000 s). HDR, wide gamuts and video of 10 or
        12 bits are written in the coding of the file that the clip was made from, where the size is the same, and
        pixels that are not changed keep their samples; `notes` says so. The file's other tracks, chapters,
        pictures and metadata come along, packet for packet where the container takes them; `lost_in` says what it does
        not. Odd sizes are kept, as yuv444p. `.gif`: 256 colours a frame, times to 1/100 s, no sound. No suffix: a
        folder of PNG files with a `clip.json` that keeps times and metadata; no sound.

        Args:
            path: Where to; its folder must exist.
            crf: Quality of H.264 or HEVC, 0 (best) to 51; 16 is hard to tell from the source.
            lossless: Keep every RGB value bit for bit (H.264 RGB; few browsers play it).
            metadata: Names and texts for the container, before those of the file that was read.
            progress: Called as `progress(frames done, frames in all)`.

        Returns:
            The path written.

        Raises:
            OutputError: Unknown kind of file, no permission, full disk.
            ClipError: The clip being read turns out to be damaged.
        """
        path = Path(path)
        write_clip(self._source, path, crf=crf, lossless=lossless, metadata=dict(metadata or {}), progress=progress)
        return path

    def writer(
        self, path: str | Path, *, crf: int = 16, lossless: bool = False, metadata: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Callable[[Tensor], None]]:
        """The same for frames that are at hand: `with clip.writer(path) as add: add(frames)`, window by window.

        Times, sound and size are this clip's. All of its frames are to be added, in order; the file has its name when
        the block ends, and is not there where the block is left by an error.
        """
        return writing(self._source, Path(path), crf=crf, lossless=lossless, metadata=dict(metadata or {}))


def zip_clips(clips: Sequence[Clip], size: int = 32, start: int = 0) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """Pass over clips of one length in step: `(index of the first, one (f, H, W, 3) uint8 a clip)`.

    What several of them are computed from is decoded once.

    Args:
        clips: Of one length.
        size: Frames a window.
        start: Number of the frame to begin with.
    """
    return zip_windows([clip._source for clip in clips], size, start)
