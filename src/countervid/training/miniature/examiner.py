"""Stage `examiner`: the independent judge, on people of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countervid.metrics.examiner import Examiner, ExaminerConfig
from countervid.models.device import device_of
from countervid.phantom.dataset import ATTRIBUTES, PhantomFrames
from countervid.phantom.scm import DOMAINS
from countervid.training.crops import draw, images, weather
from countervid.training.loop import LoopConfig
from countervid.training.miniature.base import Built, Figures, Stage, balanced


def build(frames: PhantomFrames, batch: int, models: Path) -> Built:
    del models
    model = Examiner(ExaminerConfig(variables=tuple(f"{name}={' '.join(DOMAINS[name])}" for name in ATTRIBUTES)))
    codes = {name: frames.attribute(name) for name in ATTRIBUTES}
    clear = torch.nonzero(frames.column("occluded") == 0).flatten()

    def loss(generator: torch.Generator) -> Mapping[str, Tensor]:
        rows = draw(batch, clear, generator)
        device = device_of(model)
        pictures = images(frames, rows)
        mirrored = torch.rand(batch, 1, 1, 1, generator=generator) < 0.5
        pictures = torch.where(mirrored, pictures.flip(3), pictures)
        said = model(weather(pictures, generator).to(device))
        losses = {name: F.nll_loss(said[name], codes[name][rows].to(device)) for name in ATTRIBUTES}
        return {"loss": torch.stack(list(losses.values())).mean(), **losses}

    return model, loss


@torch.no_grad()
def evaluate(model: nn.Module, frames: PhantomFrames, models: Path) -> Figures:
    """Balanced accuracy of each attribute over frames without an occluder: the mean of its values' accuracies."""
    del models
    assert isinstance(model, Examiner)
    clear = torch.nonzero(frames.column("occluded") == 0).flatten()
    said: dict[str, list[Tensor]] = {name: [] for name in ATTRIBUTES}
    for rows in clear.split(64):
        for name, values in model(images(frames, rows)).items():
            said[name].append(values.argmax(1))
    figures: Figures = {}
    for name in ATTRIBUTES:
        right = torch.cat(said[name]) == frames.attribute(name)[clear]
        truth = frames.attribute(name)[clear]
        figures[f"{name} (%)"] = balanced(right, truth)
    return figures


STAGE = Stage(
    name="examiner",
    summary="independent judge of the attributes, for the metrics alone",
    loop=LoopConfig(steps=2000, lr=2e-3, seed=7),
    batch=32,
    build=build,
    evaluate=evaluate,
)
