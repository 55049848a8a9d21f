"""Rooms and landscapes behind the person, already out of focus.

Every scene is a smooth function of the ray's direction in the world: it moves with the camera and knows nothing of the
person. Edges are ramps as wide as the depth of field asks, so nothing here needs supersampling.
"""

from __future__ import annotations

import math
from typing import Any

import numba

from countervid.phantom.camera import ray
from countervid.phantom.compile import kernel, parallel, sources
from countervid.phantom.primitives import film, hash01, mix, noise2, smoothstep

WALL, BOOKSHELF, WINDOW, OFFICE, PARK, STREET, HILLS, STUDIO = range(8)


@kernel
def slab(u: float, low: float, high: float, soft: float) -> float:
    """1 between `low` and `high`, falling off over `soft`."""
    return smoothstep(low - soft, low + soft, u) * (1.0 - smoothstep(high - soft, high + soft, u))


@kernel
def tint(seed: int, k: int, low: float, high: float) -> tuple[float, float, float]:
    """A random muted colour."""
    hue = hash01(seed, k, 1) * 6.2832
    rich = 0.10 + 0.30 * hash01(seed, k, 2)
    value = mix(low, high, hash01(seed, k, 3))
    return (
        value * (1.0 + rich * math.cos(hue)),
        value * (1.0 + rich * math.cos(hue - 2.094)),
        value * (1.0 + rich * math.cos(hue + 2.094)),
    )


@kernel
def over(r: float, g: float, b: float, r1: float, g1: float, b1: float, a: float) -> tuple[float, float, float]:
    """Second colour over the first with opacity `a`."""
    return mix(r, r1, a), mix(g, g1, a), mix(b, b1, a)


@kernel
def bokeh(u: float, v: float, scale: float, soft: float, seed: int, sparse: float) -> tuple[float, float]:
    """Out-of-focus lights or leaves: opacity of the discs over a point, and a random number of the topmost."""
    fu, fv = u * scale, v * scale
    i0, j0 = int(math.floor(fu)), int(math.floor(fv))
    opacity, pick = 0.0, 0.0
    for dj in range(-1, 2):
        for di in range(-1, 2):
            i, j = i0 + di, j0 + dj
            if hash01(i, j, seed + 1) < sparse:
                continue
            px = i + 0.2 + 0.6 * hash01(i, j, seed + 2) - fu
            py = j + 0.2 + 0.6 * hash01(i, j, seed + 3) - fv
            radius = 0.32 + 0.42 * hash01(i, j, seed + 4)
            a = 1.0 - smoothstep(radius - soft, radius + soft, math.sqrt(px * px + py * py))
            if a > 0.0:
                h = hash01(i, j, seed + 5)
                pick = mix(pick, h, a)
                opacity = max(opacity, a)
    return opacity, pick


@kernel
def _shelf(u: float, v: float, soft: float, seed: int) -> tuple[float, float, float]:
    warm = hash01(seed, 0, 0)
    wr, wg, wb = mix(0.20, 0.42, warm), mix(0.13, 0.29, warm), mix(0.09, 0.19, warm)
    height = 0.52
    row = math.floor(v / height + 0.3 + hash01(seed, 4, 4))
    low = (row - 0.3 - hash01(seed, 4, 4)) * height
    r, g, b = 0.3 * wr, 0.3 * wg, 0.3 * wb
    width = 0.125
    first = int(math.floor(u / width))
    for k in range(first - 1, first + 2):
        if hash01(k, int(row), seed) < 0.14:
            continue
        left = width * (k + 0.06)
        right = width * (k + 0.94 + 0.2 * (hash01(k, int(row), seed + 1) - 0.5))
        top = low + height * (0.55 + 0.32 * hash01(k, int(row), seed + 2))
        cr, cg, cb = tint(seed + 17 * int(row), k, 0.10, 0.50)
        a = slab(u, left, right, 0.6 * soft) * (1.0 - smoothstep(top - soft, top + soft, v))
        shade = 0.75 + 0.35 * (u - left) / width
        r, g, b = over(r, g, b, cr * shade, cg * shade, cb * shade, a)
    up = v - low
    board = max(
        1.0 - smoothstep(0.035 - soft, 0.035 + soft, up), smoothstep(height - 0.02 - soft, height - 0.02 + soft, up)
    )
    return over(r, g, b, wr, wg, wb, board)


@kernel
def _window(u: float, v: float, soft: float, seed: int) -> tuple[float, float, float]:
    r, g, b = tint(seed, 1, 0.30, 0.55)
    glow = 0.85 + 0.25 * smoothstep(1.5, -1.5, u * (1.0 if hash01(seed, 1, 1) > 0.5 else -1.0))
    r, g, b = r * glow, g * glow, b * glow
    centre = mix(-0.9, 0.9, hash01(seed, 2, 2))
    wide, low, high = 0.62, -0.35, 1.25
    frame = slab(u, centre - wide - 0.09, centre + wide + 0.09, soft) * slab(v, low - 0.09, high + 0.09, soft)
    r, g, b = over(r, g, b, 0.62, 0.60, 0.56, frame)
    sky = smoothstep(-0.4, 0.9, v)
    sr, sg, sb = mix(0.95, 0.55, sky), mix(0.98, 0.75, sky), mix(0.95, 1.05, sky)
    green, pick = bokeh(u, v, 3.2, 0.25, seed + 9, 0.35)
    leaf = green * smoothstep(0.35, -0.15, v)
    sr, sg, sb = over(sr, sg, sb, 0.25 + 0.2 * pick, 0.42 + 0.2 * pick, 0.18, leaf)
    pane = slab(u, centre - wide, centre + wide, soft) * slab(v, low, high, soft)
    pane *= 1.0 - slab(u, centre - 0.035, centre + 0.035, soft)
    pane *= 1.0 - slab(v, 0.5, 0.56, soft)
    r, g, b = over(r, g, b, sr, sg, sb, pane)
    cr, cg, cb = tint(seed, 3, 0.35, 0.7)
    fold = 0.85 + 0.15 * math.sin(u * 22.0 + 2.0 * math.sin(v * 2.0))
    curtain = slab(u, centre - wide - 0.45, centre - wide + 0.05, 1.5 * soft)
    curtain = max(curtain, slab(u, centre + wide - 0.05, centre + wide + 0.45, 1.5 * soft))
    curtain *= 1.0 - smoothstep(high + 0.1, high + 0.2, v)
    return over(r, g, b, cr * fold, cg * fold, cb * fold, curtain)


@kernel
def _office(u: float, v: float, soft: float, seed: int) -> tuple[float, float, float]:
    r, g, b = tint(seed, 1, 0.38, 0.6)
    light = 0.8 + 0.3 * smoothstep(-1.0, 1.2, v)
    r, g, b = r * light, g * light, b * light
    lamps = slab(v, 1.02 - 0.12 * abs(u), 1.10 - 0.08 * abs(u), soft)
    lamps *= slab(math.sin(u * 2.6 + 6.28 * hash01(seed, 2, 0)), 0.0, 2.0, 0.5)
    r, g, b = over(r, g, b, 1.25, 1.22, 1.12, 0.8 * lamps)
    for k in range(4):
        x = -1.6 + 0.95 * k + 0.4 * hash01(seed, k, 5)
        w, h = 0.22 + 0.16 * hash01(seed, k, 6), 0.16 + 0.1 * hash01(seed, k, 7)
        y = -0.45 + 0.15 * hash01(seed, k, 8)
        cr, cg, cb = tint(seed, 10 + k, 0.06, 0.14)
        screen = slab(u, x - w, x + w, soft) * slab(v, y - h, y + h, soft)
        r, g, b = over(r, g, b, cr, cg, cb, screen)
        inner = slab(u, x - w + 0.03, x + w - 0.03, soft) * slab(v, y - h + 0.03, y + h - 0.03, soft)
        r, g, b = over(r, g, b, 0.30 + cr, 0.42 + cg, 0.58 + cb, 0.75 * inner)
    cr, cg, cb = tint(seed, 20, 0.18, 0.40)
    r, g, b = over(r, g, b, cr, cg, cb, 1.0 - smoothstep(-0.72 - soft, -0.72 + soft, v))
    px = 1.25 if hash01(seed, 3, 3) > 0.5 else -1.25
    leaf = 0.0
    for k in range(5):
        angle = -0.9 + 0.45 * k
        lx, ly = u - px - 0.28 * math.sin(angle), v + 0.25 - 0.38 * math.cos(angle)
        c, s = math.cos(angle), math.sin(angle)
        p, q = lx * c - ly * s, lx * s + ly * c
        leaf = max(leaf, 1.0 - smoothstep(1.0 - 6.0 * soft, 1.0 + 6.0 * soft, math.sqrt(p * p / 0.012 + q * q / 0.11)))
    return over(r, g, b, 0.10, 0.24, 0.10, 0.9 * leaf)


@kernel
def _park(u: float, v: float, soft: float, seed: int) -> tuple[float, float, float]:
    autumn = hash01(seed, 1, 1) > 0.7
    horizon = -0.25 + 0.2 * hash01(seed, 2, 2)
    up = smoothstep(0.0, 1.4, v)
    r, g, b = mix(0.85, 0.45, up), mix(0.92, 0.68, up), mix(0.92, 1.0, up)
    for layer in range(3):
        a, pick = bokeh(
            u + 0.37 * layer, v, 2.0 + 0.9 * layer, 0.22 + 1.5 * soft, seed + 31 * layer, 0.12 + 0.1 * layer
        )
        a *= smoothstep(1.35 - 0.3 * layer, 0.35 - 0.3 * layer, v + 0.35 * noise2(u * 1.5, 3.0 * layer, seed)) * 0.85
        dark = 0.45 + 0.75 * pick
        if autumn:
            r, g, b = over(r, g, b, 0.55 * dark, 0.30 * dark + 0.06 * layer, 0.07, a)
        else:
            r, g, b = over(r, g, b, 0.20 * dark + 0.03 * layer, 0.36 * dark, 0.10 * dark, a)
    ground = 1.0 - smoothstep(horizon - 0.08 - soft, horizon + 0.08 + soft, v + 0.05 * noise2(u * 2.0, 0.0, seed))
    lit = 0.8 + 0.35 * noise2(u * 1.4, v * 5.0, seed + 3)
    r, g, b = over(r, g, b, 0.26 * lit, 0.40 * lit, 0.12 * lit, ground)
    trunk = 0.0
    for k in range(3):
        x = -1.7 + 1.5 * k + 0.8 * hash01(seed, k, 9)
        trunk = max(trunk, slab(u, x - 0.07, x + 0.07, 0.04 + soft) * smoothstep(horizon - 0.1, horizon + 0.05, v))
    return over(r, g, b, 0.14, 0.09, 0.06, 0.75 * trunk)


@kernel
def _street(u: float, v: float, soft: float, seed: int) -> tuple[float, float, float]:
    night = hash01(seed, 1, 1) > 0.5
    up = smoothstep(-0.5, 1.3, v)
    if night:
        r, g, b = mix(0.22, 0.07, up), mix(0.17, 0.09, up), mix(0.26, 0.19, up)
    else:
        r, g, b = mix(0.95, 0.50, up), mix(0.88, 0.66, up), mix(0.82, 0.95, up)
    for k in range(6):
        x = -1.9 + 0.72 * k + 0.3 * hash01(seed, k, 4)
        top = 0.15 + 1.0 * hash01(seed, k, 5)
        w = 0.30 + 0.15 * hash01(seed, k, 6)
        cr, cg, cb = tint(seed, k, 0.22, 0.5)
        if night:
            cr, cg, cb = 0.25 * cr, 0.25 * cg, 0.32 * cb
        a = slab(u, x - w, x + w, soft) * (1.0 - smoothstep(top - soft, top + soft, v))
        side = 0.85 + 0.3 * (u - x) / w * 0.5
        r, g, b = over(r, g, b, cr * side, cg * side, cb * side, a)
        pu, pv = (u - x) / w * 1.9, v * 5.0
        lit = hash01(int(math.floor(pu)), int(math.floor(pv)), seed + k)
        fu, fv = pu - math.floor(pu), pv - math.floor(pv)
        pane = slab(fu, 0.25, 0.75, 0.14 + soft) * slab(fv, 0.22, 0.75, 0.16 + soft) * a
        if night and lit > 0.5:
            r, g, b = over(r, g, b, 1.0, 0.75, 0.38, 0.75 * pane)
        else:
            r, g, b = over(r, g, b, 0.6 * cr, 0.62 * cg, 0.75 * cb, 0.7 * pane)
    road = 1.0 - smoothstep(-0.62 - soft, -0.55 + soft, v)
    tone = 0.10 if night else 0.38
    r, g, b = over(r, g, b, tone, tone, 1.06 * tone, road)
    a, pick = bokeh(u, v * 1.3, 2.4, 0.10 + soft, seed + 50, 0.62)
    a *= slab(v, -0.55, 0.5, 0.3) * (0.75 if night else 0.35)
    return over(r, g, b, 1.1, mix(0.45, 1.0, pick), mix(0.25, 0.95, pick * pick), a)


@kernel
def _hills(u: float, v: float, soft: float, seed: int) -> tuple[float, float, float]:
    dusk = hash01(seed, 1, 1)
    up = smoothstep(-0.2, 1.4, v)
    r, g, b = mix(0.90, 1.10, dusk), mix(0.94, 0.72, dusk), mix(1.0, 0.55, dusk)
    r, g, b = mix(r, 0.32, up), mix(g, 0.50, up), mix(b, 0.88, up)
    cloud = noise2(u * 1.3 + 3.0, v * 3.5, seed + 2) + 0.4 * noise2(u * 3.0, v * 7.0, seed + 3)
    cloud = smoothstep(0.1, 0.8, cloud) * smoothstep(0.0, 0.5, v)
    r, g, b = over(r, g, b, 1.0, 0.98, 0.97, 0.65 * cloud)
    for k in range(4):
        crest = 0.35 - 0.27 * k + (0.26 - 0.03 * k) * noise2(u * (0.7 + 0.25 * k) + 7.0 * k, 0.0, seed + 11 * k)
        crest += 0.05 * noise2(u * 3.5, 5.0 * k, seed)
        near = k / 3.0
        hr, hg, hb = mix(0.48, 0.17, near), mix(0.60, 0.33, near), mix(0.74, 0.12, near)
        lit = 0.9 + 0.2 * noise2(u * 3.0, v * 4.0 + k, seed + 4)
        a = 1.0 - smoothstep(crest - 0.02 - soft, crest + 0.02 + soft, v)
        r, g, b = over(r, g, b, hr * lit, hg * lit, hb * lit, a)
    return r, g, b


@kernel
def _wall(u: float, v: float, soft: float, seed: int) -> tuple[float, float, float]:
    r, g, b = tint(seed, 1, 0.28, 0.62)
    side = 1.0 if hash01(seed, 2, 0) > 0.5 else -1.0
    glow = 0.72 + 0.5 * math.exp(-0.5 * ((u - 1.0 * side) * (u - 1.0 * side) + (v - 0.6) * (v - 0.6)))
    r, g, b = r * glow, g * glow, b * glow
    for k in range(2):
        x = (-1.15 + 2.3 * k) + 0.4 * (hash01(seed, k, 3) - 0.5)
        y = 0.45 + 0.4 * (hash01(seed, k, 4) - 0.5)
        w, h = 0.26 + 0.16 * hash01(seed, k, 5), 0.26 + 0.2 * hash01(seed, k, 6)
        a = slab(u, x - w, x + w, soft) * slab(v, y - h, y + h, soft)
        cr, cg, cb = tint(seed, 5 + k, 0.08, 0.5)
        r, g, b = over(r, g, b, 0.5 * cr, 0.45 * cg, 0.4 * cb, a)
        a = slab(u, x - w + 0.05, x + w - 0.05, soft) * slab(v, y - h + 0.05, y + h - 0.05, soft)
        n = 0.5 + 0.5 * noise2(u * 4.0, v * 4.0, seed + k)
        dr, dg, db = tint(seed, 9 + k, 0.3, 0.7)
        r, g, b = over(r, g, b, mix(cr, dr, n), mix(cg, dg, n), mix(cb, db, n), a)
    rail = slab(v, -0.62, -0.55, soft)
    return over(r, g, b, 0.8, 0.78, 0.74, 0.55 * rail)


@kernel
def background(u: float, v: float, light: Any) -> tuple[float, float, float]:
    """Linear RGB of the world in a direction: u to the right and v up, 1 = half a frame of a portrait lens."""
    seed = light.background_seed
    kind = light.background
    soft = 0.02 + 0.07 * light.blur
    if kind == BOOKSHELF:
        r, g, b = _shelf(u, v, soft, seed)
    elif kind == WINDOW:
        r, g, b = _window(u, v, soft, seed)
    elif kind == OFFICE:
        r, g, b = _office(u, v, soft, seed)
    elif kind == PARK:
        r, g, b = _park(u, v, soft, seed)
    elif kind == STREET:
        r, g, b = _street(u, v, soft, seed)
    elif kind == HILLS:
        r, g, b = _hills(u, v, soft, seed)
    elif kind == STUDIO:
        r, g, b = tint(seed, 1, 0.20, 0.60)
        cx = 0.6 * (hash01(seed, 2, 0) - 0.5)
        fall = math.exp(-0.55 * ((u - cx) * (u - cx) + (v - 0.1) * (v - 0.1)))
        r, g, b = r * (0.42 + 0.85 * fall), g * (0.42 + 0.85 * fall), b * (0.42 + 0.85 * fall)
    else:
        r, g, b = _wall(u, v, soft, seed)
    dim = 0.80 * (0.55 + 0.45 * min(1.3, 0.5 * (light.key_g + light.fill_g)))
    return r * dim, g * dim, b * dim


def _make_behind(salt: int) -> Any:
    @parallel
    def paint_behind(poses: Any, lights: Any, rays: Any, size: int, colours: Any) -> None:
        """Fill `colours` (N, 3), display values, with what lies behind the person along `rays` (N, 4)."""
        _ = salt  # closed over: see `compile`
        for n in numba.prange(rays.shape[0]):
            dx, dy, dz = ray(rays[n, 1], rays[n, 2], size, poses[int(rays[n, 0])])
            r, g, b = background(-3.2 * dx / dz, -3.2 * dy / dz, lights[0])
            e = lights[0].exposure
            colours[n, 0], colours[n, 1], colours[n, 2] = film(r * e), film(g * e), film(b * e)

    return paint_behind


paint_behind = _make_behind(sources(__file__))
