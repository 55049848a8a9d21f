"""Decoded frames as RGB: matrix, range and transparency."""

from __future__ import annotations

from typing import Any

import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation

# The matrix between YCbCr and RGB (ITU-T H.273, MatrixCoefficients) -> swscale's name for it.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
# Exact rounding, chroma interpolated at full resolution, the same bytes on every machine.
SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT


def to_rgb(frame: Any) -> np.ndarray:
    """A decoded frame of any pixel format as `(H, W, 3)` RGB uint8; transparency is laid over black."""
    matrix = _MATRICES.get(int(frame.colorspace))
    if matrix is None:  # untagged: what players assume
        matrix = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
    full = int(frame.color_range) == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    transparent = frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
    rgb = frame.reformat(
        format="rgba" if transparent else "rgb24",
        src_colorspace=matrix,
        src_color_range=ColorRange.JPEG if full or frame.format.is_rgb else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=SCALING,
    ).to_ndarray()
    return over_black(rgb) if transparent else rgb


def over_black(rgba: np.ndarray) -> np.ndarray:
    """`(H, W, 4)` uint8 with straight alpha, laid over black: `(H, W, 3)` uint8. Opaque pixels keep their values."""
    alpha = rgba[..., 3:].astype(np.uint16)
    blended: np.ndarray = ((rgba[..., :3] * alpha + 127) // 255).astype(np.uint8)
    return blended
