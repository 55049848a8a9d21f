"""What editors take from a clip while it is analysed, so that nobody has to decode it again.

Whose face is meant is known at the end of the analysis only: until then all crops wait in a file without a name, which
the system removes with the process. It takes 3 S^2 bytes for each face of each frame, for crops of S x S pixels.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from countervid.clip import Clip
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


def crops_by_window(
    clip: Clip, track: FaceTrack, starts: Sequence[int], window: int, size: int, taken: TakenCrops
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
    if taken.complete or not starts:
        for start in starts:
            index = track.frames(start, min(start + window, len(track)))
            yield start, index, taken.read(index)
        return
    for start, frames in clip.windows(window, starts[0]):
        if start in wanted:
            index = track.frames(start, start + len(frames))
            yield start, index, align.crop(frames[torch.from_numpy(index - start)], track.quads[index], size)
        if start >= starts[-1]:
            return
