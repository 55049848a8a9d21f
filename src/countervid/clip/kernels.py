"""Loops over pixels that no library offers, compiled by numba: colour conversion, and edits put into coded samples."""

from __future__ import annotations

from typing import Any, TypeVar

from numba import njit

F = TypeVar("F")


def _compiled(function: F) -> Any:
    """Compiled on first use and kept on disk where that can be written. Free of the GIL; no fast math: same bytes."""
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # no place for the cache
        return njit(nogil=True, error_model="numpy")(function)


@_compiled
def _shade(table: Any, light: Any, most: Any) -> Any:
    """`table` at the square root of `light` / `most`, interpolated. The table has `SHADES` + 1 entries over 0..1."""
    steps = table.shape[0] - 1
    at = min(max(light / most, 0.0), 1.0) ** 0.5 * steps
    index = min(int(at), steps - 1)
    return table[index] + (table[index + 1] - table[index]) * (at - index)


@_compiled
def coded_to_rgb(planes: Any, c: Any, out: Any) -> None:
    """Fill `out` `(H, W, 3)` uint8 from `planes` `(3, H, W)` uint16: coded samples of any transfer and primaries.

    Args:
        planes: Luma and chroma, or red, green and blue, at full resolution, 16 bits.
        c: `Tables` of `colour.py`.
    """
    last = c.light.shape[0] - 1
    shades = c.levels.shape[0] - 1
    for j in range(out.shape[0]):
        for i in range(out.shape[1]):
            u, v, w = planes[0, j, i], planes[1, j, i], planes[2, j, i]
            r = c.decode[0, 0] * u + c.decode[0, 1] * v + c.decode[0, 2] * w + c.decode[0, 3]
            g = c.decode[1, 0] * u + c.decode[1, 1] * v + c.decode[1, 2] * w + c.decode[1, 3]
            b = c.decode[2, 0] * u + c.decode[2, 1] * v + c.decode[2, 2] * w + c.decode[2, 3]
            if c.constant:  # g is luma, r and b are halves of the differences (BT.2020, table 4)
                r = g + r * (1.7184 if r <= 0 else 0.9936)
                b = g + b * (1.9404 if b <= 0 else 1.5816)
            r = c.light[int(min(max(r, 0.0), 1.0) * last + 0.5)]
            g = c.light[int(min(max(g, 0.0), 1.0) * last + 0.5)]
            b = c.light[int(min(max(b, 0.0), 1.0) * last + 0.5)]
            if c.constant:
                g = (g - 0.2627 * r - 0.0593 * b) / 0.6780
            if c.mixed:
                r, g, b = (
                    c.unmix[0, 0] * r + c.unmix[0, 1] * g + c.unmix[0, 2] * b,
                    c.unmix[1, 0] * r + c.unmix[1, 1] * g + c.unmix[1, 2] * b,
                    c.unmix[2, 0] * r + c.unmix[2, 1] * g + c.unmix[2, 2] * b,
                )
            if c.scene:
                gain = _shade(c.system, c.luma[0] * r + c.luma[1] * g + c.luma[2] * b, 1.0)
                r, g, b = r * gain, g * gain, b * gain
            if c.brightest > 1.0:
                gain = _shade(c.shoulder, max(r, g, b), c.brightest)
                r, g, b = r * gain, g * gain, b * gain
            r, g, b = (
                c.gamut[0, 0] * r + c.gamut[0, 1] * g + c.gamut[0, 2] * b,
                c.gamut[1, 0] * r + c.gamut[1, 1] * g + c.gamut[1, 2] * b,
                c.gamut[2, 0] * r + c.gamut[2, 1] * g + c.gamut[2, 2] * b,
            )
            low, high = min(r, g, b), max(r, g, b)
            if low < 0.0 or high > 1.0:  # outside: towards grey of the same luminance, so that hue stays
                grey = min(max(0.2126 * r + 0.7152 * g + 0.0722 * b, 0.0), 1.0)
                keep = 1.0
                if low < 0.0:
                    keep = grey / (grey - low)
                if high > 1.0 and high > grey:
                    keep = min(keep, (1.0 - grey) / (high - grey))
                r, g, b = grey + keep * (r - grey), grey + keep * (g - grey), grey + keep * (b - grey)
            out[j, i, 0] = c.levels[int(min(max(r, 0.0), 1.0) ** 0.5 * shades + 0.5)]
            out[j, i, 1] = c.levels[int(min(max(g, 0.0), 1.0) ** 0.5 * shades + 0.5)]
            out[j, i, 2] = c.levels[int(min(max(b, 0.0), 1.0) ** 0.5 * shades + 0.5)]


@_compiled
def _encoded(c: Any, r: Any, g: Any, b: Any) -> Any:
    return (
        c.encode[0, 0] * r + c.encode[0, 1] * g + c.encode[0, 2] * b,
        c.encode[1, 0] * r + c.encode[1, 1] * g + c.encode[1, 2] * b,
        c.encode[2, 0] * r + c.encode[2, 1] * g + c.encode[2, 2] * b,
    )


@_compiled
def _coded(c: Any, r: Any, g: Any, b: Any) -> Any:
    """RGB levels 0..255 -> the file's luma and chroma, 0..1 and -0.5..0.5. The way back of `coded_to_rgb`."""
    if c.plain:
        return _encoded(c, r / 255.0, g / 255.0, b / 255.0)
    r, g, b = float(c.unlevel[r]), float(c.unlevel[g]), float(c.unlevel[b])
    r, g, b = (
        c.ungamut[0, 0] * r + c.ungamut[0, 1] * g + c.ungamut[0, 2] * b,
        c.ungamut[1, 0] * r + c.ungamut[1, 1] * g + c.ungamut[1, 2] * b,
        c.ungamut[2, 0] * r + c.ungamut[2, 1] * g + c.ungamut[2, 2] * b,
    )
    if c.brightest > 1.0:
        gain = _shade(c.unshoulder, max(r, g, b), 1.0)
        r, g, b = r * gain, g * gain, b * gain
    if c.scene:
        gain = _shade(c.unsystem, c.luma[0] * r + c.luma[1] * g + c.luma[2] * b, c.brightest)
        r, g, b = r * gain, g * gain, b * gain
    most = 1.0 if c.scene else c.brightest
    return _encoded(c, _shade(c.unlight, r, most), _shade(c.unlight, g, most), _shade(c.unlight, b, most))


@_compiled
def put_edit(seen: Any, edited: Any, c: Any, luma: Any, blue: Any, red: Any, most: Any, scales: Any) -> int:
    """Add to coded samples, in place, what an edit changed; samples of which no pixel changed are not touched.

    Args:
        seen: The frame as it was read, `(H, W, 3)` uint8, as stored (not turned).
        edited: The same frame edited.
        c: `Tables` of `colour.py`.
        luma: `(H, W)` uint8 or uint16 samples.
        blue, red: Chroma samples, of which each stands for a block of pixels.
        most: The greatest sample.
        scales: Samples that 1 of luma and 1 of chroma are.

    Returns:
        How many pixels changed.
    """
    down, across = luma.shape[0] // blue.shape[0], luma.shape[1] // blue.shape[1]
    changed = 0
    for y in range(blue.shape[0]):
        for x in range(blue.shape[1]):
            du, dv, any_changed = 0.0, 0.0, False
            for j in range(y * down, (y + 1) * down):
                for i in range(x * across, (x + 1) * across):
                    r, g, b = seen[j, i, 0], seen[j, i, 1], seen[j, i, 2]
                    r2, g2, b2 = edited[j, i, 0], edited[j, i, 1], edited[j, i, 2]
                    if r == r2 and g == g2 and b == b2:
                        continue
                    before, after = _coded(c, r, g, b), _coded(c, r2, g2, b2)
                    luma[j, i] = int(min(max(luma[j, i] + (after[0] - before[0]) * scales[0], 0.0), most) + 0.5)
                    du += after[1] - before[1]
                    dv += after[2] - before[2]
                    any_changed = True
                    changed += 1
            if any_changed:
                part = scales[1] / (down * across)
                blue[y, x] = int(min(max(blue[y, x] + du * part, 0.0), most) + 0.5)
                red[y, x] = int(min(max(red[y, x] + dv * part, 0.0), most) + 0.5)
    return changed
