"""A network's folder: `config.json` beside `model.safetensors`, each written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from countervid.errors import ModelError, OutputError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


def write_folder(
    folder: str | Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, dtype: torch.dtype | None = None
) -> None:
    """Write a config and tensors; with `dtype`, floating tensors are stored as that type.

    Raises:
        OutputError: The folder cannot be written.
    """
    folder = Path(folder)
    stored = {
        name: (tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor)
        .detach()
        .to("cpu", memory_format=torch.contiguous_format)
        .contiguous()
        for name, tensor in tensors.items()
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{WEIGHTS}.{os.getpid()}"
        save_file(stored, str(partial))
        os.replace(partial, folder / WEIGHTS)
        partial = folder / f".{CONFIG}.{os.getpid()}"
        partial.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, folder / CONFIG)
    except (OSError, SafetensorError) as error:
        message = f"Cannot write a model to {folder}: {error}. Choose a folder that can be written."
        raise OutputError(message) from error


def read_folder(folder: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and tensors of a folder that `write_folder` wrote, as float32 where floating.

    Args:
        folder: Where to read.
        kind: What the config's `kind` must say.

    Raises:
        ModelError: A file is missing or damaged, or the folder holds something else.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} has no {name}. Give the folder of a trained {kind}.")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(str(folder / WEIGHTS))
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"The model in {folder} is damaged ({error}). Fetch or train it again.") from error
    found = config.pop("kind", None) if isinstance(config, dict) else None
    if found != kind:
        raise ModelError(f"{folder} holds {found or 'something unnamed'}, needed is {kind}. Give another folder.")
    return config, {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def fill_module(module: nn.Module, tensors: Mapping[str, Tensor], folder: str | Path) -> None:
    """Give a module exactly these tensors.

    Raises:
        ModelError: Names or shapes differ; the message names the first few.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != given:
        differing = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        raise ModelError(
            f"The weights in {folder} do not fit their config: {len(differing)} tensors differ, "
            f"{', '.join(differing[:3])} among them. Fetch or train the model again."
        )
    module.load_state_dict(dict(tensors))
