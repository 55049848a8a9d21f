"""One process at a time in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from countervid.errors import OutputError

LOCK = ".lock"  # in the folder, while somebody works there


@contextmanager
def alone_in(folder: Path, option: str = "--out") -> Iterator[None]:
    """Hold a folder for as long as the block lasts; it is made when missing, and removed again if it stays empty.

    The lock is the kernel's, so it ends with the process, however that ends; nothing is left of it in the folder.

    Args:
        folder: Where files are going to be written.
        option: Names the folder on the command line, for the message.

    Raises:
        OutputError: Another process holds the folder.
        OSError: It cannot be made.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]  # the deepest first
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise OutputError(
            f"Another process is working in `{folder}`. Wait for it, or choose another `{option}`."
        ) from None
    except FileNotFoundError:  # whoever was there before has just removed it
        raise OutputError(f"Another process has just left `{folder}`. Run the same command again.") from None
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)  # held: whoever waits for this file sees that it is gone
        lock.release()
        for path in made:
            with suppress(OSError):  # not empty
                path.rmdir()
