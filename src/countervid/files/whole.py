"""Files and folders written whole or not at all: under a temporary name beside the final one, then renamed.

All temporary names are `.NAME.countervid-TOKEN.partial`. Whoever writes one holds a lock on it until it is renamed or
removed, and the kernel drops that lock however the process ends. So a temporary file that can be locked belongs to a
process that was killed: the first time that a process writes into a folder, it removes those.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from countervid.errors import OutputError

try:
    import fcntl
except ImportError:  # not on this system: nothing is locked, and nothing is cleared
    fcntl = None  # type: ignore[assignment]

_PARTIAL = re.compile(r"\..+\.countervid-[0-9a-f]{8}\.partial", re.DOTALL)
_LONGEST = 160  # bytes of the final name in a temporary one: file systems take 255 in all
_cleared: set[Path] = set()  # folders that this process has looked through


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`; becomes `path` when the block ends well, is removed when it does not.

    The file is there, and empty, when the block begins: write to its path.

    Raises:
        OutputError: `path` is a folder.
        OSError: Its folder is not there, or cannot be written.
    """
    if path.is_dir():
        raise OutputError(f"`{path}` is a folder. Give the name of a file.")
    partial, descriptor = _begun(path, folder=False)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """The same for a folder: `path` is replaced, with all that is in it, when the block ends well."""
    partial, descriptor = _begun(path, folder=True)
    old = temporary(path)
    try:
        yield partial
        if path.is_dir():
            os.replace(path, old)
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        os.close(descriptor)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, for what is put together there; removed when the block ends."""
    folder, descriptor = _begun(path, folder=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a small file, and the folders above it. Text is UTF-8.

    What UTF-8 has no bytes for, as in file names of another encoding, is written `\\udcXX`: in JSON that is the
    character itself, which is read back.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_bytes(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)


def temporary(path: Path) -> Path:
    """A new temporary name beside `path`; nothing is made."""
    name = os.fsdecode(os.fsencode(path.name)[:_LONGEST])
    return path.with_name(f".{name}.countervid-{secrets.token_hex(4)}.partial")


def clear_partials(folder: Path) -> list[Path]:
    """Remove the temporary files and folders of processes that are gone; returns them.

    Args:
        folder: Looked through, but not the folders in it.
    """
    removed = []
    try:
        names = [name for name in os.listdir(folder) if _PARTIAL.fullmatch(name)]
    except OSError:
        return []
    for path in map(folder.joinpath, names):
        with suppress(OSError):  # gone meanwhile, or not ours to remove
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
            try:
                if _locked(descriptor):
                    if path.is_dir():
                        shutil.rmtree(path)
                    else:
                        path.unlink()
                    removed.append(path)
            finally:
                os.close(descriptor)
    return removed


def clear_partials_below(folder: Path) -> None:
    """The same for a folder and all folders in it."""
    for below, names, _ in os.walk(folder):
        clear_partials(Path(below))
        names[:] = [name for name in names if not _PARTIAL.fullmatch(name)]


def _begun(path: Path, *, folder: bool) -> tuple[Path, int]:
    """A temporary file or folder that is there and locked, and the descriptor that holds the lock."""
    parent = path.parent.absolute()
    if parent not in _cleared:
        clear_partials(parent)
        _cleared.add(parent)
    while True:
        partial = temporary(path)
        if folder:
            partial.mkdir()
            descriptor = os.open(partial, os.O_RDONLY)
        else:
            descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if _locked(descriptor, unknown=True) and partial.exists():
            return partial, descriptor
        os.close(descriptor)  # somebody took it for a dead one, in the moment before it was locked


def _locked(descriptor: int, *, unknown: bool = False) -> bool:
    """Lock an open file or folder if nobody else has; `unknown` is the answer where nothing can be locked."""
    if fcntl is None:
        return unknown
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return unknown and error.errno not in (errno.EACCES, errno.EAGAIN)
    return True
