"""Ways from a picture to its noise code and back, by name: plain DDIM, one of second order, two that invert exactly.

All walk the same schedule with the same `model(x, t) -> eps`. They differ in what a step keeps of the step before:

- `ddim`: nothing (arXiv:2010.02502). Back it asks the model at other points than there, hence the error.
- `dpm++2m`: the last predicted clean picture; second order (DPM-Solver++, arXiv:2211.01095), both ways.
- `bdia`: the last two states, joined so that the way back is the same algebra solved for the other end (BDIA,
  arXiv:2307.10829, with gamma = 1). Back and forth is exact up to rounding, whatever the model answers.
- `belm`: the same idea with the coefficients of least local error (O-BELM, arXiv:2410.07273).

The code of an exact sampler is the last two states, side by side in the channels: twice the channels of `x`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from countervid.diffusion import ddim
from countervid.diffusion.ddim import NoiseModel, Progress
from countervid.diffusion.schedule import Schedule
from countervid.errors import ConfigError


class Sampler(Protocol):
    """There and back; `evaluations` says what it costs."""

    @property
    def exact(self) -> bool:
        """Whether the way back leads to where the way there began, whatever the model answers."""
        ...

    def encode(
        self, model: NoiseModel, x: Tensor, schedule: Schedule, *, clip: bool = True, progress: Progress | None = None
    ) -> Tensor:
        """The code `(B, kC, ...)` of clean pictures `x` `(B, C, ...)`; arguments as `ddim.encode`."""
        ...

    def decode(
        self,
        model: NoiseModel,
        x: Tensor,
        schedule: Schedule,
        *,
        clip: bool = True,
        progress: Progress | None = None,
    ) -> Tensor:
        """The clean pictures of a code `x`."""
        ...

    def evaluations(self, steps: int) -> tuple[int, int]:
        """Evaluations of the model there and back, with a schedule of so many steps."""
        ...


@dataclass(frozen=True)
class DDIM:
    """First order."""

    exact: bool = False
    encode = staticmethod(ddim.encode)
    decode = staticmethod(ddim.decode)

    def evaluations(self, steps: int) -> tuple[int, int]:
        return steps - 1, steps


@dataclass(frozen=True)
class DPMSolver2M:
    """Second order, multistep: each step extrapolates the predicted clean picture from the last two."""

    exact: bool = False

    def encode(
        self, model: NoiseModel, x: Tensor, schedule: Schedule, *, clip: bool = True, progress: Progress | None = None
    ) -> Tensor:
        last = len(schedule) - 1
        return self._walk(
            model, x, schedule, [(k, float(schedule.alphas_cumprod[k + 1])) for k in range(last)], clip, progress
        )

    def decode(
        self,
        model: NoiseModel,
        x: Tensor,
        schedule: Schedule,
        *,
        clip: bool = True,
        progress: Progress | None = None,
    ) -> Tensor:
        before = schedule.alphas_cumprod_prev
        return self._walk(
            model, x, schedule, [(k, float(before[k])) for k in reversed(range(len(schedule)))], clip, progress
        )

    def evaluations(self, steps: int) -> tuple[int, int]:
        return steps - 1, steps

    def _walk(
        self,
        model: NoiseModel,
        x: Tensor,
        schedule: Schedule,
        path: list[tuple[int, float]],
        clip: bool,
        progress: Progress | None,
    ) -> Tensor:
        """Steps from index `k` to the level `abar`, in order."""
        timesteps = schedule.tables(x.device).timesteps
        earlier: tuple[Tensor, float] | None = (
            None  # the last clean picture, and the step in log-SNR that led on from it
        )
        for done, (k, target) in enumerate(path, start=1):
            here = float(schedule.alphas_cumprod[k])
            _, clean = ddim.ddim_step(x, model(x, timesteps[k]), here, target, clip=clip)
            if target >= 1.0:  # the clean picture itself
                x = clean
            else:
                stride = _half_log_snr(target) - _half_log_snr(here)
                used = clean
                if earlier is not None:
                    used = clean + (clean - earlier[0]) * (stride / (2 * earlier[1]))
                ratio = ((1 - target) / (1 - here)) ** 0.5
                x = ratio * x + (target**0.5 - ratio * here**0.5) * used
                earlier = clean, stride
            if progress is not None:
                progress(done, len(path))
        return x


Combine = Callable[[Schedule, int], tuple[float, float, float]]
"""Schedule and index k -> (p, q, r) of `x[k-1] = p x[k+1] + q x[k] + r eps[k]`, to be solved for either end."""


@dataclass(frozen=True)
class Exact:
    """Two-step chains that are solved for the next state in either direction, so that back and forth cancels."""

    combine: Combine
    exact: bool = True

    def encode(
        self, model: NoiseModel, x: Tensor, schedule: Schedule, *, clip: bool = True, progress: Progress | None = None
    ) -> Tensor:
        self._check(schedule)
        timesteps, abar, last = schedule.tables(x.device).timesteps, schedule.alphas_cumprod, len(schedule) - 1
        low = x
        high, _ = ddim.ddim_step(x, model(x, timesteps[0]), float(abar[0]), float(abar[1]), clip=clip)
        for k in range(1, last):
            if progress is not None:
                progress(k, last)
            p, q, r = self.combine(schedule, k)
            low, high = high, (low - q * high - r * self._eps(model, high, timesteps[k], float(abar[k]), clip)) / p
        if progress is not None:
            progress(last, last)
        return torch.cat([high, low], dim=1)

    def decode(
        self,
        model: NoiseModel,
        x: Tensor,
        schedule: Schedule,
        *,
        clip: bool = True,
        progress: Progress | None = None,
    ) -> Tensor:
        self._check(schedule)
        timesteps, abar, last = schedule.tables(x.device).timesteps, schedule.alphas_cumprod, len(schedule) - 1
        high, low = x.chunk(2, dim=1)
        for k in range(last - 1, 0, -1):
            p, q, r = self.combine(schedule, k)
            high, low = low, p * high + q * low + r * self._eps(model, low, timesteps[k], float(abar[k]), clip)
            if progress is not None:
                progress(last - k, last - 1)
        return low

    def evaluations(self, steps: int) -> tuple[int, int]:
        return steps - 1, steps - 2

    @staticmethod
    def _eps(model: NoiseModel, x: Tensor, t: Tensor, abar: float, clip: bool) -> Tensor:
        """The noise predicted in `x`; with `clip` that of the clipped clean picture."""
        eps = model(x, t)
        if clip:
            _, clean = ddim.ddim_step(x, eps, abar, abar, clip=True)
            eps = (x - clean * abar**0.5) / (1 - abar) ** 0.5
        return eps

    @staticmethod
    def _check(schedule: Schedule) -> None:
        if len(schedule) < 3:
            raise ConfigError(f"Exact inversion needs at least 3 steps, got {len(schedule)}.")


def bdia(schedule: Schedule, k: int) -> tuple[float, float, float]:
    """`x[k-1] = x[k+1] - D(k -> k+1) + D(k -> k-1)`, `D` the move of a DDIM step from `x[k]` with one eps for both."""
    (a_down, b_down), (a_up, b_up) = (_ddim_move(schedule, k, k + way) for way in (-1, 1))
    return 1.0, a_down - a_up, b_down - b_up


def belm(schedule: Schedule, k: int) -> tuple[float, float, float]:
    """Least local error among explicit two-step rules, in the variable `x / sqrt(abar)` over `sqrt(1 / abar - 1)`."""
    below, here, above = (_noise_to_signal(schedule, index) for index in (k - 1, k, k + 1))
    down, up = here - below, above - here
    signal = [float(schedule.alphas_cumprod[index]) ** 0.5 for index in (k - 1, k, k + 1)]
    p = (down / up) ** 2 * signal[0] / signal[2]
    q = (1 - (down / up) ** 2) * signal[0] / signal[1]
    return p, q, -down * (down + up) / up * signal[0]


SAMPLERS: Mapping[str, Sampler] = {
    "ddim": DDIM(),
    "dpm++2m": DPMSolver2M(),
    "bdia": Exact(bdia),
    "belm": Exact(belm),
}


def sampler(name: str) -> Sampler:
    """The sampler of a name.

    Raises:
        ConfigError: There is none.
    """
    if name not in SAMPLERS:
        raise ConfigError(f"There is no sampler `{name}`. There are: {', '.join(SAMPLERS)}.")
    return SAMPLERS[name]


def _ddim_move(schedule: Schedule, source: int, target: int) -> tuple[float, float]:
    """A DDIM step as `a x + b eps`."""
    here, there = float(schedule.alphas_cumprod[source]), float(schedule.alphas_cumprod[target])
    a = (there / here) ** 0.5
    return a, (1 - there) ** 0.5 - a * (1 - here) ** 0.5


def _noise_to_signal(schedule: Schedule, index: int) -> float:
    return math.sqrt(1 / float(schedule.alphas_cumprod[index]) - 1)


def _half_log_snr(abar: float) -> float:
    """`log(sqrt(abar) / sqrt(1 - abar))`, the time in which the solver's steps are measured."""
    return 0.5 * math.log(abar / (1 - abar))
