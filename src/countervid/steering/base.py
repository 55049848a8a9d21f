"""What steering is made of: rounds, how they compare, and the protocol of whoever writes the next target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from countervid.critics.base import Verdict
from countervid.editors.base import Target

AS_GOOD = 0.2  # attributes: rounds that differ by less are as good


@dataclass(frozen=True, kw_only=True)
class Step:
    """What to ask the editor for next, and why."""

    target: Target
    note: str


@dataclass(frozen=True, kw_only=True)
class Round:
    """One edit and what the critic said of it.

    Attributes:
        number: Counted from 0.
        step: What was asked for.
        verdict: None where nobody judged: the call failed, or the steerer takes the edit unseen.
        failure: Why a call failed.
        distance: Mean absolute difference to the source in the pictures that were judged, 0..255.
        request: Digest of what the critic was shown and asked.
        source: What the same critic says of the clip before any edit; None where it was not asked.
        source_request: Digest of what it was shown and asked then.
        spent: `critic` and `writer` -> calls, tokens, dollars and the like that this round took.
    """

    number: int
    step: Step
    verdict: Verdict | None
    failure: str = ""
    distance: float = 0.0
    request: str = ""
    spent: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    source: Verdict | None = None
    source_request: str = ""

    @property
    def already(self) -> dict[str, str]:
        """What should change and is surely seen before any edit: seen afterwards, it says nothing of the edit."""
        if self.source is None:
            return {}
        return {name: value for name, value in self.step.target.changed.items() if self.source.shows(name, value)}

    @property
    def gained(self) -> dict[str, str]:
        """What should change, is surely seen now and was not before."""
        missing, already = self.missing, self.already
        return {n: v for n, v in self.step.target.changed.items() if n not in missing and n not in already}

    @property
    def missing(self) -> dict[str, str]:
        """What should have changed and is not surely seen."""
        changed = self.step.target.changed
        return changed if self.verdict is None else self.verdict.missing(changed)

    @property
    def lost(self) -> dict[str, str]:
        """What should have stayed and looks like something else, surely or not."""
        return {} if self.verdict is None else self.verdict.lost(self.step.target.kept)

    @property
    def holds(self) -> bool:
        """Whether everything asked for is seen, and nothing else is seen to have moved."""
        return self.verdict is not None and not self.missing and not self.lost

    @property
    def rank(self) -> tuple[float, ...]:
        """Sorts the better round first: what holds, then by how many attributes are probably wrong; then by nearness.

        What should have changed and what should have stayed weigh the same, the intervention itself twice: a loud edit
        that brings one consequence and takes two other attributes is no better than a gentle one.
        """
        if self.verdict is None:
            return (2.0,)
        if self.holds:
            return (0.0, 0.0, self.distance)
        target, leaves = self.step.target, self.verdict.leaves
        wrong = sum(
            (2 if name in target.do else 1) * (1 - leaves(name, value)) for name, value in target.counterfactual.items()
        )
        return (1.0, round(wrong / AS_GOOD), self.distance)

    def to_json(self) -> dict[str, Any]:
        """A line of `verdicts.jsonl`."""
        return {
            "round": self.number, "note": self.step.note, "target": self.step.target.to_json(),
            "verdict": None if self.verdict is None else self.verdict.model_dump(mode="json"),
            "failure": self.failure, "distance": self.distance, "request": self.request,
            "spent": self.spent,
            "source": None if self.source is None else {
                "request": self.source_request, "verdict": self.source.model_dump(mode="json"),
            },
        }  # fmt: skip

    @classmethod
    def from_json(cls, line: Mapping[str, Any]) -> Round:
        """The inverse of `to_json`."""
        if not isinstance(line["round"], int):  # it becomes part of a file's name
            raise ValueError(f"`{line['round']}` is no round's number")
        verdict = None if line["verdict"] is None else Verdict.model_validate(line["verdict"])
        step = Step(target=Target(**line["target"]), note=line["note"])
        source = line.get("source") or {"verdict": None, "request": ""}
        return cls(
            number=line["round"], step=step, verdict=verdict, failure=line["failure"], distance=line["distance"],
            request=line["request"], spent=line["spent"], source_request=source["request"],
            source=None if source["verdict"] is None else Verdict.model_validate(source["verdict"]),
        )  # fmt: skip


def best(rounds: Sequence[Round]) -> Round:
    """The round whose edit is returned; the earlier of two that are as good. Unjudged ones come last."""
    return min(rounds, key=lambda round: round.rank)


def edits_of(rounds: Sequence[Round]) -> list[Round]:
    """The rounds that made an edit: after a call that failed, the same edit is shown once more."""
    return [round for at, round in enumerate(rounds) if not at or not rounds[at - 1].failure]


def front(rounds: Sequence[Round]) -> list[Round]:
    """Judged rounds that no other beats both in what is seen to change and in nearness to the source, nearest first."""
    judged = [round for round in rounds if round.verdict is not None]

    def worth(round: Round) -> tuple[float, float]:
        assert round.verdict is not None
        return round.verdict.support(round.step.target.changed), -round.distance

    def beaten(one: Round) -> bool:
        a = worth(one)
        return any(b != a and all(y >= x for x, y in zip(a, b, strict=True)) for b in map(worth, judged))

    return sorted((round for round in judged if not beaten(round)), key=lambda round: round.distance)


def spent(rounds: Sequence[Round]) -> dict[str, dict[str, float]]:
    """What all rounds took together: `critic` and `writer` -> calls, tokens, dollars and the like."""
    total: dict[str, dict[str, float]] = {}
    for round in rounds:
        for who, amounts in round.spent.items():
            sums = total.setdefault(who, {})
            for name, amount in amounts.items():
                sums[name] = sums.get(name, 0) + amount
    return total


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How long a steerer goes on, who judges what, and what is returned.

    Attributes:
        looks: The frames to judge, counted from 0; None leaves it to the critic.
        edits: Most edits it makes; None leaves it to the budget.
        judged: Of these, the first so many are judged; None: all.
        returns_last: Whether the last edit is the result, as published, instead of the best.
        source: Whether the critic is also shown the clip before any edit, once.
    """

    looks: tuple[int, ...] | None = None
    edits: int | None = None
    judged: int | None = None
    returns_last: bool = False
    source: bool = True


class Steerer(Protocol):
    """Turns what was asked for into the first target, and each verdict into the next."""

    name: str
    manner: Manner

    def first(self, target: Target) -> Step:
        """What to begin with."""
        ...

    def next(self, rounds: Sequence[Round]) -> Step | None:
        """What to try after these rounds, or None where it is content or nothing is left to try.

        Raises:
            BudgetError: What may be asked is used up.
        """
        ...

    def costs(self) -> dict[str, Any]:
        """Calls, tokens and money spent on writing."""
        ...
