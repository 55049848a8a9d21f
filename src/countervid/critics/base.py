"""What a critic is: several frames and a question for every variable in, one verdict out.

A verdict says of each variable what is seen, how sure that is, how far the frames agree, and in words what is wrong.
It is plain data: it can be stored, and replayed without asking anybody (`critics/replay.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from countervid.causal.graph import CausalGraph
from countervid.causal.questions import Question, questions
from countervid.chat.base import Budget, ChatConfig
from countervid.errors import ConfigError

NEARLY_ALL = 0.8  # of the frames, four of five: a value that holds in fewer comes and goes, and is not there
_ROUNDING = 1e-3  # of shares, which are kept with four places


class Answer(BaseModel):
    """What is seen of one variable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: str | None  # None: it cannot be told
    confidence: float = Field(ge=0, le=1)  # of the value, over all frames
    votes: dict[str, float] = {}  # value -> share of the frames that show it; a frame that tells nothing has no vote
    critique: str = ""

    def shows(self, wanted: str, sure: float) -> bool:
        """Whether the wanted value is seen, in nearly all frames and surely enough."""
        steady = not self.votes or self.votes.get(wanted, 0.0) >= NEARLY_ALL - _ROUNDING
        return self.value == wanted and self.confidence >= sure and steady

    def loses(self, kept: str) -> bool:
        """Whether another value is seen instead: on the whole, or in more frames than may err."""
        others = sum(share for value, share in self.votes.items() if value != kept)
        return self.value not in (None, kept) or others > 1 - NEARLY_ALL + _ROUNDING


class Verdict(BaseModel):
    """What a critic says of one edit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    critic: str
    frames: tuple[int, ...]  # which were looked at, counted from 0
    answers: dict[str, Answer]
    critique: str = ""  # of the whole, in words
    sure: float = Field(default=0.5, ge=0, le=1)  # from which confidence on an answer counts
    raw: tuple[str, ...] = ()  # what a language model wrote

    def shows(self, name: str, wanted: str) -> bool:
        """Whether a variable is surely seen to have a value."""
        answer = self.answers.get(name)
        return answer is not None and answer.shows(wanted, self.sure)

    def missing(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Those of `wanted` that are not surely seen."""
        return {name: value for name, value in wanted.items() if not self.shows(name, value)}

    def lost(self, kept: Mapping[str, str]) -> dict[str, str]:
        """Those of `kept` that look like something else, surely or not."""
        return {name: value for name, value in kept.items() if name in self.answers and self.answers[name].loses(value)}

    def support(self, wanted: Mapping[str, str]) -> float:
        """Mean probability that the answers leave to the wanted values, 0..1; 1 where nothing is wanted."""
        if not wanted:
            return 1.0
        return float(np.mean([self.leaves(name, value) for name, value in wanted.items()]))

    def leaves(self, name: str, value: str) -> float:
        """The probability that the answer leaves to a value, 0..1; a half where there is none."""
        answer = self.answers.get(name)
        if answer is None or answer.value is None:
            return 0.5
        return answer.confidence if answer.value == value else 1 - answer.confidence


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a critic is shown and asked.

    Attributes:
        pictures: Squares around the face, or whole frames where there is none, `(n, S, S, 3)` uint8 RGB.
        frames: Their numbers in the clip.
        questions: One for every variable of the graph, those that must change and those that must stay.
        changed: What must be seen anew: variable -> value.
        kept: What must still be seen.
        prompt: What the editor was told, for a critique of it.
    """

    pictures: Tensor
    frames: tuple[int, ...]
    questions: tuple[Question, ...]
    changed: Mapping[str, str]
    kept: Mapping[str, str]
    prompt: str = ""

    def key(self) -> str:
        """A digest of everything that an answer depends on."""
        asked = [[q.variable, q.text, list(q.options.items())] for q in self.questions]
        about = [asked, sorted(self.changed.items()), sorted(self.kept.items()), self.prompt, list(self.frames)]
        digest = hashlib.sha256(json.dumps(about).encode())
        digest.update(np.ascontiguousarray(self.pictures.numpy()).tobytes())
        return digest.hexdigest()[:32]


class Critic(Protocol):
    """Looks and answers."""

    name: str
    size: int  # px: side of the squares that it is shown
    looks: int  # frames that it is shown, unless told otherwise

    def check(self, graph: CausalGraph) -> None:
        """Refuse at once a graph that it cannot be asked about.

        Raises:
            ConfigError: It has no answer for some variable.
        """
        ...

    def judge(self, request: Request) -> Verdict:
        """Look and answer.

        Raises:
            CallError: No answer could be had this time.
            BudgetError: What may be asked is used up.
        """
        ...

    def costs(self) -> dict[str, Any]:
        """Calls, tokens and money so far."""
        ...


def spread(frames: Sequence[int], looks: int) -> tuple[int, ...]:
    """`looks` of the frames, evenly spread, the middles of equal parts; all where there are not so many."""
    if len(frames) <= looks:
        return tuple(int(f) for f in frames)
    return tuple(int(frames[int((k + 0.5) * len(frames) / looks)]) for k in range(looks))


def asked(graph: CausalGraph) -> tuple[Question, ...]:
    """The questions about every variable of a graph.

    Raises:
        ConfigError: Two options of a variable are the same in words, so that no answer could tell them apart.
    """
    found = questions(graph)
    for question in found:
        if len({option.lower() for option in question.options.values()}) < len(question.options):
            raise ConfigError(f"The options of `{question.variable}` cannot be told apart: {question.shown()}")
    return found


@runtime_checkable
class Spender(Protocol):
    """A critic, steerer or writer that pays for what it asks, and keeps to a budget over the processes of a run."""

    def carry(self, spent: Mapping[str, float]) -> None:
        """Count what an earlier process of the same run spent: `calls`, `cost_usd`."""
        ...


def load_critic(name: str, config: ChatConfig | None = None, budget: Budget | None = None) -> Critic:
    """A critic by name.

    Args:
        name: `bundled`; `openai:MODEL` or `transformers:MODEL`, any language model that sees; `replay:FILE`, the
            verdicts of an earlier run (`verdicts.jsonl`).
        config: Budgets, address and the like of a language model.
        budget: One that it shares with others.

    Raises:
        ConfigError: There is no such critic.
        ModelError, CallError, MissingExtraError: As the language model says.
    """
    kind, _, rest = name.partition(":")
    if name == "bundled":
        from countervid.critics.bundled import BundledCritic

        return BundledCritic.load()
    if kind == "replay" and rest:
        from countervid.critics.replay import ReplayCritic

        return ReplayCritic(Path(rest))
    if kind in ("openai", "transformers") and rest:
        from countervid.chat.base import load_chat
        from countervid.critics.asked import AskedCritic

        return AskedCritic(load_chat(name, config, budget))
    raise ConfigError(
        f"`{name}` is no critic. There are: bundled, openai:MODEL, transformers:MODEL, replay:FILE (a verdicts.jsonl)."
    )
