"""Finding what a ray meets: the assembled person, a baked distance field, and sphere tracing.

A clip's head does not change except by expression and rigid motion, so its neutral distance field is baked once into a
coarse grid (`bake`). Rays walk through the grid and only near the surface through the exact functions; shadows and
ambient occlusion use the grid alone.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from countervid.phantom.compile import SOURCES, kernel, parallel
from countervid.phantom.hair import beard, moustache, scalp_hair
from countervid.phantom.primitives import capsule, smooth_max, smooth_min
from countervid.phantom.surfaces import base, eyeball, mouth_inside, skin, unwarp
from countervid.phantom.wear import glasses, hat, hat_line, occluder, torso

BACKGROUND, SKIN, HAIR, EYE, MOUTH, CLOTHES, GLASSES, HAT, OCCLUDER, BEARD, TEETH, NECK = range(12)

GRID_LOW = (-1.44, -1.98, -1.5)
GRID_CELL = 0.06
GRID_SHAPE = (49, 62, 50)
GRID_HIGH = tuple(low + GRID_CELL * (n - 1) for low, n in zip(GRID_LOW, GRID_SHAPE, strict=True))
LX, LY, LZ = GRID_LOW
HX, HY, HZ = GRID_HIGH
NX, NY, NZ = GRID_SHAPE
INVERSE_CELL = 1.0 / GRID_CELL
NEAR = 0.10
"""Below this distance the grid is not trusted: more than its cell, and more than an expression moves a lip's edge."""


@kernel
def head_distance(x: float, y: float, z: float, body: Any, pose: Any) -> tuple[float, int]:
    """Distance to the head and what is on it, and the nearest material, in head space."""
    nx, ny, nz, gap = unwarp(x, y, z, body, pose)
    d = skin(nx, ny, nz, gap, x, y, z, body, pose)
    material = SKIN
    if z > 0.2 and abs(y) < 0.4:
        e = eyeball(abs(x), y, z, body)
        if e < d:
            d, material = e, EYE
    if gap < 0.15 and z > 0.0:
        teeth, dark = mouth_inside(x, y, z, gap, body, pose)
        if teeth < d:
            d, material = teeth, TEETH
        if dark < d:
            d, material = dark, MOUTH
    if body.beard > 0.5 and ny < 0.12:
        b = beard(nx, ny, nz, base(abs(nx), ny, nz, body), body)
        b = smooth_max(b, -max(gap - 0.03, 0.3 - z), 0.03)
        if b < d:
            d, material = b, BEARD
    if body.moustache > 0.5 and z > 0.3 and ny < 0.0:
        b = moustache(nx, ny, nz, body)
        if b < d:
            d, material = b, BEARD
    if body.bald < 0.5:
        h = scalp_hair(x, y, z, body)
        if body.hat > 0.5:
            h = smooth_max(h, y - hat_line(x, z, body) - 0.04, 0.05)
        if h < d:
            d, material = h, HAIR
    if body.hat > 0.5:
        h = hat(x, y, z, body)
        if h < d:
            d, material = h, HAT
    if body.glasses > 0.5:
        h = glasses(abs(x), y, z, body)
        if h < d:
            d, material = h, GLASSES
    return d, material


def _make_bake(salt: int) -> Any:
    @parallel
    def bake(body: Any, neutral: Any) -> NDArray[np.float32]:
        """Neutral distance field of a head, `(NX, NY, NZ)` float32."""
        version = salt  # closed over: see `compile`
        field = np.empty((NX, NY, NZ), np.float32)
        for k in numba.prange(NX * NY):
            i, j = k // NY, k % NY
            for n in range(NZ):
                d, _ = head_distance(
                    LX + GRID_CELL * i, LY + GRID_CELL * j, LZ + GRID_CELL * n, body[0], neutral[0]
                )
                field[i, j, n] = d
        return field

    return bake


bake = _make_bake(SOURCES)


@kernel
def sample(field: Any, x: float, y: float, z: float) -> float:
    """Trilinear lookup of the baked field; outside the grid, the distance to its box is added."""
    u, v, w = (x - LX) * INVERSE_CELL, (y - LY) * INVERSE_CELL, (z - LZ) * INVERSE_CELL
    cu = min(max(u, 0.0), NX - 1.001)
    cv = min(max(v, 0.0), NY - 1.001)
    cw = min(max(w, 0.0), NZ - 1.001)
    i, j, k = int(cu), int(cv), int(cw)
    fu, fv, fw = cu - i, cv - j, cw - k
    a = (field[i, j, k] * (1.0 - fw) + field[i, j, k + 1] * fw) * (1.0 - fv)
    a += (field[i, j + 1, k] * (1.0 - fw) + field[i, j + 1, k + 1] * fw) * fv
    b = (field[i + 1, j, k] * (1.0 - fw) + field[i + 1, j, k + 1] * fw) * (1.0 - fv)
    b += (field[i + 1, j + 1, k] * (1.0 - fw) + field[i + 1, j + 1, k + 1] * fw) * fv
    inside = a * (1.0 - fu) + b * fu
    du, dv, dw = u - cu, v - cv, w - cw
    outside = du * du + dv * dv + dw * dw
    if outside > 0.0:
        return inside + 0.7 * GRID_CELL * math.sqrt(outside)
    return inside


@kernel
def box(
    ox: float, oy: float, oz: float, dx: float, dy: float, dz: float,
    lx: float, ly: float, lz: float, hx: float, hy: float, hz: float,
) -> tuple[float, float]:  # fmt: skip
    """Where a ray enters and leaves a box; enters after it leaves when it misses."""
    ix, iy, iz = 1.0 / (dx + 1e-12), 1.0 / (dy + 1e-12), 1.0 / (dz + 1e-12)
    a, b = (lx - ox) * ix, (hx - ox) * ix
    t0, t1 = min(a, b), max(a, b)
    a, b = (ly - oy) * iy, (hy - oy) * iy
    t0, t1 = max(t0, min(a, b)), min(t1, max(a, b))
    a, b = (lz - oz) * iz, (hz - oz) * iz
    return max(t0, min(a, b)), min(t1, max(a, b))


@kernel
def to_head(x: float, y: float, z: float, p: Any) -> tuple[float, float, float]:
    """World point -> head space."""
    x, y, z = x - p.tx, y - p.ty, z - p.tz
    return p.r00 * x + p.r10 * y + p.r20 * z, p.r01 * x + p.r11 * y + p.r21 * z, p.r02 * x + p.r12 * y + p.r22 * z


@kernel
def turn_to_head(x: float, y: float, z: float, p: Any) -> tuple[float, float, float]:
    """World direction -> head space."""
    return p.r00 * x + p.r10 * y + p.r20 * z, p.r01 * x + p.r11 * y + p.r21 * z, p.r02 * x + p.r12 * y + p.r22 * z


@kernel
def from_head(x: float, y: float, z: float, p: Any) -> tuple[float, float, float]:
    """Head-space point -> world."""
    return (
        p.r00 * x + p.r01 * y + p.r02 * z + p.tx,
        p.r10 * x + p.r11 * y + p.r12 * z + p.ty,
        p.r20 * x + p.r21 * y + p.r22 * z + p.tz,
    )


@kernel
def to_torso(x: float, y: float, z: float, p: Any) -> tuple[float, float, float]:
    """World point -> torso space."""
    x, y, z = x - p.bx, y - p.by, z - p.bz
    return p.bc * x - p.bs * z, y, p.bs * x + p.bc * z


@kernel
def from_torso(x: float, y: float, z: float, p: Any) -> tuple[float, float, float]:
    """Torso-space point -> world."""
    return p.bc * x + p.bs * z + p.bx, y + p.by, -p.bs * x + p.bc * z + p.bz


HELD = 1.75
"""Depth (world z) of what passes before the face: in front of the nose."""


@kernel
def to_occluder(x: float, y: float, z: float, p: Any) -> tuple[float, float, float]:
    """World point -> the occluder's own space; its place is given in the frame of a resting camera."""
    reach = (8.0 - HELD) / 3.2
    x, y = x - p.ox * reach, y - p.oy * reach
    return p.oc * x + p.os * y, -p.os * x + p.oc * y, z - HELD


@kernel
def march(
    ox: float, oy: float, oz: float, dx: float, dy: float, dz: float, field: Any, body: Any, pose: Any, pixel: float
) -> tuple[float, int]:
    """Follow a world ray to the first surface.

    Args:
        pixel: Width of a pixel at distance 1; the ray stops when it is closer than a quarter pixel.

    Returns:
        Distance along the ray and material; `BACKGROUND` when nothing is met.
    """
    hx, hy, hz = to_head(ox, oy, oz, pose)
    gx, gy, gz = turn_to_head(dx, dy, dz, pose)
    h0, h1 = box(hx, hy, hz, gx, gy, gz, LX, LY, LZ, HX, HY, HZ)
    tx, ty, tz = to_torso(ox, oy, oz, pose)
    ux, uy, uz = pose.bc * dx - pose.bs * dz, dy, pose.bs * dx + pose.bc * dz
    b0, b1 = box(tx, ty, tz, ux, uy, uz, -2.6, -4.5, -1.15, 2.6, -1.05, 0.85)
    best, found = 1e9, BACKGROUND
    if pose.occluder > 0.5:
        px, py, pz = to_occluder(ox, oy, oz, pose)
        vx, vy = pose.oc * dx + pose.os * dy, -pose.os * dx + pose.oc * dy
        o0, o1 = box(px, py, pz, vx, vy, dz, -0.85, -3.0, -0.45, 0.85, 0.95, 0.45)
        t = o0
        for _ in range(60):
            if t > o1:
                break
            d = occluder(px + t * vx, py + t * vy, pz + t * dz, pose.occluder_kind)
            if d < 0.25 * pixel * t:
                return t, OCCLUDER
            t += 0.9 * d
    if h0 < h1:
        t = h0
        for _ in range(90):
            if t > h1:
                break
            x, y, z = hx + t * gx, hy + t * gy, hz + t * gz
            nx, ny, nz, _gap = unwarp(x, y, z, body, pose)
            d = sample(field, nx, ny, nz)
            if y < -0.2:
                r = body.neck_r
                neck = capsule(x, y, z, 0.0, -0.45, -0.17, pose.neck_x, pose.neck_y, pose.neck_z, r, r * 1.12)
                d = smooth_min(d, neck, 0.13)
            if d < NEAR:
                d, material = head_distance(x, y, z, body, pose)
                if d < 0.25 * pixel * t:
                    best, found = t, material
                    break
                t += 0.8 * d
            else:
                t += 0.9 * (d - 0.5 * NEAR)
    if b0 < b1:
        t = b0
        stop = min(b1, best)
        for _ in range(70):
            if t > stop:
                break
            d = torso(tx + t * ux, ty + t * uy, tz + t * uz, body)
            if d < 0.25 * pixel * t:
                best, found = t, CLOTHES
                break
            t += 0.9 * d
    return best, found


@kernel
def surface(x: float, y: float, z: float, material: int, body: Any, pose: Any) -> float:
    """Distance to one material alone, in that material's space: what its normal is taken from."""
    if material == SKIN or material == BEARD or material == TEETH or material == MOUTH:
        nx, ny, nz, gap = unwarp(x, y, z, body, pose)
        if material == SKIN:
            return skin(nx, ny, nz, gap, x, y, z, body, pose)
        if material == TEETH:
            teeth, _dark = mouth_inside(x, y, z, gap, body, pose)
            return teeth
        if material == MOUTH:
            _teeth, dark = mouth_inside(x, y, z, gap, body, pose)
            return dark
        d = 9.0
        if body.beard > 0.5:
            d = beard(nx, ny, nz, base(abs(nx), ny, nz, body), body)
        if body.moustache > 0.5:
            d = min(d, moustache(nx, ny, nz, body))
        return d
    if material == HAIR:
        return scalp_hair(x, y, z, body)
    if material == HAT:
        return hat(x, y, z, body)
    if material == GLASSES:
        return glasses(abs(x), y, z, body)
    if material == CLOTHES:
        return torso(x, y, z, body)
    if material == OCCLUDER:
        return occluder(x, y, z, pose.occluder_kind)
    return eyeball(abs(x), y, z, body)


@kernel
def normal(
    x: float, y: float, z: float, material: int, body: Any, pose: Any, h: float
) -> tuple[float, float, float]:
    """Unit normal by four taps at the corners of a tetrahedron of size `h`."""
    a = surface(x + h, y - h, z - h, material, body, pose)
    b = surface(x - h, y - h, z + h, material, body, pose)
    c = surface(x - h, y + h, z - h, material, body, pose)
    d = surface(x + h, y + h, z + h, material, body, pose)
    nx, ny, nz = a - b - c + d, -a - b + c + d, -a + b - c + d
    s = 1.0 / math.sqrt(nx * nx + ny * ny + nz * nz + 1e-18)
    return nx * s, ny * s, nz * s


@kernel
def occlusion(x: float, y: float, z: float, nx: float, ny: float, nz: float, field: Any) -> float:
    """How open the sky is over a point of the head: 0..1, from three lookups along the normal."""
    a = 0.09 - sample(field, x + 0.09 * nx, y + 0.09 * ny, z + 0.09 * nz)
    b = 0.22 - sample(field, x + 0.22 * nx, y + 0.22 * ny, z + 0.22 * nz)
    c = 0.48 - sample(field, x + 0.48 * nx, y + 0.48 * ny, z + 0.48 * nz)
    return min(1.0, max(0.12, 1.0 - 2.0 * max(a, 0.0) - 1.2 * max(b, 0.0) - 0.6 * max(c, 0.0)))


@kernel
def shadow(x: float, y: float, z: float, lx: float, ly: float, lz: float, field: Any, softness: float) -> float:
    """How much of the key light reaches a point of head space: 0..1."""
    light = 1.0
    sharp = 2.5 + 9.0 * (1.0 - softness)
    t = 0.10
    for _ in range(11):
        d = sample(field, x + t * lx, y + t * ly, z + t * lz)
        light = min(light, 0.5 + 0.5 * sharp * d / t)
        if light <= 0.0 or t > 1.8:
            break
        t += min(0.28, max(0.07, d))
    light = max(0.0, light)
    return light * light * (3.0 - 2.0 * light)
