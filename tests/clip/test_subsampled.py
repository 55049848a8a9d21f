"""8-bit 4:2:0 and RGB: each way against the formulas in floating point."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countervid.clip.light import LUMA
from countervid.clip.subsampled import from_rgb, from_rgb_coefficients, to_rgb, to_rgb_coefficients


def exact(luma: np.ndarray, blue: np.ndarray, red: np.ndarray, matrix: int, full: bool) -> np.ndarray:
    """H.273 in floating point; chroma interpolated linearly, on even columns and between rows."""
    height, width = luma.shape

    def at_pixels(plane: np.ndarray) -> np.ndarray:
        rows = np.clip((np.arange(height) + 0.5) / 2 - 0.5, 0, plane.shape[0] - 1)
        columns = np.clip(np.arange(width) / 2, 0, plane.shape[1] - 1)
        top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
        down, right = (rows - top)[:, None], columns - left
        bottom, after = np.minimum(top + 1, plane.shape[0] - 1), np.minimum(left + 1, plane.shape[1] - 1)
        over = plane[top][:, left] * (1 - right) + plane[top][:, after] * right
        under = plane[bottom][:, left] * (1 - right) + plane[bottom][:, after] * right
        return over * (1 - down) + under * down

    y = luma / 255 if full else (luma - 16.0) / 219
    cb, cr = ((at_pixels(plane.astype(float)) - 128) / (255 if full else 224) for plane in (blue, red))
    kr, kb = LUMA[matrix]
    r, b = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    return np.stack([r, (y - kr * r - kb * b) / (1 - kr - kb), b], -1).clip(0, 1) * 255


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), height=st.integers(1, 9), width=st.integers(1, 9), pad=st.integers(0, 3),
    matrix=st.sampled_from(sorted(LUMA)), full=st.booleans(),
)  # fmt: skip
def test_rgb_is_the_formula_rounded(seed: int, height: int, width: int, pad: int, matrix: int, full: bool) -> None:
    random = np.random.default_rng(seed)
    rows, columns = (height + 1) // 2, (width + 1) // 2
    luma = random.integers(0, 256, (height, width + pad), dtype=np.uint8)
    blue, red = random.integers(0, 256, (2, rows, columns + pad), dtype=np.uint8)
    out = np.empty((height, width, 3), np.uint8)
    to_rgb(luma, blue, red, to_rgb_coefficients(matrix, full), out)
    wanted = exact(luma[:, :width], blue[:, :columns], red[:, :columns], matrix, full)
    assert np.abs(out - wanted).max() < 0.52  # rounding, and coefficients of 16 bits


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 90)])
def test_a_plain_colour_is_coded_as_the_standard_says(colour: tuple[int, int, int]) -> None:
    pixels = np.broadcast_to(np.array(colour, np.uint8), (4, 6, 3)).copy()
    luma, blue, red = np.empty((4, 6), np.uint8), np.empty((2, 3), np.uint8), np.empty((2, 3), np.uint8)
    from_rgb(pixels, from_rgb_coefficients(), luma, blue, red)
    r, g, b = (value / 255 for value in colour)
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    for plane, value in (
        (luma, 16 + 219 * y),
        (blue, 128 + 224 * (b - y) / 1.8556),
        (red, 128 + 224 * (r - y) / 1.5748),
    ):
        assert np.abs(plane - value).max() <= 0.51


def test_smooth_pictures_come_back() -> None:
    """There and back: chroma is halved, so only slow changes of colour survive; those within a level."""
    y, x = np.mgrid[0:32, 0:48]
    pixels = np.stack([60 + 3 * x, 200 - 3 * y, 90 + x + y], -1).astype(np.uint8)
    planes = np.empty((32, 48), np.uint8), np.empty((16, 24), np.uint8), np.empty((16, 24), np.uint8)
    from_rgb(pixels, from_rgb_coefficients(), *planes)
    back = np.empty_like(pixels)
    to_rgb(*planes, to_rgb_coefficients(1, False), back)
    inner = np.s_[2:-2, 2:-2]
    assert np.abs(back[inner].astype(int) - pixels[inner]).max() <= 3
