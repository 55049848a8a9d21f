"""A model's folder: `config.json` beside `model.safetensors`, as diffusers lays them out.

Weights are stored in half precision and computed with in single precision.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from countervid.errors import ModelError

C = TypeVar("C")

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a small file under a temporary name, then rename it: a final name never holds half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def save_model(folder: Path, model: nn.Module, config: Any, *, half: bool = True) -> None:
    """Write `config` (a dataclass) and the weights of `model` into `folder`, each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: (tensor.detach().half() if half and tensor.is_floating_point() else tensor.detach()).cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    temporary = folder / f".{WEIGHTS}.{os.getpid()}"
    try:
        save_file(state, temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, folder / WEIGHTS)
    finally:
        temporary.unlink(missing_ok=True)
    write_whole(folder / CONFIG, json.dumps(dataclasses.asdict(config), indent=2) + "\n")


def load_config(folder: Path, kind: type[C]) -> C:
    """The dataclass of kind `kind` that `folder` was saved with.

    Raises:
        ModelError: no such folder, or a config of another kind of model.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(f"No model in {folder}: {CONFIG} is missing. `countervid models list` shows what there is.")
    try:
        values = json.loads(path.read_text())
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return kind(**values)
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} does not describe a {kind.__name__}: {error}. Is it another kind of model?") from None


def load_weights(folder: Path, model: nn.Module) -> None:
    """Fill `model` from `folder` and leave it in evaluation mode, in single precision.

    Raises:
        ModelError: missing or damaged weights, or weights of another model (names the first keys that differ).
    """
    path = folder / WEIGHTS
    try:
        state = {name: t.float() if t.is_floating_point() else t for name, t in load_file(path).items()}
    except FileNotFoundError:
        raise ModelError(f"No weights in {folder}: {WEIGHTS} is missing.") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged ({error}). Download or train it again.") from None
    own = model.state_dict()
    wrong = sorted(set(own) ^ set(state)) or [k for k in own if own[k].shape != state[k].shape]
    if wrong:
        listed = ", ".join(wrong[:4]) + (", ..." if len(wrong) > 4 else "")
        raise ModelError(f"{path} is not a {type(model).__name__} of this configuration: {listed} do not fit.")
    with torch.no_grad():
        model.load_state_dict(state)
    model.eval().requires_grad_(False)
