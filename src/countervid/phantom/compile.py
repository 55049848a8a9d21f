"""How the renderer's inner loops become machine code.

Numba compiles plain scalar Python. The image is a few hundred thousand short, branchy walks along rays: no tensor
shape fits them, and a tensor version of the same distance functions is about fifty times slower on two cores.

Only the outermost loops are kept in numba's cache on disk. Numba looks at the file of the cached function alone when it
decides whether the cache is stale, so `SOURCES` (a checksum of every file of this folder) is closed over by each of
them: a closed-over value is part of numba's cache key.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])

_FILES = sorted(Path(__file__).parent.glob("*.py"))
_KERNELS = [path for path in _FILES if b"compile import" in path.read_bytes()]
SOURCES = zlib.crc32(b"".join(path.read_bytes() for path in _KERNELS))
"""Checksum of the files that hold compiled code."""


def kernel(function: F) -> F:
    """Compile a scalar function that other compiled functions call."""
    return cast(F, njit(fastmath=True, nogil=True, error_model="numpy")(function))


def inline(function: F) -> F:
    """Compile a small scalar function; LLVM inlines it where it is called."""
    return cast(F, njit(fastmath=True, nogil=True, error_model="numpy", inline="never")(function))


def parallel(function: F) -> F:
    """Compile an outermost loop over pixels or cells; kept on disk."""
    return cast(F, njit(fastmath=True, nogil=True, error_model="numpy", parallel=True, cache=True)(function))


def serial(function: F) -> F:
    """Compile an outermost loop that is too short to share; kept on disk."""
    return cast(F, njit(fastmath=True, nogil=True, error_model="numpy", cache=True)(function))
