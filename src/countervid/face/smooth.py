"""Gaussian smoothing over time."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

Real = TypeVar("Real", bound=np.floating[Any])

TRUNCATE = 4.0  # the kernel ends at four standard deviations, as in the reference alignment


def reach(sigma: float) -> int:
    """Frames that a Gaussian of `sigma` frames looks to either side."""
    return int(TRUNCATE * sigma + 0.5)


def smooth(values: npt.NDArray[Real], sigma: float) -> npt.NDArray[Real]:
    """Values `(F, ...)` smoothed along the first axis, reflected at both ends; `sigma` 0 returns them as they are."""
    if sigma <= 0 or len(values) == 0:
        return values
    smoothed: npt.NDArray[Real] = gaussian_filter1d(values, sigma, axis=0, mode="reflect", truncate=TRUNCATE)
    return smoothed
