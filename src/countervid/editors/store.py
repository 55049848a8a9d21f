"""Where prepared clips are kept: content-addressed folders of safetensors, written whole or not at all.

A folder's name is a digest of everything its content depends on (clip, settings, weights), so a stale
entry is never found, and two runs that need the same thing share it. Each file carries the checksum of
its tensors; a damaged one is computed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from countervid.errors import OutputError
from countervid.files.names import utf8_path
from countervid.files.whole import write_whole

Tensors = dict[str, torch.Tensor]


class Store:
    """Named bundles of tensors in one folder, each computed at most once.

    Args:
        root: The cache folder; made when missing.
        kind: What is stored (an editor's name): a sub-folder, for people who look.
        origin: Everything the content depends on, as JSON values. Its digest names the folder.
    """

    def __init__(self, root: Path, kind: str, origin: Mapping[str, object]) -> None:
        text = json.dumps(origin, sort_keys=True, separators=(",", ":"))
        self.key = hashlib.sha256(text.encode()).hexdigest()[:32]
        self.origin = dict(origin)
        self.folder = root / kind / self.key
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / "origin.json", json.dumps(origin, sort_keys=True, indent=1).encode())
        except PermissionError as error:
            raise OutputError(
                f"The cache folder `{root}` cannot be written ({error.strerror}). Name another with `--cache DIR`."
            ) from error

    def fetch(self, name: str, compute: Callable[[], Tensors]) -> Tensors:
        """The bundle of that name: read if it is there and intact, else computed and kept."""
        found = self.load(name)
        if found is not None:
            return found
        tensors = {key: value.contiguous() for key, value in compute().items()}
        payload = save(tensors, metadata={"sha256": _checksum(tensors)})
        write_whole(self._path(name), payload)
        return tensors

    def load(self, name: str) -> Tensors | None:
        """The bundle of that name, or None when it is missing or damaged (a damaged file is removed)."""
        path = self._path(name)
        if not path.exists():
            return None
        try:
            with utf8_path(path) as opened, safe_open(opened, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
                expected = (file.metadata() or {}).get("sha256")
        except (SafetensorError, OSError):
            tensors, expected = {}, None
        if expected is None or expected != _checksum(tensors):
            path.unlink(missing_ok=True)
            return None
        return tensors

    def _path(self, name: str) -> Path:
        path = self.folder / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
