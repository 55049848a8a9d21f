"""The 68 landmarks of the iBUG scheme, as points of the head's surface that follow bones and expression.

Order: 0-16 jaw from the image's left to its right, 17-21 and 22-26 brows, 27-30 bridge of the nose, 31-35 under the
nose, 36-41 the eye at the image's left (corner, two above, corner, two below), 42-47 the other eye, 48-59 outer lips
from the left corner over the top, 60-67 inner lips likewise.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from countervid.phantom.camera import project
from countervid.phantom.compile import kernel, parallel, sources
from countervid.phantom.person import from_head
from countervid.phantom.surfaces import lid_gap, mouth_gap, mouth_half_width, skin, unwarp, warp


@kernel
def _height(x: float, y: float, body: Any, pose: Any, solid: bool) -> float:
    """Where a line from the front first meets the face (z); with `solid`, of the neutral face."""
    z = 1.2
    for _ in range(28):
        if solid:
            d = skin(x, y, z, 1.0, x, y, z, body, pose)
        else:
            nx, ny, nz, _gap = unwarp(x, y, z, body, pose)
            d = skin(nx, ny, nz, 1.0, x, y, z, body, pose)
        z -= 0.8 * d
        if d < 0.0005 or z < 0.0:
            break
    return max(z, 0.0)


@kernel
def _jaw(angle: float, body: Any, pose: Any) -> tuple[float, float, float]:
    """A point of the jaw's line (neutral face): outermost along a direction of the front view, behind the cheeks."""
    c, s = math.sin(angle), -math.cos(angle)
    low = 0.5 + 0.5 * math.cos(angle)  # 1 at the chin, 0.5 beside the ears
    z = -0.06 + 0.56 * max(0.0, 2.0 * low - 1.0) ** 1.5
    y0 = -0.12
    t = 1.5
    for _ in range(28):
        d = skin(c * t, y0 + s * t, z, 1.0, 0.0, 5.0, 5.0, body, pose)
        t -= 0.8 * d
        if d < 0.0005:
            break
    return c * t, y0 + s * t, z


@kernel
def head_landmark(n: int, body: Any, pose: Any) -> tuple[float, float, float]:
    """Landmark `n` in head space under the expression."""
    if n < 17:
        x, y, z = _jaw((n - 8) / 8.0 * 1.72, body, pose)
        return warp(x, y, z, body, pose)
    if n < 27:
        k = n - 17 if n < 22 else 26 - n
        w = 1.0 - (k / 4.0)
        ax = 0.125 + 0.37 * w
        y = body.brow_y + body.brow_arch * (1.0 - (w - 0.62) * (w - 0.62) / 0.38) - 0.075 * max(0.0, w - 0.6) / 0.5
        y += 0.4 * body.brow_h
        x = -ax if n < 22 else ax
        return warp(x, y, _height(x, y, body, pose, True), body, pose)
    if n < 31:
        y = body.eye_y + 0.03 + (body.nose_y - body.eye_y - 0.03) * (n - 27) / 3.0
        return warp(0.0, y, _height(0.0, y, body, pose, True), body, pose)
    if n < 36:
        k = n - 33
        x = 0.5 * k * (body.wing_x + 0.3 * body.wing_r)
        y = body.nose_y - 0.105 + 0.012 * abs(k)
        return warp(x, y, _height(x, y, body, pose, True), body, pose)
    if n < 48:
        k = (n - 36) % 6
        side = -1.0 if n < 42 else 1.0
        u = (-1.0, -0.36, 0.36, 1.0, 0.36, -0.36)[k]
        x = side * body.eye_x + u * body.eye_a * 0.97
        _opening, up, low = lid_gap(abs(x), 0.0, body, pose)
        y = up if k == 1 or k == 2 else low
        if k == 0 or k == 3:
            y = 0.5 * (up + low)
        dx, dy = abs(x) - body.eye_x, y - body.eye_y
        r = body.eye_r + 0.012
        return x, y, body.eye_z + math.sqrt(max(0.0, r * r - dx * dx - dy * dy))
    outer = n < 60
    k = n - 48 if outer else n - 60
    w = mouth_half_width(body, pose)
    if outer:
        u = (-1.0, -0.63, -0.24, 0.0, 0.24, 0.63, 1.0, 0.6, 0.26, 0.0, -0.26, -0.6)[k]
        upper = k <= 6
    else:
        u = (-0.86, -0.33, 0.0, 0.33, 0.86, 0.33, 0.0, -0.33)[k]
        upper = k <= 4
    x = u * w
    middle, up, down = mouth_gap(x, body, pose)
    y = middle + up if upper else middle - down
    if (outer and (k == 0 or k == 6)) or (not outer and (k == 0 or k == 4)):
        y = middle
    elif outer:
        s = 1.0 - u * u
        if upper:
            y += body.lip_up * (1.0 - 0.22 * (1.0 if u == 0.0 else 0.0)) * (0.25 * math.sqrt(s) + 0.75 * s)
        else:
            y -= body.lip_low * (0.35 * math.sqrt(s) + 0.65 * s)
    return x, y, _height(x, y, body, pose, False)


def _make_locate(salt: int) -> Any:
    @parallel
    def locate(body: Any, poses: Any, size: int) -> NDArray[np.float64]:
        """Landmarks of every frame in frame pixels, `(F, 68, 2)`."""
        _ = salt  # closed over: see `compile`
        count = poses.shape[0]
        points = np.empty((count, 68, 2))
        for k in numba.prange(count * 68):
            f, n = k // 68, k % 68
            x, y, z = head_landmark(n, body[0], poses[f])
            x, y, z = from_head(x, y, z, poses[f])
            points[f, n, 0], points[f, n, 1] = project(x, y, z, size, poses[f])
        return points

    return locate


locate = _make_locate(sources(__file__))
