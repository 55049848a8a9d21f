"""Colour and fine relief of skin, eyes, hair and cloth: painted in the neutral face, so it moves with it."""

from __future__ import annotations

import math
from typing import Any

from countervid.phantom.compile import kernel
from countervid.phantom.hair import beard_cover, strands
from countervid.phantom.primitives import bump, cells2, clamp01, mix, noise2, noise3, smoothstep
from countervid.phantom.surfaces import lid_gap, lips


@kernel
def brow_cover(ax: float, y: float, body: Any) -> float:
    """Where the eyebrow grows: 0..1 in the neutral face."""
    u = (ax - 0.105) / 0.40
    if u < -0.1 or u > 1.1:
        return 0.0
    arch = body.brow_y + body.brow_arch * (1.0 - (u - 0.62) * (u - 0.62) / 0.38) - 0.075 * smoothstep(0.6, 1.1, u)
    thick = body.brow_h * (1.0 - 0.62 * u * u) * smoothstep(-0.10, 0.22, u) * smoothstep(1.12, 0.7, u)
    return smoothstep(1.15, 0.55, abs(y - arch) / (thick + 1e-6)) * smoothstep(0.0, 0.01, thick)


@kernel
def fold(ax: float, y: float, body: Any, smile: float) -> float:
    """The nasolabial fold: a crease from the nose's wing past the mouth's corner, 0..1."""
    t = (body.nose_y + 0.01 - y) / (body.nose_y - body.mouth_y + 0.16)
    if t < 0.0 or t > 1.0:
        return 0.0
    line = body.wing_x + 0.075 + (body.mouth_w * 1.12 - body.wing_x) * t * (1.15 - 0.35 * t)
    return bump((ax - line) / 0.05) * smoothstep(0.0, 0.18, t) * smoothstep(1.0, 0.6, t)


@kernel
def relief(x: float, y: float, z: float, body: Any, pose: Any, pixel: float) -> float:
    """Height of wrinkles, brows and pores above the neutral skin."""
    ax = abs(x)
    if z < 0.0:
        return 0.0
    h = 0.010 * brow_cover(ax, y, body)
    w = body.wrinkle
    crease = fold(ax, y, body, pose.smile)
    h -= (0.020 * w + 0.012 * pose.smile) * crease
    if w > 0.0:
        if y > 0.30 and y < 0.62:
            line = math.sin((y + 0.02 * noise2(ax * 5.0, y * 2.0, body.seed) + 0.05 * x * x) * 66.0)
            h -= 0.0075 * w * max(0.0, line) * bump((y - 0.45) / 0.16) * smoothstep(0.55, 0.3, ax)
        # Crow's feet fan out from the outer corner.
        px, py = ax - body.eye_x - body.eye_a - 0.0, y - body.eye_y
        rho = math.sqrt(px * px + py * py)
        if rho < 0.24 and px > 0.0:
            h -= 0.008 * w * max(0.0, math.sin(11.0 * math.atan2(py, px + 0.02))) * bump((rho - 0.11) / 0.11)
        # Bags under the eyes, and lines from the mouth's corners to the jaw.
        u = (ax - body.eye_x) / body.eye_a
        edge = body.eye_y - 0.125 - 0.02 * w + 0.05 * u * u
        h += 0.014 * w * bump((y - edge) / 0.06) * bump(u / 1.15)
        h -= 0.012 * w * bump((y - edge + 0.055) / 0.03) * bump(u / 1.2)
        low = body.mouth_y - y
        h -= 0.010 * w * bump((ax - body.mouth_w - 0.03 - 0.12 * low) / 0.04) * bump((low - 0.14) / 0.14)
        h -= 0.006 * w * bump((ax - 0.05) / 0.022) * bump((y - 0.22) / 0.10)  # between the brows
    keep = smoothstep(0.012, 0.003, pixel)
    if keep > 0.0:
        h += 0.0005 * (1.0 + body.age) * keep * noise3(x * 42.0, y * 42.0, z * 42.0, body.seed)
    return float(h)


@kernel
def skin_colour(
    x: float, y: float, z: float, qx: float, qy: float, body: Any, pose: Any, pixel: float
) -> tuple[float, float, float, float, float]:
    """Albedo of the skin, how glossy it is, and how much of it is lip.

    Args:
        x, y, z: Point in the neutral face; qx, qy: the same where it is, for the lids.
        pixel: Size of a pixel at the point; detail finer than it fades.
    """
    ax = abs(x)
    r, g, b = body.skin_r, body.skin_g, body.skin_b
    front = smoothstep(-0.1, 0.3, z)
    # Blood under cheeks, nose, ears, chin; a cooler jaw and temple.
    flush = 0.8 * bump(math.sqrt((ax - 0.38) * (ax - 0.38) + (y + 0.25) * (y + 0.25)) / 0.33) * front
    flush += 0.65 * bump(math.sqrt(ax * ax + (y - body.nose_y) * (y - body.nose_y)) / 0.24) * smoothstep(0.5, 0.8, z)
    flush += 0.35 * bump((y - body.chin_y) / 0.2) * bump(ax / 0.25) * front
    flush += 0.7 * smoothstep(body.cranium_x - 0.02, body.cranium_x + 0.12, ax) * bump((y + 0.07) / 0.4)
    flush *= 0.55
    r, g, b = r * (1.0 + 0.10 * flush), g * (1.0 - 0.20 * flush), b * (1.0 - 0.17 * flush)
    tone = 1.0 + 0.035 * noise3(x * 3.5, y * 3.5, z * 3.5, body.seed + 41)
    r, g, b = r * tone, g * tone, b * tone
    gloss = 0.30 + 0.20 * bump(ax / 0.25) * front
    # Around the eyes: darker lids, thin skin below.
    u = (ax - body.eye_x) / body.eye_a
    lid = bump(u / 1.35) * bump((y - body.eye_y - 0.01) / 0.22) * front
    dark = lid * (0.14 + 0.12 * body.age)
    r, g, b = r * (1.0 - 0.75 * dark), g * (1.0 - dark), b * (1.0 - 0.9 * dark)
    # Wrinkles are darker at the bottom.
    crease = fold(ax, y, body, pose.smile) * (0.16 * body.wrinkle + 0.08 * pose.smile) * front
    r, g, b = r * (1.0 - 0.8 * crease), g * (1.0 - crease), b * (1.0 - crease)
    if body.wrinkle > 0.0 and y > 0.30 and y < 0.62 and z > 0.0:
        line = math.sin((y + 0.02 * noise2(ax * 5.0, y * 2.0, body.seed) + 0.05 * x * x) * 66.0)
        ink = 0.15 * body.wrinkle * max(0.0, line) * bump((y - 0.45) / 0.16) * smoothstep(0.55, 0.3, ax)
        r, g, b = r * (1.0 - 0.7 * ink), g * (1.0 - ink), b * (1.0 - ink)
    if body.freckles > 0.05 and z > 0.2 and y < 0.25:
        d, pick = cells2(x * 21.0, y * 21.0, body.seed + 61)
        where = bump(math.sqrt(ax * ax * 1.7 + (y + 0.16) * (y + 0.16) * 6.0) / 0.85)
        ink = smoothstep(0.34, 0.12, d) * where * body.freckles * (0.5 * pick) * smoothstep(0.035, 0.012, pixel)
        r, g, b = r * (1.0 - 0.55 * ink), g * (1.0 - 0.95 * ink), b * (1.0 - ink)
    if body.age > 0.35:
        d, pick = cells2(x * 5.5 + 3.0 * z, y * 5.5, body.seed + 71)
        ink = smoothstep(0.30, 0.15, d) * smoothstep(0.55, 0.9, pick) * 0.30 * (body.age - 0.35)
        r, g, b = r * (1.0 - 0.7 * ink), g * (1.0 - ink), b * (1.0 - 1.1 * ink)
    # Lips.
    amount = 0.0
    if z > 0.3:
        amount, _height = lips(ax, y, body)
        if amount > 0.0:
            soft = amount * (0.62 + 0.38 * body.lipstick)
            seam = 1.0 - 0.45 * bump((y - body.mouth_y) / 0.016) * amount
            r, g, b = mix(r, body.lips_r, soft), mix(g, body.lips_g, soft), mix(b, body.lips_b, soft)
            r, g, b = r * seam, g * seam, b * seam
            gloss = mix(gloss, 0.55 + 0.75 * body.lipstick, amount)
        line = bump((y - body.mouth_y) / 0.014) * bump(ax / (body.mouth_w * 1.12)) * 0.5
        r, g, b = r * (1.0 - line), g * (1.0 - line), b * (1.0 - line)
        # Nostrils are dark inside.
        hole = bump((ax - body.wing_x * 0.56) / 0.035) * bump((y - body.nose_y + 0.105) / 0.035) * 0.75
        r, g, b = r * (1.0 - 0.85 * hole), g * (1.0 - hole), b * (1.0 - hole)
    # Brows: strands that lie outwards.
    brow = brow_cover(ax, y, body) * smoothstep(0.1, 0.3, z)
    if brow > 0.0:
        strand = noise2((ax * 0.75 + y) * 70.0, (y - ax * 0.4) * 9.0, body.seed + 3) * smoothstep(0.02, 0.006, pixel)
        cover = clamp01(brow * (1.05 + 0.45 * strand))
        r, g, b = mix(r, body.brow_r, cover), mix(g, body.brow_g, cover), mix(b, body.brow_b, cover)
        gloss *= 1.0 - 0.6 * cover
    # Scalp: hair roots blend into the hairline; a shaved shadow where hair would grow.
    if body.bald < 0.5:
        edge = y + 0.55 * max(0.0, 0.35 - z) - 0.05 + 0.02 * noise2(x * 14.0, y * 5.0, body.seed)
        edge = 0.8 * smoothstep(body.hairline - 0.04, body.hairline + 0.06, edge) * smoothstep(-0.25, -0.02, y)
        r, g, b = mix(r, body.hair_r * 0.8, edge), mix(g, body.hair_g * 0.8, edge), mix(b, body.hair_b * 0.8, edge)
    if body.beard > 0.5:
        cover = 0.85 * beard_cover(ax, y, z, body)
        r, g, b = mix(r, body.hair_r * 0.7, cover), mix(g, body.hair_g * 0.7, cover), mix(b, body.hair_b * 0.7, cover)
    # Lashes: the rim of the upper lid; a thinner line below; the crease of the lid.
    if z > 0.3 and abs(u) < 1.3:
        _gap, up, low = lid_gap(abs(qx), qy, body, pose)
        inside = smoothstep(1.22, 0.95, abs(u))
        lash = bump((qy - up - 0.012) / 0.030) * inside * 0.92
        lash = max(lash, bump((qy - low + 0.004) / 0.018) * inside * 0.32)
        s = max(0.0, 1.0 - 0.75 * u * u)
        crease_y = body.eye_y + body.eye_tilt * (abs(qx) - body.eye_x) + body.eye_up * s + 0.052
        lash = max(lash, bump((qy - crease_y) / 0.018) * smoothstep(1.15, 0.7, abs(u)) * 0.30)
        r, g, b = mix(r, 0.020, lash), mix(g, 0.013, lash), mix(b, 0.012, lash)
        gloss *= 1.0 - 0.8 * lash
    return r, g, b, gloss, amount


@kernel
def eye_colour(x: float, y: float, z: float, body: Any, pose: Any) -> tuple[float, float, float, float]:
    """Albedo of the eyeball at a point of head space, and how much iris is there (0..1)."""
    side = 1.0 if x >= 0.0 else -1.0
    nx, ny, nz = (x - side * body.eye_x) / body.eye_r, (y - body.eye_y) / body.eye_r, (z - body.eye_z) / body.eye_r
    gx = pose.gaze_x - side * 0.035  # the eyes converge a little: they look at the camera
    gy = pose.gaze_y
    cx, sx, cy, sy = math.cos(gx), math.sin(gx), math.cos(gy), math.sin(gy)
    ix = cx * nx - sx * nz  # in the iris's plane
    iz = sx * nx + cx * nz
    iy = cy * ny - sy * iz
    iz = sy * ny + cy * iz
    rho = math.sqrt(ix * ix + iy * iy)
    if iz < 0.0:
        rho = 1.5
    red = smoothstep(0.45, 1.0, rho)
    r, g, b = 0.80 - 0.05 * red, 0.78 - 0.20 * red, 0.76 - 0.22 * red
    iris = smoothstep(0.545, 0.505, rho)
    if iris > 0.0:
        angle = math.atan2(iy, ix)
        ray = 1.0 + 0.22 * noise2(angle * 7.0, rho * 5.0, body.seed) * smoothstep(0.15, 0.3, rho)
        bowl = 0.75 + 0.85 * smoothstep(0.35, -0.5, iy)  # light gathers opposite to where it enters
        limbus = 1.0 - 0.72 * smoothstep(0.36, 0.53, rho)
        inner = 1.0 + 0.35 * bump((rho - 0.26) / 0.12)
        k = ray * bowl * limbus * inner
        r, g, b = mix(r, body.iris_r * k, iris), mix(g, body.iris_g * k, iris), mix(b, body.iris_b * k, iris)
        pupil = smoothstep(0.245, 0.205, rho)
        r, g, b = mix(r, 0.006, pupil), mix(g, 0.006, pupil), mix(b, 0.007, pupil)
    _gap, up, _low = lid_gap(abs(x), y, body, pose)
    shade = 0.42 + 0.58 * smoothstep(-0.01, 0.075, up - y)  # the lid's shadow
    return r * shade, g * shade, b * shade, iris


@kernel
def hair_colour(x: float, y: float, z: float, body: Any, pixel: float) -> tuple[float, float, float, float]:
    """Albedo of scalp hair and the shift of its highlight, by strand."""
    u, v = strands(x, y, z, body)
    wave = body.curl * 0.11 * math.sin(5.0 * v + 3.0 * noise2(u * 2.5, v * 0.7, body.seed))
    a = u + wave + 0.05 * noise2(u * 3.0, v * 1.5, body.seed + 5)
    coarse = noise2(a * 15.0, v * 1.2, body.seed + 7)
    fine = noise2(a * 60.0, v * 1.6, body.seed + 9) * smoothstep(0.017, 0.006, pixel)
    k = 1.0 + 0.20 * coarse + 0.20 * fine
    root = 0.80 + 0.20 * smoothstep(0.0, 0.5, v + 0.5)
    k *= 0.88 * root
    return body.hair_r * k, body.hair_g * k, body.hair_b * k, 0.10 * coarse + 0.10 * fine


@kernel
def beard_colour(x: float, y: float, z: float, body: Any, pixel: float) -> tuple[float, float, float, float]:
    """Albedo of beard and moustache (neutral face) and the shift of its highlight."""
    a = math.atan2(x, z + 0.1)
    fine = noise2(a * 55.0, y * 7.0, body.seed + 19) * smoothstep(0.02, 0.007, pixel)
    coarse = noise2(a * 14.0, y * 4.0, body.seed + 27)
    k = 0.85 + 0.18 * coarse + 0.25 * fine
    return body.hair_r * k, body.hair_g * k, body.hair_b * k, 0.12 * fine


@kernel
def cloth_colour(x: float, y: float, z: float, edge: float, body: Any, pixel: float) -> tuple[float, float, float]:
    """Albedo of the clothes; `edge` is the distance from the neckline."""
    k = 1.0 + 0.03 * noise2(x * 9.0, y * 9.0, body.seed)
    if body.seed % 3 == 0 and body.clothes != 2:  # stripes
        k *= 1.0 - 0.28 * smoothstep(-0.2, 0.2, math.sin(y * 17.0)) * smoothstep(0.08, 0.12, edge)
    if body.clothes == 0 or body.clothes == 1:
        k *= 1.0 - 0.18 * smoothstep(0.105, 0.09, edge)
    rib = math.sin((math.atan2(x, z + 0.2)) * 60.0) * smoothstep(0.02, 0.008, pixel)
    k *= 1.0 + 0.05 * rib * smoothstep(0.105, 0.09, edge)
    return body.cloth_r * k, body.cloth_g * k, body.cloth_b * k
