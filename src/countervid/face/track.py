"""Faces over time: detections of single frames linked into one track a person.

A detection joins the track it overlaps or lies nearest to (an assignment over all faces of the frame); a track that has
been lost for a while is taken up again by what looks the same (a small grey picture of the face). Linking needs the
past only, so a clip streams through it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from countervid.errors import FaceError
from countervid.face import align
from countervid.face.detect import Detections

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TrackConfig:
    reach: float = 0.7  # furthest step of a face between two frames, in box sides
    growth: float = 1.6  # largest change of its size between two frames, as a ratio
    lost_frames: int = 25  # after so many frames without the face only its looks can bring it back (1 s at 25 fps)
    likeness: float = 0.6  # correlation of two pictures of a face that makes them one person
    least_frames: int = 3  # a track seen less often is a false alarm (in a clip that is longer than that)


LOOKS_SIZE = 16  # pixels; enough to tell the people of one clip apart, too little to mind the expression


def looks(frames: Tensor, points: npt.ArrayLike) -> Array:
    """What faces look like, for taking up a lost track: grey crops, mean 0 and norm 1, `(n, 256)`.

    Args:
        frames: `(n, H, W, 3)` uint8, the frame of each face.
        points: `(n, 5, 2)` pixels.
    """
    crops = align.crop(frames, align.quads(points, smooth=False), LOOKS_SIZE).to(torch.float64).mean(-1)
    flat = crops.reshape(len(crops), -1).cpu().numpy()
    flat = flat - flat.mean(1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9))


@dataclass
class Track:
    """One face: the frames it was detected in and what was found there."""

    frames: list[int] = field(default_factory=list)
    boxes: list[npt.NDArray[np.float32]] = field(default_factory=list)
    points: list[npt.NDArray[np.float32]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    picture: Array | None = None  # running mean of `looks`

    @property
    def area(self) -> float:
        """Sum of the boxes' areas, square pixels: how much of the clip is this face."""
        return float(sum(float((box[2] - box[0]) * (box[3] - box[1])) for box in self.boxes))


class Tracker:
    """Links frames as they come; `tracks` are the faces seen so far, in the order in which they first appeared."""

    def __init__(self, config: TrackConfig | None = None) -> None:
        self.config = config or TrackConfig()
        self.tracks: list[Track] = []
        self.length = 0  # frames seen

    def update(self, frames: Tensor, detections: list[Detections]) -> None:
        """Link the next frames `(F, H, W, 3)` uint8 with their detections."""
        for frame, found in zip(frames, detections, strict=True):
            if len(found):
                self._link(frame, found)
            self.length += 1

    def _link(self, frame: Tensor, found: Detections) -> None:
        pictures = looks(frame.expand(len(found), *frame.shape), found.points)
        cost = np.array(
            [[self._cost(track, found.boxes[i], pictures[i]) for i in range(len(found))] for track in self.tracks]
        )
        taken: dict[int, int] = {}
        if len(self.tracks):
            # A cost of 1 means "not this one": the assignment may still pick it, and is then ignored.
            for track, i in zip(*linear_sum_assignment(cost), strict=True):
                if cost[track, i] < 1:
                    taken[int(i)] = int(track)
        for i in range(len(found)):
            if i not in taken:
                self.tracks.append(Track())
            track = self.tracks[taken.get(i, -1)]
            track.frames.append(self.length)
            track.boxes.append(found.boxes[i])
            track.points.append(found.points[i])
            track.scores.append(float(found.scores[i]))
            mean = pictures[i] if track.picture is None else 0.9 * track.picture + 0.1 * pictures[i]
            track.picture = mean / max(float(np.linalg.norm(mean)), 1e-9)

    def _cost(self, track: Track, box: npt.NDArray[np.float32], picture: Array) -> float:
        """0 (surely the track's face) to 1 (cannot be)."""
        config, last = self.config, track.boxes[-1]
        gap = self.length - track.frames[-1]
        alike = 0.0 if track.picture is None else float(track.picture @ picture)
        if gap > config.lost_frames:
            # Always dearer than any track that is near: looks decide only when place cannot.
            return 0.5 + 0.5 * (1 - alike) if alike > config.likeness else 1.0
        sides = np.sqrt(np.prod(np.stack([last[2:] - last[:2], box[2:] - box[:2]]), axis=1))
        apart = float(np.hypot(*((last[:2] + last[2:] - box[:2] - box[2:]) / 2)) / max(float(sides.max()), 1e-9))
        ratio = float(sides.max() / max(float(sides.min()), 1e-9))
        # The longer unseen, the further it may have gone; one second allows a little more than twice the step.
        slack = 1 + 0.25 * np.sqrt(gap - 1)
        if apart > config.reach * slack or ratio > config.growth * slack:
            return 1.0
        return float(min(0.49, 0.49 * (0.7 * apart / (config.reach * slack) + 0.3 * (1 - max(alike, 0.0)))))

    def faces(self) -> list[Track]:
        """The tracks, largest summed area first, false alarms left out."""
        least = min(self.config.least_frames, self.length)
        kept = [track for track in self.tracks if len(track.frames) >= least]
        return sorted(kept, key=lambda track: (-track.area, track.frames[0]))

    def choose(self, face: int = 0) -> Track:
        """Face number `face`, counted from the largest, which is 0."""
        faces = self.faces()
        if not faces:
            raise FaceError(f"No face was found in any of the {self.length} frames. Use a clip that shows a face.")
        if not 0 <= face < len(faces):
            known = "one face, number 0" if len(faces) == 1 else f"{len(faces)} faces, numbered 0 to {len(faces) - 1}"
            raise FaceError(f"There is no face number {face}: the clip shows {known} (largest first).")
        return faces[face]


def fill(track: Track, length: int, longest_gap: int) -> tuple[Array, Array, npt.NDArray[np.uint8]]:
    """A track as one row a frame, gaps of at most `longest_gap` frames interpolated.

    Returns:
        boxes `(length, 4)` and points `(length, 5, 2)`, NaN where the face is absent, and source `(length,)`: 0 absent,
        1 detected, 2 interpolated between the frames around it.
    """
    boxes, points = np.full((length, 4), np.nan), np.full((length, 5, 2), np.nan)
    source = np.zeros(length, np.uint8)
    frames = np.array(track.frames)
    boxes[frames], points[frames], source[frames] = np.stack(track.boxes), np.stack(track.points), 1
    for before, after in zip(frames[:-1], frames[1:], strict=True):
        if 1 < after - before <= longest_gap + 1:
            weight = (np.arange(before + 1, after) - before) / (after - before)
            boxes[before + 1 : after] = (1 - weight[:, None]) * boxes[before] + weight[:, None] * boxes[after]
            weight = weight[:, None, None]
            points[before + 1 : after] = (1 - weight) * points[before] + weight * points[after]
            source[before + 1 : after] = 2
    return boxes, points, source
