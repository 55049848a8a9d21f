"""The Diffusion Video Autoencoder: a clip as one identity, landmarks a frame and a noise map a frame, and back.

arXiv:2212.02802. A frozen network names the person (`z_id`, one vector for the whole clip), another the pose (`z_lnd`,
one a frame); one linear layer joins them to the face vector that conditions the noise estimator. What neither knows,
the background above all, stays in the noise map `x_T` that deterministic inversion finds. Moving `z_id` once therefore
edits every frame alike. Pictures and latents go the same way: both are `(F, C, S, S)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countervid.autoencoder.config import AutoencoderConfig, LossConfig
from countervid.autoencoder.unet import Condition, UNet
from countervid.diffusion.ddim import Progress
from countervid.diffusion.samplers import sampler as sampler_named
from countervid.diffusion.schedule import Schedule
from countervid.models.folder import load_weights, read_config, save_model

KIND = "diffusion-autoencoder"


@dataclass(frozen=True)
class Loss:
    """What `denoising_loss` found; `noise` and `regulariser` are detached and per item.

    Attributes:
        total: Weighted mean to minimise, scalar.
        noise: Distance between drawn and predicted noise (or velocity), both terms if there are two, `(B,)`.
        regulariser: Distance between the clean faces of the two draws, `(R,)`, the first R items; empty when it is off.
        clean: Clean pictures predicted from the draws, `(B, ...)` and `(R, ...)`, neither clipped nor masked; for
            further losses, so with their gradients.
    """

    total: Tensor
    noise: Tensor
    regulariser: Tensor
    clean: tuple[Tensor, Tensor]


class ConditionEncoder(nn.Module):
    """Joins who it is and how they pose: one linear layer, as published (the paper calls it an MLP)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.identity_channels + config.landmark_channels, config.unet.condition_channels)

    def forward(self, z_id: Tensor, z_lnd: Tensor) -> Tensor:
        """Identities `(B, I)` and landmarks `(B, L)` -> face vectors `(B, condition_channels)`."""
        face: Tensor = self.linear(torch.cat([z_id, z_lnd], dim=1))
        return face


class DiffusionAutoencoder(nn.Module):
    """Noise estimator, condition and schedule in one; the networks that see faces stay outside.

    Their results do not change while this one learns, so they are computed once a frame and handed in.
    """

    def __init__(self, config: AutoencoderConfig | None = None) -> None:
        super().__init__()
        self.config = config if config is not None else AutoencoderConfig()
        self.schedule = Schedule.linear(self.config.train_steps, self.config.beta_first, self.config.beta_last)
        self.unet = UNet(self.config.unet)
        self.encoder = ConditionEncoder(self.config)
        self.evaluations = 0  # of the network by `noise` since the model was made: one a frame
        self.precision = torch.float32  # that the network computes in; weights and chains stay in float32

    def face(self, z_id: Tensor, z_lnd: Tensor) -> Tensor:
        """Face vectors of frames: `z_id` `(I,)` or `(F, I)`, `z_lnd` `(F, L)` -> `(F, condition_channels)`."""
        vectors: Tensor = self.encoder(z_id.expand(len(z_lnd), -1), z_lnd)
        return vectors

    def loss(
        self,
        x: Tensor,
        z_id: Tensor,
        z_lnd: Tensor,
        *,
        mask: Tensor | None = None,
        config: LossConfig | None = None,
        generator: torch.Generator | None = None,
        t: Tensor | None = None,
        noises: tuple[Tensor, Tensor] | None = None,
    ) -> Loss:
        """The training loss of a batch, `total` of which is to be minimised.

        Args:
            x: Clean pictures in [-1, 1], or latents of about unit variance, `(B, C, S, S)`.
            z_id, z_lnd: What the frozen networks say of them, `(B, I)` and `(B, L)`.
            mask: 1 where the face is, `(B, 1, S, S)`; None ties the two draws everywhere.
            config: Terms and weights; None: as published.
            generator: Draws steps and noise on the device of `x`, where they are not given.
            t: Training steps `(B,)`.
            noises: The two draws of noise, shape of `x` each.
        """
        if t is None:
            t = torch.randint(self.config.train_steps, (len(x),), generator=generator, device=x.device)
        if noises is None:
            first, second = (
                torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype) for _ in range(2)
            )
            noises = (first, second)
        return denoising_loss(
            self.unet,
            self.schedule,
            x,
            self.face(z_id, z_lnd),
            t,
            noises,
            mask=mask,
            config=config or LossConfig(),
            velocities=self.velocities,
        )

    @property
    def velocities(self) -> bool:
        """Whether the network's output is the velocity, not the noise."""
        return self.config.prediction_type == "v_prediction"

    def noise(self, x: Tensor, t: Tensor, face: Tensor | Condition) -> Tensor:
        """The noise in `x` `(B, C, S, S)` at training steps `t`, `(B,)` or one for all, for face vectors `(B, ...)`."""
        self.evaluations += len(x)
        with torch.autocast(x.device.type, self.precision, enabled=self.precision != torch.float32):
            output: Tensor = self.unet(x, t, face)
        output = output.to(x.dtype)
        return self.schedule.noise_in(x, output, t) if self.velocities else output

    @torch.no_grad()
    def encode(
        self,
        x: Tensor,
        z_id: Tensor,
        z_lnd: Tensor,
        *,
        steps: int = 20,
        sampler: str = "ddim",
        batch: int = 32,
        progress: Progress | None = None,
    ) -> Tensor:
        """The noise maps `x_T` of frames: with the same identity and landmarks `decode` draws the frames again.

        Args:
            x: Frames in [-1, 1] or latents, `(F, C, S, S)`.
            z_id: The person, `(I,)` for the clip or `(F, I)`.
            z_lnd: The pose of every frame, `(F, L)`.
            steps: Steps of the chain, about as many evaluations; a count that the schedule can be respaced to.
            sampler: How the chain is walked, one of `diffusion.samplers`; decoding takes the same.
            batch: Frames that go through the network at a time; bounds the memory.
            progress: Called with (evaluations done, all), batches counted one by one.

        Returns:
            Noise maps, shape of `x`, or twice its channels with an exact sampler.
        """
        way = sampler_named(sampler)
        return self._chain(way.encode, x, z_id, z_lnd, steps, batch, way.evaluations(steps)[0], progress)

    @torch.no_grad()
    def decode(
        self,
        noise: Tensor,
        z_id: Tensor,
        z_lnd: Tensor,
        *,
        steps: int = 20,
        sampler: str = "ddim",
        batch: int = 32,
        progress: Progress | None = None,
    ) -> Tensor:
        """The frames of noise maps `(F, C, S, S)` for an identity and landmarks; arguments as `encode`, `steps` too."""
        way = sampler_named(sampler)
        return self._chain(way.decode, noise, z_id, z_lnd, steps, batch, way.evaluations(steps)[1], progress)

    def _chain(
        self,
        function: Callable[..., Tensor],
        x: Tensor,
        z_id: Tensor,
        z_lnd: Tensor,
        steps: int,
        batch: int,
        evaluations: int,
        progress: Progress | None,
    ) -> Tensor:
        schedule = self.schedule.respaced(steps)
        faces = self.face(z_id, z_lnd)
        starts = range(0, len(x), batch)
        results = []
        for part, start in enumerate(starts):
            condition = self.unet.condition(faces[start : start + batch])

            def model(x: Tensor, t: Tensor, condition: Condition = condition) -> Tensor:
                return self.noise(x, t, condition)

            def report(done: int, total: int, part: int = part) -> None:
                if progress is not None:
                    progress(part * evaluations + done, len(starts) * evaluations)

            results.append(function(model, x[start : start + batch], schedule, clip=self.config.clip, progress=report))
        return torch.cat(results) if results else x

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype = torch.float16) -> None:
        """Write `config.json` and `model.safetensors`, half precision unless `dtype` says otherwise."""
        save_model(folder, self, {"kind": KIND, **self.config.to_dict()}, dtype=dtype)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> DiffusionAutoencoder:
        """The autoencoder of a folder, float32, on the CPU, in evaluation mode, without gradients.

        Raises:
            ModelError: The folder is incomplete, damaged, or holds something else.
        """
        model = cls(AutoencoderConfig.from_dict(read_config(folder, KIND)))
        load_weights(folder, model)
        return model


def denoising_loss(
    unet: UNet,
    schedule: Schedule,
    x: Tensor,
    face: Tensor,
    t: Tensor,
    noises: tuple[Tensor, Tensor],
    *,
    mask: Tensor | None = None,
    config: LossConfig,
    velocities: bool = False,
) -> Loss:
    """Predict two draws of noise at one step, and let the face not depend on the draw (arXiv:2212.02802, section 3.1).

    `total = noise_weight * mean(noise) + regulariser_weight * mean(regulariser)`, both with the config's distance `d`.
    With `x^i` the noisy `x` of draw i, and `c^i` the clean picture that its predicted noise implies, not clipped:

    - `noise = d(eps^1, eps'^1) + d(eps^2, eps'^2)`, the mean over all elements. The paper's formula has the first
      summand only, the published code both; `noise_terms` chooses.
    - `regulariser = d(mask * c^1, mask * c^2)` over all elements, those outside the mask too, so it weighs the more the
      larger the face is. The clean picture amplifies errors by `sqrt(1/abar - 1)`: 0.01 at step 0, 157 at step 999.

    Deviation: with `regulariser_gain` below that, items above it count `regulariser_gain / sqrt(1/abar - 1)` of theirs,
    since at the noisiest steps the term otherwise outweighs all else by a hundred. `regulariser_share` spares part of
    the batch the second draw; with no regulariser and one noise term there is no second draw, and a step costs half.

    Args:
        unet: The network.
        schedule: The whole training process.
        x: Clean pictures or latents, `(B, C, S, S)`.
        face: Condition vectors, `(B, condition_channels)`.
        t: Training steps, int64 `(B,)`.
        noises: The two draws, shape of `x` each.
        mask: 1 where the face is, `(B, 1, S, S)`; None for everywhere.
        config: Terms and weights.
        velocities: The network predicts `v = sqrt(abar) eps - sqrt(1 - abar) x`, and the noise term compares those.
    """
    paired = len(x) if config.noise_terms == 2 else 0  # items that are drawn twice
    if config.regulariser_weight > 0:
        paired = max(paired, math.ceil(config.regulariser_share * len(x)))
    xs, ts, faces = (torch.cat([tensor, tensor[:paired]]) for tensor in (x, t, face))
    noise = torch.cat([noises[0], noises[1][:paired]])
    noisy = schedule.add_noise(xs, noise, ts)
    output = unet(noisy, ts, faces)  # both draws in one evaluation
    goal = schedule.velocity(xs, noise, ts) if velocities else noise
    clean = schedule.predict_clean(noisy, schedule.noise_in(noisy, output, ts) if velocities else output, ts)

    distance = F.l1_loss if config.distance == "l1" else F.mse_loss
    distances = distance(output, goal, reduction="none").flatten(1).mean(1)
    noise_term = distances[: len(x)]
    if config.noise_terms == 2:
        noise_term = noise_term + distances[len(x) :]
    total = config.noise_weight * noise_term.mean()

    first, second = clean[: len(x)], clean[len(x) :]
    regulariser = x.new_zeros(0)
    if config.regulariser_weight > 0:
        count = math.ceil(config.regulariser_share * len(x))
        apart = first[:count] - second[:count]
        apart = apart if mask is None else apart * mask[:count]
        regulariser = (apart.abs() if config.distance == "l1" else apart.square()).flatten(1).mean(1)
        gain = schedule.tables(x.device).noise_to_signal[t[:count]]
        weight = (config.regulariser_gain / gain).clamp(max=1.0)
        total = total + config.regulariser_weight * (weight * regulariser).mean()
    return Loss(total, noise_term.detach(), regulariser.detach(), (first, second))
