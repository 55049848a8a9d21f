"""The pictures of a report: a sheet of frames a panel and a strip of moments, as base64 text.

Sheets of stills, not a video: a page that steps through them shows exactly the frame it says, without a video decoder.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from countervid.runs.comparison import Panel, difference

Picture = NDArray[np.uint8]

SHOWN = 72  # frames of a clip in the page, evenly spread when it has more
BUDGET = 900_000  # bytes of all sheets: a report stays a file that one can mail
_SIDE = 360  # px, longest side of a panel, where pixels allow
_SMALLEST = 64  # px, likewise: no picture shrinks further
_PIXELS = 16_000_000  # of all sheets
_QUALITIES = (80, 60, 40)  # of WebP, tried in turn; then the pictures shrink until the sheets are within their budget
_MOMENTS = 8  # in the strip


@dataclass(frozen=True, kw_only=True)
class Media:
    """What the report's page shows; texts are base64.

    A sheet holds a panel's frames in rows of `columns`, in order.
    """

    panels: tuple[Panel, ...]
    width: int  # px of one panel
    height: int
    columns: int
    numbers: tuple[int, ...]  # of the frames that are shown
    sheets: tuple[str, ...]  # webp, one a panel
    strip: str  # jpeg, a row a panel, a column a moment
    remark: str


@dataclass
class Pictures:
    """Fed a run's windows once, keeps the frames that the page shows.

    Args:
        frames: Length of the clips.
        size: Their (height, width), pixels.
        panels: Captions, one for each clip and one for the difference.
    """

    frames: int
    size: tuple[int, int]
    panels: Sequence[Panel]
    numbers: tuple[int, ...] = field(init=False)
    _panel: tuple[int, int] = field(init=False)  # width, height
    _kept: list[list[Picture]] = field(init=False, default_factory=list)  # a row a frame

    def __post_init__(self) -> None:
        count = min(self.frames, SHOWN)
        self.numbers = tuple(int(n) for n in np.unique(np.linspace(0, self.frames - 1, count).round().astype(int)))
        height, width = self.size
        room = (_PIXELS / (count * len(self.panels) * height * width)) ** 0.5
        scale = min(1.0, _SIDE / max(height, width), room)
        self._panel = (max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2))

    def update(self, start: int, clips: Sequence[Tensor]) -> None:
        """Add a window: factual, counterfactual and perhaps truth, each `(n, H, W, 3)` uint8."""
        for number in self.numbers:
            if start <= number < start + len(clips[0]):
                pictures = [np.asarray(frames[number - start]) for frames in clips]
                pictures.append(difference(pictures[0], pictures[1]))
                self._kept.append([_scaled(picture, self._panel) for picture in pictures])

    def media(self) -> Media:
        """The pictures, ready for the page."""
        columns = int(np.ceil(len(self._kept) ** 0.5))
        qualities, panel = iter(_QUALITIES), self._panel
        quality = next(qualities)
        while True:
            sheets = [_grid([_scaled(row[at], panel) for row in self._kept], columns) for at in range(len(self.panels))]
            content = [_encoded(sheet, "WEBP", quality) for sheet in sheets]
            excess = sum(map(len, content)) / BUDGET
            if excess <= 1 or max(panel) <= _SMALLEST:
                break
            if (lower := next(qualities, None)) is not None:
                quality = lower
            else:
                panel = (
                    max(2, round(panel[0] / excess**0.5 / 2.2) * 2),
                    max(2, round(panel[1] / excess**0.5 / 2.2) * 2),
                )
        moments = np.unique(np.linspace(0, len(self._kept) - 1, min(_MOMENTS, len(self._kept))).round().astype(int))
        whole = len(self.numbers) == self.frames
        return Media(
            panels=tuple(self.panels),
            width=panel[0],
            height=panel[1],
            columns=columns,
            numbers=self.numbers,
            sheets=tuple(base64.b64encode(one).decode() for one in content),
            strip=_text(_strip([self._kept[moment] for moment in moments], self._panel), "JPEG", 80),
            remark="" if whole else f"{len(self.numbers)} of {self.frames} frames are shown, evenly spread.",
        )


def _grid(pictures: Sequence[Picture], columns: int) -> Picture:
    height, width, _ = pictures[0].shape
    sheet = np.zeros((-(-len(pictures) // columns) * height, columns * width, 3), dtype=np.uint8)
    for index, picture in enumerate(pictures):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = picture
    return sheet


def _strip(moments: Sequence[Sequence[Picture]], panel: tuple[int, int]) -> Picture:
    """A row a panel, a column a moment, thin gaps between."""
    gap, rows = 4, len(moments[0])
    width = min(150, panel[0])
    cell = (width, max(2, round(panel[1] * width / panel[0])))
    sheet = np.full((rows * (cell[1] + gap) - gap, len(moments) * (cell[0] + gap) - gap, 3), 24, dtype=np.uint8)
    for column, moment in enumerate(moments):
        for row, picture in enumerate(moment):
            top, left = row * (cell[1] + gap), column * (cell[0] + gap)
            sheet[top : top + cell[1], left : left + cell[0]] = _scaled(picture, cell)
    return sheet


def _scaled(picture: Picture, size: tuple[int, int]) -> Picture:
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def jpeg_of(path: Path, quality: int = 85, top: int = 0) -> str:
    """A picture file as a JPEG in base64, for a page, without its `top` rows of pixels."""
    with Image.open(path) as picture:
        return _text(np.asarray(picture.convert("RGB"))[top:], "JPEG", quality)


def _text(picture: Picture, form: str, quality: int) -> str:
    return base64.b64encode(_encoded(picture, form, quality)).decode()


def _encoded(picture: Picture, form: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, form, quality=quality)
    return buffer.getvalue()
