"""Steering by strength, for editors that move attributes along directions: no words are involved.

An attribute that the critic does not see is moved further; one that it sees is brought back towards the last strength
at which it did not, by bisection, so that nothing is overdone. Strength 1 is the edit as asked and is never gone below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from countervid.editors.base import Target
from countervid.steering.base import Manner, Round, Step

MOST = 4.0  # the strongest that a target may ask for
GROWTH = 1.6  # of what is not seen yet
NEAR = 0.2  # strengths closer than this are as good as the same


@dataclass
class Strengths:
    """Moves each attribute's own strength, as `Target.strengths` has them."""

    name: str = "strengths"
    manner: Manner = Manner()

    def first(self, target: Target) -> Step:
        return Step(target=target, note="as asked")

    def next(self, rounds: Sequence[Round]) -> Step | None:
        target = rounds[-1].step.target
        strengths, moved = dict(target.strengths), []
        for name in target.changed:
            now = strengths.get(name, 1.0)
            then = _between(name, now, rounds)
            if abs(then - now) >= NEAR:
                strengths[name] = then
                moved.append(f"{name} {'further' if then > now else 'less far'}, {then:.2f}")
        wanted = replace(target, strengths=strengths)
        if not moved or any(round.step.target == wanted for round in rounds):  # back where it was: the best is known
            return None
        return Step(target=wanted, note="; ".join(moved))

    def costs(self) -> dict[str, Any]:
        return {}


def _between(name: str, now: float, rounds: Sequence[Round]) -> float:
    """The next strength of one attribute: between the strongest that was too little and the weakest that was enough."""
    tried = [
        (round.step.target.strengths.get(name, 1.0), name not in round.missing) for round in rounds if round.verdict
    ]
    enough = [strength for strength, seen in tried if seen]
    little = [strength for strength, seen in tried if not seen and strength < min(enough, default=MOST + 1)]
    if not enough:
        return min(MOST, GROWTH * max(little, default=now))
    if not little:
        return now  # seen as asked, and never less than asked
    lower, upper = max(little), min(enough)
    return upper if upper - lower < 2 * NEAR else (lower + upper) / 2
