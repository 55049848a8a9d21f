"""A model's folder: `config.json` beside `model.safetensors`, as diffusers lays them out.

Weights are stored in half precision and computed with in single precision.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from countervid.errors import ModelError, OutputError
from countervid.files.names import utf8_path
from countervid.files.whole import replacing
from countervid.files.whole import write_whole as write_whole  # under this name, too
from countervid.models.finite import check_finite

C = TypeVar("C")

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


def save_model(folder: str | Path, model: nn.Module, config: Any, *, dtype: torch.dtype = torch.float16) -> None:
    """Write the weights of `model`, floating ones as `dtype`, and its config into `folder`; each file whole or not.

    Args:
        folder: Made if needed.
        model: Whose weights.
        config: A dataclass, or a mapping; under `kind` it may say what kind of model this is.
        dtype: Half precision unless the model needs more.

    Raises:
        OutputError: The folder cannot be written.
    """
    folder = Path(folder)
    state = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).detach().cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    values = config if isinstance(config, Mapping) else dataclasses.asdict(config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / WEIGHTS) as partial:
            save_file(state, partial)
        write_whole(folder / CONFIG, json.dumps(values, indent=2) + "\n")
    except (OSError, SafetensorError) as error:
        raise OutputError(f"Cannot write a model to {folder}: {error}. Choose a folder that can be written.") from error


def read_config(folder: str | Path, kind: str = "") -> dict[str, Any]:
    """The config that `folder` was saved with, without its `kind`.

    Raises:
        ModelError: There is no model, or one of another kind than `kind`.
    """
    values = _config(Path(folder))
    found = values.pop("kind", "")
    if found != kind:
        raise ModelError(
            f"{folder} holds {found or 'something unnamed'}, needed is {kind or 'another model'}. Give another folder."
        )
    return values


def model_kind(folder: str | Path) -> str:
    """The kind of model that a folder holds; empty where its config does not say.

    Raises:
        ModelError: There is no model.
    """
    return str(_config(Path(folder)).get("kind", ""))


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(f"No model in {folder}: no {CONFIG} there. `countervid models list` shows what there is.")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path} is damaged ({error}). Download or train the model again.") from None


def load_config(folder: str | Path, kind: type[C]) -> C:
    """The dataclass of kind `kind` that `folder` was saved with.

    Raises:
        ModelError: There is no model, or one of another kind.
    """
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in read_config(folder).items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ModelError(
            f"{Path(folder) / CONFIG} does not describe a {kind.__name__}: {error}. Is it another kind of model?"
        ) from None


def load_weights(folder: str | Path, model: nn.Module, name: str = WEIGHTS) -> None:
    """Fill `model` from a file in `folder` and leave it in evaluation mode, in single precision, without gradients.

    Raises:
        ModelError: The weights are missing, damaged, or another model's (the first names that differ are given).
    """
    path = Path(folder) / name
    try:
        with utf8_path(path) as name_of_file:
            state = {key: t.float() if t.is_floating_point() else t for key, t in load_file(name_of_file).items()}
    except FileNotFoundError:
        raise ModelError(f"No weights in {folder}: {name} is missing.") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged ({error}). Download or train it again.") from None
    own = model.state_dict()
    wrong = sorted(set(own) ^ set(state)) or [k for k in own if own[k].shape != state[k].shape]
    if wrong:
        listed = ", ".join(wrong[:4]) + (", ..." if len(wrong) > 4 else "")
        raise ModelError(f"{path} is not a {type(model).__name__} of this configuration: {listed} do not fit.")
    check_finite(state, path)
    with torch.no_grad():
        model.load_state_dict(state)
    model.eval().requires_grad_(False)
