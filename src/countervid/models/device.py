"""Which processor a network runs on."""

from __future__ import annotations

import torch
from torch import nn

from countervid.errors import ConfigError


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; `auto` is a GPU where torch finds one, else the CPU.

    Raises:
        ConfigError: Torch does not know the name, or this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).split("\n")[0].split(". ")[0]
        raise ConfigError(f"The device `{name}` cannot be used ({reason}). Use auto, cpu, cuda or cuda:1.") from None
    return device


def device_of(network: nn.Module) -> torch.device:
    """Where the network's weights are."""
    return next(network.parameters()).device
