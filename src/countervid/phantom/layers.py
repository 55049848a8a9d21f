"""Optical flow and visibility: each surface point followed into the next frame."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from countervid.phantom.anatomy import CAMERA_DISTANCE
from countervid.phantom.camera import project, ray, through
from countervid.phantom.compile import kernel, parallel, sources
from countervid.phantom.person import (
    BACKGROUND,
    BEARD,
    CLOTHES,
    HELD,
    OCCLUDER,
    SKIN,
    from_head,
    from_torso,
    to_head,
    to_occluder,
    to_torso,
)
from countervid.phantom.surfaces import unwarp, warp


@kernel
def _next(x: float, y: float, z: float, material: int, body: Any, now: Any, then: Any) -> tuple[float, float, float]:
    """World point of a surface -> where the same point is in another frame."""
    if material == CLOTHES:
        x, y, z = to_torso(x, y, z, now)
        return from_torso(x, y, z, then)
    if material == OCCLUDER:
        x, y, z = to_occluder(x, y, z, now)
        reach = (CAMERA_DISTANCE - then.bz - HELD) / 3.2
        return (
            then.oc * x - then.os * y + then.ox * reach,
            then.os * x + then.oc * y + then.oy * reach,
            z + then.bz + HELD,
        )
    x, y, z = to_head(x, y, z, now)
    if material == SKIN or material == BEARD:
        x, y, z, _gap = unwarp(x, y, z, body, now)
        x, y, z = warp(x, y, z, body, then)
    return from_head(x, y, z, then)


@kernel
def _to_picture(px: float, py: float, view: Any, width: int) -> tuple[float, float]:
    """Frame pixel -> picture pixel: the bilinear quad undone by Newton's method."""
    u, v = 0.5, 0.5
    for _ in range(5):
        tx = view[0, 0] - view[3, 0] - view[1, 0] + view[2, 0]
        ty = view[0, 1] - view[3, 1] - view[1, 1] + view[2, 1]
        ax, ay = view[3, 0] - view[0, 0] + tx * v, view[3, 1] - view[0, 1] + ty * v
        bx, by = view[1, 0] - view[0, 0] + tx * u, view[1, 1] - view[0, 1] + ty * u
        mx = view[0, 0] + (view[3, 0] - view[0, 0]) * u + (view[1, 0] - view[0, 0]) * v + tx * u * v - px
        my = view[0, 1] + (view[3, 1] - view[0, 1]) * u + (view[1, 1] - view[0, 1]) * v + ty * u * v - py
        det = ax * by - ay * bx
        u, v = u - (mx * by - my * bx) / det, v - (ax * my - ay * mx) / det
    return u * width, v * width


def _make_trace(salt: int) -> Any:
    @parallel
    def trace_layers(bodies: Any, poses: Any, views: Any, size: int, depths: Any, materials: Any) -> tuple[Any, Any]:
        """Flow `(F - 1, S, S, 2)` in picture pixels, and visibility `(F - 1, S, S)`."""
        _ = salt  # closed over: see `compile`
        count, width = depths.shape[0], depths.shape[1]
        steps = max(0, count - 1)
        flow = np.zeros((steps, width, width, 2), np.float32)
        visible = np.zeros((steps, width, width), np.uint8)
        for row in numba.prange(steps * width):
            f, j = row // width, row % width
            body, now, then = bodies[0], poses[f], poses[f + 1]
            for i in range(width):
                px, py = through(i + 0.5, j + 0.5, views[f], width)
                dx, dy, dz = ray(px, py, size, now)
                material = materials[f, j, i]
                t = 1e4 if material == BACKGROUND else depths[f, j, i]
                x, y, z = t * dx, t * dy, CAMERA_DISTANCE + t * dz
                if material != BACKGROUND:
                    x, y, z = _next(x, y, z, material, body, now, then)
                px, py = project(x, y, z, size, then)
                u, v = _to_picture(px, py, views[f + 1], width)
                flow[f, j, i, 0], flow[f, j, i, 1] = u - i - 0.5, v - j - 0.5
                ii, jj = int(np.floor(u)), int(np.floor(v))
                if ii < 0 or jj < 0 or ii >= width or jj >= width:
                    continue
                seen = materials[f + 1, jj, ii]
                if material == BACKGROUND:
                    visible[f, j, i] = 1 if seen == BACKGROUND else 0
                    continue
                far = (x * x + y * y + (z - CAMERA_DISTANCE) * (z - CAMERA_DISTANCE)) ** 0.5
                if seen != BACKGROUND and abs(depths[f + 1, jj, ii] - far) < 0.08:
                    visible[f, j, i] = 1
        return flow, visible

    return trace_layers


trace_layers = _make_trace(sources(__file__))
