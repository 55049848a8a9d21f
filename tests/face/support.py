"""A real face under a virtual camera, and clips made of it."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import torch
from skimage import data
from torch import Tensor

from countervid.clip import Clip


@lru_cache
def astronaut() -> np.ndarray:
    """NASA's public-domain portrait of Eileen Collins, (512, 512, 3) RGB; part of scikit-image's wheel."""
    return np.ascontiguousarray(data.astronaut())


def moving(frames: int, height: int = 180, width: int = 240, zoom: float = 0.75) -> Tensor:
    """A camera that drifts over the portrait, turning a little: (F, height, width, 3) uint8."""
    shots = []
    for i in range(frames):
        phase = 2 * np.pi * i / 48
        matrix = cv2.getRotationMatrix2D((225 + 12 * np.sin(phase), 120 + 6 * np.cos(phase)), 6 * np.sin(phase), zoom)
        matrix[:, 2] += np.array([width / 2, height / 2]) - (225, 120)
        shots.append(cv2.warpAffine(astronaut(), matrix, (width, height), flags=cv2.INTER_AREA))
    return torch.from_numpy(np.stack(shots))


def clip_of(frames: Tensor) -> Clip:
    return Clip.from_frames(frames, fps=25.0)
