"""The training loop: resuming is exact, a broken run keeps its last good state."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from countervid.errors import ConfigError, ModelError
from countervid.training.loop import LoopConfig, fit, learning_rate


def tiny_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 3, 3, padding=1))


def identity_loss(model: nn.Module):  # type: ignore[no-untyped-def]
    def loss(generator: torch.Generator) -> dict[str, Tensor]:
        x = torch.randn(4, 3, 8, 8, generator=generator)
        return {"loss": (model(x) - x).square().mean()}

    return loss


def test_resumed_training_equals_uninterrupted_training(tmp_path: Path) -> None:
    whole = tiny_model()
    average = fit(whole, identity_loss(whole), LoopConfig(steps=12, decay_from=1.0), tmp_path / "whole")
    first = tiny_model()
    fit(first, identity_loss(first), LoopConfig(steps=5, decay_from=1.0), tmp_path / "parts")
    second = tiny_model()
    resumed = fit(second, identity_loss(second), LoopConfig(steps=12, decay_from=1.0), tmp_path / "parts")
    for a, b in zip(average.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def test_training_learns_and_logs(tmp_path: Path) -> None:
    model = tiny_model()
    seen: list[int] = []
    fit(
        model,
        identity_loss(model),
        LoopConfig(steps=120, lr=1e-2, warmup=5),
        tmp_path,
        lambda step, _: seen.append(step),
    )
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert seen == [line["step"] for line in lines] == [20, 40, 60, 80, 100, 120]
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]


def test_a_loss_that_is_not_a_number_stops_and_keeps_the_state(tmp_path: Path) -> None:
    model = tiny_model()
    fit(model, identity_loss(model), LoopConfig(steps=3), tmp_path)
    before = (tmp_path / "state.pt").read_bytes()

    def broken(generator: torch.Generator) -> dict[str, Tensor]:
        return {"loss": sum(p.sum() for p in model.parameters()) * float("nan")}  # type: ignore[dict-item]

    with pytest.raises(ModelError, match="stopped at step 3.*not a number"):
        fit(model, broken, LoopConfig(steps=10), tmp_path)
    assert (tmp_path / "state.pt").read_bytes() == before


def test_learning_rate_warms_up_and_decays() -> None:
    config = LoopConfig(steps=1000, lr=1.0, warmup=100)
    rates = [learning_rate(step, config) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01) and rates[99] == pytest.approx(1.0) and rates[499] == 1.0
    assert all(a >= b for a, b in zip(rates[499:], rates[500:], strict=False))
    assert rates[1000] == pytest.approx(0.02)


def test_zero_steps_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        LoopConfig(steps=0)
