"""Which tracks are one person: over cuts, and over absences.

A recognizer turns aligned crops into unit vectors whose cosine says how alike two people are. It is given to the
pipeline from above (the bundled identity network stands on a higher floor). Without one, small grey pictures of the
faces are compared, which tell apart what is lit alike and little else; the track's description says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from countervid.errors import FaceError
from countervid.face.align import Framing
from countervid.face.facetrack import share_said, shots_said
from countervid.face.track import Track

Array = npt.NDArray[np.float64]

LIKENESS = 0.6  # correlation of the grey pictures of two tracks that makes them one person, without a recognizer


class Recognizer(Protocol):
    """Says who somebody is, by a vector."""

    name: str
    size: int  # side of the crops, pixels
    framing: Framing  # of the crops
    same: float  # cosine of the mean vectors of two tracks, from which they are taken for one person
    other: float  # cosine of one frame's vector and a track's mean, below which the frame shows somebody else

    def __call__(self, crops: Tensor) -> Tensor:
        """Unit vectors `(n, D)` of crops `(n, 3, size, size)` in [-1, 1]; a crop's does not depend on the others."""
        ...


@dataclass(frozen=True)
class Person:
    """Somebody in a clip: the tracks that show them."""

    tracks: list[Track] = field(repr=False)

    @property
    def frames(self) -> list[int]:
        """Frames in which the face was detected, ascending."""
        return sorted(frame for track in self.tracks for frame in track.frames)

    @property
    def area(self) -> float:
        """Sum of the boxes' areas, square pixels."""
        return sum(track.area for track in self.tracks)

    @property
    def shots(self) -> list[int]:
        """Numbers of the shots that show the person, from 0."""
        return sorted({track.shot for track in self.tracks})

    def to_json(self) -> dict[str, Any]:
        """What a track says of the person: frames, shots (from 0), and the median box, pixels."""
        width, height = self.box
        return {"frames": len(self.frames), "shots": self.shots, "width": width, "height": height}

    @property
    def box(self) -> tuple[int, int]:
        """Median width and height of the boxes, pixels."""
        boxes = np.concatenate([np.stack(track.boxes) for track in self.tracks])
        width, height = np.median(boxes[:, 2:] - boxes[:, :2], axis=0)
        return round(float(width)), round(float(height))


def persons(
    tracks: Sequence[Track], length: int, recognizer: Recognizer | None = None, least_frames: int = 3
) -> list[Person]:
    """The people of a clip, the largest (summed area) first; false alarms are left out.

    The two most alike groups of tracks are joined, again and again, while they are alike enough: a join must hold
    between the means of the groups. Two tracks that share a frame are never one person.

    Args:
        tracks: All tracks of the clip.
        length: Frames of the clip.
        recognizer: Says how alike is enough; None: the grey pictures decide.
        least_frames: A person seen in fewer frames is a false alarm, in a clip that is longer than that.
    """
    groups = [[track] for track in sorted(tracks, key=lambda track: track.number)]
    least = LIKENESS if recognizer is None else recognizer.same
    if len(groups) > 1:
        taken, size = [set(group[0].frames) for group in groups], _size(tracks, recognizer)
        means = np.stack([_mean(group, recognizer, size) for group in groups])
        alike = means @ means.T
        for a, frames in enumerate(taken):
            alike[a, [b for b, others in enumerate(taken) if a == b or not frames.isdisjoint(others)]] = -1
        while alike.max() >= least:
            a, b = sorted(int(i) for i in np.unravel_index(alike.argmax(), alike.shape))
            groups[a] += groups[b]
            taken[a] |= taken[b]
            means[a] = _mean(groups[a], recognizer, size)
            groups[b] = []
            alike[b], alike[:, b] = -1, -1
            near = means @ means[a]
            apart = [not group or c == a or not taken[a].isdisjoint(taken[c]) for c, group in enumerate(groups)]
            near[apart] = -1
            alike[a], alike[:, a] = near, near
    found = [Person(sorted(group, key=lambda track: track.frames[0])) for group in groups if group]
    found = [person for person in found if len(person.frames) >= min(least_frames, length)]
    return sorted(found, key=lambda person: (-person.area, person.frames[0]))


def choose(people: Sequence[Person], number: int, length: int) -> Person:
    """Person `number`, counted from the largest, which is 0.

    Raises:
        FaceError: Nobody is there, or not so many.
    """
    if not people:
        raise FaceError(f"No face was found in any of the {length} frames. Use a clip that shows a face.")
    if not 0 <= number < len(people):
        known = "; ".join(
            f"{i}: {share_said(len(person.frames), length)}, about {person.box[0]} x {person.box[1]} px,"
            f" {shots_said(person.shots)}"
            for i, person in enumerate(people)
        )
        count = "one person" if len(people) == 1 else f"{len(people)} people"
        raise FaceError(f"There is no person {number}: the clip shows {count} (largest first): {known}.")
    return people[number]


def _mean(group: Sequence[Track], recognizer: Recognizer | None, size: int) -> Array:
    """Unit vector of a group of tracks; 0, which is like nobody, where nothing is known."""
    total = np.zeros(size)
    for track in group:
        if recognizer is not None and track.vector is not None:
            total += track.vector
        elif recognizer is None and track.picture is not None:
            total += len(track.frames) * track.picture
    return np.asarray(total / max(float(np.linalg.norm(total)), 1e-9))


def _size(tracks: Sequence[Track], recognizer: Recognizer | None) -> int:
    vectors = [track.picture if recognizer is None else track.vector for track in tracks]
    return next((len(vector) for vector in vectors if vector is not None), 1)
