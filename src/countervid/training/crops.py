"""Batches of phantom crops, and what real footage does to a picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from countervid.phantom.dataset import PhantomFrames


def images(frames: PhantomFrames, rows: Tensor) -> Tensor:
    """Crops as networks take them: float32 `(B, 3, S, S)` in [-1, 1], channels last."""
    crops = frames.crops(rows).permute(0, 3, 1, 2)
    return crops.float().div_(127.5).sub_(1)


def draw(count: int, among: Tensor, generator: torch.Generator) -> Tensor:
    """`count` rows drawn uniformly, with replacement."""
    return among[torch.randint(len(among), (count,), generator=generator)]


def states(frames: PhantomFrames) -> Tensor:
    """Rows of each person in each state of attributes: `(states, takes, frames a take)`.

    A person rendered with pairs has two states, the factual and one counterfactual.
    """
    person, take, back = (frames.column(name) for name in ("person", "take", "source"))
    counterfactual = (back != torch.arange(len(frames))).long()
    takes = int(take.max()) + 1
    changes = torch.ones(len(frames), dtype=torch.bool)
    changes[1:] = (person[1:] != person[:-1]) | (counterfactual[1:] != counterfactual[:-1])
    rows = torch.arange(len(frames))
    count = int(changes.sum())
    return rows.view(count, takes, len(frames) // count // takes)


def weather(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """What cameras and codecs do: exposure, contrast, tint, loss of sharpness, noise. Same shape and range."""
    count = len(pictures)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    gain = 1 + 0.15 * uniform(count, 1, 1, 1) + 0.05 * uniform(count, 3, 1, 1)
    shift = 0.1 * uniform(count, 1, 1, 1)
    result = pictures * gain + shift
    if torch.rand((), generator=generator) < 0.5:
        size = int(pictures.shape[-1] * (0.45 + 0.5 * float(torch.rand((), generator=generator))))
        small = F.interpolate(result, size=(size, size), mode="area")
        result = F.interpolate(small, size=pictures.shape[-2:], mode="bilinear", align_corners=False)
    noise = torch.randn(result.shape, generator=generator) * (0.03 * torch.rand(count, 1, 1, 1, generator=generator))
    return (result + noise).clamp(-1, 1)
