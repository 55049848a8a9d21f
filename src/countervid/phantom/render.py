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

import numpy as np
from numpy.typing import NDArray

from countervid.phantom.anatomy import POSE, Records, body_of, light_of, poses_of
from countervid.phantom.background import paint_behind
from countervid.phantom.bake import bake
from countervid.phantom.camera import cast_rays, into_view, whole_frame
from countervid.phantom.film import develop
from countervid.phantom.landmarks import locate
from countervid.phantom.layers import trace_layers
from countervid.phantom.parameters import Look, Motion, Scene
from countervid.phantom.person import GRID_SHAPE
from countervid.phantom.shading import shade_rays
from countervid.phantom.trace import approach_tiles, trace_rays

EDGE_COLOUR = 0.085
"""Neighbours within the person that differ by more than this (display units) get extra rays."""

EDGE_DEPTH = 0.15
"""Neighbours farther apart than this (head units) along their rays get extra rays."""


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


SUBPIXELS = ((0.375, 0.125), (0.875, 0.375), (0.125, 0.625), (0.625, 0.875))
"""Where the four extra rays of a pixel go: a rotated grid, so that no two share a row or a column."""

CHUNK = 2**20
"""Rays worked on at once; bounds the memory of a long clip."""


def _edges(kinds: NDArray[np.uint8], depths: NDArray[np.float32], colours: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels (F, S, S) that differ from a neighbour in class, or within the person in depth or colour."""
    edge = np.zeros(kinds.shape, bool)
    for axis in (1, 2):
        a = tuple(slice(None, -1) if k == axis else slice(None) for k in range(3))
        b = tuple(slice(1, None) if k == axis else slice(None) for k in range(3))
        differ = np.abs(colours[a] - colours[b]).max(-1) > EDGE_COLOUR
        differ |= np.abs(depths[a] - depths[b]) > EDGE_DEPTH
        differ &= kinds[a] > 0
        differ |= kinds[a] != kinds[b]
        edge[a] |= differ
        edge[b] |= differ
    return edge


def _nearest(depths: NDArray[np.float32]) -> NDArray[np.float32]:
    """The least distance in the 3 x 3 pixels around each, (F, S, S)."""
    across = depths.copy()
    np.minimum(across[:, :, 1:], depths[:, :, :-1], out=across[:, :, 1:])
    np.minimum(across[:, :, :-1], depths[:, :, 1:], out=across[:, :, :-1])
    nearest = across.copy()
    np.minimum(nearest[:, 1:], across[:, :-1], out=nearest[:, 1:])
    np.minimum(nearest[:, :-1], across[:, 1:], out=nearest[:, :-1])
    return nearest


def _draw(
    field: NDArray[np.float32], near: NDArray[np.uint8], body: Records, light: Records, poses: Records,
    quads: NDArray[np.float64], size: int, width: int,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:  # fmt: skip
    """Pictures, mask classes, distances and materials of some frames."""
    count = len(poses)

    def cast(rays: NDArray[np.float64], starts: NDArray[np.float32]) -> tuple[Any, Any, Any, Any]:
        depths, materials = np.empty(len(rays), np.float32), np.empty(len(rays), np.uint8)
        colours, kinds = np.zeros((len(rays), 3), np.float32), np.empty(len(rays), np.uint8)
        trace_rays(field, near, body, poses, rays, size, starts, depths, materials)
        shade_rays(field, body, poses, light, rays, size, depths, materials, colours, kinds)
        return depths, materials, colours, kinds

    def behind(rays: NDArray[np.float64]) -> NDArray[np.float32]:
        colours = np.empty((len(rays), 3), np.float32)
        paint_behind(poses, light, rays, size, colours)
        return colours

    frame, j, i = (a.ravel() for a in np.indices((count, width, width)))
    rays = cast_rays(frame, i + 0.5, j + 0.5, quads, poses, size, width, 1.0)
    starts = np.empty((count, width, width), np.float32)
    approach_tiles(field, body, poses, quads, size, width, starts)
    depths, materials, colours, kinds = cast(rays, starts.ravel())
    shape = (count, width, width)
    edge = np.flatnonzero(_edges(kinds.reshape(shape), depths.reshape(shape), colours.reshape(*shape, 3)))
    # The background is smooth: its value in the middle of a pixel stands for the whole pixel. So a pixel that shows
    # nothing else keeps its bits, whatever its neighbours show.
    need = kinds == 0
    need[edge] = True
    need = np.flatnonzero(need)
    back = np.zeros_like(colours)
    back[need] = behind(rays[need])
    colours[kinds == 0] = back[kinds == 0]
    ahead = _nearest(depths.reshape(starts.shape)).ravel()[edge] - EDGE_DEPTH
    total, hits = np.zeros((len(edge), 3), np.float32), np.zeros((len(edge), 1), np.float32)
    for x, y in SUBPIXELS:
        extra = cast_rays(frame[edge], i[edge] + x, j[edge] + y, quads, poses, size, width, 0.5)
        _depths, _materials, colour, kind = cast(extra, ahead)
        total += colour  # zero where the ray met nothing
        hits[kind > 0] += 1
    colours[edge] = np.where(hits > 0, 0.25 * (total + (4 - hits) * back[edge]), back[edge])
    pictures = np.empty((count, width, width, 3), np.uint8)
    develop(colours.reshape(pictures.shape), poses, light, pictures)
    return pictures, kinds.reshape(shape), depths.reshape(shape), materials.reshape(shape)


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
    field, near = np.empty(GRID_SHAPE, np.float32), np.empty(GRID_SHAPE, np.uint8)
    bake(body, neutral_pose(), field, near)
    step = max(1, CHUNK // width**2)
    parts = [
        _draw(field, near, body, light, poses[k : k + step], quads[k : k + step], size, width)
        for k in range(0, count, step)
    ]
    pictures, kinds, depths, materials = (np.concatenate(part) for part in zip(*parts, strict=True))
    points = locate(body, poses, size)
    if view is not None:
        points = np.stack([into_view(p, q, width) for p, q in zip(points, quads, strict=True)])
    landmarks = points.astype(np.float32).reshape(count, 68, 2)
    if not layers:
        return Rendering(frames=pictures, landmarks=landmarks)
    flow, visible = trace_layers(body, poses, quads, size, depths, materials)
    return Rendering(frames=pictures, landmarks=landmarks, masks=kinds, flow=flow, visible=visible)
