"""Gaussian smoothing over time, of a whole clip or of a stream with a bounded look-ahead.

Both give the same numbers bit for bit: each output frame is one sum over its neighbours, taken in a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Real = TypeVar("Real", bound=np.floating[Any])

TRUNCATE = 4.0  # the kernel ends at four standard deviations, as in the reference alignment


def reach(sigma: float) -> int:
    """Frames that a Gaussian of `sigma` frames looks to either side."""
    return int(TRUNCATE * sigma + 0.5)


def kernel(sigma: float) -> npt.NDArray[np.float64]:
    """Weights of a sampled Gaussian, `(2 * reach + 1,)`, summing to 1."""
    offsets = np.arange(-reach(sigma), reach(sigma) + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def reflect(index: npt.NDArray[np.int64], length: int) -> npt.NDArray[np.int64]:
    """Indices folded back into `0..length-1`, the edge value repeated: -1 -> 0, -2 -> 1, length -> length - 1."""
    folded = np.mod(index, 2 * length)
    return np.asarray(np.minimum(folded, 2 * length - 1 - folded), dtype=np.int64)


def smooth(values: npt.NDArray[Real], sigma: float) -> npt.NDArray[Real]:
    """Values `(F, ...)` smoothed along the first axis, reflected at both ends; `sigma` 0 returns them as they are.

    Floating point of any width; the sum is taken in the width of the input (masks stay float32).
    """
    if sigma <= 0 or len(values) == 0:
        return values
    return _smooth_range(values, sigma, 0, len(values), 0, len(values))


def stream(chunks: Iterable[npt.NDArray[Real]], sigma: float) -> Iterator[npt.NDArray[Real]]:
    """The same as `smooth` of all chunks in a row, while holding only the kernel's neighbourhood.

    Yields chunks whose lengths differ from the input's (the output runs `reach(sigma)` frames behind); their
    concatenation equals `smooth(concatenate(chunks), sigma)` bit for bit.
    """
    if sigma <= 0:
        yield from chunks
        return
    radius = reach(sigma)
    held: npt.NDArray[Real] | None = None  # frames origin..origin+len(held) of the clip
    origin = done = 0
    for chunk in chunks:
        if len(chunk) == 0:
            continue
        held = chunk if held is None else np.concatenate([held, chunk])
        ready = origin + len(held) - radius
        # A reflected start needs the first `radius` frames only, and they are still held while it matters.
        if ready > done:
            yield _smooth_range(held, sigma, done, ready, origin, None)
            done = ready
            drop = max(0, done - radius - origin)
            held, origin = held[drop:], origin + drop
    if held is not None and origin + len(held) > done:
        yield _smooth_range(held, sigma, done, origin + len(held), origin, origin + len(held))


def _smooth_range(
    held: npt.NDArray[Real], sigma: float, start: int, stop: int, origin: int, length: int | None
) -> npt.NDArray[Real]:
    """Smoothed frames `start..stop` of a clip of which `held` has the frames from `origin`; length None: not ended."""
    radius = reach(sigma)
    frames = np.arange(start, stop)
    total = np.zeros((stop - start, *held.shape[1:]), held.dtype)
    for offset, weight in zip(range(-radius, radius + 1), kernel(sigma), strict=True):
        index = frames + offset
        # Before the end is known only the start can be met; `ready` above keeps the rest inside what is held.
        index = np.where(index < 0, -1 - index, index) if length is None else reflect(index, length)
        total += held.dtype.type(weight) * held[index - origin]
    return total
