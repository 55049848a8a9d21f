"""Rendered triples in windows, as the benchmark makes them: what tests of metrics against the truth share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from countervid.face.align import PORTRAIT, crop, quads
from countervid.metrics.base import Asked, Eyes, Window, World
from countervid.phantom.render import Rendering

EYES = Eyes()  # each model is loaded once, whatever test asks first


def pictures(rendering: Rendering) -> Tensor:
    """`(F, 3, H, W)`, 0..1."""
    return torch.from_numpy(rendering.frames).permute(0, 3, 1, 2).float() / 255


def squares(rendering: Rendering) -> np.ndarray:
    """The face's squares by the true landmarks."""
    return quads(rendering.landmarks - 0.5, framing=PORTRAIT)


def faces(frames: Tensor, squares: np.ndarray, size: int = 128) -> Tensor:
    """Crops `(F, 3, S, S)`, 0..1, of frames of that shape."""
    return crop(frames.permute(0, 2, 3, 1).contiguous(), squares, size).permute(0, 3, 1, 2)


def windows(
    clips: Mapping[str, Tensor],
    squares: np.ndarray,
    *,
    size: int,
    world: World | None = None,
    asked: Asked | None = None,
    eyes: Eyes = EYES,
) -> Iterator[Window]:
    """The triple in windows of `size` frames."""
    crops = {name: faces(frames, squares) for name, frames in clips.items()}
    count = len(clips["factual"])
    for start in range(0, count, size):
        part = slice(start, min(start + size, count))
        yield Window(
            start=start,
            frames={name: frames[part] for name, frames in clips.items()},
            faces={name: frames[part] for name, frames in crops.items()},
            rows=torch.arange(part.stop - part.start),
            world=None if world is None else world.part(part),
            asked=asked,
            eyes=eyes,
        )
