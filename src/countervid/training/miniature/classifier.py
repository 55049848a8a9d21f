"""Stage `classifier`: statistics of the identity vectors, and one linear layer on them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from countervid.autoencoder.classifier import AttributeClassifier, fit
from countervid.phantom.dataset import ATTRIBUTES, PhantomFrames
from countervid.phantom.scm import DOMAINS
from countervid.training.crops import states
from countervid.training.loop import LoopConfig
from countervid.training.miniature.base import Built, Figures, Stage, balanced
from countervid.training.miniature.dva import codes


def takes(frames: PhantomFrames, models: Path) -> tuple[Tensor, Tensor]:
    """The identity of every take, as an editor would see it, `(n, D)`, and its attributes, int64 `(n, variables)`."""
    rows = states(frames)[:, :, 0].flatten()
    labels = torch.stack([frames.attribute(name) for name in ATTRIBUTES], 1)
    return codes(frames, models).identities[rows], labels[rows]


def build(frames: PhantomFrames, batch: int, models: Path) -> Built:
    del batch
    vectors, labels = takes(frames, models)
    # Attributes are separable here; a firmer hold on the weights than the default makes smoother directions.
    return fit({name: DOMAINS[name] for name in ATTRIBUTES}, vectors, labels, decay=1e-3), None


@torch.no_grad()
def evaluate(model: nn.Module, frames: PhantomFrames, models: Path) -> Figures:
    """Balanced accuracy of each attribute over takes."""
    assert isinstance(model, AttributeClassifier)
    vectors, labels = takes(frames, models)
    figures: Figures = {}
    for column, (name, said) in enumerate(model.probabilities(vectors).items()):
        right, truth = said.argmax(1) == labels[:, column], labels[:, column]
        figures[f"{name} (%)"] = balanced(right, truth)
    return figures


def save(model: nn.Module, folder: Path, frames: PhantomFrames) -> None:
    del frames
    assert isinstance(model, AttributeClassifier)
    model.save_pretrained(folder)


STAGE = Stage(
    name="classifier",
    folder="dva/classifier",
    summary="statistics of the identity vectors and a linear layer that reads attributes from them",
    loop=LoopConfig(steps=1),
    batch=1,
    build=build,
    evaluate=evaluate,
    save=save,
    needs=("vae", "identity"),
)
