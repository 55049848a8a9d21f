"""Graph files: what a whole one gives, and how each fault is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from countervid.causal import CausalGraph
from countervid.errors import GraphError, InterventionError

HEAD = "variables: {a: {kind: binary}, b: {kind: binary}, c: {kind: categorical, values: [x, y, z]}}\n"


def test_structure_of_the_bundled_graphs() -> None:
    face, phantom = CausalGraph.load("face"), CausalGraph.load("phantom")
    assert face.parents("beard") == ("age", "gender")
    assert face.children("age") == ("beard", "bald")
    assert face.ancestors("beard", "age") == {"gender"}
    assert face.descendants("gender") == {"beard", "bald"}
    assert face.layers() == (("age", "gender"), ("beard", "bald"))
    assert set(face.variables) < set(phantom.variables)
    assert phantom.descendants("age") == {"beard", "bald", "hair_colour"}
    assert phantom.variables["hair_colour"].values == ("black", "brown", "blond", "red", "grey")


def test_what_a_prompt_stops_naming_for_an_intervention() -> None:
    face = CausalGraph.load("face")
    assert face.decoupled(["beard"]) == {"age", "gender"}
    assert face.decoupled(["age"]) == frozenset()
    assert face.decoupled(["beard", "gender"]) == {"age"}  # what is set stays named


def test_mutilation_cuts_the_edges_into_what_is_set() -> None:
    face = CausalGraph.load("face")
    cut = face.mutilated(["beard"])
    assert cut.parents("beard") == ()
    assert cut.parents("bald") == ("age", "gender")
    assert cut.descendants("age") == {"bald"}
    assert face.parents("beard") == ("age", "gender")
    woman = {"age": "young", "gender": "woman", "beard": "yes", "bald": "no"}
    assert cut.counterfactual(woman, {"gender": "man"}).attributes["beard"] == "yes"


def test_layers_go_below_the_lowest_cause() -> None:
    graph = CausalGraph.parse(
        """
        variables: {c: {kind: binary}, b: {kind: binary}, a: {kind: binary}}
        edges: [a -> b, "a, b -> c"]
        mechanisms:
          a: {probabilities: 0.5}
          b: {probabilities: [{when: {a: no}, then: 0}, {when: {a: yes}, then: 1}]}
          c: {rules: [{when: {a: no}, then: no}, {when: {a: yes}, then: yes}]}
        """
    )
    assert graph.layers() == (("a",), ("b",), ("c",))
    assert graph.order == ("a", "b", "c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("edges: [a -> b, b -> a]", "`a` and `b` cause each other|`b` and `a` cause each other"),
        ("edges: [a -> b, b -> c, c -> a]", "is a cycle. Remove one of these edges"),
        ("edges: [a -> a]", "`a` causes itself. Remove that edge"),
        ("edges: [age -> b]", "names `age`, which is no variable. Use one of a, b, c"),
        ("edges: [a b]", "`a b` is no edge. Write `cause -> effect`"),
        ("edges: [a -> b]", "`b` has causes .a. but no mechanism"),
        ("edges: [a -> b]\nmechanisms: {b: {}}", "mechanism of `b` is empty"),
        ("mechanisms: {d: {probabilities: 0.5}}", "mechanism for `d`, which is no variable"),
        ("mechanisms: {a: {rules: [{then: yes}]}}", "`a` has rules but no causes"),
        (
            "edges: [a -> b]\nmechanisms: {b: {rules: [{when: {a: yes}, then: yes}]}}",
            "`b`: the rules leave a case open: a set, a = no, b = no before. Add a rule",
        ),
        (
            "edges: [a -> b]\nmechanisms: {b: {rules: [{then: yes}, {when: {a: yes}, then: keep}]}}",
            "`b`: rules 1 and 2 both answer the case: a set, a = yes, b = no before",
        ),
        (
            "edges: [a -> b]\nmechanisms: {b: {rules: [{when: {c: x}, then: yes}]}}",
            "`b`, rule 1: `c` is no cause of it",
        ),
        ("edges: [a -> b]\nmechanisms: {b: {rules: [{cause: c, then: yes}]}}", "`b`, rule 1: `c` is no cause of it"),
        ("edges: [a -> b]\nmechanisms: {b: {rules: [{when: {a: maybe}, then: yes}]}}", "`a` cannot be `maybe`"),
        ("edges: [a -> b]\nmechanisms: {b: {rules: [{then: yess}]}}", "`b` cannot be `yess`.*Did you mean `yes`"),
        ("mechanisms: {c: {probabilities: {x: 0.5, y: 0.4}}}", "`c`, row 1 .*: the probabilities sum to 0.9"),
        ("mechanisms: {c: {probabilities: {x: 1.5, y: -0.5}}}", "the probability of `x` is 1.5"),
        ("mechanisms: {c: {probabilities: {x: 0.5, w: 0.5}}}", "`c` cannot be `w`"),
        (
            "edges: [a -> b]\nmechanisms: {b: {probabilities: [{when: {a: yes}, then: 0.5}]}}",
            "`b`: the probabilities leave a case open: a = no. Add a row",
        ),
        (
            "edges: [a -> b]\nmechanisms: {b: {probabilities: [{then: 0.5}, {when: {a: no}, then: 0.1}]}}",
            "rows 1 and 2 of the probabilities both answer the case: a = no",
        ),
        ("mechanisms: {a: {associated: [bb], probabilities: 0.5}}", "`a` is associated with `bb`. Did you mean `b`"),
        (
            "mechanisms: {a: {associated: [b], probabilities: 0.5}, b: {associated: [a], probabilities: 0.5}}",
            "cause each other",
        ),
        ("mechanisms: {a: {probability: 0.5}}", "`mechanisms.a.probability`: .*Remove or rename this key"),
        ("edges: [a -> b]\nedges: [a -> b]", "`edges` stands twice, again in line"),
        ("edges: [", "is not YAML"),
    ],
)
def test_faults_are_named_with_the_way_out(text: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        CausalGraph.parse(HEAD + text)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ("{}", "has no variables"),
        ("{a: {kind: binary, values: [off, up]}}", "`a` is binary but has the values off, up"),
        ("{a: {kind: nominal}}", "`variables.a.kind`"),
        ("{a: {kind: ordered, values: [x, x]}}", "`a` names a value twice"),
        ("{a: {kind: ordered, values: [x]}}", "`a` has 1 value"),
        ("{a: {kind: ordered, values: [x, keep]}}", "`a` has a value `keep`"),
        ('{a: {kind: ordered, values: [x, "y,z"]}}', "without `,` and `=`"),
        ("{Age: {kind: binary}}", "`Age` is no name for a variable"),
        ("{a: {kind: binary, options: [yes]}}", "`options` needs each value once"),
        ("{a: {kind: binary, language: {clauses: {yes: is a}}}}", "`a` has no words for `no`"),
        ("{a: {kind: binary, language: {clauses: {yes: null, no: null}}}}", "`a` is silent about"),
        ("{a: {kind: binary, language: {words: {maybe: [perhaps]}}}}", "`a` cannot be `maybe`"),
    ],
)
def test_faulty_variables_are_named(variables: str, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        CausalGraph.parse(f"variables: {variables}")


def test_yes_and_no_need_no_quotes() -> None:
    graph = CausalGraph.parse("variables: {a: {kind: categorical, values: [yes, no, on, off, 3]}}")
    assert graph.variables["a"].values == ("yes", "no", "on", "off", "3")


def test_a_file_extends_another_beside_it(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("extends: face\nvariables: {hat: {kind: binary}}\n")
    (tmp_path / "own.yaml").write_text(
        "extends: base.yaml\nmechanisms: {age: {probabilities: {young: 0.9, old: 0.1}}}\n"
    )
    graph = CausalGraph.load(tmp_path / "own.yaml")
    assert graph.name == "own"
    assert tuple(graph.variables) == ("age", "gender", "beard", "bald", "hat")
    assert graph.mechanisms["age"].row({}) == {"young": 0.9, "old": 0.1}


def test_a_file_that_extends_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("extends: two.yaml")
    (tmp_path / "two.yaml").write_text("extends: one.yaml")
    with pytest.raises(GraphError, match="extends itself"):
        CausalGraph.load(tmp_path / "one.yaml")


@pytest.mark.parametrize("content", [b"", b"- a\n- b\n", b"\xff\xfe\x00", b"variables: 3"])
def test_files_that_are_no_graphs_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "graph.yaml"
    path.write_bytes(content)
    with pytest.raises(GraphError, match=r"graph\.yaml"):
        CausalGraph.load(path)


def test_unknown_graphs_and_variables() -> None:
    with pytest.raises(GraphError, match="no graph `fase`. Bundled ones are absurd, empty, face, phantom, reversed"):
        CausalGraph.load("fase")
    with pytest.raises(InterventionError, match="no variable `bear`. Did you mean `beard`"):
        CausalGraph.load("face").parents("bear")


def test_a_reversed_graph_is_obeyed(tmp_path: Path) -> None:
    """The graph counts, not what the world is like: here a beard makes old."""
    face = yaml.safe_load("""
    variables:
      beard: {kind: binary}
      age: {kind: ordered, values: [young, old]}
    edges: [beard -> age]
    mechanisms:
      age: {rules: [{when: {beard: "yes"}, then: old}, {when: {beard: "no"}, then: young}]}
    """)
    path = tmp_path / "reversed.yaml"
    path.write_text(yaml.safe_dump(face))
    result = CausalGraph.load(path).counterfactual({"beard": "no", "age": "young"}, {"beard": "yes"})
    assert result.attributes == {"beard": "yes", "age": "old"}
    assert result.changes[1].reason == "follows from beard = yes"
