"""The assembled person: the nearest surface, the spaces of head, torso and occluder, and the baked field.

A clip's head does not change except by expression and rigid motion, so its neutral distance field is baked once into a
coarse grid. Rays walk through the grid and only near the surface through the exact functions; shadows and ambient
occlusion use the grid alone.
"""

from __future__ import annotations

import math
from typing import Any

from countervid.phantom.anatomy import CAMERA_DISTANCE
from countervid.phantom.compile import kernel
from countervid.phantom.hair import beard, moustache, scalp_hair
from countervid.phantom.primitives import smooth_max
from countervid.phantom.surfaces import base, eyeball, mouth_inside, skin
from countervid.phantom.wear import glasses, hat, hat_line

BACKGROUND, SKIN, HAIR, EYE, MOUTH, CLOTHES, GLASSES, HAT, OCCLUDER, BEARD, TEETH, NECK = range(12)

GRID_LOW = (-1.44, -1.98, -1.5)
GRID_CELL = 0.06
GRID_SHAPE = (49, 62, 50)
GRID_HIGH = tuple(low + GRID_CELL * (n - 1) for low, n in zip(GRID_LOW, GRID_SHAPE, strict=True))
LX, LY, LZ = GRID_LOW
HX, HY, HZ = GRID_HIGH
NX, NY, NZ = GRID_SHAPE
INVERSE_CELL = 1.0 / GRID_CELL
NEAR = 0.08
"""Below this distance the grid is not trusted: more than its cell, and more than an expression moves a lip's edge."""

NEAR_SKIN, NEAR_BEARD, NEAR_HAIR, NEAR_HAT, NEAR_GLASSES = 1, 2, 4, 8, 16
REACH = 0.36
"""A group counts as near a cell when it is at most this much farther than the nearest: room for half a cell, for `NEAR`
and for the fall of the jaw."""

HELD = 1.75
"""How far before the head's middle passes what passes before the face: in front of the nose."""


@kernel
def head_distance(
    x: float, y: float, z: float, nx: float, ny: float, nz: float, gap: float, groups: int, body: Any, pose: Any
) -> tuple[float, int]:
    """Distance to the head and what is on it, and the nearest material.

    Args:
        x, y, z: Point in head space.
        nx, ny, nz, gap: The same carried back to the neutral face (`unwarp`).
        groups: Bits of what can be near: the rest is not looked at.
    """
    d, material = 9.0, SKIN
    if groups & NEAR_SKIN:
        d = skin(nx, ny, nz, gap, x, y, z, body, pose)
        if z > 0.3 and abs(y) < 0.3:
            e = eyeball(abs(x), y, z, body)
            if e < d:
                d, material = e, EYE
        if gap < 0.15 and z > 0.0:
            teeth, dark = mouth_inside(x, y, z, gap, body, pose)
            if teeth < d:
                d, material = teeth, TEETH
            if dark < d:
                d, material = dark, MOUTH
    if groups & NEAR_BEARD:
        b = whiskers(nx, ny, nz, body)
        b = smooth_max(b, -max(gap - 0.004, 0.3 - z), 0.012)
        if b < d:
            d, material = b, BEARD
    if groups & NEAR_HAIR:
        h = scalp_hair(x, y, z, body)
        if body.hat > 0.5:
            h = smooth_max(h, y - hat_line(x, z, body) - 0.04, 0.05)
        if h < d:
            d, material = h, HAIR
    if groups & NEAR_HAT:
        h = hat(x, y, z, body)
        if h < d:
            d, material = h, HAT
    if groups & NEAR_GLASSES:
        h = glasses(abs(x), y, z, body)
        if h < d:
            d, material = h, GLASSES
    return d, material


@kernel
def whiskers(x: float, y: float, z: float, body: Any) -> float:
    """Distance to beard and moustache, in the neutral face."""
    if y > 0.12:
        return y
    under = base(abs(x), y, z, body)
    d = 9.0
    if body.beard > 0.5:
        d = beard(x, y, z, under, body)
    if body.moustache > 0.5 and z > 0.3:
        d = min(d, moustache(x, y, z, under, body))
    return d


@kernel
def worn(body: Any) -> int:
    """Bits of the groups that this person has."""
    groups = NEAR_SKIN
    if body.beard > 0.5 or body.moustache > 0.5:
        groups |= NEAR_BEARD
    if body.bald < 0.5:
        groups |= NEAR_HAIR
    if body.hat > 0.5:
        groups |= NEAR_HAT
    if body.glasses > 0.5:
        groups |= NEAR_GLASSES
    return groups


@kernel
def groups_near(groups: Any, x: float, y: float, z: float) -> int:
    """The bits baked for the cell of a neutral point."""
    i = min(NX - 1, max(0, int((x - LX) * INVERSE_CELL + 0.5)))
    j = min(NY - 1, max(0, int((y - LY) * INVERSE_CELL + 0.5)))
    k = min(NZ - 1, max(0, int((z - LZ) * INVERSE_CELL + 0.5)))
    return int(groups[i, j, k])


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
        return float(inside + 0.7 * GRID_CELL * math.sqrt(outside))
    return float(inside)


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


@kernel
def to_occluder(x: float, y: float, z: float, p: Any) -> tuple[float, float, float]:
    """World point -> the occluder's own space; its place is given in the frame of a resting camera."""
    held = p.bz + HELD
    reach = (CAMERA_DISTANCE - held) / 3.2
    x, y = x - p.ox * reach, y - p.oy * reach
    return p.oc * x + p.os * y, -p.os * x + p.oc * y, z - held
