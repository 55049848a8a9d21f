"""The one training loop: resumable, logged, with an exponential moving average.

A recipe gives a loss that depends on the step alone (its randomness comes from the step's generator),
so that a run that was stopped and resumed takes exactly the steps of one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from countervid.errors import ConfigError, ModelError
from countervid.files.stopping import after_this_step
from countervid.files.whole import replacing, write_whole

Loss = Callable[[torch.Generator], Mapping[str, Tensor]]
"""Takes the step's generator; returns scalars, of which `loss` is minimised and all are logged."""

Report = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    steps: int
    lr: float = 1e-3
    warmup: int = 100
    decay_from: float = 0.5  # the learning rate falls to 2 % along half a cosine over the rest of the run
    weight_decay: float = 0.01
    clip: float = 1.0  # gradient norm
    ema: float = 0.999  # reached after a few hundred steps, (1 + step) / (10 + step) before
    seed: int = 0
    save_every: float = 60.0  # seconds
    log_every: int = 20  # steps

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"`steps` must be at least 1, got {self.steps}.")


def learning_rate(step: int, config: LoopConfig) -> float:
    """Linear warm-up, a plateau, then half a cosine down to 2 %."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    start = config.decay_from * config.steps
    if step < start:
        return config.lr
    fraction = (step - start) / max(1.0, config.steps - start)
    return config.lr * (0.02 + 0.98 * (1 + math.cos(math.pi * min(1.0, fraction))) / 2)


def fit(
    model: nn.Module,
    loss: Loss,
    config: LoopConfig,
    folder: Path,
    report: Report | None = None,
    device: torch.device | None = None,
) -> nn.Module:
    """Train `model` until `config.steps`, from `folder/state.pt` where there is one.

    Args:
        model: Trained in place, in channels-last layout.
        loss: See `Loss`; it brings its batches to where the model is.
        folder: Holds `state.pt` (everything needed to go on), `log.jsonl` and `loop.json`.
        report: Called every `log_every` steps with the step and its means, for a progress bar.
        device: Where to train; the CPU if None.

    Returns:
        The moving average of `model`, in evaluation mode, on the CPU.

    Raises:
        ModelError: the loss is no longer a number; the last good state stays in `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.to(device=device or torch.device("cpu"), memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    average = deepcopy(model).requires_grad_(False)
    decays = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decays, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98))
    state_path = folder / "state.pt"
    step = 0
    if state_path.exists():
        state = read_state(state_path)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step = int(state["step"])
    write_whole(folder / "loop.json", json.dumps(asdict(config), indent=2) + "\n")

    saved = time.monotonic()
    sums: dict[str, float] = {}
    counted, began = 0, time.monotonic()
    with after_this_step() as stop:  # a step is taken whole, and nothing of it is lost
        while step < config.steps:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config)
            values = loss(torch.Generator().manual_seed(config.seed * 1_000_003 + step))
            values["loss"].backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            if not torch.isfinite(norm):
                raise ModelError(
                    f"Training in {folder} stopped at step {step}: the gradient is not a number. "
                    "The last good state is kept; lower the learning rate and run the same command."
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            average_into(average, model, min(config.ema, (1 + step) / (10 + step)))
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            counted += 1
            if step % config.log_every == 0 or step == config.steps:
                means = {name: value / counted for name, value in sums.items()}
                means["seconds_per_step"] = (time.monotonic() - began) / counted
                with open(folder / "log.jsonl", "a") as log:
                    log.write(json.dumps({"step": step, **{k: round(v, 6) for k, v in means.items()}}) + "\n")
                if report is not None:
                    report(step, means)
                sums, counted, began = {}, 0, time.monotonic()
            if stop.asked or time.monotonic() - saved > config.save_every or step == config.steps:
                state = {
                    "model": model.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step,
                }
                save_whole(state_path, state)
                saved = time.monotonic()
                stop.raise_asked()
    return average.cpu().eval()


@torch.no_grad()
def average_into(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move `average` towards `model`, tensor by tensor, by the share `1 - decay`."""
    pairs = [(a, m) for a, m in zip(average.parameters(), model.parameters(), strict=True)]
    torch._foreach_lerp_([a for a, _ in pairs], [m for _, m in pairs], 1 - decay)
    for a, m in zip(average.buffers(), model.buffers(), strict=True):  # batch statistics are averages already
        a.copy_(m)


def read_state(path: Path) -> dict[str, Any]:
    """What `save_whole` wrote.

    Raises:
        ModelError: It is damaged.
    """
    try:
        return dict(torch.load(path, weights_only=True, map_location="cpu"))
    except Exception as error:  # a damaged pickle can fail in any way
        if isinstance(error, MemoryError):
            raise
        raise ModelError(
            f"`{path}` is damaged: training cannot go on from it. Put a copy in its place, or remove it to begin again."
        ) from None


def save_whole(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state that training resumes from, whole or not at all."""
    with replacing(path) as partial:
        torch.save(dict(state), partial)
