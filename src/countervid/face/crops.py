"""Aligned crops of a face, and who takes them while a clip is analysed.

`FacePipeline.analyze` decodes a clip once. Whoever needs the aligned crops as well gives it a `CropSink`: each crop is
handed over as soon as its square is final, a few frames behind the decoder, so that nobody has to decode again.

    class Encoder:                                    # a CropSink
        size = 128                                    # side of the crops it wants, pixels

        def take(self, track, crops):                 # crops of one track: frame numbers, pictures, squares, landmarks
            for number, picture in zip(crops.index.tolist(), crops.frames):
                self.kept[track][number] = self.encode(picture)

        def finish(self, face, tracks):               # `face` is the FaceTrack that `analyze` returns
            for number in face.frames():              # each was taken under one of `tracks`: the last one taken counts
                ...

A track is one face in one shot. Who is meant is known at the end only (persons are counted by their size in the whole
clip), so crops of other faces may come as well. Frames come in ascending order within a track. Where the end of the
clip decides otherwise than its beginning suggested (the landmark network is found to be astray, say), the crops
concerned are taken a second time before `finish`: the later ones replace the earlier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from countervid.face import align
from countervid.face.facetrack import FaceTrack, Index, Points


@dataclass(frozen=True)
class Crops:
    """Aligned crops of the frames that have the face, of one window."""

    index: Index  # (n,) frame numbers
    frames: Tensor  # (n, S, S, 3) uint8
    quads: Points  # (n, 4, 2) pixels of the frame
    landmarks: npt.NDArray[np.float32]  # (n, 68, 2) pixels of the crop


class CropSink(Protocol):
    """Takes the crops of a clip that is being analysed; see above."""

    size: int  # side of the crops, pixels

    def take(self, track: int, crops: Crops) -> None:
        """The next crops of track number `track`; frames that it had before are replaced."""
        ...

    def finish(self, face: FaceTrack, tracks: Sequence[int]) -> None:
        """All is taken: `tracks` are those of the chosen person, every frame of `face` is among them."""
        ...


def crops_of(index: Index, frames: Tensor, quads: Points, landmarks: npt.NDArray[np.float32]) -> Crops:
    """Crops `(n, S, S, 3)` of the squares `quads`, with landmarks `(n, 68, 2)` in pixels of the frame."""
    marks = align.to_square(landmarks, quads) * frames.shape[1] - 0.5
    return Crops(index, frames, quads, marks.astype(np.float32))
