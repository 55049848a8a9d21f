"""Whether a face that is not detected for a few frames is still there: covered or blurred, but not gone.

Where a hand passes before a face, or the head turns too fast to be found, hair, neck and shoulders go on being seen
where they were; where somebody left, or another picture was cut in, they do not. So the surroundings of the expected
face are compared, cell by cell, with those of the frame before and of the frame after the gap.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

Picture = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float64]

_LONG_SIDE = 256  # pixels of the pictures that are kept for it
_SIDE = 40  # pixels of the surroundings, both ways
_CELL = 4  # pixels
_SEARCH = 3  # pixels that a cell may have moved beyond what is expected: 7 % of a face's height in each direction ...
_CLOSE = 11.0  # levels of 255: a cell whose mean difference is less is the same
_BEHIND = 7.0  # levels: a cell whose colour differs less from one beside the person shows what is behind
_FEWEST = 8  # cells that tell the person from what is behind
_SURE = 0.4  # share of them that shows the person: enough by itself,
_LIKELY = 0.15  # or enough where little shows what is behind, and
_AROUND = 0.4  # so much of the cells beside the person is as before
# On eight rendered people behind a hand, a cup or a microphone, undetected frames have a share of 0.09 to 0.5: 11 of
# 13 are taken for there. Where the person is taken out of the picture 0 to 0.18, nearly all other cells showing what is
# behind: none of 16. In pictures of other rooms 0 to 0.08 in nine of ten, 0.31 at most: none of 80.


@dataclass(frozen=True)
class Evidence:
    """What a frame shows where a person is expected, as shares of cells."""

    person: float  # of the cells in which the person and what is behind differ, those that show the person,
    behind: float  # and those that show what is behind
    around: float  # of the cells beside the person, those that are as before or after

    @property
    def there(self) -> bool:
        """Whether the person is there."""
        likely = self.person >= _LIKELY and self.behind < 0.5 and self.around >= _AROUND
        return likely or (self.person >= _SURE and self.person > self.behind)


def reduced(frame: Tensor) -> Picture:
    """A frame `(H, W, 3)` uint8, small enough to be kept."""
    picture = frame.cpu().numpy()
    scale = _LONG_SIDE / max(picture.shape[:2])
    if scale >= 1:
        return np.ascontiguousarray(picture)
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def still_there(pictures: list[Picture], boxes: Array, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Whether the face is there in each frame of a gap, `(n,)`.

    Args:
        pictures: `reduced` frames: the one before the gap, the n of the gap, the one after.
        boxes: Where the face is or should be, `(n + 2, 4)`, pixels of the frame.
        height, width: Of the frame.
    """
    scale = np.array([pictures[0].shape[1] / width, pictures[0].shape[0] / height] * 2)
    parts = [_surroundings(picture, box * scale) for picture, box in zip(pictures, boxes, strict=True)]
    return np.array([evidence(parts[0], part, parts[-1]).there for part in parts[1:-1]], dtype=bool)


def evidence(before: Array, now: Array, after: Array) -> Evidence:
    """What `now` shows, against the frames before and after; surroundings `(_SIDE, _SIDE, 3)` each.

    A cell shows the person where it is as in one of the other pictures, and what is behind where it is as beside the
    person, whichever is nearer; what passes before the face is neither. Only cells count in which the two differ: where
    a bald head is before a pale wall, nothing can be told. With too few of them nothing is seen.
    """
    told, apart, person = np.zeros_like(_PERSON), [], np.full(_PERSON.shape, np.inf)
    for other in (before, after):
        apart.append(_apart(now, other))
        distinct = _PERSON & (_from_beside(other, other) >= _BEHIND)
        person = np.where(distinct, np.minimum(person, apart[-1]), person)
        told |= distinct
    around = float((np.minimum(*apart) < _CLOSE)[~_PERSON].mean())
    if told.sum() < _FEWEST:
        return Evidence(0.0, 0.0, around)
    behind = np.minimum(_from_beside(now, before), _from_beside(now, after))
    is_person = told & (person < _CLOSE) & (person < behind)
    is_behind = told & (behind < _BEHIND) & (behind <= person)
    return Evidence(float(is_person.sum() / told.sum()), float(is_behind.sum() / told.sum()), around)


def _from_beside(now: Array, other: Array) -> Array:
    """How far each cell's colour is from the nearest at the edges of `other`, in its row or the next: levels."""
    count = _SIDE // _CELL
    colours, around = (_cells(picture, count).reshape(count, count, -1, 3).mean(2) for picture in (now, other))
    beside = around[:, [0, 1, -2, -1]]
    least = np.full((count, count), np.inf)
    for step in (-1, 0, 1):
        rows = np.clip(np.arange(count) + step, 0, count - 1)
        least = np.minimum(least, np.abs(colours[:, :, None] - beside[rows][:, None]).mean(-1).min(-1))
    return least


def _surroundings(picture: Picture, box: Array) -> Array:
    """The square of 2.4 face heights around a box, mirrored outside the frame."""
    side = 2.4 * max(float(box[3] - box[1]), 4.0)
    centre = (box[:2] + box[2:]) / 2
    scale = _SIDE / side
    source = picture
    if scale < 0.6:  # the picture is reduced first: a sample would stand for several pixels
        source = np.asarray(cv2.blur(picture, (round(1 / scale),) * 2))
    matrix = np.array([[scale, 0, _SIDE / 2 - scale * centre[0]], [0, scale, _SIDE / 2 - scale * centre[1]]])
    cut = cv2.warpAffine(source, matrix, (_SIDE, _SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(cut, dtype=np.float64)


def _apart(now: Array, other: Array) -> Array:
    """How far each cell of `now` is from the nearest in `other`, near its place: mean difference, levels."""
    count = _SIDE // _CELL
    padded = np.pad(other, ((_SEARCH, _SEARCH), (_SEARCH, _SEARCH), (0, 0)), mode="edge")
    cells, least = _cells(now, count), np.full((count, count), np.inf)
    for y in range(2 * _SEARCH + 1):
        for x in range(2 * _SEARCH + 1):
            there = _cells(padded[y : y + _SIDE, x : x + _SIDE], count)
            least = np.minimum(least, np.abs(cells - there).mean(-1))
    return least


def _cells(picture: Array, count: int) -> Array:
    parts = picture.reshape(count, _CELL, count, _CELL, 3).transpose(0, 2, 1, 3, 4)
    return parts.reshape(count, count, -1)


def _person() -> npt.NDArray[np.bool_]:
    """Cells where head and shoulders are, in surroundings that are centred on the face's box."""
    place = (np.arange(_SIDE // _CELL) + 0.5) / (_SIDE // _CELL) * 2.4 - 1.2  # in heights of the box
    y, x = np.meshgrid(place, place, indexing="ij")
    head = (x / 0.5) ** 2 + ((y + 0.08) / 0.68) ** 2 < 1
    shoulders = (y > 0.75) & (np.abs(x) < 0.6)
    return np.asarray(head | shoulders)


_PERSON = _person()
