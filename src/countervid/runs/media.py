"""The pictures of a report: one small video of all panels, a poster and a strip of moments, as base64 text."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from countervid.clip import Clip
from countervid.clip.sources import MadeSource
from countervid.runs.comparison import Panel, difference

Picture = NDArray[np.uint8]

SECONDS = 6.0  # of the clip that a report shows: it stays a file that one can mail
_SIDE = 360  # px, longest side of a panel
_MOMENTS = 8  # in the strip


@dataclass(frozen=True, kw_only=True)
class Media:
    """What the report's page shows; texts are base64."""

    panels: tuple[Panel, ...]
    width: int  # px of one panel
    height: int
    frames: int
    fps: float
    video: str  # mp4, panels side by side
    poster: str  # jpeg, its first frame
    strip: str  # jpeg, a row a panel, a column a moment
    remark: str


@dataclass(frozen=True, eq=False)
class _Atlas(MadeSource):
    """A clip's source: the panels of each frame side by side, scaled."""

    clips: Sequence[Clip]
    panel: tuple[int, int]  # width, height
    count: int
    moments: dict[int, Picture] = field(default_factory=dict)  # filled while the frames pass by

    @property
    def height(self) -> int:
        return self.panel[1]

    @property
    def width(self) -> int:
        return self.panel[0] * (len(self.clips) + 1)

    @property
    def fps(self) -> float:  # type: ignore[override]
        return self.clips[0].fps

    def windows(self, size: int) -> Iterator[tuple[int, Tensor]]:
        wanted = {round(i * (self.count - 1) / (_MOMENTS - 1)) for i in range(_MOMENTS)} | {0}
        for parts in zip(*(clip.windows(size) for clip in self.clips), strict=True):
            start = parts[0][0]
            rows = min(len(parts[0][1]), self.count - start)
            out = np.empty((rows, self.height, self.width, 3), dtype=np.uint8)
            for index in range(rows):
                pictures = [frames[index].numpy() for _, frames in parts]
                pictures.append(difference(pictures[0], pictures[1]))
                out[index] = np.concatenate([_scaled(picture, self.panel) for picture in pictures], axis=1)
                if start + index in wanted:
                    self.moments[start + index] = out[index].copy()
            yield start, torch.from_numpy(out)
            if start + rows >= self.count:
                return


def make_media(clips: Sequence[Clip], panels: Sequence[Panel]) -> Media:
    """The first seconds of factual, counterfactual (and truth) with their difference.

    Args:
        clips: Factual first, counterfactual second; one length and size.
        panels: Captions, one for each clip and one for the difference.
    """
    first = clips[0]
    scale = min(1.0, _SIDE / max(first.width, first.height))
    panel = (max(2, round(first.width * scale / 2) * 2), max(2, round(first.height * scale / 2) * 2))
    count = min(len(first), max(1, round(SECONDS * first.fps)))
    atlas = _Atlas(clips, panel, count)
    with tempfile.TemporaryDirectory() as folder:
        content = Clip(atlas).write(Path(folder) / "panels.mp4", crf=24).read_bytes()
    moments = [atlas.moments[index] for index in sorted(atlas.moments)]
    whole = count == len(first)
    remark = "" if whole else f"The first {count / first.fps:.1f} s of {len(first) / first.fps:.1f} s are shown."
    return Media(
        panels=tuple(panels),
        width=panel[0],
        height=panel[1],
        frames=count,
        fps=round(float(atlas.rate), 6),
        video=base64.b64encode(content).decode(),
        poster=_jpeg(moments[0], 90),
        strip=_jpeg(_strip(moments, len(panels), panel), 85),
        remark=remark,
    )


def _strip(moments: Sequence[Picture], rows: int, panel: tuple[int, int]) -> Picture:
    """A row a panel, a column a moment, thin gaps between."""
    gap = 4
    width = min(180, panel[0])
    cell = (width, max(2, round(panel[1] * width / panel[0])))
    sheet = np.full((rows * (cell[1] + gap) - gap, len(moments) * (cell[0] + gap) - gap, 3), 24, dtype=np.uint8)
    for column, moment in enumerate(moments):
        for row in range(rows):
            picture = _scaled(moment[:, row * panel[0] : (row + 1) * panel[0]], cell)
            top, left = row * (cell[1] + gap), column * (cell[0] + gap)
            sheet[top : top + cell[1], left : left + cell[0]] = picture
    return sheet


def _scaled(picture: Picture, size: tuple[int, int]) -> Picture:
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def jpeg_of(path: Path, quality: int = 88) -> str:
    """A picture file as a JPEG in base64, for a page."""
    with Image.open(path) as picture:
        return _jpeg(np.asarray(picture.convert("RGB")), quality)


def _jpeg(picture: Picture, quality: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return base64.b64encode(buffer.getvalue()).decode()
