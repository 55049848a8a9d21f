"""A small real editor and a critic for it: the editor makes frames lighter, the critic looks how light they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from countervid.causal.graph import CausalGraph
from countervid.clip import Clip
from countervid.critics.base import Answer, Request, Verdict
from countervid.editors.base import Prepared, Target
from countervid.editors.store import Store
from countervid.errors import CallError

GRAPH = """
name: lamp
variables:
  light:
    kind: ordered
    values: [dark, bright]
    language: {clauses: {dark: is dark, bright: is bright}, words: {bright: [shining, luminous], dark: [dim]}}
  colour:
    kind: categorical
    values: [grey, red]
    language: {clauses: {grey: null, red: is red}}
edges: []
"""
START = {"light": "dark", "colour": "grey"}


def graph() -> CausalGraph:
    return CausalGraph.parse(GRAPH)


@dataclass(frozen=True)
class Settings:
    guidance: float = 2.0


class Lamp:
    """Adds `10 * strength * guidance` levels, and 15 a word of the prompt that stands for brightness."""

    name = "lamp"
    Config = Settings
    miniature = False

    def __init__(self, cache: Path, knobs: frozenset[str] = frozenset({"prompt", "guidance", "strength"})) -> None:
        self.config, self.knobs, self.cache, self.edits = Settings(), knobs, cache, 0

    def weights(self) -> dict[str, str]:
        return {}

    def prepare(self, clip: Clip, factual: dict[str, str], *, prompt: str = "", report: Any = None) -> Prepared:
        store = Store(self.cache, "lamp", {"clip": clip.digest()})
        return Prepared(
            editor="lamp", key=store.key, clip=clip, factual=factual, store=store, facts={}, track=None, payload=None
        )

    def edit(self, prepared: Prepared, target: Target, *, report: Any = None) -> Clip:
        self.edits += 1
        guidance = self.config.guidance if target.guidance is None else target.guidance
        level = 10 * target.amount("light") * guidance + 15 * sum(w in target.prompt for w in ("shining", "luminous"))
        return prepared.clip.mapped(lambda start, frames: (frames.int() + int(level)).clamp(0, 255).to(torch.uint8))


@dataclass
class Meter:
    """Bright above a level; `broken` are the numbers of its calls that fail; above `glare` it also sees red."""

    level: float = 60.0
    glare: float = 1000.0
    broken: frozenset[int] = frozenset()
    name: str = "meter"
    size: int = 32
    looks: int = 3
    seen: list[float] = field(default_factory=list)

    def check(self, graph: CausalGraph) -> None:
        pass

    def judge(self, request: Request) -> Verdict:
        light = float(request.pictures.float().mean())
        self.seen.append(light)
        if len(self.seen) - 1 in self.broken:
            raise CallError("the lamp's meter is out of order")
        share = min(1.0, light / (2 * self.level))
        value = "bright" if light >= self.level else "dark"
        colour = "red" if light > self.glare else "grey"
        return Verdict(
            critic=self.name, frames=request.frames, sure=0.5,
            answers={
                "light": Answer(value=value, confidence=share if value == "bright" else 1 - share),
                "colour": Answer(value=colour, confidence=0.9),
            },
        )  # fmt: skip

    def costs(self) -> dict[str, Any]:
        return {"calls": len(self.seen)}


def target(**changes: Any) -> Target:
    known: dict[str, Any] = {
        "factual": START, "do": {"light": "bright"}, "counterfactual": {**START, "light": "bright"},
        "prompt": "It is bright.",
    }  # fmt: skip
    return Target(**{**known, **changes})
