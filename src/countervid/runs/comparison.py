"""The comparison video: factual, counterfactual, truth and difference side by side, with captions, for a talk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from countervid.clip import Clip

Picture = NDArray[np.uint8]
Lettering = ImageFont.FreeTypeFont | ImageFont.ImageFont

BACKGROUND, INK, QUIET, ACCENT = (15, 17, 23), (236, 238, 244), (139, 147, 167), (255, 176, 84)
AMPLIFICATION = 4  # of the difference: a quarter of the range fills the colour scale
_WIDEST, _LOWEST = 1920, 360  # px: fits a projector; small faces are enlarged to this height at least
_MARGIN, _GAP, _RADIUS = 32, 20, 14


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture of the comparison: a caption, and a quieter line below it."""

    caption: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What stands above the pictures."""

    title: str  # "do(age = old)"
    lines: Sequence[str] = ()  # what changes, and why
    corner: str = "synthetic video"


@dataclass(frozen=True)
class _Layout:
    width: int
    height: int
    places: tuple[tuple[int, int], ...]  # left, top of each panel
    panel: tuple[int, int]  # width, height of one
    header: int


def compare(header: Header, factual: Clip, counterfactual: Clip, truth: Clip | None, panels: Sequence[Panel]) -> Clip:
    """The comparison as a lazy clip: the factual's times and sound.

    Args:
        header: Title and lines above.
        factual, counterfactual, truth: Clips of one length and size; `truth` where it is known.
        panels: Captions of factual, counterfactual, truth (if given) and difference, in this order.
    """
    layout = _arrange(factual.width, factual.height, 3 + (truth is not None), len(header.lines))
    board = _board(header, panels, layout)
    corner = _rounded(layout.panel)

    def draw(*clips: Tensor) -> Tensor:
        out = np.repeat(board[None], len(clips[0]), axis=0)
        for index in range(len(out)):
            pictures = [clip[index].numpy() for clip in clips]
            pictures.append(difference(pictures[0], pictures[1]))
            for (left, top), picture in zip(layout.places, pictures, strict=True):
                place = out[index, top : top + layout.panel[1], left : left + layout.panel[0]]
                scaled = _scaled(picture, layout.panel)
                place[:] = np.rint(place + (scaled.astype(np.float32) - place) * corner).astype(np.uint8)
        return torch.from_numpy(out)

    others = [counterfactual] if truth is None else [counterfactual, truth]
    return factual.zipped(draw, *others, size=(layout.height, layout.width))


def difference(factual: Picture, counterfactual: Picture) -> Picture:
    """Where the edit moved pixels, glowing over the dimmed source: `(H, W, 3)` uint8."""
    change = np.abs(counterfactual.astype(np.int16) - factual).max(-1)
    level = np.clip(change * AMPLIFICATION, 0, 255).astype(np.uint8)
    glow = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB).astype(np.float32)
    grey = factual.astype(np.float32).mean(-1, keepdims=True) * 0.22
    weight = np.minimum(level[..., None].astype(np.float32) / 48, 1)  # the faintest changes fade in
    return np.asarray(np.clip(grey * (1 - weight) + glow * weight + 8, 0, 255), dtype=np.uint8)


def _arrange(width: int, height: int, count: int, lines: int) -> _Layout:
    """Panels in one row, or in rows of two where one row would make them small."""
    columns = count if width <= 1.25 * height or count < 4 else 2
    rows = -(-count // columns)
    room = (_WIDEST - 2 * _MARGIN - (columns - 1) * _GAP) // columns
    scale = min(room / width, max(1.0, _LOWEST / height), 860 / (rows * height) if rows * height > 860 else 9e9)
    panel = (max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2))
    header, caption = 74 + 27 * lines + (14 if lines else 0), 66
    full = max(2 * _MARGIN + columns * panel[0] + (columns - 1) * _GAP, 720)
    first = (full - columns * panel[0] - (columns - 1) * _GAP) // 2
    places = tuple(
        (first + (i % columns) * (panel[0] + _GAP), _MARGIN + header + (i // columns) * (panel[1] + caption))
        for i in range(count)
    )
    bottom = _MARGIN + header + rows * (panel[1] + caption) + 6
    return _Layout(full + full % 2, bottom + bottom % 2, places, panel, header)


def _board(header: Header, panels: Sequence[Panel], layout: _Layout) -> Picture:
    """Everything that stands still."""
    image = Image.new("RGB", (layout.width, layout.height), BACKGROUND)
    draw = ImageDraw.Draw(image)
    left = layout.places[0][0]
    draw.rounded_rectangle((left, _MARGIN + 4, left + 5, _MARGIN + 44), 2, fill=ACCENT)
    draw.text((left + 20, _MARGIN + 24), header.title, INK, font(34), anchor="lm")
    right = layout.places[-1][0] + layout.panel[0]
    draw.text((right, _MARGIN + 24), header.corner, QUIET, font(17), anchor="rm")
    for row, line in enumerate(header.lines):
        text = _fitted(draw, line, font(20), right - left - 20)
        draw.text((left + 20, _MARGIN + 66 + 27 * row), text, QUIET, font(20), anchor="lm")
    for (x, y), panel in zip(layout.places, panels, strict=True):
        below = y + layout.panel[1]
        draw.text((x + 2, below + 22), panel.caption, INK, font(22), anchor="lm")
        detail = _fitted(draw, panel.detail, font(16), layout.panel[0] - 4)
        draw.text((x + 2, below + 46), detail, QUIET, font(16), anchor="lm")
    return np.asarray(image).copy()


def font(size: int) -> Lettering:
    """The lettering that comes with Pillow: the same picture on every machine."""
    return ImageFont.load_default(size=size)


def _fitted(draw: ImageDraw.ImageDraw, text: str, lettering: Lettering, room: int) -> str:
    if draw.textlength(text, lettering) <= room:
        return text
    fits, most = 0, len(text)
    while most - fits > 1:
        middle = (fits + most) // 2
        fits, most = (middle, most) if draw.textlength(text[:middle] + " …", lettering) <= room else (fits, middle)
    return text[:fits].rstrip(" ,·") + " …"


def _rounded(panel: tuple[int, int]) -> NDArray[np.float32]:
    """Coverage of a rectangle with round corners, `(h, w, 1)`, 0..1; drawn four times as large for smooth edges."""
    big = Image.new("L", (panel[0] * 4, panel[1] * 4), 0)
    ImageDraw.Draw(big).rounded_rectangle((0, 0, panel[0] * 4 - 1, panel[1] * 4 - 1), _RADIUS * 4, fill=255)
    small = np.asarray(big.resize(panel, Image.Resampling.BOX), dtype=np.float32)
    return np.asarray(small[..., None] / 255, dtype=np.float32)


def _scaled(picture: Picture, panel: tuple[int, int]) -> Picture:
    if (picture.shape[1], picture.shape[0]) == panel:
        return picture
    smaller = panel[1] < picture.shape[0]
    scaled = cv2.resize(picture, panel, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    return np.asarray(scaled, dtype=np.uint8)
