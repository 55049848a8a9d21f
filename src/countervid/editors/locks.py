"""Locks of the cache folder: who uses an entry, and who is computing one of its files.

All of them are locks of the operating system on files in `ROOT/.locks`: they end with the process that holds them,
however it ends, so none is ever stale. What a killed process leaves is an unlocked file, which is removed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

FOLDER = ".locks"
PATIENCE = 3.0  # seconds of waiting in silence
logger = logging.getLogger(__name__)


class Use:
    """Says that this process uses an entry, until it is closed or collected. Any number may use one entry."""

    def __init__(self, root: Path, entry: str) -> None:
        path = root / FOLDER / f"{_mark(entry)}.{uuid.uuid4().hex}.use"
        lock = FileLock(path)
        lock.acquire(blocking=False)
        self.close = weakref.finalize(self, _end, lock, path, os.getpid())


def _end(lock: FileLock, path: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child holds a copy, which is not its own to end
        path.unlink(missing_ok=True)
        lock.release(force=True)


def in_use(root: Path, entry: str) -> bool:
    """Whether a living process uses the entry. Ask while the cache is `guarded`. Clears what killed ones left."""
    alive = False
    for path in (root / FOLDER).glob(f"{_mark(entry)}.*.use"):
        lock = FileLock(path)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            alive = True
            continue
        path.unlink(missing_ok=True)
        lock.release(force=True)
    return alive


@contextmanager
def guarded(root: Path) -> Iterator[None]:
    """For the short steps that no two processes may do at once: to begin to use an entry, and to remove one."""
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "cache.lock"):
        yield


@contextmanager
def computing(root: Path, entry: str, name: str) -> Iterator[None]:
    """Alone at computing the file `name` of an entry. Whoever comes second waits, and is told so after a while."""
    path = root / FOLDER / f"{_mark(entry)}.{hashlib.sha256(name.encode()).hexdigest()[:16]}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=PATIENCE)
    except Timeout:
        logger.warning("countervid: another run is preparing this clip (%s); waiting for it", name)
        lock.acquire()
    try:
        yield
    finally:
        # Removed while it is held. Somebody who waits for the old file takes the lock again on a new one; at worst two
        # compute the same file, and it is written whole by both.
        path.unlink(missing_ok=True)
        lock.release(force=True)


def _mark(entry: str) -> str:
    return entry.replace("/", "_")
