"""Faces over time: detections of single frames linked into tracks, each of one face within one shot.

A detection joins the track that it overlaps or lies nearest to (an assignment over all faces of the frame), unless it
looks like somebody else. Nothing is linked across a cut, nor over a long absence: whether two tracks are one person is
asked afterwards (`persons.py`). Linking needs the past only, so a clip streams through it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from countervid.face import align
from countervid.face.detect import Detections

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class TrackConfig:
    reach: float = 0.7  # furthest step of a face between two frames, in box sides
    growth: float = 1.6  # largest change of its size between two frames, as a ratio
    lost_frames: int = 25  # a face back after more is another track (1 s at 25 fps)
    # Correlation of two grey pictures of a face (`looks`). Below `veto` it is somebody else, wherever it is, unless a
    # recognizer is sure that it is not; below `doubt` a recognizer is asked. Frames of one rendered take seconds apart
    # reach 0.37 at least, 99 of 100 of them 0.55; two people have 0.12 in the median.
    veto: float = 0.3
    doubt: float = 0.8
    least_frames: int = 3  # a face seen less often is a false alarm (in a clip that is longer than that)


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
    """One face in one shot: the frames it was detected in and what was found there."""

    number: int
    shot: int  # number of the shot, from 0
    frames: list[int] = field(default_factory=list)
    boxes: list[npt.NDArray[np.float32]] = field(default_factory=list)
    points: list[npt.NDArray[np.float32]] = field(default_factory=list)
    which: list[int] = field(default_factory=list)  # which of the frame's detections
    there: set[int] = field(default_factory=set)  # frames of short gaps whose picture shows that the face is there
    picture: Array | None = None  # running mean of `looks`
    vector: Array | None = None  # sum of the identity vectors
    vectors: int = 0  # how many of them

    @property
    def area(self) -> float:
        """Sum of the boxes' areas, square pixels: how much of the clip is this face."""
        return float(sum(float((box[2] - box[0]) * (box[3] - box[1])) for box in self.boxes))

    def add(self, frame: int, found: Detections, row: int, picture: Array) -> None:
        """Take a detection, the `row`-th of those found in the frame."""
        self.frames.append(frame)
        self.boxes.append(found.boxes[row])
        self.points.append(found.points[row])
        self.which.append(row)
        mean = picture if self.picture is None else 0.9 * self.picture + 0.1 * picture
        self.picture = mean / max(float(np.linalg.norm(mean)), 1e-9)

    def recognise(self, vector: Array) -> None:
        """Take the identity vector of one of the frames."""
        self.vector = vector if self.vector is None else self.vector + vector
        self.vectors += 1


Alike = Callable[[Track, int, int], float | None]
"""Cosine of identity between a track and detection `row` of frame `number`: (track, number, row); None: not known."""


class Tracker:
    """Links frames as they come; `tracks` are those of the clip so far, in the order in which they began."""

    def __init__(
        self, config: TrackConfig | None = None, alike: Alike | None = None, same: float = 1.0, other: float = -1.0
    ) -> None:
        """
        Args:
            config: Settings.
            alike: Asked where a face looks unlike its track's; by default looks alone decide.
            same, other: From which cosine on it is the same person, and below which another.
        """
        self.config = config or TrackConfig()
        self.tracks: list[Track] = []
        self.live: list[Track] = []  # those that the next frame may go on
        self.length = 0  # frames seen
        self.shot = 0  # number of the shot under way
        self._alike, self._same, self._other = alike, same, other

    def update(self, frames: Tensor, detections: list[Detections], cuts: Collection[int] = ()) -> None:
        """Link the next frames `(F, H, W, 3)` uint8 with their detections; `cuts` are first frames of shots."""
        for frame, found in zip(frames, detections, strict=True):
            pictures = looks(frame.expand(len(found), *frame.shape), found.points) if len(found) else np.zeros((0, 0))
            self.link(found, pictures, self.length in cuts)

    def link(self, found: Detections, pictures: Array, cut: bool = False) -> None:
        """Link the next frame: its detections and what they look like (`looks`); a `cut` begins a new shot."""
        number = self.length
        self.length += 1
        if cut:
            self.shot += 1
            self.live = []
        self.live = [track for track in self.live if number - track.frames[-1] <= self.config.lost_frames]
        if not len(found):
            return
        taken: dict[int, Track] = {}
        if self.live:
            cost = np.array(
                [[self._cost(track, found, row, pictures[row]) for row in range(len(found))] for track in self.live]
            )
            # A cost of 1 means "not this one": the assignment may still pick it, and is then ignored.
            for place, row in zip(*linear_sum_assignment(cost), strict=True):
                if cost[place, row] < 1:
                    taken[int(row)] = self.live[place]
        for row in range(len(found)):
            track = taken.get(row)
            if track is None:
                track = Track(len(self.tracks), self.shot)
                self.tracks.append(track)
                self.live.append(track)
            track.add(number, found, row, pictures[row])

    def _cost(self, track: Track, found: Detections, row: int, picture: Array) -> float:
        """0 (surely the track's face) to 1 (cannot be)."""
        config, last, box = self.config, track.boxes[-1], found.boxes[row]
        gap = self.length - 1 - track.frames[-1]
        alike = 0.0 if track.picture is None else float(track.picture @ picture)
        sides = np.sqrt(np.prod(np.stack([last[2:] - last[:2], box[2:] - box[:2]]), axis=1))
        apart = float(np.hypot(*((last[:2] + last[2:] - box[:2] - box[2:]) / 2)) / max(float(sides.max()), 1e-9))
        ratio = float(sides.max() / max(float(sides.min()), 1e-9))
        # The longer unseen, the further it may have gone; one second allows a little more than twice the step.
        slack = 1 + 0.25 * np.sqrt(gap - 1)
        if apart > config.reach * slack or ratio > config.growth * slack:
            return 1.0
        if alike < config.doubt:
            cosine = None if self._alike is None else self._alike(track, self.length - 1, row)
            if cosine is None and alike < config.veto:
                return 1.0
            if cosine is not None and cosine < (self._same if alike < config.veto else self._other):
                return 1.0
        return float(min(0.49, 0.49 * (0.7 * apart / (config.reach * slack) + 0.3 * (1 - max(alike, 0.0)))))


def between(track: Track, place: int) -> tuple[Array, Array]:
    """Boxes `(n, 4)` and points `(n, 5, 2)` of the n frames between two detections of a track, interpolated.

    Args:
        place: Number of the detection before the gap, from 0.
    """
    before, after = track.frames[place], track.frames[place + 1]
    weight = ((np.arange(before + 1, after) - before) / (after - before))[:, None]
    boxes = (1 - weight) * track.boxes[place] + weight * track.boxes[place + 1]
    weight = weight[..., None]
    return boxes, (1 - weight) * track.points[place] + weight * track.points[place + 1]


def fill(tracks: Sequence[Track], length: int, longest_gap: int) -> tuple[Array, Array, npt.NDArray[np.uint8]]:
    """One person's tracks as one row a frame; gaps of at most `longest_gap` frames are bridged where the face is there.

    Returns:
        boxes `(length, 4)` and points `(length, 5, 2)`, NaN where the face is absent, and source `(length,)`: 0 absent,
        1 detected, 2 interpolated between the frames around it.
    """
    boxes, points = np.full((length, 4), np.nan), np.full((length, 5, 2), np.nan)
    source = np.zeros(length, np.uint8)
    for track in tracks:
        for place, (before, after) in enumerate(zip(track.frames[:-1], track.frames[1:], strict=True)):
            if 1 < after - before <= longest_gap + 1 and track.there:
                frames = np.arange(before + 1, after)
                rows = np.array([frame in track.there for frame in frames])
                boxes[frames[rows]], points[frames[rows]] = (values[rows] for values in between(track, place))
                source[frames[rows]] = 2
    for track in tracks:  # a detection goes before what was interpolated
        frames = np.array(track.frames)
        boxes[frames], points[frames], source[frames] = np.stack(track.boxes), np.stack(track.points), 1
    return boxes, points, source
