"""Pixels to rays and back: a pinhole camera that pans, tilts and zooms."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from countervid.phantom.anatomy import CAMERA_DISTANCE
from countervid.phantom.compile import kernel, parallel, sources

D = CAMERA_DISTANCE


@kernel
def ray(px: float, py: float, size: int, pose: Any) -> tuple[float, float, float]:
    """Unit direction in the world through a point of the frame (pixels; the first pixel's middle is 0.5)."""
    half = 0.5 * size
    x, y = (px - half) / (half * pose.focal), (half - py) / (half * pose.focal)
    s = 1.0 / (1.0 + x * x + y * y) ** 0.5
    x, y, z = x * s, y * s, -s
    return (
        pose.c00 * x + pose.c01 * y + pose.c02 * z,
        pose.c10 * x + pose.c11 * y + pose.c12 * z,
        pose.c20 * x + pose.c21 * y + pose.c22 * z,
    )


@kernel
def project(x: float, y: float, z: float, size: int, pose: Any) -> tuple[float, float]:
    """Frame pixel of a world point."""
    z = z - D
    cx = pose.c00 * x + pose.c10 * y + pose.c20 * z
    cy = pose.c01 * x + pose.c11 * y + pose.c21 * z
    cz = pose.c02 * x + pose.c12 * y + pose.c22 * z
    half = 0.5 * size
    return half - half * pose.focal * cx / cz, half + half * pose.focal * cy / cz


@kernel
def through(i: float, j: float, view: Any, view_size: int) -> tuple[float, float]:
    """Frame pixel of a point of the picture: bilinear in the quad UL, LL, LR, UR (`view`, (4, 2))."""
    u, v = i / view_size, j / view_size
    a, b, c, d = (1.0 - u) * (1.0 - v), (1.0 - u) * v, u * v, u * (1.0 - v)
    return (
        a * view[0, 0] + b * view[1, 0] + c * view[2, 0] + d * view[3, 0],
        a * view[0, 1] + b * view[1, 1] + c * view[2, 1] + d * view[3, 1],
    )


def whole_frame(frames: int, size: int) -> NDArray[np.float64]:
    """The quads that show the frame as it is, `(F, 4, 2)`."""
    quad = np.array([[0, 0], [0, size], [size, size], [size, 0]], np.float64)
    return np.repeat(quad[None], frames, axis=0)


def into_view(points: NDArray[np.float64], quad: NDArray[np.float64], view_size: int) -> NDArray[np.float64]:
    """Frame pixels -> picture pixels: the bilinear quad (4, 2) undone by Newton's method, `(N, 2)`."""
    ul, ll, lr, ur = quad
    uv = np.full_like(points, 0.5)
    across, down, twist = ur - ul, ll - ul, ul - ur - ll + lr
    for _ in range(6):  # exact at once for a parallelogram
        u, v = uv[:, :1], uv[:, 1:]
        miss = ul + across * u + down * v + twist * u * v - points
        du, dv = across + twist * v, down + twist * u
        det = du[:, 0] * dv[:, 1] - du[:, 1] * dv[:, 0]
        step_u = (miss[:, 0] * dv[:, 1] - miss[:, 1] * dv[:, 0]) / det
        step_v = (du[:, 0] * miss[:, 1] - du[:, 1] * miss[:, 0]) / det
        uv = uv - np.stack([step_u, step_v], 1)
    return np.asarray(uv * view_size)


def _make_cast(salt: int) -> Any:
    @parallel
    def cast(frame: Any, x: Any, y: Any, views: Any, poses: Any, size: int, width: int, shrink: float) -> Any:
        """Rays (N, 4) through picture points: frame, frame pixel x and y, width of a picture's pixel at distance 1."""
        _ = salt  # closed over: see `compile`
        rays = np.empty((frame.shape[0], 4))
        for n in numba.prange(frame.shape[0]):
            f = frame[n]
            view = views[f]
            ex, ey = view[3, 0] - view[0, 0], view[3, 1] - view[0, 1]
            rays[n, 0] = f
            rays[n, 1], rays[n, 2] = through(x[n], y[n], view, width)
            rays[n, 3] = shrink * 2.0 * (ex * ex + ey * ey) ** 0.5 / (width * size * poses[f].focal)
        return rays

    return cast


cast_rays = _make_cast(sources(__file__))
