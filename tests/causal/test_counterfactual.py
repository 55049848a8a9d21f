"""Abduction, action, prediction: what must hold for every person, graph and intervention."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countervid.causal import Attributes, CausalGraph, Noise
from countervid.errors import GraphError, InterventionError

FACE, PHANTOM = CausalGraph.load("face"), CausalGraph.load("phantom")
GRAPHS = st.sampled_from([FACE, PHANTOM])
PATIENT = settings(max_examples=60, deadline=None)  # a loaded machine is no failure


@st.composite
def table_graphs(draw: st.DrawFn) -> CausalGraph:
    """Graphs of up to four variables with random edges and random probability tables, zeros among them."""
    names = ["a", "b", "c", "d"][: draw(st.integers(2, 4))]
    values = {name: ["x", "y", "z"][: draw(st.integers(2, 3))] for name in names}
    edges = [(p, c) for i, c in enumerate(names) for p in names[:i] if draw(st.booleans())]
    mechanisms: dict[str, Any] = {}
    for name in names:
        combinations: list[dict[str, str]] = [{}]
        for parent in [p for p, c in edges if c == name]:
            combinations = [{**known, parent: value} for known in combinations for value in values[parent]]
        rows = []
        for known in combinations:
            weights = draw(st.lists(st.integers(0, 3), min_size=len(values[name]), max_size=len(values[name])))
            weights[draw(st.integers(0, len(weights) - 1))] += 1
            shares = {value: weight / sum(weights) for value, weight in zip(values[name], weights, strict=True)}
            rows.append({"when": known, "then": shares})
        mechanisms[name] = {"probabilities": rows}
    file = {
        "name": "tables",
        "variables": {name: {"kind": "ordered", "values": values[name]} for name in names},
        "edges": [f"{p} -> {c}" for p, c in edges],
        "mechanisms": mechanisms,
    }
    return CausalGraph.parse(json.dumps(file))


def any_attributes(graph: CausalGraph) -> st.SearchStrategy[Attributes]:
    return st.fixed_dictionaries({name: st.sampled_from(v.values) for name, v in graph.variables.items()})


def any_do(graph: CausalGraph) -> st.SearchStrategy[Attributes]:
    options = {name: st.sampled_from(v.values) for name, v in graph.variables.items()}
    return st.fixed_dictionaries({}, optional=options)


@PATIENT
@given(data=st.data(), graph=st.one_of(GRAPHS, table_graphs()))
def test_abduction_explains_every_factual(data: st.DataObject, graph: CausalGraph) -> None:
    factual = data.draw(any_attributes(graph))
    assert graph.predict(graph.abduct(factual)) == factual
    assert graph.predict(graph.abduct(factual, np.random.default_rng(data.draw(st.integers(0, 99))))) == factual


@PATIENT
@given(data=st.data(), graph=st.one_of(GRAPHS, table_graphs()), seed=st.integers(0, 2**32))
def test_undoing_an_intervention_restores_the_person_and_the_noise(
    data: st.DataObject, graph: CausalGraph, seed: int
) -> None:
    factual, noise = graph.sample(np.random.default_rng(seed))
    do = data.draw(any_do(graph))
    there = graph.counterfactual(factual, do, noise)
    back = graph.counterfactual(there.attributes, {name: factual[name] for name in do}, there.noise)
    assert back.attributes == factual
    assert back.noise == noise


@PATIENT
@given(data=st.data(), graph=st.one_of(GRAPHS, table_graphs()))
def test_a_chain_of_interventions_is_undone_step_by_step(data: st.DataObject, graph: CausalGraph) -> None:
    attributes = data.draw(any_attributes(graph))
    noise = graph.abduct(attributes)
    steps: list[tuple[Attributes, Noise, Attributes]] = []
    for _ in range(data.draw(st.integers(1, 4))):
        do = data.draw(any_do(graph))
        steps.append((attributes, noise, do))
        result = graph.counterfactual(attributes, do, noise)
        attributes, noise = result.attributes, result.noise
    for before, noise_before, do in reversed(steps):
        result = graph.counterfactual(attributes, {name: before[name] for name in do}, noise)
        attributes, noise = result.attributes, result.noise
        assert attributes == before
        assert noise == noise_before


@PATIENT
@given(data=st.data(), graph=st.one_of(GRAPHS, table_graphs()))
def test_interventions_take_effect_and_reach_descendants_alone(data: st.DataObject, graph: CausalGraph) -> None:
    factual, do = data.draw(any_attributes(graph)), data.draw(any_do(graph))
    result = graph.counterfactual(factual, do)
    assert all(result.attributes[name] == value for name, value in do.items())
    touched = {change.variable for change in result.changes}
    assert touched == {name for name in factual if factual[name] != result.attributes[name]}
    assert touched <= set(do) | graph.descendants(*do)
    assert graph.predict(result.noise) == result.attributes


@PATIENT
@given(data=st.data(), graph=st.one_of(GRAPHS, table_graphs()))
def test_setting_what_already_is_changes_nothing(data: st.DataObject, graph: CausalGraph) -> None:
    factual = data.draw(any_attributes(graph))
    names = data.draw(st.sets(st.sampled_from(sorted(graph.variables))))
    result = graph.counterfactual(factual, {name: factual[name] for name in names})
    assert result.attributes == factual
    assert result.changes == ()


@PATIENT
@given(seed=st.integers(0, 2**32), graph=st.one_of(GRAPHS, table_graphs()))
def test_noise_survives_json(seed: int, graph: CausalGraph) -> None:
    factual, noise = graph.sample(np.random.default_rng(seed))
    do = {name: variable.values[0] for name, variable in graph.variables.items()}
    noise = graph.counterfactual(factual, do, noise).noise
    assert Noise.from_dict(json.loads(json.dumps(noise.to_dict()))) == noise


def test_an_earlier_intervention_stays_in_force() -> None:
    man = {"age": "young", "gender": "man", "beard": "no", "bald": "no"}
    shaved = FACE.counterfactual(man, {"age": "old"})
    shaved = FACE.counterfactual(shaved.attributes, {"beard": "no"}, shaved.noise)
    assert shaved.attributes == {"age": "old", "gender": "man", "beard": "no", "bald": "yes"}
    younger = FACE.counterfactual(shaved.attributes, {"gender": "woman"}, shaved.noise)
    assert younger.attributes == {"age": "old", "gender": "woman", "beard": "no", "bald": "no"}


def test_undoing_keeps_what_was_in_force_although_it_had_become_natural() -> None:
    """A beard that was set, and that age would bring anyway, is still set after another one came and went."""
    man = {"age": "young", "gender": "man", "beard": "no", "bald": "no"}
    result = FACE.counterfactual(man, {"beard": "yes"})
    for do in ({"age": "old"}, {"beard": "no"}, {"beard": "yes"}, {"age": "young"}):
        result = FACE.counterfactual(result.attributes, do, result.noise)
    assert result.attributes == man | {"beard": "yes"}


def test_reasons_name_the_causes_that_were_needed() -> None:
    woman = {"age": "young", "gender": "woman", "beard": "no", "bald": "no"}
    result = FACE.counterfactual(woman, {"age": "old", "gender": "man"})
    assert {change.variable: change.reason for change in result.changes} == {
        "age": "set by the intervention",
        "gender": "set by the intervention",
        "beard": "follows from gender = man",  # an old woman would have none, a young man one
        "bald": "follows from age = old and gender = man",  # neither alone
    }


def test_grey_hair_returns_to_its_natural_colour() -> None:
    blond = {name: variable.values[0] for name, variable in PHANTOM.variables.items()} | {"hair_colour": "blond"}
    old = PHANTOM.counterfactual(blond, {"age": "old"})
    assert old.attributes["hair_colour"] == "grey"
    assert PHANTOM.counterfactual(old.attributes, {"age": "young"}, old.noise).attributes == blond
    inferred = PHANTOM.counterfactual(old.attributes, {"age": "young"})  # the colour is not known: the likeliest
    assert inferred.attributes["hair_colour"] == "brown"


def test_lipstick_and_moustache_follow_gender_and_nothing_is_put_on() -> None:
    plain = {"age": "young", "gender": "woman", "beard": "no", "bald": "no", "moustache": "no", "glasses": "yes"}
    woman = plain | {"smiling": "no", "lipstick": "yes", "hat": "no", "hair_colour": "red"}
    man = PHANTOM.counterfactual(woman, {"gender": "man"}).attributes
    assert (man["lipstick"], man["moustache"], man["glasses"]) == ("no", "no", "yes")
    bearded = man | {"moustache": "yes"}
    again = PHANTOM.counterfactual(bearded, {"gender": "woman"}).attributes
    assert (again["lipstick"], again["moustache"]) == ("no", "no")


def test_people_are_drawn_as_often_as_the_file_says() -> None:
    rng = np.random.default_rng(5)
    people = [PHANTOM.sample(rng)[0] for _ in range(4000)]

    def share(name: str, value: str, **known: str) -> float:
        among = [person for person in people if all(person[k] == v for k, v in known.items())]
        return sum(person[name] == value for person in among) / len(among)

    tolerance = 0.06  # four standard errors of the smallest group, 600 people
    for name, value, known, expected in [
        ("age", "old", {}, 0.5),
        ("gender", "man", {}, 0.5),
        ("beard", "yes", {"gender": "man", "age": "young"}, 0.35),
        ("beard", "yes", {"gender": "man", "age": "old"}, 0.55),
        ("bald", "yes", {"gender": "man", "age": "old"}, 0.4),
        ("bald", "yes", {"gender": "man", "age": "young"}, 0.08),
        ("moustache", "yes", {"gender": "man", "beard": "yes"}, 0.8),
        ("glasses", "yes", {"age": "old"}, 0.4),
        ("lipstick", "yes", {"gender": "woman"}, 0.45),
        ("hair_colour", "grey", {"age": "old"}, 0.85),
    ]:
        assert share(name, value, **known) == pytest.approx(expected, abs=tolerance)
    for name in ("beard", "bald", "moustache"):
        assert share(name, "yes", gender="woman") == 0
    assert share("hair_colour", "grey", age="young") == 0


def test_the_same_seed_draws_the_same_person() -> None:
    assert PHANTOM.sample(np.random.default_rng(3)) == PHANTOM.sample(np.random.default_rng(3))


@PATIENT
@given(seed=st.integers(0, 2**32))
def test_abducted_noise_of_a_probability_table_follows_its_posterior(seed: int) -> None:
    """Monotone responses: whoever is `high` where it is rare is `high` where it is common."""
    graph = CausalGraph.parse(
        """
        variables: {cause: {kind: binary}, level: {kind: ordered, values: [low, high]}}
        edges: [cause -> level]
        mechanisms:
          cause: {probabilities: 0.5}
          level:
            probabilities:
              - {when: {cause: no}, then: {low: 0.8, high: 0.2}}
              - {when: {cause: yes}, then: {low: 0.3, high: 0.7}}
        """
    )
    rare = graph.abduct({"cause": "no", "level": "high"}, np.random.default_rng(seed))
    assert graph.counterfactual({"cause": "no", "level": "high"}, {"cause": "yes"}, rare).attributes["level"] == "high"


def test_wrong_interventions_and_factuals_are_refused_with_the_nearest_name() -> None:
    man = {"age": "young", "gender": "man", "beard": "no", "bald": "no"}
    with pytest.raises(InterventionError, match="no variable `bread`. Did you mean `beard`"):
        FACE.counterfactual(man, {"bread": "yes"})
    with pytest.raises(InterventionError, match="`age` cannot be `olld`. Did you mean `old`"):
        FACE.counterfactual(man, {"age": "olld"})
    with pytest.raises(InterventionError, match="`bald` of the factual is not known"):
        FACE.counterfactual({"age": "young", "gender": "man", "beard": "no"}, {"age": "old"})
    with pytest.raises(InterventionError, match="noise given with it makes it young"):
        FACE.counterfactual(man | {"age": "old"}, {"beard": "yes"}, FACE.abduct(man))
    with pytest.raises(InterventionError, match="another graph"):
        PHANTOM.counterfactual(PHANTOM.sample(np.random.default_rng(0))[0], {}, FACE.abduct(man))


def test_interventions_as_typed() -> None:
    assert PHANTOM.interventions(["Age = OLD", "hair-colour=grey", "age=old"]) == {"age": "old", "hair_colour": "grey"}
    with pytest.raises(InterventionError, match="both `old` and `young`"):
        FACE.interventions(["age=old", "age=young"])
    for text in ("age", "=old", "age="):
        with pytest.raises(InterventionError, match="VARIABLE=VALUE"):
            FACE.interventions([text])


def test_people_cannot_be_drawn_without_probabilities() -> None:
    graph = CausalGraph.parse(
        """
        variables: {a: {kind: binary}, b: {kind: binary}}
        edges: [a -> b]
        mechanisms: {a: {probabilities: 0.5}, b: {rules: [{when: {a: yes}, then: yes}, {when: {a: no}, then: keep}]}}
        """
    )
    with pytest.raises(GraphError, match="`b` in graph graph has no probabilities"):
        graph.sample(np.random.default_rng(0))
    assert graph.counterfactual({"a": "no", "b": "no"}, {"a": "yes"}).attributes == {"a": "yes", "b": "yes"}
