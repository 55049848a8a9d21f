"""A look, a scene and a motion become frames, with the truth about them.

Why numba: a frame is some ten thousand rays that each take a few dozen data-dependent steps through distance functions
with many early exits. Scalar code on all cores does that at video rate (`benchmarks/phantom.py`); the same functions
over torch tensors evaluate every primitive at every pixel and step. What buys the speed: one baked distance field per
clip for marching, shadows and ambient occlusion; exact functions only near the surface; extra rays only where
neighbouring pixels differ.

Every pixel depends on its own frame's parameters alone: a frame rendered alone is bit for bit the frame of the clip,
on any number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from countervid.phantom.anatomy import CAMERA_DISTANCE, POSE, Records, body_of, light_of, poses_of
from countervid.phantom.background import background
from countervid.phantom.camera import into_view, ray, through, whole_frame
from countervid.phantom.compile import SOURCES, kernel, parallel
from countervid.phantom.landmarks import locate
from countervid.phantom.layers import trace_layers
from countervid.phantom.paint import speck
from countervid.phantom.parameters import Look, Motion, Scene
from countervid.phantom.shading import film, shade
from countervid.phantom.trace import BACKGROUND, bake, march

EDGE_COLOUR = 0.085
"""Neighbours that differ by more than this (display units) get extra rays; 0.05 costs 30 % more and shows no difference."""

EYE_Z = CAMERA_DISTANCE


@dataclass(frozen=True)
class Rendering:
    """Frames and what is known about them.

    Attributes:
        frames: `(F, S, S, 3)` uint8 sRGB.
        landmarks: `(F, 68, 2)` float32, pixels of the returned picture (x, y; a pixel's middle is at .5).
        masks: `(F, S, S)` uint8: 0 background, 1 skin, 2 hair and beard, 3 eyes, 4 lips and mouth, 5 clothes,
            6 glasses, 7 hat, 8 occluder. None unless layers were asked for.
        flow: `(F - 1, S, S, 2)` float32: where each pixel's surface point is in the next frame, minus where it is now.
        visible: `(F - 1, S, S)` uint8: 1 where that point is also seen in the next frame.
    """

    frames: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    masks: NDArray[np.uint8] | None = None
    flow: NDArray[np.float32] | None = None
    visible: NDArray[np.uint8] | None = None


@kernel
def _behind(px: float, py: float, size: int, pose: Any, light: Any) -> tuple[float, float, float]:
    """Display colour of the background at a frame pixel."""
    dx, dy, dz = ray(px, py, size, pose)
    r, g, b = background(-3.2 * dx / dz, -3.2 * dy / dz, light)
    return film(r * light.exposure), film(g * light.exposure), film(b * light.exposure)


@kernel
def _colour(
    px: float, py: float, size: int, field: Any, body: Any, pose: Any, light: Any, pixel: float
) -> tuple[float, float, float, int, float, int]:
    """Display colour, mask class, distance and material of one ray; class 0 leaves the colour to the background."""
    dx, dy, dz = ray(px, py, size, pose)
    t, material = march(0.0, 0.0, EYE_Z, dx, dy, dz, field, body, pose, pixel)
    if material == BACKGROUND:
        return 0.0, 0.0, 0.0, 0, t, material
    r, g, b, kind = shade(t * dx, t * dy, EYE_Z + t * dz, dx, dy, dz, material, t, field, body, pose, light, pixel)
    e = light.exposure
    return film(r * e), film(g * e), film(b * e), kind, t, material


def _make_paint(salt: int) -> Any:
    @parallel
    def paint(
        field: Any, bodies: Any, poses: Any, lights: Any, views: Any, size: int, width: int
    ) -> tuple[Any, Any, Any, Any]:
        """All frames: uint8 pictures, classes, distances and materials."""
        version = salt  # closed over: see `compile`
        count = poses.shape[0]
        colour = np.empty((count, width, width, 3), np.float32)
        kinds = np.empty((count, width, width), np.uint8)
        depths = np.empty((count, width, width), np.float32)
        materials = np.empty((count, width, width), np.uint8)
        pictures = np.empty((count, width, width, 3), np.uint8)
        rows = count * width
        half = (rows + 1) // 2
        for k in numba.prange(2 * half):
            row = (k % half) * 2 + k // half  # neighbouring rows go to different threads: they cost the same
            if row >= rows:
                continue
            f, j = row // width, row % width
            body, light, pose, view = bodies[0], lights[0], poses[f], views[f]
            ex, ey = view[3, 0] - view[0, 0], view[3, 1] - view[0, 1]
            pixel = 2.0 * (ex * ex + ey * ey) ** 0.5 / (width * size * pose.focal)
            for i in range(width):
                px, py = through(i + 0.5, j + 0.5, view, width)
                r, g, b, kind, t, material = _colour(px, py, size, field, body, pose, light, pixel)
                if kind == 0:
                    r, g, b = _behind(px, py, size, pose, light)
                colour[f, j, i, 0], colour[f, j, i, 1], colour[f, j, i, 2] = r, g, b
                kinds[f, j, i], depths[f, j, i], materials[f, j, i] = kind, t, material
        for k in numba.prange(2 * half):
            row = (k % half) * 2 + k // half
            if row >= rows:
                continue
            f, j = row // width, row % width
            body, light, pose, view = bodies[0], lights[0], poses[f], views[f]
            ex, ey = view[3, 0] - view[0, 0], view[3, 1] - view[0, 1]
            pixel = 2.0 * (ex * ex + ey * ey) ** 0.5 / (width * size * pose.focal)
            for i in range(width):
                r, g, b = colour[f, j, i, 0], colour[f, j, i, 1], colour[f, j, i, 2]
                edge = False
                kind = kinds[f, j, i]
                for n in range(4):
                    jj, ii = j + (0, 0, 1, -1)[n], i + (1, -1, 0, 0)[n]
                    if jj < 0 or ii < 0 or jj >= width or ii >= width:
                        continue
                    if kinds[f, jj, ii] != kind:
                        edge = True
                    elif kind > 0:
                        if (
                            abs(colour[f, jj, ii, 0] - r) > EDGE_COLOUR
                            or abs(colour[f, jj, ii, 1] - g) > EDGE_COLOUR
                            or abs(colour[f, jj, ii, 2] - b) > EDGE_COLOUR
                            or abs(depths[f, jj, ii] - depths[f, j, i]) > 0.15
                        ):
                            edge = True
                if edge:
                    # The background is smooth: its middle value stands for all of the pixel, so that a pixel that
                    # shows nothing else keeps its bits whatever its neighbours show.
                    px, py = through(i + 0.5, j + 0.5, view, width)
                    br, bg, bb = r, g, b
                    if kind > 0:
                        br, bg, bb = _behind(px, py, size, pose, light)
                    sr, sg, sb, hits = 0.0, 0.0, 0.0, 0
                    for n in range(4):
                        px, py = through(
                            i + (0.375, 0.875, 0.125, 0.625)[n], j + (0.125, 0.375, 0.625, 0.875)[n], view, width
                        )
                        cr, cg, cb, ck, _t, _m = _colour(px, py, size, field, body, pose, light, 0.5 * pixel)
                        if ck > 0:
                            sr, sg, sb, hits = sr + cr, sg + cg, sb + cb, hits + 1
                    if hits > 0:
                        left = 4.0 - hits
                        r, g, b = 0.25 * (sr + left * br), 0.25 * (sg + left * bg), 0.25 * (sb + left * bb)
                    else:
                        r, g, b = br, bg, bb
                grain = light.grain * speck(i, j, pose.index, light.grain_seed) + 0.5
                pictures[f, j, i, 0] = int(min(255.0, max(0.0, 255.0 * r + grain)))
                pictures[f, j, i, 1] = int(min(255.0, max(0.0, 255.0 * g + grain)))
                pictures[f, j, i, 2] = int(min(255.0, max(0.0, 255.0 * b + grain)))
        return pictures, kinds, depths, materials

    return paint


paint = _make_paint(SOURCES)


def neutral_pose() -> Records:
    """The pose in which a head is baked: no expression, and no neck (it bends with every frame)."""
    pose = np.zeros(1, POSE)
    for name in ("r00", "r11", "r22"):
        pose[name] = 1.0
    pose["neck_y"] = 1.0
    return pose


def render(
    look: Look,
    scene: Scene,
    motion: Motion,
    size: int,
    frames: slice | None = None,
    view: NDArray[np.floating[Any]] | None = None,
    view_size: int | None = None,
    layers: bool = False,
) -> Rendering:
    """Draw a person.

    Args:
        look, scene, motion: What is to be seen; see `countervid.phantom.parameters`.
        size: Height and width of the frame in pixels.
        frames: Which frames of the motion; all by default. A frame does not depend on which others are drawn.
        view: Per frame a quad UL, LL, LR, UR in pixels of the frame, `(F, 4, 2)` with F the frames drawn: only what
            lies in the quad is drawn, through the same lens, without resampling. The whole frame by default.
        view_size: Height and width of the picture of the quad; `size` by default.
        layers: Whether masks, flow and visibility are wanted too.

    Returns:
        The frames, their landmarks, and the layers.

    Raises:
        ValueError: A size or a view does not fit.
    """
    if size < 16:
        raise ValueError(f"`size` must be at least 16 pixels, got {size}.")
    body, light = body_of(look), light_of(scene)
    poses = poses_of(body, scene, motion)[frames if frames is not None else slice(None)]
    poses = np.ascontiguousarray(poses)
    count = len(poses)
    width = view_size if view_size is not None else size
    quads = whole_frame(count, size) if view is None else np.ascontiguousarray(view, np.float64)
    if quads.shape != (count, 4, 2):
        raise ValueError(f"`view` must be ({count}, 4, 2), one quad a drawn frame, got {quads.shape}.")
    field = bake(body, neutral_pose())
    pictures, kinds, depths, materials = paint(field, body, poses, light, quads, size, width)
    points = locate(body, poses, size)
    if view is not None:
        points = np.stack([into_view(p, q, width) for p, q in zip(points, quads, strict=True)])
    landmarks = points.astype(np.float32).reshape(count, 68, 2)
    if not layers:
        return Rendering(frames=pictures, landmarks=landmarks)
    flow, visible = trace_layers(body, poses, quads, size, depths, materials)
    return Rendering(frames=pictures, landmarks=landmarks, masks=kinds, flow=flow, visible=visible)
