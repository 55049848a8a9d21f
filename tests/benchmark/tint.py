"""A small real editor for the benchmark's tests: blends every frame towards a colour that the target chooses."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from countervid.clip import Clip
from countervid.editors.base import Prepared, Target, register_editor
from countervid.editors.store import Store
from countervid.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class TintConfig:
    amount: float = 0.2
    guidance: float = 2.0
    seed: int = 0  # moves the colour
    pause: float = 0.0  # seconds an edit takes besides
    fails_on: str = ""  # an intervened variable whose edits fail
    mended_by: str = ""  # a file in whose presence they do not


@register_editor("tint")
class Tint:
    knobs: ClassVar[frozenset[str]] = frozenset({"prompt", "guidance", "strength"})
    Config = TintConfig
    miniature = False

    def __init__(self, config: Any = None, *, model: Any = None, cache: Path | None = None) -> None:
        self.config, self.cache, self.evaluations = config or TintConfig(), cache, 0

    def weights(self) -> dict[str, str]:
        return {}

    def costs(self) -> dict[str, int]:
        return {"unet_evaluations": self.evaluations}

    def prepare(self, clip: Clip, factual: dict[str, str], *, prompt: str = "", report: Any = None) -> Prepared:
        store = Store(self.cache, "tint", {"clip": clip.digest(), "settings": asdict(self.config)})

        def mean() -> dict[str, torch.Tensor]:
            self.evaluations += 7
            return {"mean": clip.frames.float().mean((0, 1, 2))}

        store.fetch("mean", mean)
        return Prepared(
            editor="tint", key=store.key, clip=clip, factual=factual, store=store, facts={}, track=None, payload=None
        )

    def edit(self, prepared: Prepared, target: Target, *, report: Any = None) -> Clip:
        if self.config.fails_on in target.do and not Path(self.config.mended_by or "/nowhere").exists():
            raise ModelError("the brush is worn")
        time.sleep(self.config.pause)
        self.evaluations += 3
        words = float(len(target.prompt) + self.config.seed)
        colour = prepared.store.load("mean")["mean"] + torch.tensor([words, -words, 0.0])
        share = min(1.0, self.config.amount * target.strength)
        return prepared.clip.mapped(
            lambda start, frames: torch.lerp(frames.float(), colour, share).round().clamp(0, 255).to(torch.uint8)
        )
