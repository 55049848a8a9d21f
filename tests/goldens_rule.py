"""The rule by which the numeric fixtures of the Diffusion Video Autoencoder get their numbers without files.

`tests/goldens/dva` holds results of the published code run on networks whose weights follow this rule: a hash of the
parameter's name, its element's index and a seed, spread as its kind of parameter wants.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn

from countervid.autoencoder.config import UNetConfig
from countervid.autoencoder.unet import UNet

FOLDER = Path(__file__).parent / "goldens" / "dva"
_GAINS = [  # (pattern, gain); the last match wins
    (r"lndnet", 1.3),
    (r"bgnet", 1.3),
    (r"lndnet\.backbone\.linear1\.conv\.weight", 0.12),
    (r"\.out_layers\.6\.weight", 0.3),
    (r"\.cond_emb_layers\.1\.weight", 3.0),
    (r"encoder\.linear\.weight", 3.0),
]


def golden(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of one fixture; metadata values are parsed as JSON where they are JSON."""
    with safe_open(str(FOLDER / f"{name}.safetensors"), "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        metadata = dict(file.metadata() or {})
    parsed: dict[str, Any] = {}
    for key, text in metadata.items():
        try:
            parsed[key] = json.loads(text.lower() if text in ("True", "False") else text)
        except json.JSONDecodeError:
            parsed[key] = text
    return tensors, parsed


def uni(name: str, count: int, seed: int) -> NDArray[np.float64]:
    """`count` numbers in [-1, 1) that depend on the name and the seed alone."""
    with np.errstate(over="ignore"):
        x = np.uint64(zlib.crc32(name.encode()) << 32) + np.arange(count, dtype=np.uint64)
        z = x + np.uint64(seed) * np.uint64(0x632BE59BD9B4E019)
        z = z * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1


def gauss(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Nearly Gaussian numbers of variance 1: twelve uniform ones summed and halved."""
    count = int(np.prod(shape))
    values = uni(name, 12 * count, seed).reshape(count, 12).sum(axis=1) * 0.5
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def fill(module: nn.Module, seed: int, overrides: dict[str, Tensor] | None = None, rename: str = "") -> None:
    """Give every entry of a module's state dict its ruled value, or its override, in place.

    Args:
        module: The network whose parameters and buffers are filled.
        seed: The fixture's `weight_seed`.
        overrides: A fixture's tensors; those called `override.<name>` replace the ruled ones.
        rename: Put before every name, for a part that the published network holds deeper.
    """
    state = module.state_dict()
    names = {rename + key for key in state}
    for key, tensor in state.items():
        name = rename + key
        override = (overrides or {}).get(f"override.{name}")
        values = _ruled(name, tensor, seed, names) if override is None else override
        tensor.copy_(values.reshape(tensor.shape))


def published(settings: dict[str, Any]) -> UNetConfig:
    """A fixture's settings under this package's names."""
    return UNetConfig(
        size=settings["image_size"],
        model_channels=settings["model_channels"],
        channel_multipliers=tuple(settings["channel_mult"]),
        residual_blocks=settings["num_res_blocks"],
        residual_blocks_down=settings.get("num_input_res_blocks"),
        attention_resolutions=tuple(settings["attention_resolutions"]),
        heads=settings["num_heads"],
        embed_channels=settings["embed_channels"],
        condition_channels=settings.get("resnet_cond_channels") or settings["embed_channels"],
        dropout=settings["dropout"],
    )


def ruled_unet(name: str) -> tuple[UNet, dict[str, Tensor]]:
    """A fixture's network, in evaluation mode, and its tensors."""
    tensors, metadata = golden(name)
    unet = UNet(published(metadata["config"])).eval()
    fill(unet, metadata["weight_seed"], tensors)
    return unet, tensors


def _ruled(name: str, like: Tensor, seed: int, names: set[str]) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros_like(like)
    source = name.replace("lndnet.backbone.pretrain_net.features.", "lndnet.backbone.base_net.0.")
    values = uni(source, like.numel(), seed)
    if name.endswith("running_mean"):
        values = 0.1 * values
    elif name.endswith("running_var"):
        values = 1 + 0.5 * values
    elif like.ndim >= 2:
        gain = ([1.0] + [gain for pattern, gain in _GAINS if re.search(pattern, name)])[-1]
        values = values * gain * np.sqrt(3 / (like.numel() / like.shape[0]))
    elif name == "encoder.lndnet.backbone.linear1.bn.bias":
        values = 0.5 + 0.1 * values
    elif name.endswith("weight"):
        norm_scale = name.removesuffix("weight") + "bias" in names
        values = (1.0 if norm_scale else 0.25) + 0.1 * values
    else:
        values = 0.1 * values
    return torch.from_numpy(values.astype(np.float32))
