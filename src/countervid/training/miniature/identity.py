"""Stage `identity`: who somebody is, and how they look, as one unit vector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countervid.autoencoder.identity import IdentityConfig, IdentityNet
from countervid.models.device import device_of
from countervid.phantom.dataset import ATTRIBUTES, PhantomFrames
from countervid.phantom.scm import DOMAINS
from countervid.training.crops import images, states, weather
from countervid.training.loop import LoopConfig
from countervid.training.miniature.base import Built, Figures, Stage

TEMPERATURE = 0.1


class IdentityTraining(nn.Module):
    """The encoder with the linear heads that keep attributes and bones linear in its vector."""

    def __init__(self, bones: int) -> None:
        super().__init__()
        self.net = IdentityNet(IdentityConfig())
        dimensions = self.net.config.dimensions
        self.attributes = nn.Linear(dimensions, sum(len(DOMAINS[name]) for name in ATTRIBUTES))
        self.bones = nn.Linear(dimensions, bones + 1)  # and the age in years

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        vectors = self.net(crops)
        spread = vectors * dimensions_root(vectors)  # coordinates of about unit size, for the heads
        return vectors, self.attributes(spread), self.bones(spread)


def dimensions_root(vectors: Tensor) -> float:
    return float(vectors.shape[1] ** 0.5)


def build(frames: PhantomFrames, batch: int, models: Path) -> Built:
    """`batch` is the number of people and states; each is seen in two takes."""
    del models
    bones, years = frames.column("bones"), frames.column("years")
    targets = torch.cat([bones, (years[:, None] - 45) / 20], 1)
    codes = torch.stack([frames.attribute(name) for name in ATTRIBUTES], 1)
    occluded = frames.column("occluded").bool()
    table = states(frames)
    model = IdentityTraining(bones.shape[1])

    def loss(generator: torch.Generator) -> Mapping[str, Tensor]:
        drawn = torch.randperm(len(table), generator=generator)[: batch // 2]
        # Half the batch is the same people in their other state: the nearest of all negatives.
        chosen = table[torch.cat([drawn, (drawn ^ 1).clamp(max=len(table) - 1)]).unique()]
        takes = torch.rand(chosen.shape[:2], generator=generator).argsort(1)[:, :2]
        frame = torch.randint(chosen.shape[2], takes.shape, generator=generator)
        rows = chosen[torch.arange(len(chosen))[:, None], takes, frame].T.flatten()  # first takes, then second takes
        device = device_of(model)
        vectors, attributes, built = model(weather(images(frames, rows), generator).to(device))
        similarity = vectors @ vectors.T / TEMPERATURE
        similarity.fill_diagonal_(-1e4)
        count = len(chosen)
        partner = torch.arange(2 * count, device=device).roll(count)
        contrast = F.cross_entropy(similarity, partner)
        shown = codes[rows].masked_fill(occluded[rows][:, None], -100).to(device)  # what cross_entropy leaves out
        parts = attributes.split([len(DOMAINS[name]) for name in ATTRIBUTES], 1)
        classify = torch.stack([F.cross_entropy(part, shown[:, i]) for i, part in enumerate(parts)]).mean()
        shape = F.smooth_l1_loss(built, targets[rows].to(device))
        return {
            "loss": contrast + 2 * classify + 0.5 * shape,
            "contrast": contrast,
            "attributes": classify,
            "bones": shape,
        }

    return model, loss


@torch.no_grad()
def embed(net: IdentityNet, frames: PhantomFrames, rows: Tensor | None = None) -> Tensor:
    """Identity vectors of all rows (or some), `(N, D)`."""
    rows = torch.arange(len(frames)) if rows is None else rows
    return torch.cat([net(images(frames, part)) for part in rows.split(64)])


@torch.no_grad()
def evaluate(model: nn.Module, frames: PhantomFrames, models: Path) -> Figures:
    """Same person in another clip, or somebody else: the share told right at the best threshold."""
    del models
    net = model.net if isinstance(model, IdentityTraining) else model
    assert isinstance(net, IdentityNet)
    table = states(frames)
    factual = frames.column("source")[table[:, 0, 0]] == table[:, 0, 0]
    table = table[factual]
    clips = F.normalize(embed(net, frames, table.flatten()).view(*table.shape, -1).mean(2), dim=-1)
    same = (clips[:, 0] * clips[:, 1]).sum(-1)
    other = (clips[:, 0] * clips[:, 1].roll(1, 0)).sum(-1)
    thresholds = torch.cat([same, other])
    right = (
        (same[None] >= thresholds[:, None]).float().mean(1) + (other[None] < thresholds[:, None]).float().mean(1)
    ) / 2
    nearest = (clips[:, 0] @ clips[:, 1].T).argmax(1) == torch.arange(len(clips))
    return {
        "same or other (%)": 100 * float(right.max()),
        "threshold": float(thresholds[right.argmax()]),
        f"nearest of {len(clips)} (%)": 100 * float(nearest.float().mean()),
    }


def network(model: nn.Module) -> IdentityNet:
    assert isinstance(model, IdentityTraining)
    return model.net


STAGE = Stage(
    name="identity",
    summary="identity encoder: crop -> unit vector",
    loop=LoopConfig(steps=1800, lr=2e-3),
    batch=32,
    build=build,
    evaluate=evaluate,
    network=network,
)
