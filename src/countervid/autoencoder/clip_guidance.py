"""Editing by text: the identity that moves a picture, in CLIP's space, the way two sentences lie apart.

The second editor of the Diffusion Video Autoencoder (arXiv:2212.02802, section 3.3): one frame is walked into noise and
back in a few steps; the identity is optimised so that one step from each stage of that way leads, seen by CLIP, in the
direction from the source text to the target text (StyleGAN-NADA, arXiv:2108.00946, eq. 3), while it stays the same
person and the same picture. What was found for one frame then moves the whole clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from countervid.autoencoder.codec import Codec
from countervid.autoencoder.model import DiffusionAutoencoder
from countervid.diffusion.ddim import ddim_step, decoding_steps
from countervid.diffusion.schedule import per_item
from countervid.embeddings.templates import TEMPLATES
from countervid.errors import ConfigError


class ImageTextModel(Protocol):
    """Pictures and sentences in one space."""

    def images(self, x: Tensor) -> Tensor:
        """Features `(B, D)` of pictures `(B, 3, H, W)` in [-1, 1], differentiable, of any length."""
        ...

    def texts(self, sentences: Sequence[str]) -> Tensor:
        """Features `(n, D)` of sentences."""
        ...


@dataclass(frozen=True, kw_only=True)
class TextGuidance:
    """What the text editor is asked for; the defaults are the published ones where nothing else is said."""

    source_text: str = "face"
    target_text: str
    scale: float = 1.0  # how far the clip is moved along what was found
    learning_rate: float = 0.002
    iterations: int = 2000
    clip_weight: float = 3.0
    identity_weight: float = 5.0
    l1_weight: float = 5.0
    intermediate_steps: int = 5  # stages of the way from noise that are looked at
    # What CLIP sees of a stage: "noisy", the picture at the next stage, noise and all, as published; or "clean", the
    # clean picture predicted there, the only one that latents can be decoded from.
    view: Literal["noisy", "clean"] = "clean"
    patience: int = 100  # stop after so many iterations without a better one; 0 runs them all, as published
    templates: tuple[str, ...] = TEMPLATES

    def __post_init__(self) -> None:
        if not (self.source_text.strip() and self.target_text.strip()):
            raise ConfigError('Text editing needs two texts, such as "face" and "face with beard".')
        if self.source_text.strip() == self.target_text.strip():
            raise ConfigError(f'The source and the target text are both "{self.target_text}": there is nowhere to go.')
        if self.iterations < 1 or self.patience < 0 or not self.learning_rate > 0:
            raise ConfigError(
                f"Text editing needs at least 1 iteration, a patience of 0 or more and a learning rate above 0, got "
                f"{self.iterations}, {self.patience} and {self.learning_rate:g}."
            )
        if self.view not in ("noisy", "clean"):
            raise ConfigError(f'The view is "noisy" or "clean", got "{self.view}".')
        if min(self.clip_weight, self.identity_weight, self.l1_weight) < 0 or self.clip_weight == 0:
            raise ConfigError("The weights of the losses are 0 or more, and that of CLIP is above 0.")

    def said(self) -> tuple[str, str, str]:
        """What is edited, as it was, and as it is to be: in words, for those who read of it."""
        return "text", self.source_text, self.target_text


BUNDLED: Mapping[str, float] = {
    "learning_rate": 0.01, "iterations": 200, "patience": 20, "identity_weight": 0.5, "l1_weight": 0.5,
}  # fmt: skip
"""Settings that suit the bundled CLIP. It sees the smallest step in the right direction, so the published weights of
identity and picture would stop it there; and a latent miniature needs no two thousand iterations."""


@dataclass(frozen=True)
class Iteration:
    """One step of the optimisation.

    Attributes:
        index: Counted from 0.
        total, clip, identity, l1: The losses before the step; `total` is their weighted sum.
        vector: The optimised vector after the step, `(D,)`.
        gradient: Of the total by the vector before the step, `(D,)`.
        pictures: What CLIP saw, `(S, 3, H, W)`, detached.
        best: The vector with the lowest total so far, `(D,)`.
    """

    index: int
    total: float
    clip: float
    identity: float
    l1: float
    vector: Tensor
    gradient: Tensor
    pictures: Tensor
    best: Tensor


def text_direction(source: Tensor, target: Tensor) -> Tensor:
    """Unit direction `(D,)` from features of source sentences `(n, D)` to those of target sentences, pair by pair."""
    return F.normalize((F.normalize(target, dim=1) - F.normalize(source, dim=1)).mean(0), dim=0)


def directional_loss(source: Tensor, edited: Tensor, direction: Tensor, *, least: float = 0.0) -> Tensor:
    """How far the way from source to edited features `(n, D)` turns from `direction` `(D,)`: 0 along it, 2 against it.

    The mean of `1 - cos(e, d)` over `e = (f(y) - f(r)) / (|.| + 1e-7)`. Where every `e` is shorter than `least`, or
    zero, there is no way yet, and the edited features themselves are held against the direction.

    Deviation with `least` above 0: the published code does so only at exactly zero, and so normalises rounding noise at
    its first iteration.
    """
    before, after = F.normalize(source, dim=1), F.normalize(edited, dim=1)
    way = after - before
    length = way.norm(dim=1, keepdim=True)
    if float(length.detach().max()) <= least:
        way, length = after, torch.ones_like(length)
    loss: Tensor = (1 - (way / (length + 1e-7)) @ direction).mean()
    return loss


def optimise(
    autoencoder: DiffusionAutoencoder,
    clip: ImageTextModel,
    codec: Codec,
    x: Tensor,
    z_id: Tensor,
    z_lnd: Tensor,
    mask: Tensor,
    config: TextGuidance,
    *,
    start: Tensor | None = None,
    least: float = 1e-3,
) -> Iterator[Iteration]:
    """Find the identity whose difference from `z_id` makes the picture what the target text says, step by step.

    Args:
        autoencoder: Whose weights stay as they are.
        clip: What tells pictures and sentences apart.
        codec: Between pictures and what is diffused.
        x: The frame as it is diffused, `(1, C, S, S)`.
        z_id: Its identity, unit length, `(D,)`.
        z_lnd: Its pose, `(1, L)`.
        mask: 1 where it may change, `(1, 1, H, W)` of the picture.
        config: Texts, weights and when to stop.
        start: Where the optimisation begins, `(D,)`; None: at `z_id`.
        least: See `directional_loss`.
    """
    schedule = autoencoder.schedule.respaced(config.intermediate_steps)
    tables = schedule.tables(x.device)
    stages = torch.arange(config.intermediate_steps - 1, -1, -1, device=x.device)  # the noisiest first
    abar = torch.from_numpy(schedule.alphas_cumprod).to(x)[stages]
    before = torch.from_numpy(schedule.alphas_cumprod_prev).to(x)[stages]
    times = tables.timesteps[stages]
    settings = {"clip": autoencoder.config.clip}
    with torch.no_grad():
        noise = autoencoder.encode(x, z_id, z_lnd, steps=config.intermediate_steps)
        face = autoencoder.face(z_id, z_lnd)

        def predicted(sample: Tensor, t: Tensor) -> Tensor:
            return autoencoder.noise(sample, t, face)

        steps = list(decoding_steps(predicted, noise, schedule, **settings))
        chain = torch.cat([noise, *(step.sample for step in steps)])
        inputs, outputs = chain[:-1], chain[1:]
        seen = outputs if config.view == "noisy" else torch.cat([step.clean for step in steps])
        reference = codec.decode(seen)
        sentences = [[template.format(text) for template in config.templates] for text in _texts(config)]
        direction = text_direction(clip.texts(sentences[0]), clip.texts(sentences[1])).to(x)
        source = clip.images(reference)
    vector = (z_id if start is None else start).clone().requires_grad_(True)
    optimiser = torch.optim.Adam([vector], lr=config.learning_rate)
    best, lowest, since = vector.detach().clone(), float("inf"), 0
    for index in range(config.iterations):
        identity = F.normalize(vector, dim=0)
        face = autoencoder.face(identity, z_lnd).expand(len(stages), -1)
        eps = autoencoder.noise(inputs, times, face)
        sample, clean = ddim_step(inputs, eps, per_item(abar, inputs), per_item(before, inputs), **settings)
        edited = codec.decode(sample if config.view == "noisy" else clean)
        turned = directional_loss(source, clip.images(edited), direction, least=least)
        clip_term = -torch.log((2 - turned) / 2)
        identity_term = 1 - identity @ z_id
        l1_term = (mask * reference - mask * edited).abs().mean()
        total = config.clip_weight * clip_term + config.identity_weight * identity_term + config.l1_weight * l1_term
        (gradient,) = torch.autograd.grad(total, vector)
        if float(total.detach()) < lowest:
            best, lowest, since = vector.detach().clone(), float(total.detach()), 0
        else:
            since += 1
        vector.grad = gradient
        optimiser.step()
        yield Iteration(
            index=index,
            total=float(total.detach()),
            clip=float(clip_term.detach()),
            identity=float(identity_term.detach()),
            l1=float(l1_term.detach()),
            vector=vector.detach().clone(),
            gradient=gradient,
            pictures=edited.detach(),
            best=best,
        )
        if config.patience and since >= config.patience:
            return


def _texts(config: TextGuidance) -> tuple[str, str]:
    return config.source_text.strip(), config.target_text.strip()
