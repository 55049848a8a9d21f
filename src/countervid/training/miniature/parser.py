"""Stage `parser`: which pixel of a face crop is what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countervid.clip.sheets import write_rows
from countervid.face.parse import LABELS, OCCLUDER, ParserNet
from countervid.models.device import device_of
from countervid.phantom.dataset import PhantomFrames
from countervid.training.crops import draw, images, weather
from countervid.training.loop import LoopConfig
from countervid.training.miniature.base import Built, Figures, Stage

OCCLUDED_SHARE = 0.3  # of a batch has a hand, a cup or a microphone copied before the face: in the data 2 in 100 do


def with_occluders(
    pictures: Tensor, labels: Tensor, frames: PhantomFrames, donors: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Crops `(B, 3, S, S)` and labels `(B, S, S)`, the first of them with the occluders of rows `donors` before them.

    Copied as they are seen, mirrored or not, up to a fifth of the crop to either side.
    """
    size, count = pictures.shape[-1], len(donors)
    shift = int(torch.randint(-size // 5, size // 5 + 1, (), generator=generator))
    pasted, where = images(frames, donors).roll(shift, 3), (frames.masks(donors) == OCCLUDER).roll(shift, 2)
    if torch.rand((), generator=generator) < 0.5:
        pasted, where = pasted.flip(3), where.flip(2)
    labels[:count] = torch.where(where, OCCLUDER, labels[:count])
    pictures[:count] = torch.where(where[:, None], pasted, pictures[:count])
    return pictures, labels


def build(frames: PhantomFrames, batch: int, models: Path) -> Built:
    del models
    model = ParserNet()
    rows, occluded = torch.arange(len(frames)), torch.nonzero(frames.column("occluded")).flatten()
    copied = round(OCCLUDED_SHARE * batch) if len(occluded) else 0

    def loss(generator: torch.Generator) -> Mapping[str, Tensor]:
        chosen = draw(batch, rows, generator)
        pictures, labels = images(frames, chosen), frames.masks(chosen).long()
        if copied:
            donors = draw(copied, occluded, generator)
            pictures, labels = with_occluders(pictures, labels, frames, donors, generator)
        device = device_of(model)
        logits = model(weather(pictures, generator).to(device))
        return {"loss": F.cross_entropy(logits, labels.to(device))}

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
