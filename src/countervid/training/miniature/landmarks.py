"""Stage `landmarks`: 68 points of a face."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from countervid.clip.sheets import write_rows
from countervid.face import align
from countervid.face.landmarks import LandmarkNet, crop_transform, landmark_error, landmark_loss
from countervid.models.device import device_of
from countervid.phantom.dataset import PhantomFrames
from countervid.training.crops import draw, weather
from countervid.training.loop import LoopConfig
from countervid.training.miniature.base import Built, Figures, Stage

Shake = tuple[float, float, float]
DETECTOR: Shake = (0.05, 0.12, 0.12)  # how far a detector's five points put the square off: place, log size, radians
SECOND: Shake = (0.01, 0.02, 0.02)  # and the network's own first pass


def looks(frames: PhantomFrames, rows: Tensor, generator: torch.Generator, shake: Shake) -> tuple[Tensor, Tensor]:
    """What the network is shown: pictures `(B, 3, 128, 128)` in [-1, 1], true points `(B, 68, 2)` as fractions."""
    true = frames.column("landmarks")[rows].double().numpy()
    noise = torch.randn(len(rows), 4, generator=generator).double().numpy()
    squares = crop_transform(
        true,
        shift=shake[0] * noise[:, :2],
        scale=np.exp(shake[1] * noise[:, 2]),
        turn=shake[2] * noise[:, 3],
    )
    crops = align.crop(frames.crops(rows), squares, 128).float() / 127.5 - 1
    fractions = torch.from_numpy(align.to_square(true, squares)).float()
    return crops.permute(0, 3, 1, 2).contiguous(), fractions


def build(frames: PhantomFrames, batch: int, models: Path) -> Built:
    del models
    model = LandmarkNet()
    clear = torch.nonzero(frames.column("occluded") == 0).flatten()

    def loss(generator: torch.Generator) -> Mapping[str, Tensor]:
        rows = draw(batch, clear, generator)
        shake = DETECTOR if torch.rand((), generator=generator) < 0.6 else SECOND
        pictures, true = looks(frames, rows, generator, shake)
        device = device_of(model)
        return {"loss": landmark_loss(model, weather(pictures, generator).to(device), true.to(device))}

    return model, loss


@torch.no_grad()
def evaluate(model: nn.Module, frames: PhantomFrames, models: Path) -> Figures:
    """Error after the second look, started from a square as far off as a detector's, in % of the eyes' distance."""
    del models
    assert isinstance(model, LandmarkNet)
    generator = torch.Generator().manual_seed(0)
    clear = torch.nonzero(frames.column("occluded") == 0).flatten()
    errors, first = [], []
    for rows in clear.split(64):
        pictures, true = looks(frames, rows, generator, DETECTOR)
        first.append(landmark_error(model(pictures), true))
        pictures, true = looks(frames, rows, generator, SECOND)
        errors.append(landmark_error(model(pictures), true))
    return {
        "error, % of the eyes' distance": 100 * float(torch.cat(errors).mean()),
        "error at the first look (%)": 100 * float(torch.cat(first).mean()),
        "worst of 100 (%)": 100 * float(torch.cat(errors).quantile(0.99)),
    }


@torch.no_grad()
def sheet(model: nn.Module, frames: PhantomFrames, path: Path, models: Path) -> None:
    del models
    generator = torch.Generator().manual_seed(0)
    pictures, true = looks(frames, torch.linspace(0, len(frames) - 1, 10).long(), generator, SECOND)
    found = model(pictures)

    def dotted(points: Tensor) -> Tensor:
        marked = pictures.clone()
        place = (points * 128).long().clamp(0, 127)
        item = torch.arange(len(points))[:, None].expand(place.shape[:2])
        marked[item, :, place[..., 1], place[..., 0]] = torch.tensor([-1.0, 1.0, -1.0])
        return marked

    write_rows(path, {"true": dotted(true), "found": dotted(found)})


STAGE = Stage(
    name="landmarks",
    summary="68 facial landmarks from a face crop",
    loop=LoopConfig(steps=1500, lr=2e-3),
    batch=16,
    build=build,
    evaluate=evaluate,
    sheet=sheet,
)
