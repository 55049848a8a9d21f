"""Stage `parser`: which pixel of a face crop is what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countervid.face.parse import LABELS, ParserNet
from countervid.models.device import device_of
from countervid.phantom.dataset import PhantomFrames
from countervid.training.crops import draw, images, weather
from countervid.training.loop import LoopConfig
from countervid.training.miniature.base import Built, Figures, Stage
from countervid.training.sheets import write_rows


def build(frames: PhantomFrames, batch: int, models: Path) -> Built:
    del models
    model = ParserNet()
    rows = torch.arange(len(frames))

    def loss(generator: torch.Generator) -> Mapping[str, Tensor]:
        chosen = draw(batch, rows, generator)
        device = device_of(model)
        logits = model(weather(images(frames, chosen), generator).to(device))
        return {"loss": F.cross_entropy(logits, frames.masks(chosen).long().to(device))}

    return model, loss


@torch.no_grad()
def evaluate(model: nn.Module, frames: PhantomFrames, models: Path) -> Figures:
    """Share of pixels told right, and the intersection over union of each class over the whole set."""
    del models
    assert isinstance(model, ParserNet)
    counts = torch.zeros(len(LABELS), len(LABELS))
    for rows in torch.arange(len(frames)).split(32):
        found, true = model(images(frames, rows)).argmax(1), frames.masks(rows).long()
        counts += torch.bincount((true * len(LABELS) + found).flatten(), minlength=counts.numel()).view_as(counts)
    both = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - both
    figures = {"pixels right (%)": 100 * float(both.sum() / counts.sum())}
    return figures | {f"IoU of {n} (%)": 100 * float(b / u) for n, b, u in zip(LABELS, both, union, strict=True) if u}


@torch.no_grad()
def sheet(model: nn.Module, frames: PhantomFrames, path: Path, models: Path) -> None:
    del models
    rows = torch.linspace(0, len(frames) - 1, 10).long()
    palette = torch.rand(len(LABELS), 3, generator=torch.Generator().manual_seed(3)) * 2 - 1
    found = model(images(frames, rows)).argmax(1)
    colour = {"true": palette[frames.masks(rows).long()], "found": palette[found]}
    painted = {name: values.permute(0, 3, 1, 2) for name, values in colour.items()}
    write_rows(path, {"crop": images(frames, rows), **painted})


STAGE = Stage(
    name="parser",
    summary="what each pixel of a face crop is: skin, hair, eyes, lips, clothes, glasses, hat, occluder",
    loop=LoopConfig(steps=1000, lr=2e-3),
    batch=16,
    build=build,
    evaluate=evaluate,
    sheet=sheet,
)
