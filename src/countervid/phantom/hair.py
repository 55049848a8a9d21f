"""Hair, beard and moustache: shells over the head, and the directions in which their strands run."""

from __future__ import annotations

import math
from typing import Any

from countervid.phantom.compile import kernel
from countervid.phantom.primitives import (
    bump,
    capsule,
    ellipsoid,
    noise2,
    smooth_max,
    smooth_min,
    smoothstep,
    sphere,
)

CROPPED, PARTED, SWEPT, BOB, LONG, CURLS, BUN = range(7)


@kernel
def strands(x: float, y: float, z: float, body: Any) -> tuple[float, float]:
    """Coordinates of the hair: across the strands (about head units) and along them, from the root."""
    style = body.hair_style
    if style == CROPPED or style == SWEPT or style == BUN:
        # From the forehead over the crown: across is the angle about the z axis, along is depth.
        up = y + 0.15
        across = math.atan2(x, up + 0.55 * max(0.0, 0.9 - up) + 0.1)
        return across * 0.95, -z + 0.35 * abs(across)
    # From a parting line on top, down all around.
    px = x - 0.27 * body.part
    if style == BOB or style == LONG or style == CURLS:
        px = x - 0.10 * body.part
    if style == PARTED:
        # Sideways from the parting: across is depth, along is the way over the top.
        sweep = z + 0.35 * abs(px) + 0.12 * y
        return sweep, abs(px) - y
    around = math.atan2(px, z + 0.25)
    return around * 0.8, -y + 0.2 * math.cos(around)


@kernel
def locks(x: float, y: float, z: float, body: Any) -> float:
    """Relief of the locks, about -1..1: ridges along the strands that bend with the curl."""
    u, v = strands(x, y, z, body)
    wave = body.curl * 0.11 * math.sin(5.0 * v + 3.0 * noise2(u * 2.5, v * 0.7, body.seed))
    a = u + wave + 0.05 * noise2(u * 3.0, v * 1.5, body.seed + 5)
    ridge = math.sin(a * 21.0 + 1.7 * noise2(a * 4.0, v * 0.8, body.seed + 11))
    fine = math.sin(a * 47.0 + 2.0 * noise2(a * 8.0, v * 1.0, body.seed + 17))
    return 0.72 * ridge + 0.28 * fine


@kernel
def ringlets(x: float, y: float, z: float, body: Any) -> float:
    """Relief of curly hair, about -1..1: a bent lattice of round tufts, with a finer one on it."""
    k = 17.0 - 4.0 * body.curl
    wx, wy, wz = 0.6 * math.sin(3.1 * y + body.seed), 0.6 * math.sin(2.7 * z + 1.0), 0.6 * math.sin(3.3 * x + 2.0)
    a, b, c = k * x + wx + wy, k * y + wz + wx, k * z + wy + wz
    tuft = math.sin(a) * math.cos(b) + math.sin(b) * math.cos(c) + math.sin(c) * math.cos(a)
    a, b, c = 2.3 * a + 1.0, 2.3 * b + 2.0, 2.3 * c + 0.5
    fine = math.sin(a) * math.cos(b) + math.sin(b) * math.cos(c) + math.sin(c) * math.cos(a)
    return 0.75 * tuft + 0.22 * fine


@kernel
def scalp_hair(x: float, y: float, z: float, body: Any) -> float:
    """Distance to the hair of the head (no hat)."""
    style = body.hair_style
    ax = abs(x)
    vol = body.volume
    cy = body.cranium_cy
    side, top, back = 0.05, 0.08, 0.06
    if style == CROPPED:
        side, top, back = 0.035 + 0.03 * vol, 0.07 + 0.10 * vol, 0.05 + 0.03 * vol
    elif style == PARTED:
        side, top, back = 0.06 + 0.05 * vol, 0.12 + 0.09 * vol, 0.08 + 0.05 * vol
    elif style == SWEPT:
        side, top, back = 0.05 + 0.05 * vol, 0.14 + 0.12 * vol, 0.13 + 0.06 * vol
    elif style == BOB or style == LONG:
        side, top, back = 0.11 + 0.08 * vol, 0.10 + 0.08 * vol, 0.13 + 0.06 * vol
    elif style == CURLS:
        side, top, back = 0.15 + 0.13 * vol, 0.18 + 0.13 * vol, 0.17 + 0.13 * vol
    rx, ry, rz = body.cranium_x + side, body.cranium_y + top, body.cranium_z + back
    d = ellipsoid(x, y - cy, z + 0.10, rx, ry, rz)
    if d > 0.8 and style != LONG and style != BOB:
        return d - 0.1 if style != BUN else min(d - 0.1, sphere(x, y - 0.98, z + 0.62, 0.40) - 0.05)
    if style == CROPPED:
        d = smooth_min(d, ellipsoid(x, y - 0.78, z - 0.33, 0.50, 0.20 + 0.08 * vol, 0.36), 0.2)
    elif style == PARTED:
        s = -body.part
        tilt = 0.25 * s * (x - 0.1 * s)
        d = smooth_min(d, ellipsoid(x - 0.16 * s, y - 0.74 + tilt, z - 0.40, 0.50, 0.21 + 0.09 * vol, 0.34), 0.16)
        d += 0.03 * bump((x + 0.27 * s) / 0.05) * smoothstep(-0.4, 0.1, z) * smoothstep(0.5, 0.7, y)
    elif style == SWEPT:
        d = smooth_min(d, ellipsoid(x, y - 0.80, z - 0.22, 0.53, 0.26 + 0.14 * vol, 0.52), 0.2)
    elif style == BOB:
        low = -0.40 - 0.35 * body.hair_length
        body_d = ellipsoid(x, y - low * 0.35, z + 0.14, 0.86 + 0.12 * vol, 0.72 - low * 0.75, 0.86)
        d = smooth_max(smooth_min(d, body_d, 0.15), low - y + 0.10 * smoothstep(0.0, 0.7, -z), 0.12)
    elif style == LONG:
        low = -1.05 - 0.60 * body.hair_length
        r = 0.80 + 0.12 * vol
        curtain = ellipsoid(x, y - low * 0.42, z + 0.22, r, 0.55 - low * 0.72, 0.72)
        d = smooth_max(smooth_min(d, curtain, 0.2), low - y, 0.2)
    elif style == CURLS:
        low = -0.15 - 0.6 * body.hair_length
        if body.hair_length > 0.3:
            body_d = ellipsoid(x, y - low * 0.3, z + 0.16, 0.88 + 0.16 * vol, 0.6 - low * 0.7, 0.84)
            d = smooth_max(smooth_min(d, body_d, 0.15), low - y, 0.15)
    # The face looks out of a hollow whose upper rim is the hairline.
    rim = body.hairline
    if style == BUN or style == SWEPT:
        rim += 0.03
    cut_x = 0.645 if style == BOB or style == LONG else 0.69
    cy_cut = -0.34
    wobble = 0.012 * math.sin(23.0 * x + body.seed)
    cut_x *= 0.35 + 0.65 * body.cranium_x / 0.765
    cut = ellipsoid(x, y - cy_cut, z - 0.80, cut_x, rim - cy_cut + wobble + 0.02, 0.80)
    if style == BOB and body.hair_length < 0.5:  # a fringe
        fringe = ellipsoid(x, y - 0.50, z - 0.52, 0.60, 0.24, 0.30)
        cut = smooth_max(cut, -fringe, 0.1)
    d = smooth_max(d, -cut, 0.10)
    if y < 0.0 and (style == BOB or style == LONG):  # open in front of the throat
        d = smooth_max(d, -capsule(x, y, z, 0.0, -0.46, 0.56, 0.0, -2.1, 0.42, 0.56, 0.56), 0.10)
    if style == PARTED:  # the lock that falls over the forehead
        s = -body.part
        lock = capsule(x, y, z, -0.22 * s, 0.74, 0.60, 0.40 * s, 0.66, 0.50, 0.09, 0.11)
        d = smooth_min(d, lock, 0.22)
    if style != BOB and style != LONG and (style != CURLS or body.hair_length <= 0.3):
        nape = -0.14 + 0.55 * min(z, 0.14) if z < 0.14 else -0.063 - 0.2 * (z - 0.14)
        d = smooth_max(d, (nape - y) * 0.85, 0.08)
        hollow = ellipsoid(ax - body.cranium_x, y + 0.07, z + 0.02, 0.22, body.ear_r * 1.05, body.ear_r * 0.72)
        d = smooth_max(d, -hollow, 0.05)
    if style == BUN:
        ball = ellipsoid(x, y - 0.98, z + 0.62, 0.33 + 0.06 * vol, 0.30 + 0.06 * vol, 0.33 + 0.06 * vol)
        d = smooth_min(d, ball, 0.05)
    if d > 0.09:  # no lock reaches this far
        return d - 0.05
    if d > -0.12:
        if style == CURLS:
            d -= 0.045 * ringlets(x, y, z, body)
        else:
            amplitude = 0.014 + 0.012 * vol + 0.008 * body.curl
            if style == CROPPED or style == BUN:
                amplitude = 0.010
            d -= amplitude * locks(x, y, z, body)
    return float(d)


@kernel
def beard_cover(ax: float, y: float, z: float, body: Any) -> float:
    """Where the beard grows on the neutral face: 0..1."""
    line = body.mouth_y - 0.13 + 1.35 * ax * ax
    s = smoothstep(-0.03, 0.12, line - y) * smoothstep(-0.20, -0.05, z)
    below = y - body.mouth_y
    chin = smoothstep(0.02, 0.10, math.sqrt(ax * ax / 0.09 + below * below / 0.012) * 0.11 - 0.05)
    return s * chin * smoothstep(-1.18, -1.02, y + 0.15 * (0.4 - z)) * smoothstep(0.05, -0.12, y)


@kernel
def beard(x: float, y: float, z: float, base: float, body: Any) -> float:
    """Distance to the beard over a head whose distance is `base`, in the neutral face."""
    ax = abs(x)
    if base > 0.6 or y > 0.1:
        return base - 0.2 if base > 0.6 else max(base, y)
    cover = beard_cover(ax, y, z, body)
    long = body.beard_length
    lower = smoothstep(body.mouth_y, body.chin_y, y)
    thick = (0.035 + 0.05 * long) * (1.0 + 1.1 * long * lower)
    d = base + 0.05 - (0.05 + thick) * cover
    d = max(d, y + 0.17 - 0.24 * smoothstep(0.50, 0.60, ax))  # not in the hollows of the eyes
    if long > 0.15:
        ty, tz = y - body.chin_y + 0.10 + 0.22 * long, z - body.chin_z
        tuft = ellipsoid(ax, ty, tz, 0.20 + 0.08 * long, 0.12 + 0.30 * long, 0.17 + 0.03 * long)
        d = smooth_min(d, tuft, 0.16)
    if d < 0.1:
        u, v = math.atan2(x, z + 0.1), y
        a = u + 0.06 * noise2(u * 6.0, v * 5.0, body.seed + 23)
        d -= (0.006 + 0.012 * long) * math.sin(a * 34.0 + 2.0 * noise2(a * 6.0, v * 4.0, body.seed + 29))
    return float(d)


@kernel
def moustache_cover(ax: float, y: float, body: Any) -> float:
    """Where the moustache grows on the neutral face: 0..1."""
    end = body.mouth_w + 0.07
    u = ax / end
    if u > 1.0:
        return 0.0
    top = body.mouth_y + body.lip_up
    middle = top + 0.048 - 0.085 * u * u - 0.03 * u * u * u * u
    half = 0.062 * (1.0 - 0.55 * u * u) * smoothstep(1.0, 0.75, u)
    return smoothstep(1.25, 0.55, abs(y - middle) / (half + 1e-6)) * (1.0 - 0.35 * bump(ax / 0.03))


@kernel
def moustache(x: float, y: float, z: float, base: float, body: Any) -> float:
    """Distance to the moustache over a head whose distance is `base`, in the neutral face."""
    ax = abs(x)
    cover = moustache_cover(ax, y, body)
    d = base + 0.05 - 0.125 * math.sqrt(cover)
    if d < 0.08:
        a = ax * 1.4 + 0.55 * (y - body.mouth_y)
        d -= 0.0035 * math.sin(a * 58.0 + 1.5 * noise2(x * 9.0, y * 9.0, body.seed + 37))
    return float(max(d * 0.8, y - body.nose_y + 0.06))  # not in the nostrils, nor in the hollows of the eyes
