"""Steering editors that are told by a prompt: rewritten words, and the numbers that say how much they count.

A writer rewrites the prompt after every verdict (`rewrite.py`, `gradient.py`), always from the best round so far: what
made it worse is not built on. Where words alone were not enough, the way that the prompt goes from the source's grows;
where something was lost on it, it is halved towards where that was still there. Guidance moves last, for the clip's
own drawing has to be made again with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from countervid.causal.graph import CausalGraph
from countervid.chat.base import BudgetError
from countervid.critics.base import Spender
from countervid.editors.base import Target
from countervid.errors import CallError
from countervid.steering.base import Manner, Round, Step, best
from countervid.steering.rewrite import Draft, RuleWriter, Task, Writer

FURTHER = 1.15  # times the way from the source's words, where something is not seen
MOST_STRENGTH = 1.6
LOUDER = 1.4  # times the guidance, where the way is at its end
MOST_LOUD = 2.0  # times the editor's own guidance; beyond, pictures burn
LATE = 3  # the push, counted from 0, from which on the causes of what is set are left unsaid
SOFTER = 0.85  # times the way, where something was lost and nothing gentler was tried
PUBLISHED_FRAME = 6  # counted from 0: the one that CSVC judges
PUBLISHED_ROUNDS = 2


@dataclass
class Words:
    """CSVC's loop and past it.

    Attributes:
        graph: Says which causes of what is set the prompt should stop naming.
        writer: Rewrites.
        guidance: The editor's own.
        numbers: Whether strength and guidance move too.
        decouple: Whether the graph's causes are left unsaid, once gentler pushes were not enough: a prompt that
            falls silent about age and gender also lets go of them.
        negatives: Whether the negative prompt says how it should not look.
        guards: Whether what should stay counts, too.
        controls: Fields of a target that the editor answers to; no other is moved.
    """

    graph: CausalGraph
    writer: Writer
    guidance: float
    numbers: bool = True
    decouple: bool = True
    negatives: bool = True
    guards: bool = True
    name: str = "csvc"
    manner: Manner = Manner()
    controls: frozenset[str] = frozenset({"prompt", "negative_prompt", "guidance", "strength"})

    def first(self, target: Target) -> Step:
        return Step(target=target, note="as asked")

    def next(self, rounds: Sequence[Round]) -> Step | None:
        base = best(rounds) if self.guards else rounds[-1]
        if not base.missing and not (self.guards and base.lost):
            return None
        draft, note = self._draft(rounds, base)
        target, notes = replace(base.step.target, prompt=draft.prompt), [note]
        if self._denies and draft.negative:
            target = replace(target, negative_prompt=draft.negative)
            notes.append(f"not: {draft.negative}")
        if self.numbers and len(rounds) > 1:
            target, moved = self._moved(target, base, rounds)
            notes += moved
        if any(round.step.target == target for round in rounds):
            return None
        return Step(target=target, note="; ".join(part for part in notes if part))

    def costs(self) -> dict[str, Any]:
        return self.writer.costs()

    def carry(self, spent: Mapping[str, float]) -> None:
        """Count what an earlier process of the same run spent on writing."""
        if isinstance(self.writer, Spender):
            self.writer.carry(spent)

    @property
    def _denies(self) -> bool:
        return self.negatives and "negative_prompt" in self.controls

    def _draft(self, rounds: Sequence[Round], base: Round) -> tuple[Draft, str]:
        target, turn = base.step.target, len(rounds) - 1 if self._denies else len(rounds)
        decouples = self.decouple and turn >= (LATE if self._denies else 1)
        unsaid = self.graph.decoupled(target.do) - set(target.changed) if decouples else frozenset()
        task = Task(
            goal=rounds[0].step.target.prompt, prompt=target.prompt, factual=target.factual,
            wanted=target.counterfactual, missing=base.missing, lost=base.lost,
            unsaid=unsaid, verdict=base.verdict, graph=self.graph, turn=turn,
        )  # fmt: skip
        try:
            draft = self.writer.rewrite(task)
            return draft, draft.feedback
        except BudgetError:
            raise
        except CallError as error:  # one failed call is not the end: the graph's own words serve
            draft = RuleWriter().rewrite(task)
            return draft, f"{error} The graph's words serve: {draft.feedback}"

    def _moved(self, target: Target, base: Round, rounds: Sequence[Round]) -> tuple[Target, list[str]]:
        now = then = target.strength
        if "strength" not in self.controls:
            pass
        elif base.missing and not base.lost:
            now = max(r.step.target.strength for r in rounds if r.missing and not r.lost)
            harmful = [r.step.target.strength for r in rounds if r.lost and r.step.target.strength > now]
            then = (now + min(harmful)) / 2 if harmful else min(MOST_STRENGTH, now * FURTHER)
        elif base.lost and not base.missing:
            gentler = [r.step.target.strength for r in rounds if r.missing and r.step.target.strength < now]
            then = (now + max(gentler)) / 2 if gentler else now * SOFTER
        target = replace(target, strength=round(then, 3))  # where it both misses and loses, other words alone
        if round(then, 2) != round(now, 2):
            return target, [f"strength {then:.2f}"]
        at_its_end = now >= MOST_STRENGTH or "strength" not in self.controls
        if base.missing and not base.lost and at_its_end and "guidance" in self.controls:
            tried = [r.step.target.guidance for r in rounds if r.missing and not r.lost]
            louder = min(MOST_LOUD * self.guidance, LOUDER * max(self.guidance, *(g or 0.0 for g in tried)))
            return replace(target, guidance=round(louder, 3)), [f"guidance {louder:.1f}"]
        return target, []


def published(graph: CausalGraph, writer: Writer, guidance: float) -> Words:
    """CSVC as published: one frame is judged, at most two rewritings, words alone, the last edit unseen and returned.

    The prompt is rewritten by what should change; nothing guards what should stay.
    """
    manner = Manner(looks=(PUBLISHED_FRAME,), edits=PUBLISHED_ROUNDS + 1, judged=PUBLISHED_ROUNDS, returns_last=True,
                    source=False)  # fmt: skip
    return Words(
        graph=graph, writer=writer, guidance=guidance, numbers=False, negatives=False, guards=False, name="csvc-paper",
        manner=manner,
    )  # fmt: skip
