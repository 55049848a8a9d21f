"""Video files as clips, through PyAV: listed once, decoded window by window, shown upright as RGB."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from torch import Tensor

from countervid.clip.coded import Coded
from countervid.clip.colour import Colour, RgbReader
from countervid.clip.container import opened, video_stream
from countervid.clip.discontinuity import one_clock
from countervid.clip.pictures import FrameLog, progressive
from countervid.clip.seeking import KeyPackets, SeekTable, decode, decode_from
from countervid.clip.sources import Tracks, digest_of_files
from countervid.clip.timing import ONE_PACKET_ONE_FRAME, audio_start, list_packets, steady
from countervid.errors import ClipError

_CONVERTING = 4  # frames that wait to become RGB; more would only take memory
_LATE = 10  # seconds: files whose first frame is later than this are pieces of longer ones


class Upright(NamedTuple):
    """How a stored picture becomes the one shown: rows and columns swapped first, then mirrored."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """`(H, W, 3)` as stored -> as shown."""
        if self.transpose:
            pixels = pixels.swapaxes(0, 1)
        if self.mirror_x:
            pixels = pixels[:, ::-1]
        if self.mirror_y:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)

    def undo(self, pixels: np.ndarray) -> np.ndarray:
        """`(H, W, 3)` as shown -> as stored."""
        if self.mirror_y:
            pixels = pixels[::-1]
        if self.mirror_x:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(pixels.swapaxes(0, 1) if self.transpose else pixels)

    def matrix(self) -> list[int]:
        """The display matrix that asks for it, see `_upright`."""
        x, y = (-1 if mirrored else 1 for mirrored in (self.mirror_x, self.mirror_y))
        a, b, c, d = (0, y, x, 0) if self.transpose else (x, 0, 0, y)
        return [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]


@dataclass(frozen=True, eq=False)
class VideoSource:
    """The first video stream of a file, and all of its sound."""

    path: Path
    height: int
    width: int
    stamps: Sequence[int]
    time_base: Fraction
    rate: Fraction
    metadata: Mapping[str, str]
    tracks: Tracks
    aspect: Fraction | None  # of a pixel, as shown; None for square ones
    upright: Upright
    seek: SeekTable | None = None  # None: decoding always begins at the file's start
    last: int | None = None
    clock_notes: Sequence[str] = ()
    log: FrameLog = field(default_factory=FrameLog)
    reader: RgbReader = field(default_factory=RgbReader)
    coded: Coded | None = None
    # Called with each frame that is read: its number, the frame, and what is read of it as shown. See `NativeFrames`.
    listeners: list[Callable[[int, Any, np.ndarray], None]] = field(default_factory=list)

    @property
    def notes(self) -> Sequence[str]:
        """How the times, colours and fields are read and written; damaged frames as far as they were decoded by now."""
        written = None if self.coded is None else self.coded.note
        return [*self.clock_notes, *self.log.notes(len(self.stamps)), *([written] if written else [])]

    @staticmethod
    def probe(path: Path) -> VideoSource:
        """List a file's packets and decode its first frame.

        Raises:
            ClipError: Not a video, no video stream, cut off, damaged or too large.
        """
        with opened(path) as container:
            stream = video_stream(container, path)
            keys = KeyPackets()
            listing = list_packets(container, stream, path, keys.add)
            rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
            aspect, codec = stream.sample_aspect_ratio, stream.codec_context.name
            metadata = {name.lower(): text for name, text in container.metadata.items()}  # Matroska shouts
            sound_start = audio_start(container)
            muxer, kind = container.format.name, stream.codec_context.codec.canonical_name
        first = next(decode(path), None)
        if first is None:
            raise ClipError(f"`{path}` holds no frame that can be decoded. Get the file again.")
        upright = _upright(first)
        width, height = (first.height, first.width) if upright.transpose else (first.width, first.height)
        shown = listing.stamps
        if codec not in ONE_PACKET_ONE_FRAME or muxer == "avi" or first.interlaced_frame or listing.restarts:
            shown = [frame.pts for frame in decode(path)]
        clock = one_clock(listing, shown, rate)
        stamps, time_base = clock.stamps, clock.time_base
        seek = None if listing.restarts else SeekTable.of(kind, keys, shown)
        rate = steady(rate, stamps, time_base)
        start = stamps[0] * time_base
        sound_start = sound_start if clock.sound_start is None else clock.sound_start
        # Time 0 of the clip is where the file begins, so that sound keeps its distance to the pictures.
        origin = start if start < 0 or sound_start is None else max(Fraction(0), min(start, sound_start))
        if 0 < origin < _LATE and ("mp4" in muxer or "matroska" in muxer):
            origin = Fraction(0)  # their zero is the beginning, also where nothing is to be seen yet
        shift = origin // time_base
        if aspect in (None, 0, 1):
            aspect = None
        elif upright.transpose:
            aspect = 1 / aspect
        log = FrameLog()
        log.look_at(0, first)
        return VideoSource(
            path=path,
            height=height,
            width=width,
            stamps=[stamp - shift for stamp in stamps],
            time_base=time_base,
            rate=rate,
            metadata=metadata,
            tracks=Tracks(path, shift * time_base, sound_start is not None, moved=clock.sound, parts=clock.parts),
            aspect=aspect,
            upright=upright,
            seek=seek,
            last=clock.last,
            clock_notes=clock.notes,
            log=log,
            coded=Coded.of(first),
            reader=RgbReader(Colour.of(first).peak),  # one curve, also where only some frames tell the peak
        )

    def windows(self, size: int, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        window, count = None, 0
        # One frame is turned into RGB while the next is decoded: both run without Python's lock.
        with ThreadPoolExecutor(1) as converter:
            waiting = deque[Future[None]]()
            for frame in self._frames(start):
                if window is None:
                    window = np.empty((min(size, len(self.stamps) - start), self.height, self.width, 3), np.uint8)
                if start + count >= len(self.stamps):
                    raise self._changed()
                waiting.append(converter.submit(self._picture, start + count, frame, window[count]))
                count += 1
                if len(waiting) > _CONVERTING:
                    waiting.popleft().result()
                if count == len(window):
                    while waiting:
                        waiting.popleft().result()
                    yield start, torch.from_numpy(window)
                    start, window, count = start + count, None, 0
            while waiting:
                waiting.popleft().result()
        if start + count < len(self.stamps):
            raise self._damaged(start + count)

    def frames_at(self, indices: Sequence[int]) -> Tensor:
        pictures: list[np.ndarray] = []
        frames, following = self._frames(indices[0]), indices[0]  # number of the next of `frames`
        for index in indices:
            if index >= following:  # else the same one again
                if self.seek is not None and any(key.number > following for key in self.seek.before(index)):
                    frames, following = self._frames(index), index
                frame = next(islice(frames, index - following, None), None)
                if frame is None:
                    raise self._damaged(index)
                picture, following = np.empty((self.height, self.width, 3), np.uint8), index + 1
                self._picture(index, frame, picture)
            pictures.append(picture)
        return torch.from_numpy(np.stack(pictures))

    def decoded(self, start: int) -> Iterator[tuple[int, Any]]:
        """From number `start` on: the number, and the frame in its own pixel format, as stored."""
        number = start
        for frame in self._frames(start):
            yield number, frame
            number += 1
        if number < len(self.stamps):
            raise self._damaged(number)

    def _frames(self, start: int) -> Iterator[Any]:
        """Whole pictures from number `start` on: the same, wherever reading begins."""
        frames = self._looked_at(start)
        first = next(frames, None)
        if first is None:
            return
        if start and first.interlaced_frame:  # deinterlacing takes the frame before, too
            yield from islice(progressive(self._looked_at(start - 1)), 1, None)
        else:
            yield from progressive(chain([first], frames))

    def _looked_at(self, start: int) -> Iterator[Any]:
        for number, frame in enumerate(decode_from(self.path, self.seek, start), start):
            self.log.look_at(number, frame)
            yield frame

    def _damaged(self, count: int) -> ClipError:
        return ClipError(
            f"`{self.path}` is damaged: {count} of {len(self.stamps)} frames can be decoded. "
            "Get the file again, or convert what is left of it."
        )

    def _changed(self) -> ClipError:
        return ClipError(f"`{self.path}` changed while it was being read. Keep the file still.")

    def _picture(self, number: int, frame: Any, out: np.ndarray) -> None:
        """Fill `out` `(H, W, 3)` uint8 with a decoded frame as shown."""
        straight = self.upright == Upright() and (frame.height, frame.width) == out.shape[:2]
        pixels = self.reader.read(frame, out if straight else None)
        if pixels is not out:
            pixels = self.upright.apply(pixels)
            if pixels.shape != out.shape:
                raise ClipError(
                    f"`{self.path}` changes its size: frame {number} is {pixels.shape[1]} x {pixels.shape[0]}, "
                    f"the first is {self.width} x {self.height}. Convert it to one size."
                )
            out[:] = pixels
        for listener in self.listeners:
            listener(number, frame, out)

    def digest(self) -> str:
        return digest_of_files([self.path])


def _upright(frame: Any) -> Upright:
    """What the frame's display matrix asks for, to the nearest quarter turn.

    The matrix (ISO/IEC 14496-12, 8.3.2) maps x' = a x + c y, y' = b x + d y in 16.16 fixed point, rows (a b u)(c d v).
    """
    try:
        data = bytes(frame.side_data[av.sidedata.sidedata.Type.DISPLAYMATRIX])
    except KeyError:
        return Upright()
    a, b, _, c, d = struct.unpack("=5i", data[:20])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Upright(False, a < 0, d < 0)
    return Upright(True, c < 0, b < 0)
