"""From display values to 8-bit pixels, with film grain."""

from __future__ import annotations

from typing import Any

import numba

from countervid.phantom.compile import kernel, parallel, sources
from countervid.phantom.primitives import hash01


@kernel
def speck(i: int, j: int, frame: int, seed: int) -> float:
    """Film grain: about normal, mean 0, variance 1, for one pixel of one frame."""
    a = hash01(i, j, seed + 131 * frame)
    b = hash01(j + 4096, i, seed + 131 * frame + 17)
    c = hash01(i + 8192, j, seed + 131 * frame + 29)
    return (a + b + c - 1.5) * 2.0


def _make_develop(salt: int) -> Any:
    @parallel
    def develop(colours: Any, poses: Any, lights: Any, pictures: Any) -> None:
        """Fill `pictures` (F, S, S, 3) uint8 from `colours` (F, S, S, 3), with the scene's grain."""
        _ = salt  # closed over: see `compile`
        count, width = pictures.shape[0], pictures.shape[1]
        for row in numba.prange(count * width):
            f, j = row // width, row % width
            light, frame = lights[0], poses[f].index
            for i in range(width):
                grain = light.grain * speck(i, j, frame, light.grain_seed) + 0.5
                for c in range(3):
                    pictures[f, j, i, c] = int(min(255.0, max(0.0, 255.0 * colours[f, j, i, c] + grain)))

    return develop


develop = _make_develop(sources(__file__))
