"""How the renderer's inner loops become machine code.

Numba compiles plain scalar Python. The image is a few hundred thousand short, branchy walks along rays: no tensor
shape fits them, and a tensor version of the same distance functions evaluates every solid at every step of every ray.

Only the outermost loops are kept in numba's cache on disk. Numba looks at the file of the cached function alone when it
decides whether the cache is stale, so `sources` (a checksum of that file and of all it imports from this folder) is
closed over by each of them: a closed-over value is part of numba's cache key.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile a scalar function that other compiled functions call."""
    return cast(F, njit(fastmath=True, nogil=True, error_model="numpy")(function))


def parallel(function: F) -> F:
    """Compile an outermost loop over rays or cells, shared among threads; kept on disk."""
    return cast(F, njit(fastmath=True, nogil=True, error_model="numpy", parallel=True, cache=True)(function))


def sources(file: str) -> int:
    """Checksum of a module's file and of every module of this package that it builds on."""
    folder, pending, seen = Path(file).parent, [Path(file).stem], set[str]()
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending += re.findall(r"from countervid\.phantom\.(\w+) import", (folder / f"{name}.py").read_text())
    return zlib.crc32(b"".join((folder / f"{name}.py").read_bytes() for name in sorted(seen)))
