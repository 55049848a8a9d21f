"""Distances to simple solids, smooth joins, and noise: the letters the person is spelt with.

Distance functions follow Quilez's catalogue ("Distance functions", iquilezles.org) in our own formulation; the
polynomial smooth minimum is his too. All arguments and results are scalars in head units.
"""

from __future__ import annotations

import math

from countervid.phantom.compile import kernel


@kernel
def clamp01(x: float) -> float:
    """`x` limited to 0..1."""
    return min(1.0, max(0.0, x))


@kernel
def smoothstep(low: float, high: float, x: float) -> float:
    """0 below `low`, 1 above `high`, a cubic between."""
    t = min(1.0, max(0.0, (x - low) / (high - low)))
    return t * t * (3.0 - 2.0 * t)


@kernel
def mix(a: float, b: float, t: float) -> float:
    """`a` at t = 0, `b` at t = 1."""
    return a + (b - a) * t


@kernel
def bump(x: float) -> float:
    """A bell of height 1 that is exactly 0 beyond |x| = 1; cheaper than a Gaussian."""
    s = max(0.0, 1.0 - x * x)
    return s * s


@kernel
def smooth_min(a: float, b: float, k: float) -> float:
    """Union of two solids with a fillet of size `k`."""
    h = max(k - abs(a - b), 0.0) / k
    return min(a, b) - h * h * k * 0.25


@kernel
def smooth_max(a: float, b: float, k: float) -> float:
    """Intersection of two solids with an edge rounded by `k`."""
    h = max(k - abs(a - b), 0.0) / k
    return max(a, b) + h * h * k * 0.25


@kernel
def ellipsoid(x: float, y: float, z: float, rx: float, ry: float, rz: float) -> float:
    """About the distance to an ellipsoid at the origin (exact at the surface, to first order)."""
    ix, iy, iz = 1.0 / rx, 1.0 / ry, 1.0 / rz
    px, py, pz = x * ix, y * iy, z * iz
    k0 = math.sqrt(px * px + py * py + pz * pz)
    px, py, pz = px * ix, py * iy, pz * iz
    k1 = math.sqrt(px * px + py * py + pz * pz) + 1e-9
    return k0 * (k0 - 1.0) / k1


@kernel
def sphere(x: float, y: float, z: float, r: float) -> float:
    """Distance to a sphere at the origin."""
    return math.sqrt(x * x + y * y + z * z) - r


@kernel
def capsule(
    x: float, y: float, z: float,
    ax: float, ay: float, az: float, bx: float, by: float, bz: float, ra: float, rb: float,
) -> float:  # fmt: skip
    """About the distance to a capsule from a to b whose radius goes from `ra` to `rb`."""
    dx, dy, dz = bx - ax, by - ay, bz - az
    px, py, pz = x - ax, y - ay, z - az
    h = min(1.0, max(0.0, (px * dx + py * dy + pz * dz) / (dx * dx + dy * dy + dz * dz)))
    px, py, pz = px - h * dx, py - h * dy, pz - h * dz
    return math.sqrt(px * px + py * py + pz * pz) - (ra + (rb - ra) * h)


@kernel
def torus(x: float, y: float, z: float, radius: float, tube: float) -> float:
    """Distance to a ring around the y axis."""
    q = math.sqrt(x * x + z * z) - radius
    return math.sqrt(q * q + y * y) - tube


@kernel
def hash01(i: int, j: int, k: int) -> float:
    """A repeatable random number in 0..1 for three whole numbers."""
    h = (i * 374761393 + j * 668265263 + k * 1440662683 + 974711) & 0xFFFFFFFF
    h = ((h ^ (h >> 15)) * 2246822519) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 3266489917) & 0xFFFFFFFF
    return (h ^ (h >> 16)) * 2.3283064365386963e-10


@kernel
def noise2(x: float, y: float, seed: int) -> float:
    """Smooth value noise in -1..1 over the plane; features are about 1 wide."""
    fx, fy = math.floor(x), math.floor(y)
    i, j = int(fx), int(fy)
    u, v = x - fx, y - fy
    u, v = u * u * (3.0 - 2.0 * u), v * v * (3.0 - 2.0 * v)
    a = mix(hash01(i, j, seed), hash01(i + 1, j, seed), u)
    b = mix(hash01(i, j + 1, seed), hash01(i + 1, j + 1, seed), u)
    return 2.0 * mix(a, b, v) - 1.0


@kernel
def noise3(x: float, y: float, z: float, seed: int) -> float:
    """Smooth value noise in -1..1 in space; features are about 1 wide."""
    fz = math.floor(z)
    k = int(fz)
    w = z - fz
    w = w * w * (3.0 - 2.0 * w)
    return mix(noise2(x, y, seed + 131 * k), noise2(x, y, seed + 131 * (k + 1)), w)


@kernel
def cells2(x: float, y: float, seed: int) -> tuple[float, float]:
    """Distance to the nearest of scattered points (one a unit cell), and that point's random number."""
    fx, fy = math.floor(x), math.floor(y)
    best, pick = 9.0, 0.0
    for dj in range(-1, 2):
        for di in range(-1, 2):
            i, j = int(fx) + di, int(fy) + dj
            px = i + hash01(i, j, seed) - x
            py = j + hash01(i, j, seed + 7919) - y
            d = px * px + py * py
            if d < best:
                best, pick = d, hash01(i, j, seed + 104729)
    return math.sqrt(best), pick


@kernel
def film(c: float) -> float:
    """Linear light -> display value 0..1: a film curve, then the sRGB transfer."""
    c = max(0.0, c) * 0.80
    c = clamp01(c * (2.51 * c + 0.03) / (c * (2.43 * c + 0.59) + 0.14))
    if c <= 0.0031308:
        return 12.92 * c
    return float(1.055 * c ** (1.0 / 2.4) - 0.055)
