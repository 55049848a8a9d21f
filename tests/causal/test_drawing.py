"""The drawing of a graph: boxes apart, arrows downward, states as the intervention left them."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from countervid.causal import CausalGraph
from countervid.causal.drawing import draw


@pytest.mark.parametrize("name", ["face", "phantom"])
def test_boxes_do_not_overlap_and_arrows_point_down(name: str) -> None:
    graph = CausalGraph.load(name)
    drawing = draw(graph)
    place = {node.name: node for node in drawing.nodes}
    assert set(place) == set(graph.variables)
    assert {(edge.cause, edge.effect) for edge in drawing.edges} == set(graph.edges)
    for one in drawing.nodes:
        assert one.width / 2 <= one.x <= drawing.width - one.width / 2
        assert one.height / 2 <= one.y <= drawing.height - one.height / 2
        for other in drawing.nodes:
            if one.name != other.name:
                apart = abs(one.x - other.x) >= (one.width + other.width) / 2
                assert apart or abs(one.y - other.y) >= one.height
    assert all(place[edge.cause].y < place[edge.effect].y for edge in drawing.edges)


def test_an_intervention_colours_what_it_set_and_what_followed() -> None:
    graph = CausalGraph.load("phantom")
    man = dict.fromkeys(graph.variables, "no") | {"age": "young", "gender": "man", "hair_colour": "red"}
    drawing = draw(graph, graph.counterfactual(man, {"age": "old", "bald": "no"}))
    states = {node.name: (node.state, node.label) for node in drawing.nodes}
    assert states["age"] == ("set", "young \u2192 old")
    assert states["hair_colour"] == ("follows", "red \u2192 grey")
    assert states["bald"] == ("set", "no")
    assert states["hat"] == ("kept", "no")
    edges = {(edge.cause, edge.effect): (edge.active, edge.cut) for edge in drawing.edges}
    assert edges["age", "beard"] == (True, False)
    assert edges["age", "bald"] == (False, True)
    assert edges["gender", "beard"] == (False, False)  # gender did not change


def test_the_svg_is_well_formed_whatever_values_are_called() -> None:
    graph = CausalGraph.parse('variables: {a: {kind: categorical, values: ["<b>", "x & y"]}}')
    root = ElementTree.fromstring(draw(graph).to_svg())
    assert root.tag.endswith("svg")
    assert "<b> | x & y" in "".join(root.itertext())
