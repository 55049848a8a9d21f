"""How a variable's value comes about from its parents' values.

A mechanism has up to two parts:

* `rules` say what happens to a person's value when a parent is set to another value. They may look at the
  person's present value, so the same young man may have a beard or none: what a rule yields is a *response type*
  (Balke and Pearl 1994), worked out once a person and kept.
* `probabilities` say how often each value is observed for each combination of parents. They draw people. Without
  rules they also say how a value responds: one uniform number a person, looked up in every row (the inverse
  distribution function, so a person's responses are monotone in the order of the values).

This file knows the shapes and the arithmetic; `graph.py` checks that a file's mechanisms are whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

KEEP = "keep"  # a rule's outcome that leaves the value as it is

Distribution = dict[str, float]
Choice = Callable[[Distribution], str]


def value_name(raw: Any) -> Any:
    """The name of a value as written in YAML, where a bare `yes` or `no` arrives as a truth value."""
    if isinstance(raw, bool):
        return "yes" if raw else "no"
    return str(raw) if isinstance(raw, int) else raw


def _names(raw: Any) -> Any:
    return tuple(value_name(item) for item in raw) if isinstance(raw, (list, tuple)) else (value_name(raw),)


def _condition(raw: Any) -> Any:
    return {name: _names(values) for name, values in raw.items()} if isinstance(raw, dict) else raw


def _distribution(raw: Any) -> Any:
    if isinstance(raw, dict):
        return {value_name(name): share for name, share in raw.items()}
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):  # short for the probability of a plain "yes"
        return {"no": 1.0 - raw, "yes": float(raw)}
    return raw


def _outcome(raw: Any) -> Any:
    return _distribution(raw) if isinstance(raw, dict) else value_name(raw)


def _rows(raw: Any) -> Any:
    """One distribution alone is the single row of a variable without parents."""
    return raw if isinstance(raw, list) or raw is None else [{"then": raw}]


ValueName = Annotated[str, BeforeValidator(value_name)]
ValueNames = Annotated[tuple[str, ...], BeforeValidator(_names)]
Condition = Annotated[dict[str, tuple[str, ...]], BeforeValidator(_condition)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Rule(_Part):
    """What becomes of a value when `cause` is set, the parents then being as in `when`.

    Attributes:
        cause: The parent that was set; none means whichever.
        when: Parents' values after the change, each a value or a list of values; parents left out may have any.
        present: The variable's own value before (`from` in YAML); none means any.
        then: The value that follows, `keep`, or a distribution to draw it from once a person.
    """

    cause: str | None = None
    when: Condition = Field(default_factory=dict)
    present: ValueNames | None = Field(default=None, alias="from")
    then: Annotated[str | Distribution, BeforeValidator(_outcome)]

    def fits(self, cause: str | None, parents: Mapping[str, str], present: str | None) -> bool:
        """Whether this rule answers the case of `cause` set, `parents` after it and `present` before it."""
        return (
            (self.cause is None or self.cause == cause)
            and matches(self.when, parents)
            and (self.present is None or present in self.present)
        )

    @property
    def functional(self) -> bool:
        """Whether the outcome depends on the parents' values alone."""
        return self.cause is None and self.present is None and isinstance(self.then, str) and self.then != KEEP


class Row(_Part):
    """How often each value occurs where the conditions hold; shares sum to 1."""

    when: Condition = Field(default_factory=dict)
    then: Annotated[Distribution, BeforeValidator(_distribution)]


class Mechanism(_Part):
    """The rules and probabilities of one variable.

    Attributes:
        rules: Response rules, or none.
        probabilities: Rows of observed frequencies, or none.
        associated: Variables that `probabilities` may look at besides the parents. They are correlated with
            this variable through something unobserved (a habit, say): setting one does not move it.
    """

    rules: tuple[Rule, ...] | None = None
    probabilities: Annotated[tuple[Row, ...] | None, BeforeValidator(_rows)] = None
    associated: tuple[str, ...] = ()

    @property
    def functional(self) -> bool:
        """Whether the rules alone are a function of the parents, so that people can be drawn by them."""
        return self.rules is not None and all(rule.functional for rule in self.rules)

    def row(self, known: Mapping[str, str]) -> Distribution:
        """The distribution that holds where `known` gives the parents' and associated variables' values."""
        return next(row.then for row in self.probabilities or () if matches(row.when, known))

    def rule(self, cause: str | None, parents: Mapping[str, str], present: str | None) -> int:
        """The index of the rule that answers a case (`graph.py` has checked that there is exactly one)."""
        return next(i for i, rule in enumerate(self.rules or ()) if rule.fits(cause, parents, present))


def matches(condition: Mapping[str, Sequence[str]], known: Mapping[str, str]) -> bool:
    """Whether every variable that `condition` names has one of its values in `known`."""
    return all(known[name] in values for name, values in condition.items())


def combinations(domains: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    """Every combination of values, the last variable changing fastest; one empty one for no variables."""
    for values in product(*domains.values()):
        yield dict(zip(domains, values, strict=True))


def respond_by_rules(
    mechanism: Mechanism, domains: Mapping[str, Sequence[str]], parents: Mapping[str, str], value: str, choose: Choice
) -> dict[tuple[str, ...], str]:
    """The value that a person takes under every combination of the parents, by the mechanism's rules.

    Where several parents differ from the present ones they are set one after the other in the order of `domains`,
    a rule answering each step. An outcome that is drawn is drawn once a rule, so that one person has one of it.

    Args:
        mechanism: With `rules`.
        domains: The parents and their values.
        parents: The person's present parents.
        value: The person's present value.
        choose: Draws from a distribution, or picks its likeliest value.

    Returns:
        Parents' values in the order of `domains` -> value. The present combination gives the present value.
    """
    drawn: dict[int, str] = {}
    table: dict[tuple[str, ...], str] = {}
    for target in combinations(domains):
        now, result = dict(parents), value
        for cause in domains:
            if now[cause] == target[cause]:
                continue
            now[cause] = target[cause]
            index = mechanism.rule(cause, now, result)
            outcome = (mechanism.rules or ())[index].then
            if not isinstance(outcome, str):
                if index not in drawn:
                    drawn[index] = choose(outcome)
                result = drawn[index]
            elif outcome != KEEP:
                result = outcome
        table[tuple(target.values())] = result
    return table


def respond_by_probabilities(
    mechanism: Mechanism,
    values: Sequence[str],
    domains: Mapping[str, Sequence[str]],
    known: Mapping[str, str],
    value: str,
    uniform: float,
) -> dict[tuple[str, ...], str]:
    """The value that a person takes under every combination of the parents: one uniform number, looked up in each row.

    Args:
        mechanism: With `probabilities`.
        values: The variable's values in order.
        domains: The parents and their values.
        known: The person's attributes; associated variables stay as they are.
        value: The person's present value, kept under the present parents even where its probability is 0.
        uniform: In [0, 1); see `abducted_uniform`.
    """
    table = {
        tuple(target.values()): quantile(mechanism.row({**known, **target}), values, uniform)
        for target in combinations(domains)
    }
    table[tuple(known[name] for name in domains)] = value
    return table


def quantile(distribution: Distribution, values: Sequence[str], uniform: float) -> str:
    """The value at `uniform` in [0, 1) of the distribution function, the values being in order."""
    reached = 0.0
    for value in values:
        reached += distribution.get(value, 0.0)
        if uniform < reached:
            return value
    return next(value for value in reversed(values) if distribution.get(value, 0.0) > 0)  # rounding in the last place


def abducted_uniform(distribution: Distribution, values: Sequence[str], value: str, position: float) -> float:
    """The uniform number that explains an observed value: `position` in [0, 1) of the interval that yields it.

    A position drawn uniformly samples the posterior; 0.5 is its median.
    """
    before = math.fsum(distribution.get(other, 0.0) for other in values[: values.index(value)])
    return min(before + position * distribution.get(value, 0.0), math.nextafter(1.0, 0.0))


def likeliest(distribution: Distribution) -> str:
    """The value of the largest probability, the first of them where several tie."""
    return max(distribution, key=lambda value: distribution[value])
