"""The training loop: resuming is exact, a broken run keeps its last good state."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
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


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_training_after_the_step_at_hand_and_nothing_is_lost(tmp_path, number):
    script = Path(__file__).with_name("stopped_fit.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n"
    deadline = time.monotonic() + 60
    while not (tmp_path / "log.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0 and ("Terminated" if number == signal.SIGTERM else "KeyboardInterrupt") in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "loop.json", "state.pt"]
    step = int(torch.load(tmp_path / "state.pt", weights_only=True)["step"])
    assert step >= json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["step"] >= 20
    # The state is that of a training which was never stopped.
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    config = LoopConfig(steps=10_000)
    stepped = {"count": 0}

    def loss(generator):
        stepped["count"] += 1
        if stepped["count"] > step:
            raise ModelError("enough")
        return {"loss": model(torch.randn(4, 3, generator=generator)).square().mean()}

    with pytest.raises(ModelError, match="enough"):
        fit(model, loss, config, tmp_path / "whole")
    kept = torch.load(tmp_path / "state.pt", weights_only=True)["model"]
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())


def test_a_damaged_state_is_one_line(tmp_path):
    (tmp_path / "state.pt").write_bytes(bytes(4000))
    model = torch.nn.Linear(3, 2)
    with pytest.raises(ModelError, match="is damaged: training cannot go on from it"):
        fit(model, lambda generator: {"loss": model.weight.sum()}, LoopConfig(steps=1), tmp_path)
