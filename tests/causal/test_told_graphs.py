"""The graphs that tell obedience: the same variables, other causes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from countervid.causal.graph import CausalGraph
from countervid.errors import GraphError

YOUNG_MAN = {"age": "young", "gender": "man", "beard": "no", "bald": "no"}


def after(graph: str, factual: dict[str, str], **do: str) -> dict[str, str]:
    """What changes, but for what was set."""
    outcome = CausalGraph.load(graph).counterfactual(factual, do)
    return {name: value for name, value in outcome.attributes.items() if factual[name] != value and name not in do}


def test_one_intervention_has_other_effects_by_other_graphs() -> None:
    assert after("face", YOUNG_MAN, age="old") == {"beard": "yes", "bald": "yes"}
    assert after("empty", YOUNG_MAN, age="old") == {} == after("reversed", YOUNG_MAN, age="old")
    woman = {**YOUNG_MAN, "gender": "woman"}
    assert after("reversed", woman, beard="yes") == {"age": "old", "gender": "man"}
    assert after("face", woman, beard="yes") == {} == after("empty", woman, beard="yes")
    anybody = {name: variable.values[0] for name, variable in CausalGraph.load("phantom").variables.items()}
    assert after("absurd", anybody, beard="yes") == {"glasses": "yes"}
    assert after("absurd", anybody, bald="yes") == {"hat": "yes"}
    assert "beard" not in after("absurd", {**anybody, "gender": "man"}, age="old")


@pytest.mark.parametrize("name", ["empty", "reversed", "absurd"])
def test_people_follow_the_graph_and_what_is_undone_is_undone(name: str) -> None:
    graph = CausalGraph.load(name)
    for seed in range(20):
        factual, noise = graph.sample(np.random.default_rng(seed))
        for variable in graph.variables:
            value = next(v for v in graph.variables[variable].values if v != factual[variable])
            there = graph.counterfactual(factual, {variable: value}, noise)
            back = graph.counterfactual(there.attributes, {variable: factual[variable]}, there.noise)
            assert back.attributes == factual


def test_cut_leaves_out_edges_and_says_when_it_cannot(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(
        "name: base\nvariables:\n  a: {kind: binary}\n  b: {kind: binary}\n  c: {kind: binary}\n"
        "edges: [a -> b, a -> c]\nmechanisms:\n"
        "  b: {rules: [{when: {a: yes}, then: yes}, {when: {a: no}, then: no}]}\n"
        "  c: {rules: [{when: {a: yes}, then: yes}, {when: {a: no}, then: no}]}\n"
    )
    child = tmp_path / "child.yaml"
    child.write_text("name: child\nextends: base.yaml\ncut: [b]\nmechanisms: {b: {probabilities: 0.5}}\n")
    assert CausalGraph.load(child).edges == (("a", "c"),)
    base.write_text(base.read_text().replace("[a -> b, a -> c]", '["a -> b, c"]'))
    assert CausalGraph.load(child).edges == (("a", "c"),)
    child.write_text("name: child\nextends: base.yaml\ncut: [d]\n")
    with pytest.raises(GraphError, match="cuts `d`, which is no variable"):
        CausalGraph.load(child)
    child.write_text("name: child\ncut: [a]\nvariables: {a: {kind: binary}}\n")
    with pytest.raises(GraphError, match="has `cut`"):
        CausalGraph.load(child)
