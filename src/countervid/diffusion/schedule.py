"""How much of the picture is left at every step of the diffusion: the noise schedule and its respacing.

The forward process is `x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps` (DDPM, arXiv:2006.11239, eq. 4) with betas rising
linearly. Inference visits only some of the training steps; `Schedule.respaced` picks them with one constant stride.
Every table is float64 on the host; `Schedule.tables` hands out float32 copies, kept once per device.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from countervid.errors import ConfigError

TRAIN_STEPS = 1000  # steps of the process that networks are trained on, unless their config says otherwise


@dataclass(frozen=True)
class Tables:
    """A schedule's coefficients as float32 tensors on one device, each of shape `(T,)`; `timesteps` is int64."""

    timesteps: Tensor
    signal: Tensor  # sqrt(abar)
    noise: Tensor  # sqrt(1 - abar)
    inverse_signal: Tensor  # sqrt(1 / abar)
    noise_to_signal: Tensor  # sqrt(1 / abar - 1)


@dataclass(frozen=True)
class Schedule:
    """A diffusion process seen at `T` of its training steps, index 0 the cleanest.

    Attributes:
        timesteps: Training step of every index, int64 `(T,)`; this is what the network is told.
        betas: Variance that each of the `T` transitions adds, float64 `(T,)`.
        alphas_cumprod: Signal left, `abar_k`, float64 `(T,)`.
    """

    timesteps: NDArray[np.int64]
    betas: NDArray[np.float64]
    alphas_cumprod: NDArray[np.float64]
    _tables: dict[torch.device, Tables] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def linear(cls, train_steps: int = TRAIN_STEPS, first: float = 1e-4, last: float = 0.02) -> Schedule:
        """The whole training process: betas from `first` to `last` in equal steps (DDPM, section 4).

        Both ends are scaled by `1000 / train_steps`, so that shorter processes end as noisy as the usual one.
        """
        if train_steps < 2:
            raise ConfigError(f"A diffusion process needs at least 2 training steps, got {train_steps}.")
        scale = 1000 / train_steps
        betas = np.linspace(scale * first, scale * last, train_steps, dtype=np.float64)
        if not (0 < betas[0] <= betas[-1] < 1):
            raise ConfigError(
                f"The betas must rise within (0, 1), got {betas[0]:g} to {betas[-1]:g}. Use more training steps."
            )
        alphas_cumprod = np.asarray(np.cumprod(1.0 - betas), dtype=np.float64)
        return cls(np.arange(train_steps, dtype=np.int64), betas, alphas_cumprod)

    def respaced(self, steps: int) -> Schedule:
        """The same process visited at `steps` of its indices `0, s, 2s, ...` with the smallest stride that fits.

        Raises:
            ConfigError: No stride gives exactly `steps` indices; the message names the nearest counts that work.
        """
        stride = _strides(len(self)).get(steps)
        if stride is None:
            raise ConfigError(_wrong_steps(steps, len(self)))
        alphas_cumprod = self.alphas_cumprod[::stride]
        before = np.concatenate([[1.0], alphas_cumprod[:-1]])
        return Schedule(self.timesteps[::stride], 1.0 - alphas_cumprod / before, alphas_cumprod)

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def alphas_cumprod_prev(self) -> NDArray[np.float64]:
        """Signal left one index earlier, 1 before the first."""
        return np.concatenate([[1.0], self.alphas_cumprod[:-1]])

    @property
    def alphas_cumprod_next(self) -> NDArray[np.float64]:
        """Signal left one index later, 0 after the last."""
        return np.concatenate([self.alphas_cumprod[1:], [0.0]])

    def tables(self, device: torch.device | str) -> Tables:
        """Float32 coefficients on `device`; built at the first call, the same tensors ever after."""
        device = torch.device(device)
        if device not in self._tables:
            abar = self.alphas_cumprod

            def single(values: NDArray[np.float64]) -> Tensor:
                return torch.from_numpy(values.astype(np.float32)).to(device)

            self._tables[device] = Tables(
                timesteps=torch.from_numpy(self.timesteps.copy()).to(device),
                signal=single(np.sqrt(abar)),
                noise=single(np.sqrt(1.0 - abar)),
                inverse_signal=single(np.sqrt(1.0 / abar)),
                noise_to_signal=single(np.sqrt(1.0 / abar - 1.0)),
            )
        return self._tables[device]

    def add_noise(self, x: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        """Clean `x` at the noise level of `index`, int64 `(B,)`: `sqrt(abar) x + sqrt(1 - abar) noise`."""
        tables = self.tables(x.device)
        return per_item(tables.signal[index], x) * x + per_item(tables.noise[index], x) * noise

    def predict_clean(self, x: Tensor, eps: Tensor, index: Tensor) -> Tensor:
        """The clean picture that noisy `x` and noise `eps` imply at `index`, int64 `(B,)`; not clipped."""
        tables = self.tables(x.device)
        return per_item(tables.inverse_signal[index], x) * x - per_item(tables.noise_to_signal[index], x) * eps

    def velocity(self, x: Tensor, noise: Tensor, index: Tensor) -> Tensor:
        """`sqrt(abar) noise - sqrt(1 - abar) x` at `index`, int64 `(B,)` (arXiv:2202.00512, appendix D)."""
        tables = self.tables(x.device)
        return per_item(tables.signal[index], x) * noise - per_item(tables.noise[index], x) * x

    def noise_in(self, x: Tensor, velocity: Tensor, index: Tensor) -> Tensor:
        """The noise that noisy `x` and its velocity imply at `index`, int64 `(B,)` or a scalar."""
        tables = self.tables(x.device)
        return per_item(tables.noise[index], x) * x + per_item(tables.signal[index], x) * velocity


def per_item(coefficient: Tensor, like: Tensor) -> Tensor:
    """`(B,)` as `(B, 1, 1, ...)` or a scalar, ready to multiply a tensor shaped as `like`."""
    return coefficient.reshape(-1, *[1] * (like.ndim - 1))


def valid_steps(train_steps: int = TRAIN_STEPS) -> tuple[int, ...]:
    """Every number of steps that `Schedule.respaced` accepts, rising."""
    return tuple(sorted(_strides(train_steps)))


def _strides(train_steps: int) -> dict[int, int]:
    """Number of visited steps -> the smallest stride that visits just so many."""
    strides: dict[int, int] = {}
    for stride in range(1, train_steps):
        strides.setdefault(-(-train_steps // stride), stride)  # ceil: members of {0, s, 2s, ...} below train_steps
    return strides


def _wrong_steps(steps: int, train_steps: int) -> str:
    valid = valid_steps(train_steps)
    below = [count for count in valid if count < steps][-1:]
    above = [count for count in valid if count > steps][:1]
    near = " or ".join(str(count) for count in below + above)
    return f"{steps} steps do not divide {train_steps} training steps evenly. Use {near} steps."
