"""Abduction, action, prediction (Pearl 2009, section 7.1) with noise that a person carries.

The noise of a person is a table for every variable: the value that this person takes under every combination of
the variable's parents (response types; Balke and Pearl 1994). The published rules are no function of the parents,
so nothing smaller will do, and with it an intervention can be undone exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from countervid.causal.mechanisms import (
    Choice,
    abducted_uniform,
    likeliest,
    quantile,
    respond_by_probabilities,
    respond_by_rules,
)
from countervid.errors import GraphError, InterventionError

if TYPE_CHECKING:
    from countervid.causal.graph import CausalGraph

Attributes = dict[str, str]
Responses = dict[tuple[str, ...], str]


@dataclass(frozen=True)
class Step:
    """What an intervention replaced, so that the opposite intervention leads back to it exactly.

    Attributes:
        before: The intervened variables -> their values before.
        held: The interventions that were in force before.
    """

    before: Mapping[str, str]
    held: Mapping[str, str]


@dataclass(frozen=True)
class Noise:
    """What a person brings along: how each variable responds, and which variables are held by an intervention.

    Attributes:
        responses: Variable -> parents' values (in the graph's order of parents) -> value. A variable without
            parents has the one key `()`.
        held: Interventions in force. A held variable has this value whatever its parents are.
        history: The interventions so far, latest last, without those that were undone.
    """

    responses: Mapping[str, Mapping[tuple[str, ...], str]]
    held: Mapping[str, str] = field(default_factory=dict)
    history: tuple[Step, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and strings for JSON; the parents' values are joined by commas: `{"old,man": "yes"}`."""
        return {
            "responses": {
                name: {",".join(key): value for key, value in table.items()} for name, table in self.responses.items()
            },
            "held": dict(self.held),
            "history": [{"before": dict(step.before), "held": dict(step.held)} for step in self.history],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Noise:
        """The inverse of `to_dict`."""
        responses = {
            name: {tuple(key.split(",") if key else ()): value for key, value in table.items()}
            for name, table in data["responses"].items()
        }
        history = tuple(Step(dict(step["before"]), dict(step["held"])) for step in data.get("history", ()))
        return cls(responses, dict(data.get("held", {})), history)


@dataclass(frozen=True)
class Change:
    """One variable that differs between factual and counterfactual, and why."""

    variable: str
    before: str
    after: str
    reason: str  # "set by the intervention", or "follows from age = old"


@dataclass(frozen=True)
class Counterfactual:
    """What would have been.

    Attributes:
        factual: All attributes before.
        do: The intervention.
        attributes: All attributes after.
        noise: The person's noise with the intervention in force; hand it to the next intervention on the same person.
        changes: What differs, causes before effects.
    """

    factual: Attributes
    do: Attributes
    attributes: Attributes
    noise: Noise
    changes: tuple[Change, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts and lists for JSON."""
        return {
            "factual": self.factual,
            "do": self.do,
            "counterfactual": self.attributes,
            "changes": [
                {"variable": c.variable, "before": c.before, "after": c.after, "reason": c.reason} for c in self.changes
            ],
            "noise": self.noise.to_dict(),
        }


def sample(graph: CausalGraph, rng: np.random.Generator) -> tuple[Attributes, Noise]:
    """Draw a person: attributes by the observed probabilities, and the responses that go with them."""
    attributes: Attributes = {}
    responses: dict[str, Responses] = {}
    for name in graph.sampling_order:
        values, mechanism = graph.variables[name].values, graph.mechanisms[name]
        uniform = float(rng.random())
        if mechanism.probabilities is not None:
            attributes[name] = quantile(mechanism.row(attributes), values, uniform)
        elif mechanism.functional:
            outcome = (mechanism.rules or ())[mechanism.rule(None, attributes, None)].then
            attributes[name] = str(outcome)
        else:
            raise GraphError(
                f"`{name}` in graph {graph.name} has no probabilities, so people cannot be drawn. "
                f"Add `probabilities` to its mechanism."
            )
        responses[name] = _respond(graph, name, attributes, uniform, _drawn_by(rng))
    return graph.in_order(attributes), Noise({name: responses[name] for name in graph.variables})


def abduct(graph: CausalGraph, factual: Mapping[str, str], rng: np.random.Generator | None = None) -> Noise:
    """The noise that explains a person's attributes.

    Args:
        graph: The causal graph.
        factual: A value for every variable.
        rng: Draws what the attributes leave open (a grey person's natural hair colour). Without it the likeliest
            is taken, so the same attributes always give the same noise.

    Raises:
        InterventionError: A variable is missing or unknown, or has a value that it cannot have.
    """
    attributes = graph.complete(factual)
    choose = likeliest if rng is None else _drawn_by(rng)
    responses: dict[str, Responses] = {}
    for name, variable in graph.variables.items():
        uniform, mechanism = 0.5, graph.mechanisms[name]
        if mechanism.probabilities is not None:
            position = 0.5 if rng is None else float(rng.random())
            uniform = abducted_uniform(mechanism.row(attributes), variable.values, attributes[name], position)
        responses[name] = _respond(graph, name, attributes, uniform, choose)
    return Noise(responses)


def predict(graph: CausalGraph, noise: Noise) -> Attributes:
    """The attributes that follow from a person's noise and the interventions in force."""
    attributes: Attributes = {}
    for name in graph.order:
        attributes[name] = noise.held[name] if name in noise.held else natural(graph, noise, name, attributes)
    return graph.in_order(attributes)


def natural(graph: CausalGraph, noise: Noise, name: str, attributes: Mapping[str, str]) -> str:
    """The value that a variable takes by itself under the parents in `attributes`."""
    return noise.responses[name][tuple(attributes[parent] for parent in graph.parents(name))]


def intervene(
    graph: CausalGraph, factual: Mapping[str, str], do: Mapping[str, str], noise: Noise | None = None
) -> Counterfactual:
    """What the person would be like, had the variables in `do` been set.

    Abduction (unless `noise` is carried along), action (the variables of `do` are cut from their parents and held),
    prediction (everything else responds). An intervention stays in force for the next one on the same noise, until
    its variable is set to the value that it has by itself. Setting the variables of the latest intervention to what
    they were before undoes it: attributes and noise are then what they were, down to what was in force.

    Args:
        graph: The causal graph.
        factual: A value for every variable.
        do: Variable -> value, one or several; empty changes nothing.
        noise: From `sample`, `abduct` or an earlier counterfactual of this person, whose attributes `factual` then is.

    Raises:
        InterventionError: An attribute or value does not fit the graph, or `factual` is not what `noise` gives.
    """
    before = graph.complete(factual)
    graph.check(do)
    if noise is None:
        noise = abduct(graph, before)
    else:
        _check_noise(graph, noise, before)
    if noise.history and noise.history[-1].before == dict(do):
        carried = Noise(noise.responses, noise.history[-1].held, noise.history[:-1])
        after = predict(graph, carried)
    else:
        after, held = _act(graph, noise, do)
        step = Step({name: before[name] for name in graph.in_order(do)}, noise.held)
        carried = Noise(noise.responses, held, noise.history if held == noise.held else (*noise.history, step))
    changes = tuple(
        Change(name, before[name], after[name], _reason(graph, carried, name, before, after, do))
        for name in graph.order
        if before[name] != after[name]
    )
    return Counterfactual(before, graph.in_order(do), graph.in_order(after), carried, changes)


def _act(graph: CausalGraph, noise: Noise, do: Mapping[str, str]) -> tuple[Attributes, Attributes]:
    """The attributes under `do`, and what is then held."""
    held = {name: value for name, value in noise.held.items() if do.get(name, value) == value}
    after: Attributes = {}
    for name in graph.order:
        if name in held:
            after[name] = held[name]
            continue
        by_itself = natural(graph, noise, name, after)
        after[name] = do.get(name, by_itself)
        if after[name] != by_itself:
            held[name] = after[name]
    return after, graph.in_order(held)


def _respond(graph: CausalGraph, name: str, attributes: Mapping[str, str], uniform: float, choose: Choice) -> Responses:
    mechanism, variable = graph.mechanisms[name], graph.variables[name]
    domains = {parent: graph.variables[parent].values for parent in graph.parents(name)}
    if not domains:
        return {(): attributes[name]}
    if mechanism.rules is not None:
        return respond_by_rules(mechanism, domains, {p: attributes[p] for p in domains}, attributes[name], choose)
    return respond_by_probabilities(mechanism, variable.values, domains, attributes, attributes[name], uniform)


def _drawn_by(rng: np.random.Generator) -> Choice:
    return lambda distribution: quantile(distribution, list(distribution), float(rng.random()))


def _reason(
    graph: CausalGraph,
    noise: Noise,
    name: str,
    before: Mapping[str, str],
    after: Mapping[str, str],
    do: Mapping[str, str],
) -> str:
    """Name the parents without whose change the variable would have another value (all changed ones if none is)."""
    if name in do:
        return "set by the intervention"
    changed = [parent for parent in graph.parents(name) if before[parent] != after[parent]]
    needed = [p for p in changed if natural(graph, noise, name, {**after, p: before[p]}) != after[name]]
    return "follows from " + " and ".join(f"{p} = {after[p]}" for p in needed or changed)


def _check_noise(graph: CausalGraph, noise: Noise, factual: Mapping[str, str]) -> None:
    for name in graph.variables:
        if name not in noise.responses:
            raise InterventionError(
                f"The noise knows nothing of `{name}`: it belongs to another graph than {graph.name}. "
                f"Leave it out to infer it anew."
            )
    predicted = predict(graph, noise)
    differs = [name for name in graph.variables if predicted[name] != factual[name]]
    if differs:
        name = differs[0]
        raise InterventionError(
            f"`{name}` is {factual[name]}, but the noise given with it makes it {predicted[name]}. "
            f"Pass the attributes that belong to the noise, or leave the noise out to infer it anew."
        )
