"""The cache folder as a whole: its entries, how much they take, what goes first when there is no room.

`ROOT/EDITOR/KEY/` is an entry: one clip, prepared by one editor with one set of settings. Each holds `origin.json`
(what it depends on; its time is the entry's last use), `about.json` (the clip's name), bundles, and under `edits/` what
was drawn for single targets.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from countervid.editors import locks
from countervid.errors import ConfigError, OutputError

ORIGIN, ABOUT, EDITS = "origin.json", "about.json", "edits"
DEFAULT_LIMIT = 20_000_000_000  # bytes; or half of what the disk has for it, if that is less
_REMOVED = ".removed-"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def default_cache() -> Path:
    """Where prepared clips are kept unless told otherwise."""
    return Path.home() / ".cache" / "countervid" / "prepared"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One clip as one editor prepared it."""

    name: str  # EDITOR/KEY
    folder: Path
    clip: str  # the name of its file; the beginning of its digest where that is not known
    digest: str  # of the clip; empty where it is not known
    frames: int | None
    size: int  # bytes, all together
    edits: int  # bytes of them under `edits/`
    used: float  # time of the last use, seconds since 1970
    made: float  # time of its oldest file

    @property
    def editor(self) -> str:
        return self.name.partition("/")[0]


@dataclass
class Cache:
    """A cache folder and how much it may hold.

    Args:
        path: The folder; it need not exist.
        limit: Bytes; None is 20 GB, or half of what the disk has for it (used and free) if that is less.
    """

    path: Path
    limit: int | None = None
    _used: int | None = field(default=None, repr=False)  # bytes, as far as this process knows

    @property
    def free(self) -> int:
        """Bytes free on its disk."""
        return shutil.disk_usage(_existing(self.path)).free

    def bound(self, used: int) -> int:
        """The limit in bytes, of a cache that holds `used` bytes."""
        return min(DEFAULT_LIMIT, (used + self.free) // 2) if self.limit is None else self.limit

    def entries(self) -> list[Entry]:
        """What is kept, the entry used last first."""
        folders = [f for f in self.path.glob("*/*") if f.is_dir() and not f.parent.name.startswith(".")]
        found = [entry for entry in map(_entry, folders) if entry is not None]
        return sorted(found, key=lambda entry: -entry.used)

    def used(self, entries: Iterable[Entry] | None = None) -> int:
        """Bytes that the entries take."""
        return sum(entry.size for entry in (self.entries() if entries is None else entries))

    def wrote(self, size: int) -> None:
        """Count a file that was just written."""
        if self._used is not None:
            self._used += size

    def make_room(self, size: int, *, for_entry: str = "", for_clip: str = "") -> int:
        """Remove what was not used for longest until `size` bytes more fit: first edits, then entries. Bytes removed.

        The entry `for_entry` stays, those of the clip with the digest `for_clip`, and all that a living process uses.

        Raises:
            OutputError: There is not so much to remove.
        """
        if self._used is None:
            self._used = self.used()
        if self._used + size <= self.bound(self._used):
            return 0
        entries = self.entries()
        before = self._used = self.used(entries)
        limit = self.bound(before)
        others = [
            entry
            for entry in reversed(entries)
            if entry.name != for_entry and not (for_clip and entry.digest == for_clip)
        ]
        for entry in others:
            if self._used + size > limit and entry.edits:
                self._used -= entry.edits * self.remove(entry, edits_only=True)
        for entry in others:
            if self._used + size > limit and entry.folder.is_dir():
                self._used -= (entry.size - entry.edits) * self.remove(entry)
        if self._used + size > limit:
            raise OutputError(
                f"The cache `{self.path}` may hold {human(limit)}; this run needs {human(size)} more, and "
                f"{human(self._used)} are in use by it or by other runs. Allow more with `--cache-limit "
                f"{_rounded(self._used + size)}`, or edit fewer frames with `--max-frames N`."
            )
        return before - self._used

    def remove(self, entry: Entry, *, edits_only: bool = False) -> bool:
        """Remove an entry, or what was drawn in it, unless a living process uses it; whether it was."""
        aside = self.path / f"{_REMOVED}{uuid.uuid4().hex}"
        with locks.guarded(self.path):
            if locks.in_use(self.path, entry.name):
                return False
            with contextlib.suppress(FileNotFoundError):  # somebody else was faster
                (entry.folder / EDITS if edits_only else entry.folder).rename(aside)
        for folder in self.path.glob(f"{_REMOVED}*"):  # and what a killed one left
            shutil.rmtree(folder, ignore_errors=True)
        return True


def as_cache(cache: Cache | Path | None) -> Cache:
    """A cache from a folder; None is the default one."""
    return cache if isinstance(cache, Cache) else Cache(cache or default_cache())


def _entry(folder: Path) -> Entry | None:
    size = edits = 0
    made = time.time()
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # it may go away while it is looked at
            if path.is_file():
                stat = path.stat()
                size, made = size + stat.st_size, min(made, stat.st_mtime)
                edits += stat.st_size if path.relative_to(folder).parts[0] == EDITS else 0
    if not folder.is_dir():
        return None
    origin, about = (_values(folder / name) for name in (ORIGIN, ABOUT))
    digest = str(about.get("digest") or origin.get("clip") or "")
    frames = about.get("frames")
    try:
        used = (folder / ORIGIN).stat().st_mtime
    except OSError:
        used = made
    return Entry(
        name=f"{folder.parent.name}/{folder.name}", folder=folder, clip=str(about.get("clip") or digest[:12] or "?"),
        digest=digest, frames=frames if isinstance(frames, int) else None, size=size, edits=edits, used=used, made=made,
    )  # fmt: skip


def _values(path: Path) -> dict[str, object]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _existing(path: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    path = path.expanduser().absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def human(size: float) -> str:
    """Bytes in words: 620 MB. Decimal units, as disks are sold."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}" if size < 10 * factor else f"{size / factor:.0f} {unit}"
    return f"{size:.0f} B"


def parse_size(text: str) -> int:
    """Bytes of a size in words: `500MB`, `20 GB`, `1.5g`, `1000000`.

    Raises:
        ConfigError: It is not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)b?\s*", text, re.IGNORECASE)
    if match is None:
        raise ConfigError(f"`{text}` is not a size. Write it as in 500MB or 20GB.")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _rounded(size: int) -> str:
    """A size as the command line takes it, rounded up."""
    return f"{-(-size // 10**9)}GB" if size >= 10**9 else f"{-(-size // 10**6)}MB"
