"""Crop and paste exactly as the published Diffusion Video Autoencoders did them, for its checkpoints and comparisons.

The rules: bilinear without antialiasing, truncated to 8 bits, black outside the frame, a Lanczos reduction only of
squares several times the crop, and a paste that replaces the whole square with a hard edge. `align.crop` and
`paste.paste` are what everything else uses. Frames here are numpy `(H, W, 3)` uint8, one at a time.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

Picture = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]


def crop(frame: Picture, quad: Points, size: int = 1024) -> Picture:
    """The square `quad` (4, 2) of a frame at `size` x `size`."""
    quad = np.asarray(quad, dtype=np.float64)
    diagonal = float(np.hypot(*(quad[3] - quad[1])))
    shrink = math.floor(diagonal / (2 * size))
    if shrink > 1:
        height, width = frame.shape[:2]
        reduced = (round(width / shrink), round(height / shrink))
        frame = np.asarray(Image.fromarray(frame).resize(reduced, Image.Resampling.LANCZOS))
        quad, diagonal = quad / shrink, diagonal / shrink
    border = max(round(diagonal * 0.1), 3)
    low = np.maximum(np.floor(quad.min(0)).astype(int) - border, 0)
    high = np.minimum(np.ceil(quad.max(0)).astype(int) + border, frame.shape[1::-1])
    frame = frame[low[1] : high[1], low[0] : high[0]]
    upper_left, lower_left, lower_right, upper_right = quad - low + 0.5
    v, u = np.meshgrid((np.arange(size) + 0.5) / size, (np.arange(size) + 0.5) / size, indexing="ij")
    u, v = u[..., None], v[..., None]
    across, down = upper_right - upper_left, lower_left - upper_left
    place = upper_left + across * u + down * v + (lower_right - lower_left - upper_right + upper_left) * u * v
    value, inside = _sample(frame, place)
    return np.asarray(np.where(inside[..., None], value, 0), dtype=np.uint8)


def inverse_coefficients(quad: Points, size: int = 256) -> Points:
    """Frame to crop: a..h of `u = (a x + b y + c) / (g x + h y + 1)`, `v = (d x + e y + f) / (g x + h y + 1)`."""
    rows, right = [], []
    targets = ((0, 0), (0, size), (size, size), (size, 0))
    for (x, y), (u, v) in zip(np.asarray(quad, dtype=np.float64) + 0.5, targets, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    matrix = np.array(rows, dtype=np.float64)
    return np.asarray(np.linalg.solve(matrix.T @ matrix, matrix.T @ np.array(right, dtype=np.float64)))


def paste(frame: Picture, edited: Picture, coefficients: Points) -> Picture:
    """`frame` with the crop `edited` (S, S, 3) pasted over its whole square; new array."""
    a, b, c, d, e, f, g, h = coefficients
    y, x = np.meshgrid(np.arange(frame.shape[0]) + 0.5, np.arange(frame.shape[1]) + 0.5, indexing="ij")
    scale = g * x + h * y + 1
    value, inside = _sample(edited, np.stack([(a * x + b * y + c) / scale, (d * x + e * y + f) / scale], -1))
    return np.asarray(np.where(inside[..., None], value, frame), dtype=np.uint8)


def to_bytes(image: npt.NDArray[np.floating]) -> Picture:
    """A network's picture `(3, H, W)` in [-1, 1] as `(H, W, 3)` uint8: clipped, then rounded half to even."""
    unit = np.clip((np.asarray(image) + 1) / 2, 0, 1)
    return np.asarray(np.rint(unit * 255), dtype=np.uint8).transpose(1, 2, 0)


def _sample(frame: Picture, place: Points) -> tuple[Picture, npt.NDArray[np.bool_]]:
    """Truncated bilinear values at `place` (h, w, 2), pixel centres at halves, and which of them lie in the frame."""
    height, width = frame.shape[:2]
    x, y = place[..., 0], place[..., 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = np.where(inside, x, 0.5) - 0.5, np.where(inside, y, 0.5) - 0.5
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    dx, dy = (x - column)[..., None], (y - row)[..., None]
    left, right = np.clip(column, 0, width - 1), np.clip(column + 1, 0, width - 1)
    top, bottom = np.clip(row, 0, height - 1), np.clip(row + 1, 0, height - 1)
    source = frame.astype(np.float64)
    upper = source[top, left] + (source[top, right] - source[top, left]) * dx
    lower = source[bottom, left] + (source[bottom, right] - source[bottom, left]) * dx
    return np.trunc(upper + (lower - upper) * dy).astype(np.uint8), inside
