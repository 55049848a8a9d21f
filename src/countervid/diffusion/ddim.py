"""Deterministic diffusion both ways: a picture into its noise (inversion) and the noise back into a picture.

DDIM with eta = 0 (arXiv:2010.02502, eq. 12) as the Diffusion Video Autoencoder walks it (arXiv:2212.02802, section
3.2). All functions are flat: a `model(x, t) -> eps` and a schedule go in, tensors come out. `x` is `(B, ...)`, the
batch being frames, and `t` the training step as an int64 scalar tensor, for all frames stand at the same step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from countervid.diffusion.schedule import Schedule

NoiseModel = Callable[[Tensor, Tensor], Tensor]
Progress = Callable[[int, int], None]  # called with (evaluations done, evaluations in all)


@dataclass(frozen=True)
class Step:
    """One network evaluation of a chain.

    Attributes:
        index: The schedule's index that was evaluated.
        sample: `x` after the step.
        clean: The clean picture predicted at `index`, clipped if the chain clips.
    """

    index: int
    sample: Tensor
    clean: Tensor


def ddim_step(
    x: Tensor, eps: Tensor, abar_from: float | Tensor, abar_to: float | Tensor, *, clip: bool
) -> tuple[Tensor, Tensor]:
    """Move `x` from one noise level to another along the predicted noise.

    With `abar_to < abar_from` it adds noise (inversion). With `clip` the predicted clean picture is held in [-1, 1] and
    the noise computed anew from it, so that both stay consistent with `x`.

    Args:
        x: Picture or latent at the level `abar_from`, `(B, ...)`.
        eps: Noise predicted there, same shape.
        abar_from, abar_to: Signal left, in (0, 1] and [0, 1]: numbers, or tensors that broadcast to `x`.
        clip: For pixels only; latents have no bounds to be held in.

    Returns:
        `x` at the level `abar_to`, and the clean picture that was predicted on the way.
    """
    signal, noise = _coefficients(abar_to)
    inverse_signal, noise_to_signal = _inverse_coefficients(abar_from)
    clean = inverse_signal * x - noise_to_signal * eps
    if clip:
        clean = clean.clamp(-1.0, 1.0)
        eps = (inverse_signal * x - clean) / noise_to_signal
    return signal * clean + noise * eps, clean


def encoding_steps(model: NoiseModel, x: Tensor, schedule: Schedule, *, clip: bool = True) -> Iterator[Step]:
    """The inversion of clean pictures `x`, step by step: `T - 1` evaluations at the indices 0 to `T - 2`.

    The clean picture is taken to stand at `abar_0` already. The last index is not evaluated: the chain ends at the
    level `abar_{T-1}`, where decoding begins.
    """
    timesteps = schedule.tables(x.device).timesteps
    abar = schedule.alphas_cumprod
    for k in range(len(schedule) - 1):
        eps = model(x, timesteps[k])
        x, clean = ddim_step(x, eps, float(abar[k]), float(abar[k + 1]), clip=clip)
        yield Step(k, x, clean)


def decoding_steps(model: NoiseModel, x: Tensor, schedule: Schedule, *, clip: bool = True) -> Iterator[Step]:
    """The way from noise `x` at the last index to clean pictures, step by step: `T` evaluations, last index first."""
    timesteps = schedule.tables(x.device).timesteps
    abar, before = schedule.alphas_cumprod, schedule.alphas_cumprod_prev
    for k in reversed(range(len(schedule))):
        eps = model(x, timesteps[k])
        x, clean = ddim_step(x, eps, float(abar[k]), float(before[k]), clip=clip)
        yield Step(k, x, clean)


def encode(
    model: NoiseModel, x: Tensor, schedule: Schedule, *, clip: bool = True, progress: Progress | None = None
) -> Tensor:
    """The noise from which `decode` draws the pictures `x` again, same shape.

    Args:
        model: Predicts the noise in `x` at training step `t`.
        x: Clean pictures in [-1, 1], or latents, `(B, ...)`.
        schedule: A respaced schedule; its length is the number of steps `T`.
        clip: Hold predicted pictures in [-1, 1]; False for latents.
        progress: Called after each evaluation with (done, all).
    """
    return _last(x, encoding_steps(model, x, schedule, clip=clip), len(schedule) - 1, progress)


def decode(
    model: NoiseModel, noise: Tensor, schedule: Schedule, *, clip: bool = True, progress: Progress | None = None
) -> Tensor:
    """The pictures that `noise`, standing at the schedule's last index, is drawn into; arguments as `encode`."""
    return _last(noise, decoding_steps(model, noise, schedule, clip=clip), len(schedule), progress)


def _last(x: Tensor, steps: Iterator[Step], total: int, progress: Progress | None) -> Tensor:
    for done, step in enumerate(steps, start=1):
        x = step.sample
        if progress is not None:
            progress(done, total)
    return x


def _coefficients(abar: float | Tensor) -> tuple[float | Tensor, float | Tensor]:
    """`sqrt(abar)` and `sqrt(1 - abar)`. Numbers come from float64 and are rounded to float32 once."""
    if isinstance(abar, Tensor):
        return abar.sqrt(), (1 - abar).sqrt()
    return float(np.float32(np.sqrt(abar))), float(np.float32(np.sqrt(1.0 - abar)))


def _inverse_coefficients(abar: float | Tensor) -> tuple[float | Tensor, float | Tensor]:
    """`sqrt(1 / abar)` and `sqrt(1 / abar - 1)`, rounded as `_coefficients`."""
    if isinstance(abar, Tensor):
        return (1 / abar).sqrt(), (1 / abar - 1).sqrt()
    return float(np.float32(np.sqrt(1.0 / abar))), float(np.float32(np.sqrt(1.0 / abar - 1.0)))
