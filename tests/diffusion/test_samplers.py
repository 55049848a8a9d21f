import numpy as np
import pytest
import torch
from torch import Tensor

from countervid.diffusion.samplers import SAMPLERS, sampler
from countervid.diffusion.schedule import Schedule
from countervid.errors import ConfigError

SCHEDULE = Schedule.linear()
SPREAD = 1.5  # of the data in the world whose perfect model is known


def perfect(x: Tensor, t: Tensor) -> Tensor:
    """The noise expected in `x` where data are normal with deviation `SPREAD`."""
    abar = float(SCHEDULE.alphas_cumprod[int(t)])
    return x * (1 - abar) ** 0.5 / (abar * SPREAD**2 + 1 - abar)


def spread_at(abar: float) -> float:
    """Deviation of noisy data; the probability flow only scales pictures by it."""
    return float(np.sqrt(abar * SPREAD**2 + 1 - abar))


class Wild(torch.nn.Module):
    """A model that answers nonsense, smoothly."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(16, 3, 3, padding=1)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layers(x * torch.cos(t / 300)) + 0.5 * x


@pytest.mark.parametrize("name", [name for name in SAMPLERS if SAMPLERS[name].exact])
@pytest.mark.parametrize("steps", [3, 10, 50])
@pytest.mark.parametrize("clip", [True, False])
@torch.no_grad()
def test_exact_samplers_come_back_whatever_the_model_says(name: str, steps: int, clip: bool) -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)).clamp(-1, 1).double()
    model, schedule = Wild().double(), SCHEDULE.respaced(steps)
    code = SAMPLERS[name].encode(model, x, schedule, clip=clip)
    assert code.shape == (2, 6, 8, 8) and torch.isfinite(code).all()
    torch.testing.assert_close(SAMPLERS[name].decode(model, code, schedule, clip=clip), x, atol=1e-6, rtol=0)
    plain = SAMPLERS["ddim"]
    back = plain.decode(model, plain.encode(model, x, schedule, clip=clip), schedule, clip=clip)
    assert (back - x).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpm++2m", 2), ("belm", 2), ("bdia", 1)])
def test_codes_near_the_true_flow_with_the_order_of_the_method(name: str, order: int) -> None:
    x = torch.linspace(-2, 2, 12).reshape(1, 3, 2, 2).double()
    errors = []
    for steps in (25, 50, 100, 200):
        schedule = SCHEDULE.respaced(steps)
        code = sampler(name).encode(perfect, x, schedule, clip=False)[:, :3]
        first, last = (spread_at(float(schedule.alphas_cumprod[k])) for k in (0, -1))
        errors.append(float((code - x * last / first).abs().max()))
    rates = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert errors[-1] < 0.02 and rates[-1] > order - 0.4


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_evaluations_are_what_is_said(name: str) -> None:
    asked: list[int] = []

    def counting(x: Tensor, t: Tensor) -> Tensor:
        asked.append(int(t))
        return perfect(x, t)

    reports: list[tuple[int, int]] = []
    x, schedule, way = torch.ones(1, 3, 2, 2), SCHEDULE.respaced(10), sampler(name)
    there, back = way.evaluations(10)
    code = way.encode(counting, x, schedule, clip=False, progress=lambda done, total: reports.append((done, total)))
    assert len(asked) == there and reports[-1] == (there, there) and asked == sorted(asked)
    asked.clear()
    way.decode(counting, code, schedule, clip=False, progress=lambda done, total: reports.append((done, total)))
    assert len(asked) == back and reports[-1] == (back, back) and asked == sorted(asked, reverse=True)


def test_unknown_names_and_too_few_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match="no sampler `euler`"):
        sampler("euler")
    with pytest.raises(ConfigError, match="at least 3 steps"):
        sampler("belm").encode(perfect, torch.ones(1, 3, 2, 2), SCHEDULE.respaced(2))
