"""What a stage of the miniature's training is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from countervid.models.folder import WEIGHTS, save_model
from countervid.phantom.dataset import PhantomFrames
from countervid.training.loop import LoopConfig, Loss

Figures = dict[str, float]
"""Measured quality: name -> value."""

Built = tuple[nn.Module, Loss | None]
"""A model and its loss; None where building has solved it already."""


def balanced(right: Tensor, truth: Tensor) -> float:
    """Balanced accuracy in per cent: the mean of the true values' own shares of what is `right`, bool `(n,)`."""
    return 100 * float(torch.stack([right[truth == value].float().mean() for value in truth.unique()]).mean())


def save_config_and_weights(network: nn.Module, folder: Path, frames: PhantomFrames) -> None:
    """Write a network that knows its `config`; `frames` is what it learned from, for stages that need it."""
    del frames
    save_model(folder, network, network.config)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One bundled model: how it is built, trained, measured and saved.

    `build` may compute from the data what stays fixed in training (cached latents, class weights).
    """

    name: str
    summary: str
    loop: LoopConfig
    batch: int
    build: Callable[[PhantomFrames, int, Path], Built]  # data, batch size, folder of the models trained so far
    evaluate: Callable[[nn.Module, PhantomFrames, Path], Figures]  # model, unseen data, folder of the models
    save: Callable[[nn.Module, Path, PhantomFrames], None] = save_config_and_weights
    sheet: Callable[[nn.Module, PhantomFrames, Path, Path], None] | None = None  # also: where the PNG goes
    needs: tuple[str, ...] = ()  # bundled models that must be trained before
    network: Callable[[nn.Module], nn.Module] = lambda built: built  # of what was built, the part that is saved
    folder: str = ""  # where the model lies under another name than the stage's
    weights: str = WEIGHTS  # the file of weights in the model's folder
    after: tuple[str, ...] = ()  # stages of the same model that this one goes on from, first to last

    @property
    def target(self) -> str:
        """Folder of the model that is written."""
        return self.folder or (self.after[0] if self.after else self.name)
