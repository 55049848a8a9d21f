"""Which surface a ray meets first."""

from __future__ import annotations

from typing import Any

import numba

from countervid.phantom.anatomy import CAMERA_DISTANCE
from countervid.phantom.camera import ray, through
from countervid.phantom.compile import kernel, parallel, sources
from countervid.phantom.person import (
    BACKGROUND,
    CLOTHES,
    HELD,
    HX,
    HY,
    HZ,
    LX,
    LY,
    LZ,
    NEAR,
    OCCLUDER,
    groups_near,
    head_distance,
    sample,
    to_head,
    to_occluder,
    to_torso,
    turn_to_head,
)
from countervid.phantom.primitives import capsule, smooth_min
from countervid.phantom.surfaces import unwarp
from countervid.phantom.wear import occluder, torso

TILE = 4
"""Pixels on a side of the tiles that share the way to the person."""

FAR = 1e3
"""Farther than anything."""

MOVED = 0.26
"""Expressions move the surface from the baked one by less than this."""

BLOCK = 64
"""Rays that one thread takes at a time; neighbouring blocks go to different threads, since they cost about the same."""


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
def march(
    ox: float, oy: float, oz: float, dx: float, dy: float, dz: float,
    field: Any, near: Any, body: Any, pose: Any, pixel: float, start: float,
) -> tuple[float, int]:  # fmt: skip
    """Follow a world ray to the first surface.

    Args:
        start: Nothing is nearer than this.
        pixel: Width of a pixel at distance 1; the ray stops when it is closer than a third of a pixel.

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
        t = max(o0, start)
        for _ in range(60):
            if t > o1:
                break
            d = occluder(px + t * vx, py + t * vy, pz + t * dz, pose.occluder_kind)
            if d < 0.25 * pixel * t:
                return t, OCCLUDER
            t += 0.9 * d
    if h0 < h1:
        t = max(h0, start)
        material, last, step = BACKGROUND, -1.0, 0.0
        for _ in range(80):
            if t > h1:
                break
            x, y, z = hx + t * gx, hy + t * gy, hz + t * gz
            nx, ny, nz, gap = unwarp(x, y, z, body, pose)
            d = sample(field, nx, ny, nz)
            if y < -0.2:
                r = body.neck_r
                neck = capsule(x, y, z, 0.0, -0.45, -0.17, pose.neck_x, pose.neck_y, pose.neck_z, r, r * 1.12)
                d = smooth_min(d, neck, 0.13)
            if d < NEAR:
                d, material = head_distance(x, y, z, nx, ny, nz, gap, groups_near(near, nx, ny, nz), body, pose)
                if d < 0.35 * pixel * t:
                    if d < 0.0 and last > 0.0:  # overshot: where the line between the two values crosses zero
                        t -= step * d / (d - last)
                    best, found = t, material
                    break
                # At least a pixel: grazing rays take long otherwise.
                last, step = d, max(0.9 * d, 1.3 * pixel * t)
                t += step
            else:
                material, last = BACKGROUND, -1.0
                t += 0.9 * (d - 0.5 * NEAR)
        else:  # a grazing ray that ran out of steps beside a surface: it counts as met
            best, found = (t, material) if material != BACKGROUND else (best, found)
    if b0 < b1:
        t = max(b0, start)
        stop = min(b1, best)
        for _ in range(70):
            if t > stop:
                break
            d = torso(tx + t * ux, ty + t * uy, tz + t * uz, body)
            if d < 0.35 * pixel * t:
                best, found = t, CLOTHES
                break
            t += 0.9 * d
    return best, found


@kernel
def approach(
    ox: float, oy: float, oz: float, dx: float, dy: float, dz: float, field: Any, body: Any, pose: Any, cone: float
) -> float:
    """How far a whole cone of rays can go before any of them meets anything; beyond `FAR` they all miss.

    Args:
        cone: Radius of the cone at distance 1.
    """
    hx, hy, hz = to_head(ox, oy, oz, pose)
    gx, gy, gz = turn_to_head(dx, dy, dz, pose)
    tx, ty, tz = to_torso(ox, oy, oz, pose)
    ux, uy, uz = pose.bc * dx - pose.bs * dz, dy, pose.bs * dx + pose.bc * dz
    if pose.occluder > 0.5:
        t = CAMERA_DISTANCE - pose.bz - HELD - 0.6  # seldom there: its rays start just in front of it
        px, py, pz = to_occluder(ox + t * dx, oy + t * dy, oz + t * dz, pose)
        if abs(px) < 1.2 and py < 1.3:
            return float(t)
    t = max(0.0, CAMERA_DISTANCE - pose.bz - 2.4)
    last = t + 5.2
    for _ in range(40):
        x, y, z = hx + t * gx, hy + t * gy, hz + t * gz
        d = sample(field, x, y, z)
        if y < 0.3:
            r = body.neck_r
            d = min(d, capsule(x, y, z, 0.0, -0.45, -0.17, pose.neck_x, pose.neck_y, pose.neck_z, r, r * 1.12))
        d = min(d - MOVED, torso(tx + t * ux, ty + t * uy, tz + t * uz, body)) - cone * t
        if d < 0.02:
            return float(t)
        t += d
        if t > last:
            return 2.0 * FAR
    return float(t)


def _make_approach(salt: int) -> Any:
    @parallel
    def approach_tiles(field: Any, bodies: Any, poses: Any, views: Any, size: int, width: int, starts: Any) -> None:
        """Fill `starts` (F, S, S): one cone for each tile of `TILE` x `TILE` pixels."""
        _ = salt  # closed over: see `compile`
        count = poses.shape[0]
        across = (width + TILE - 1) // TILE
        half = (count * across + 1) // 2
        for k in numba.prange(2 * half):
            row = (k % half) * 2 + k // half
            if row >= count * across:
                continue
            f, j = row // across, (row % across) * TILE
            pose, view = poses[f], views[f]
            for i in range(0, width, TILE):
                mx, my = through(i + 0.5 * TILE, j + 0.5 * TILE, view, width)
                px, py = through(i, j, view, width)
                qx, qy = through(i + TILE, j, view, width)
                px, py, qx, qy = px - mx, py - my, qx - mx, qy - my
                reach = max(px * px + py * py, qx * qx + qy * qy)
                dx, dy, dz = ray(mx, my, size, pose)
                cone = 2.1 * reach**0.5 / (size * pose.focal)
                t = approach(0.0, 0.0, CAMERA_DISTANCE, dx, dy, dz, field, bodies[0], pose, cone)
                for jj in range(j, min(width, j + TILE)):
                    for ii in range(i, min(width, i + TILE)):
                        starts[f, jj, ii] = t

    return approach_tiles


approach_tiles = _make_approach(sources(__file__))


def _make_trace(salt: int) -> Any:
    @parallel
    def trace_rays(
        field: Any, near: Any, bodies: Any, poses: Any, rays: Any, size: int, starts: Any, depths: Any, materials: Any
    ) -> None:
        """Fill `depths` and `materials`, (N,), for `rays` (N, 4) of `cast_rays`, known to meet nothing before
        `starts` (N,)."""
        _ = salt  # closed over: see `compile`
        count = rays.shape[0]
        half = (count + 2 * BLOCK - 1) // (2 * BLOCK)
        for k in numba.prange(2 * half):
            block = (k % half) * 2 + k // half
            for n in range(block * BLOCK, min(count, (block + 1) * BLOCK)):
                if starts[n] > FAR:
                    depths[n], materials[n] = 1e9, BACKGROUND
                    continue
                pose = poses[int(rays[n, 0])]
                dx, dy, dz = ray(rays[n, 1], rays[n, 2], size, pose)
                t, material = march(
                    0.0, 0.0, CAMERA_DISTANCE, dx, dy, dz, field, near, bodies[0], pose, rays[n, 3], starts[n]
                )
                depths[n], materials[n] = t, material

    return trace_rays


trace_rays = _make_trace(sources(__file__))
