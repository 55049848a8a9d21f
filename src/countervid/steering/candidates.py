"""Several candidates a round, for editors that draw from a seed: the same target with one seed after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from countervid.critics.base import Spender
from countervid.editors.base import Editor, Target
from countervid.errors import ConfigError
from countervid.steering.base import Manner, Round, Steerer, Step, best


@dataclass
class Candidates:
    """Asks for each target of another steerer up to `count` times, each time with the next seed.

    The steerer goes on from the best candidate of each target, as if the others had not been tried. A candidate that
    shows all that was asked for ends its round. Each is an edit, and counts as one.
    """

    steerer: Steerer
    count: int
    name: str = field(init=False)
    manner: Manner = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.manner = self.steerer.name, self.steerer.manner

    def first(self, target: Target) -> Step:
        return self.steerer.first(target)

    def next(self, rounds: Sequence[Round]) -> Step | None:
        groups: list[list[Round]] = []
        for round in rounds:
            if groups and _same_but_seed(groups[-1][0].step.target, round.step.target):
                groups[-1].append(round)
            else:
                groups.append([round])
        latest = groups[-1]
        if len(latest) < self.count and not any(round.holds for round in latest):
            begun = latest[0].step.target
            return Step(target=replace(begun, seed=begun.seed + len(latest)), note=f"candidate {len(latest) + 1}")
        return self.steerer.next([best(group) for group in groups])

    def costs(self) -> dict[str, Any]:
        return self.steerer.costs()

    def carry(self, spent: Mapping[str, float]) -> None:
        """Count what an earlier process of the same run spent."""
        if isinstance(self.steerer, Spender):
            self.steerer.carry(spent)


def check_candidates(count: int, editor: Editor) -> None:
    """Refuse several candidates of an editor that gives the same with every seed.

    Raises:
        ConfigError: `seed` is not among the editor's controls.
    """
    if count > 1 and "seed" not in editor.knobs:
        raise ConfigError(
            f"`{editor.name}` has no seed: {count} candidates of one prompt would be the same. Leave `candidates` out."
        )


def _same_but_seed(one: Target, other: Target) -> bool:
    return replace(one, seed=0) == replace(other, seed=0)
