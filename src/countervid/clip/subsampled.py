"""8-bit 4:2:0 to RGB and back, the coding of nearly every video: in integers, rounded, the same bytes everywhere.

FFmpeg's fast conversion is as quick, but darker by 1 to 1.4 of 255 on average; its exact one takes about ten times as
long. Chroma samples lie on every other pixel of a row and between two rows (ITU-T H.273, chroma location type 0).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numba import njit

from countervid.clip.light import LUMA

F = TypeVar("F")
_BITS = 16  # of the fraction of coefficients


def _compiled(function: F) -> Any:
    """Compiled for its one kind of arguments and kept on disk where that can be written; free of the GIL."""
    try:
        return njit(cache=True, nogil=True, boundscheck=False)(function)
    except RuntimeError:  # no place for the cache
        return njit(nogil=True, boundscheck=False)(function)


@lru_cache(maxsize=16)
def to_rgb_coefficients(matrix: int, full: bool) -> np.ndarray:
    """`(6,)` int32 for `to_rgb`: black, luma, red of Cr, green of Cb, green of Cr, blue of Cb; 1 is 2^16.

    Args:
        matrix: H.273's MatrixCoefficients; one of `light.LUMA`.
        full: Whether samples use all of 0..255.
    """
    red, blue = LUMA[matrix]
    green, luma, chroma = 1 - red - blue, 255 / (255 if full else 219), 255 / (255 if full else 224)
    of = [luma, 2 * (1 - red) * chroma / 8, -2 * (1 - blue) * blue / green * chroma / 8,
          -2 * (1 - red) * red / green * chroma / 8, 2 * (1 - blue) * chroma / 8]  # fmt: skip
    return np.array([0 if full else 16, *(round(value * (1 << _BITS)) for value in of)], np.int32)


@lru_cache(maxsize=1)
def from_rgb_coefficients() -> np.ndarray:
    """`(9,)` int32 for `from_rgb`: rows for Y, Cb and Cr of BT.709 in limited range; 1 is 2^16."""
    red, blue = LUMA[1]
    luma = np.array([red, 1 - red - blue, blue])
    rows = [luma * 219 / 255]
    for channel, weight in ((2, blue), (0, red)):
        rows.append((np.eye(3)[channel] - luma) / (2 * (1 - weight)) * 224 / 255)
    return np.round(np.concatenate(rows) * (1 << _BITS)).astype(np.int32)


@_compiled
def to_rgb(luma: Any, blue: Any, red: Any, c: Any, out: Any) -> None:
    """Fill `out` `(H, W, 3)` uint8; chroma is interpolated linearly.

    Args:
        luma: `(H, W)` uint8; lines may be longer than the picture is wide.
        blue, red: `(ceil(H / 2), ceil(W / 2))` uint8, likewise.
        c: `to_rgb_coefficients`.
    """
    height, width, _ = out.shape
    rows, columns = (height + 1) // 2, (width + 1) // 2
    zero, most, bits = np.int32(0), np.int32(255), np.int32(_BITS)
    half = np.int32(1 << (_BITS - 1))
    black, of_luma, cr_red, cb_green, cr_green, cb_blue = c[0], c[1], c[2], c[3], c[4], c[5]
    # A row at a time in arrays of one channel each: the compiler makes vector instructions of such loops.
    cb, cr = np.empty(columns + 1, np.int32), np.empty(columns + 1, np.int32)
    wide_cb, wide_cr = np.empty(2 * columns, np.int32), np.empty(2 * columns, np.int32)
    r, g, b = np.empty(width, np.uint8), np.empty(width, np.uint8), np.empty(width, np.uint8)
    for j in range(height):
        near = j // 2
        far = min(max(near - 1 + 2 * (j % 2), 0), rows - 1)
        for x in range(columns):  # 4 times the sample between two rows
            cb[x] = np.int32(3) * np.int32(blue[near, x]) + np.int32(blue[far, x]) - np.int32(512)
            cr[x] = np.int32(3) * np.int32(red[near, x]) + np.int32(red[far, x]) - np.int32(512)
        cb[columns], cr[columns] = cb[columns - 1], cr[columns - 1]
        for x in range(columns):
            wide_cb[2 * x], wide_cb[2 * x + 1] = cb[x] + cb[x], cb[x] + cb[x + 1]
            wide_cr[2 * x], wide_cr[2 * x + 1] = cr[x] + cr[x], cr[x] + cr[x + 1]
        row = luma[j]
        for i in range(width):
            y = (np.int32(row[i]) - black) * of_luma + half
            r[i] = np.uint8(min(max((y + wide_cr[i] * cr_red) >> bits, zero), most))
            g[i] = np.uint8(min(max((y + wide_cb[i] * cb_green + wide_cr[i] * cr_green) >> bits, zero), most))
            b[i] = np.uint8(min(max((y + wide_cb[i] * cb_blue) >> bits, zero), most))
        shown = out[j]
        for i in range(width):
            shown[i, 0], shown[i, 1], shown[i, 2] = r[i], g[i], b[i]


@_compiled
def from_rgb(pixels: Any, c: Any, luma: Any, blue: Any, red: Any) -> None:
    """Fill the planes of a picture with even sides from `pixels` `(H, W, 3)` uint8, BT.709 in limited range.

    A chroma sample is the mean of two rows, weighted 1, 2, 1 over the columns around it.

    Args:
        c: `from_rgb_coefficients`.
        luma: `(H, W)` uint8, to be filled; lines may be longer than the picture is wide.
        blue, red: `(H / 2, W / 2)` uint8, likewise.
    """
    height, width, _ = pixels.shape
    sums = np.empty((width + 1, 3), np.int32)  # of two rows; the column before the first is the first
    half = np.int32(1 << (_BITS - 1))
    for k in range(height // 2):
        for i in range(width):
            for row in range(2):
                j = 2 * k + row
                r, g, b = np.int32(pixels[j, i, 0]), np.int32(pixels[j, i, 1]), np.int32(pixels[j, i, 2])
                luma[j, i] = 16 + ((c[0] * r + c[1] * g + c[2] * b + half) >> _BITS)
            for channel in range(3):
                top, bottom = pixels[2 * k, i, channel], pixels[2 * k + 1, i, channel]
                sums[i + 1, channel] = np.int32(top) + np.int32(bottom)
        for channel in range(3):
            sums[0, channel] = sums[1, channel]
        for x in range(width // 2):
            i = 2 * x + 1
            r = sums[i - 1, 0] + 2 * sums[i, 0] + sums[i + 1, 0]
            g = sums[i - 1, 1] + 2 * sums[i, 1] + sums[i + 1, 1]
            b = sums[i - 1, 2] + 2 * sums[i, 2] + sums[i + 1, 2]
            blue[k, x] = 128 + ((c[3] * r + c[4] * g + c[5] * b + 4 * (1 << _BITS)) >> (_BITS + 3))
            red[k, x] = 128 + ((c[6] * r + c[7] * g + c[8] * b + 4 * (1 << _BITS)) >> (_BITS + 3))
