"""Weights and results that are no numbers: refused by name, before they become a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from countervid.errors import ModelError


def check_finite(tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Refuse weights with NaN or infinity.

    Args:
        tensors: By name.
        where: The file, or the folder, that they are of.

    Raises:
        ModelError: The first tensor that has one is named.
    """
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            count = int((~torch.isfinite(tensor)).sum())
            raise ModelError(
                f"`{where}` is damaged: the tensor `{name}` holds {count:,} values that are NaN or infinite, of "
                f"{tensor.numel():,}. Download or train it again."
            )


def check_parts(where: str | Path, **parts: Any) -> None:
    """The same for the networks of a pipeline, by role.

    Raises:
        ModelError: As above.
    """
    for role, part in parts.items():
        check_finite(part.state_dict(), f"{where}/{role}")


def is_finite(tensor: Tensor) -> bool:
    """Whether all values are numbers; two passes over the memory, no copy of it."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or not tensor.numel():
        return True
    if tensor.is_complex():
        return bool(torch.isfinite(tensor).all())
    low, high = torch.aminmax(tensor.detach())  # NaN in either, if there is one
    return bool(torch.isfinite(low) & torch.isfinite(high))


def check_result(tensor: Tensor, what: str) -> Tensor:
    """What a network computed, if it is finite.

    Raises:
        ModelError: It is not, as when half precision overflows.
    """
    if not is_finite(tensor):
        raise ModelError(
            f"{what} came out as NaN or infinity: nothing can be drawn from it. With half precision it may have "
            "overflowed: use float32. Otherwise the model's weights, or its settings, are at fault."
        )
    return tensor
