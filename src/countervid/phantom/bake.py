"""The neutral distance field of a head, baked once a clip."""

from __future__ import annotations

from typing import Any

import numba

from countervid.phantom.compile import parallel, sources
from countervid.phantom.person import GRID_CELL, LX, LY, LZ, NX, NY, NZ, REACH, head_distance, worn


def _make_bake(salt: int) -> Any:
    @parallel
    def bake(body: Any, neutral: Any, field: Any, near: Any) -> None:
        """Fill `field` (NX, NY, NZ) with the head's neutral distance, `near` with the bits of the groups around."""
        _ = salt  # closed over: see `compile`
        for k in numba.prange(NX * NY):
            i, j = k // NY, k % NY
            x, y = LX + GRID_CELL * i, LY + GRID_CELL * j
            own = worn(body[0])
            for n in range(NZ):
                z = LZ + GRID_CELL * n
                best, bits = 9.0, 0
                for g in range(5):
                    if own & (1 << g):
                        d, _m = head_distance(x, y, z, x, y, z, 1.0, 1 << g, body[0], neutral[0])
                        if d < best - REACH:
                            bits = 0
                        if d < best + REACH:
                            bits |= 1 << g
                        best = min(best, d)
                field[i, j, n], near[i, j, n] = best, bits

    return bake


bake = _make_bake(sources(__file__))
