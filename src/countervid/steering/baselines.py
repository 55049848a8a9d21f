"""What steering is compared with: one edit, with the first prompt or with one reworded before anything was seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from countervid.editors.base import Target
from countervid.steering.base import Manner, Round, Step


@dataclass
class Once:
    """One edit, judged for the record, whatever is seen.

    Attributes:
        name: Of the baseline.
        reword: Target -> its prompt in other words; None keeps it.
        spent: What rewording cost.
    """

    name: str = "none"
    reword: Callable[[Target], str] | None = None
    spent: Callable[[], dict[str, Any]] = field(default=dict)
    manner: Manner = Manner(edits=1)

    def first(self, target: Target) -> Step:
        if self.reword is None:
            return Step(target=target, note="as asked")
        return Step(target=replace(target, prompt=self.reword(target)), note=f"reworded: {self.name}")

    def next(self, rounds: Sequence[Round]) -> Step | None:
        return None

    def costs(self) -> dict[str, Any]:
        return self.spent()
