"""Whether a file is as it was left: its size and its SHA-256, as records of finished work keep them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hex; read in pieces, and once a process as long as its size and time stay."""
    state = path.stat()
    return _sha256(path, state.st_size, state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=65536)
def _sha256(path: Path, size: int, changed: int, inode: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entry_of(path: Path) -> dict[str, Any]:
    """What a record keeps of a finished file: `bytes` and `sha256`."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def intact(path: Path, entry: object) -> bool:
    """Whether a file is there as its entry says; no for an entry of another kind, such as an older version's."""
    if not (isinstance(entry, Mapping) and path.is_file()):
        return False
    return path.stat().st_size == entry.get("bytes") and sha256_of(path) == entry.get("sha256")
