"""Whether a face that is not detected for a few frames is still there: covered or blurred, but not gone.

Where a hand passes before a face, or the head turns too fast to be found, hair, neck and shoulders go on being seen
where they were; where somebody left, or another picture was cut in, they do not. So the surroundings of the expected
face are compared, cell by cell, with those of the frame before and of the frame after the gap.
"""

from __future__ import annotations

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
_CLOSE = 14.0  # levels of 255: a cell whose mean difference is less is the same
_LIKE = 0.85  # or whose correlation is more, where it has a texture
_TEXTURE = 5.0  # levels: least deviation of a cell that has one
_LEAST = 0.35  # share of the person's cells that must be seen


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
    return np.array([seen(parts[0], part, parts[-1]) >= _LEAST for part in parts[1:-1]])


def seen(before: Array, now: Array, after: Array) -> float:
    """Share of the person's cells in `now` that are as in one of two others; surroundings `(_SIDE, _SIDE, 3)`."""
    matched = _matched(now, before) | _matched(now, after)
    return float(matched[_PERSON].mean())


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


def _matched(now: Array, other: Array) -> npt.NDArray[np.bool_]:
    """Cells of `now` that are found in `other`, near their place: `(cells, cells)`."""
    count = _SIDE // _CELL
    padded = np.pad(other, ((_SEARCH, _SEARCH), (_SEARCH, _SEARCH), (0, 0)), mode="edge")
    cells = _cells(now, count)
    deviation = cells.std(-1)
    found = np.zeros((count, count), bool)
    for y in range(2 * _SEARCH + 1):
        for x in range(2 * _SEARCH + 1):
            there = _cells(padded[y : y + _SIDE, x : x + _SIDE], count)
            found |= np.abs(cells - there).mean(-1) < _CLOSE
            product = ((cells - cells.mean(-1, keepdims=True)) * (there - there.mean(-1, keepdims=True))).mean(-1)
            found |= (deviation > _TEXTURE) & (product > _LIKE * deviation * np.maximum(there.std(-1), 1e-9))
    return found


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
