"""Local geometry at a hit: normals from the exact functions, openness and shadow from the baked field."""

from __future__ import annotations

import math
from typing import Any

from countervid.phantom.compile import kernel
from countervid.phantom.hair import scalp_hair
from countervid.phantom.person import BEARD, CLOTHES, GLASSES, HAIR, HAT, MOUTH, OCCLUDER, SKIN, TEETH, sample, whiskers
from countervid.phantom.surfaces import eyeball, mouth_inside, skin, unwarp
from countervid.phantom.wear import glasses, hat, occluder, torso


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
        return whiskers(nx, ny, nz, body)
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
def normal(x: float, y: float, z: float, material: int, body: Any, pose: Any, h: float) -> tuple[float, float, float]:
    """Unit normal by four taps at the corners of a tetrahedron of size `h`."""
    nx, ny, nz = 0.0, 0.0, 0.0
    for k in range(4):  # a loop, not four calls: the compiled code is a quarter as long
        sx, sy = (h if k == 0 or k == 3 else -h), (h if k >= 2 else -h)
        sz = h if k == 1 or k == 3 else -h
        d = surface(x + sx, y + sy, z + sz, material, body, pose)
        nx, ny, nz = nx + sx * d, ny + sy * d, nz + sz * d
    s = 1.0 / math.sqrt(nx * nx + ny * ny + nz * nz + 1e-30)
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
