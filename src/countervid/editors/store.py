"""Where prepared clips are kept: content-addressed folders of safetensors, written whole or not at all.

A folder's name is a digest of everything its content depends on (clip, settings, weights), so a stale entry is never
found, and two runs that need the same thing share it: one computes, the other waits. Each file has a checksum, of its
tensors and of its place; a damaged one is computed again. What is kept in all is bounded (`cache.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file

from countervid.clip import Clip
from countervid.editors import locks
from countervid.editors.cache import ABOUT, ORIGIN, Cache, human
from countervid.errors import CountervidError, OutputError
from countervid.files.names import printable, utf8_path
from countervid.files.whole import clear_partials, replacing, write_whole

Tensors = dict[str, torch.Tensor]
T = TypeVar("T")


class Store:
    """Named bundles of tensors in one folder, each computed at most once.

    While a store lives, its folder is in use: nobody removes it.

    Args:
        root: The cache, or its folder; made when missing.
        kind: What is stored (an editor's name): a sub-folder, for people who look.
        origin: Everything the content depends on, as JSON values. Its digest names the folder.
        clip: Whose content it is, so that `countervid cache list` can name it.

    Raises:
        OutputError: The folder cannot be written.
    """

    def __init__(self, root: Path | Cache, kind: str, origin: Mapping[str, object], clip: Clip | None = None) -> None:
        text = json.dumps(origin, sort_keys=True, separators=(",", ":"))
        self.key = hashlib.sha256(text.encode()).hexdigest()[:32]
        self.origin = dict(origin)
        self.cache = root if isinstance(root, Cache) else Cache(root)
        self.folder = self.cache.path / kind / self.key
        self._entry = f"{kind}/{self.key}"
        try:
            self._open(clip)
        except PermissionError as error:
            raise OutputError(
                f"The cache folder `{self.cache.path}` cannot be written ({error.strerror}). Name another with "
                "`--cache DIR`."
            ) from error

    def _open(self, clip: Clip | None) -> None:
        root = self.cache.path
        with locks.guarded(root):
            locks.in_use(root, self._entry)  # clears what killed runs left
            self._use = locks.Use(root, self._entry)
            self.folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, *(path for path in self.folder.rglob("*") if path.is_dir())):
            clear_partials(folder)
        _renew(self.folder / ORIGIN, self.origin)
        os.utime(self.folder / ORIGIN)  # the time of its last use
        if clip is not None:
            name = clip.source.name if clip.source else "frames in memory"
            about = {"clip": printable(name), "frames": len(clip), "digest": clip.digest()}
            _renew(self.folder / ABOUT, about)

    def fetch(self, name: str, compute: Callable[[], Tensors]) -> Tensors:
        """The bundle of that name: read if it is there and intact, else computed and kept.

        Raises:
            OutputError: There is no room for it.
        """
        found = self.load(name)
        if found is not None:
            return found
        with locks.computing(self.cache.path, self._entry, name):
            found = self.load(name)  # another run may have made it meanwhile
            if found is None:
                found = {key: value.contiguous() for key, value in compute().items()}
                self._write(name, found)
        return found

    def fetch_file(self, name: str, make: Callable[[Path], None], read: Callable[[Path], T]) -> T:
        """A file of another kind, as `read` gives it: read if it is there and intact, else made first.

        Its checksum stands beside it, in `NAME.sha256`.
        """
        path = self.folder / name
        found = _intact(path, read)
        if found is None:
            with locks.computing(self.cache.path, self._entry, name):
                found = _intact(path, read)
                if found is None:
                    make(path)
                    write_whole(_beside(path), f"{_digest(path)}\n")
                    found = read(path)
        return found

    def load(self, name: str) -> Tensors | None:
        """The bundle of that name, or None when it is missing or damaged (a damaged file is removed)."""
        path = self._path(name)
        if not path.exists():
            return None
        try:
            with utf8_path(path) as opened, safe_open(opened, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
                expected = (file.metadata() or {}).get("sha256")
        except Exception:  # a damaged header makes the library raise more than its own errors
            tensors, expected = {}, None
        if expected is None or expected != self._checksum(name, tensors):
            path.unlink(missing_ok=True)
            return None
        return tensors

    def _write(self, name: str, tensors: Tensors) -> None:
        path = self._path(name)
        size = sum(tensor.nbytes for tensor in tensors.values())
        self.cache.make_room(size, for_entry=self._entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(path) as partial:
                metadata = {"sha256": self._checksum(name, tensors)}
                try:
                    str(partial).encode()
                except UnicodeEncodeError:  # the library takes paths of UTF-8 alone
                    partial.write_bytes(save(tensors, metadata=metadata))
                else:
                    save_file(tensors, partial, metadata=metadata)
                os.chmod(partial, 0o644)
        except SafetensorError as error:  # that is how a full disk is told
            raise OutputError(
                f"`{path}` ({human(size)}) cannot be written: {str(error).rstrip('.')}. Free some space (`countervid "
                "cache prune`) or name another folder with `--cache DIR`; the same command goes on from here."
            ) from None
        self.cache.wrote(size)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _checksum(self, name: str, tensors: Mapping[str, torch.Tensor]) -> str:
        """Of the tensors, and of where they belong: a bundle in the place of another is damaged, too."""
        digest = hashlib.sha256(f"{self._entry}/{name}\n".encode())
        for key in sorted(tensors):
            tensor = tensors[key].contiguous()
            digest.update(f"{key}{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.view(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
        return digest.hexdigest()


def _renew(path: Path, values: Mapping[str, object]) -> None:
    """Write a small file of JSON unless it is there already, whole."""
    content = json.dumps(values, sort_keys=True, indent=1).encode()
    try:
        if path.read_bytes() == content:
            return
    except FileNotFoundError:
        pass
    write_whole(path, content)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _intact(path: Path, read: Callable[[Path], T]) -> T | None:
    try:
        if _beside(path).read_bytes().decode(errors="replace").strip() != _digest(path):
            return None
        return read(path)
    except (FileNotFoundError, CountervidError):
        return None
