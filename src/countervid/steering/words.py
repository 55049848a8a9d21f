"""Steering editors that are told by a prompt: rewritten words, and the numbers that say how much they count.

The words move first and furthest: a writer rewrites the prompt after every verdict (`rewrite.py`, `gradient.py`). With
them move the guidance and the distance that the prompt goes from the source's, up where something is not seen and down
where something was lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from countervid.causal.graph import CausalGraph
from countervid.chat.base import BudgetError
from countervid.editors.base import Target
from countervid.errors import CallError
from countervid.steering.base import Round, Step
from countervid.steering.rewrite import Draft, RuleWriter, Task, Writer

LOUDER = 1.6  # times the guidance, where something is not seen
MOST_GUIDANCE = 20.0
FURTHER = 1.3  # times the way from the source's words
MOST_STRENGTH = 2.5
SOFTER = 0.75  # times both, where something was lost
PUBLISHED_FRAME = 6  # counted from 0: the one that CSVC judges
PUBLISHED_ROUNDS = 2


@dataclass
class Words:
    """CSVC's loop and past it.

    Attributes:
        graph: Says which causes of what is set the prompt should stop naming.
        writer: Rewrites.
        guidance: The editor's own.
        numbers: Whether guidance and strength move too.
        decouple: Whether the graph's causes are left unsaid.
        negatives: Whether the opposites of what is missing go into the negative prompt.
        guards: Whether what should stay counts, too.
    """

    graph: CausalGraph
    writer: Writer
    guidance: float
    numbers: bool = True
    decouple: bool = True
    negatives: bool = True
    guards: bool = True
    name: str = "csvc"
    looks: tuple[int, ...] | None = None
    edits: int | None = None
    judged: int | None = None
    returns_last: bool = False

    def satisfied(self, round: Round) -> bool:
        return round.holds if self.guards else not round.missing

    def first(self, target: Target) -> Step:
        return Step(target=target, note="as asked")

    def next(self, rounds: Sequence[Round]) -> Step | None:
        latest = rounds[-1]
        draft, note = self._draft(rounds)
        target = replace(latest.step.target, prompt=draft.prompt)
        notes = [note]
        if self.negatives and draft.negative:
            target = replace(target, negative_prompt=draft.negative)
            notes.append(f"not: {draft.negative}")
        if self.numbers:
            target, moved = self._moved(target, latest)
            notes += moved
        if any(round.step.target == target for round in rounds):
            return None
        return Step(target=target, note="; ".join(notes))

    def costs(self) -> dict[str, Any]:
        return self.writer.costs()

    def _draft(self, rounds: Sequence[Round]) -> tuple[Draft, str]:
        latest, target = rounds[-1], rounds[-1].step.target
        task = Task(
            goal=rounds[0].step.target.prompt, prompt=target.prompt, factual=target.factual,
            wanted=target.counterfactual,
            missing=latest.missing, lost=latest.lost,
            unsaid=self.graph.decoupled(target.do) - set(target.changed) if self.decouple else frozenset(),
            verdict=latest.verdict, graph=self.graph, turn=len(rounds) - 1,
        )  # fmt: skip
        try:
            draft = self.writer.rewrite(task)
            return draft, draft.feedback
        except BudgetError:
            raise
        except CallError as error:  # one failed call is not the end: the graph's own words serve
            draft = RuleWriter().rewrite(task)
            return draft, f"{error} The graph's words serve: {draft.feedback}"

    def _moved(self, target: Target, latest: Round) -> tuple[Target, list[str]]:
        guidance = self.guidance if target.guidance is None else target.guidance
        notes = []
        if latest.missing:
            louder, further = min(MOST_GUIDANCE, guidance * LOUDER), min(MOST_STRENGTH, target.strength * FURTHER)
        else:
            louder, further = guidance * SOFTER, target.strength * SOFTER
        if louder != guidance:
            notes.append(f"guidance {louder:.1f}")
        if further != target.strength:
            notes.append(f"strength {further:.2f}")
        return replace(target, guidance=round(louder, 3), strength=round(further, 3)), notes


def published(graph: CausalGraph, writer: Writer, guidance: float) -> Words:
    """CSVC as published: one frame is judged, at most two rewritings, words alone, the last edit unseen and returned.

    The prompt is rewritten by what should change; nothing guards what should stay.
    """
    return Words(
        graph=graph, writer=writer, guidance=guidance, numbers=False, negatives=False, guards=False, name="csvc-paper",
        looks=(PUBLISHED_FRAME,), edits=PUBLISHED_ROUNDS + 1, judged=PUBLISHED_ROUNDS, returns_last=True,
    )  # fmt: skip
