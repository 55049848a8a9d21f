"""What editors take from a clip while it is analysed, so that nobody has to decode it again.

Whose face is meant is known at the end of the analysis only: until then all crops wait in a file without a name, which
the system removes with the process. It takes 3 S^2 bytes for each face of each frame, for crops of S x S pixels.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from countervid.clip import Clip
from countervid.diffusion.windows import Window
from countervid.face import align
from countervid.face.crops import Crops
from countervid.face.pipeline import FaceTrack, Index


class RowFile:
    """Tensors of one shape and type in a nameless file: rows in, rows out.

    Args:
        folder: On the disk that they shall lie on.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by `close`)
        self._like: Tensor | None = None
        self._count = 0

    def append(self, rows: Tensor) -> int:
        """Keep rows `(n, ...)`; returns the number of the first."""
        if self._like is None:
            self._like = rows[:0].clone()
        assert (rows.shape[1:], rows.dtype) == (self._like.shape[1:], self._like.dtype)
        self._file.write(rows.contiguous().view(torch.uint8).numpy().data)
        first, self._count = self._count, self._count + len(rows)
        return first

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Rows by number, `(n, ...)`."""
        assert self._like is not None
        self._file.flush()
        result = self._like.new_empty((len(numbers), *self._like.shape[1:]))
        size = result[0].numel() * result.element_size() if len(numbers) else 0
        for row, number in zip(result, numbers, strict=True):
            data = os.pread(self._file.fileno(), size, number * size)
            row.copy_(torch.frombuffer(bytearray(data), dtype=row.dtype).view(row.shape))
        return result

    def close(self) -> None:
        self._file.close()


class TakenCrops:
    """A `CropSink` that keeps the crops until it is known whose they are.

    Args:
        size: Side of the crops, pixels.
        folder: On the disk that they shall lie on.
    """

    def __init__(self, size: int, folder: Path) -> None:
        self.size = size
        self._file = RowFile(folder)
        self._rows: dict[int, dict[int, int]] = {}  # by track and frame
        self._chosen: dict[int, int] | None = None

    def take(self, track: int, crops: Crops) -> None:
        first = self._file.append(crops.frames)
        self._rows.setdefault(track, {}).update(
            zip(crops.index.tolist(), range(first, first + len(crops.index)), strict=True)
        )

    def finish(self, face: FaceTrack, tracks: Sequence[int]) -> None:
        rows: dict[int, int] = {}
        for track in tracks:  # of two tracks at one frame, the crop taken last is the face's
            for frame, row in self._rows.get(track, {}).items():
                rows[frame] = max(row, rows.get(frame, -1))
        if all(frame in rows for frame in face.frames().tolist()):
            self._chosen = rows
        self._rows = {}

    @property
    def complete(self) -> bool:
        """Whether the crops of the chosen face are here."""
        return self._chosen is not None

    def read(self, index: Index) -> Tensor:
        """Its crops in the frames `index`, `(n, S, S, 3)` uint8."""
        assert self._chosen is not None
        return self._file.read([self._chosen[frame] for frame in np.asarray(index).tolist()])

    def close(self) -> None:
        self._file.close()


class TakenFrames:
    """Whole frames at a model's size, encoded window by window while the clip is decoded for something else.

    Args:
        folder: On the disk that the results shall lie on.
        parts: The windows, in order.
        fit: `(n, 3, H, W)` in 0..1 to the model's size.
        encode: A window's pictures to its latents.
        keep: Whether the pictures stay, too.
    """

    def __init__(
        self,
        folder: Path,
        parts: Sequence[Window],
        fit: Callable[[Tensor], Tensor],
        encode: Callable[[Tensor], Tensor],
        keep: bool,
    ) -> None:
        self._parts, self._fit, self._encode = parts, fit, encode
        self._latents, self._pictures = RowFile(folder), RowFile(folder) if keep else None
        self._firsts: list[int] = []  # of each window's latents
        self._held = torch.empty(0)  # pictures of the window that is not complete
        self._following = 0  # number of the next frame

    def tapped(self, clip: Clip) -> Clip:
        """The same clip; what is read of it from its start to its end is taken."""

        def take(start: int, frames: Tensor) -> Tensor:
            if start == self._following:
                self._take(frames)
            return frames

        return clip.mapped(take, window=8)

    def _take(self, frames: Tensor) -> None:
        pictures = self._fit(frames.permute(0, 3, 1, 2).float() / 255)
        if self._pictures is not None:
            self._pictures.append((pictures * 255).round().to(torch.uint8))
        self._following += len(frames)
        self._held = torch.cat([self._held, pictures]) if len(self._held) else pictures
        while len(self._firsts) < len(self._parts) and self._parts[len(self._firsts)].stop <= self._following:
            part = self._parts[len(self._firsts)]
            first = self._following - len(self._held)  # number of the first that is held
            self._firsts.append(self._latents.append(self._encode(self._held[part.start - first : part.stop - first])))
            if len(self._firsts) < len(self._parts):
                self._held = self._held[self._parts[len(self._firsts)].start - first :].clone()

    @property
    def complete(self) -> bool:
        """Whether every window is encoded."""
        return len(self._firsts) == len(self._parts)

    def latents(self, part: Window) -> Tensor:
        """What `encode` gave for a window."""
        first = self._firsts[self._parts.index(part)]
        return self._latents.read(range(first, first + part.stop - part.start))

    def read(self, index: Index) -> Tensor:
        """Pictures by frame number, `(n, 3, H, W)` uint8."""
        assert self._pictures is not None
        return self._pictures.read(np.asarray(index).tolist())

    def close(self) -> None:
        self._latents.close()
        if self._pictures is not None:
            self._pictures.close()


def crops_by_window(
    clip: Clip, track: FaceTrack, starts: Sequence[int], window: int, size: int, taken: TakenCrops | None
) -> Iterator[tuple[int, Index, Tensor]]:
    """The face's crops, window by window: first frame, numbers of the frames with the face, `(n, S, S, 3)` uint8.

    Args:
        clip: Read in one pass where the analysis left nothing, as it does where the track was known.
        starts: First frames of the windows wanted, ascending multiples of `window`.
        window: Frames of one.
        size: Side of the crops, pixels.
        taken: What the analysis left.
    """
    wanted = set(starts)
    if (taken is not None and taken.complete) or not starts:
        for start in starts:
            assert taken is not None
            index = track.frames(start, min(start + window, len(track)))
            yield start, index, taken.read(index)
        return
    for start, frames in clip.windows(window, starts[0]):
        if start in wanted:
            index = track.frames(start, start + len(frames))
            yield start, index, align.crop(frames[torch.from_numpy(index - start)], track.quads[index], size)
        if start >= starts[-1]:
            return
