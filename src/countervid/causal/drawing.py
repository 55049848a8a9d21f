"""Where the boxes and arrows of a graph go, and a small SVG of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Literal

from countervid.causal.counterfactual import Counterfactual
from countervid.causal.graph import CausalGraph

State = Literal["plain", "set", "follows", "kept"]

_HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 46.0, 22.0, 64.0, 20.0  # px
_GAP_ALONE, _PORT = 26.0, 16.0  # px above the row of unconnected variables; between arrows into one box
_LETTER, _SMALL_LETTER = 8.8, 6.8  # px; a letter's width in a name and in a label, on the wide side
_COLOURS: dict[State, tuple[str, str]] = {  # fill, outline
    "plain": ("#f4f6fb", "#8a94ad"),
    "set": ("#ffe2c4", "#c8641b"),
    "follows": ("#dcefd9", "#3f8a46"),
    "kept": ("#f4f6fb", "#b4bccd"),
}


@dataclass(frozen=True)
class Node:
    """A variable's box; `x` and `y` are its middle in px, `label` what is written under the name."""

    name: str
    label: str
    layer: int
    x: float
    y: float
    width: float
    height: float
    state: State


@dataclass(frozen=True)
class Edge:
    """An arrow from a cause to an effect; `active` if the cause's change reached the effect, `cut` if `do` cut it."""

    cause: str
    effect: str
    active: bool
    cut: bool


@dataclass(frozen=True)
class Drawing:
    """A graph laid out top to bottom, causes above effects; sizes in px."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    layers: tuple[tuple[str, ...], ...]
    width: float
    height: float

    def to_svg(self) -> str:
        """The drawing as a standalone SVG, readable on light and dark pages."""
        return _svg(self)


def draw(graph: CausalGraph, counterfactual: Counterfactual | None = None) -> Drawing:
    """Lay out a graph, and what an intervention did to it.

    Args:
        graph: The graph.
        counterfactual: If given, boxes show each variable's value before and after, what was set and what followed,
            and the edges that the intervention cut.
    """
    layers = _layers(graph)
    labels, states = _labels(graph, counterfactual)
    widths = {
        name: 26 + max(_LETTER * len(_readable(name)), _SMALL_LETTER * len(labels[name]), 40.0)
        for name in graph.variables
    }
    rows = [sum(widths[name] for name in layer) + _GAP_X * (len(layer) - 1) for layer in layers]
    total = max(rows) + 2 * _MARGIN
    nodes: list[Node] = []
    y = _MARGIN + _HEIGHT / 2
    for depth, (layer, row) in enumerate(zip(layers, rows, strict=True)):
        left = (total - row) / 2
        if depth:
            y += _HEIGHT + (_GAP_Y if any(graph.parents(name) for name in layer) else _GAP_ALONE)
        for name in layer:
            middle = left + widths[name] / 2
            nodes.append(Node(name, labels[name], depth, middle, y, widths[name], _HEIGHT, states[name]))
            left += widths[name] + _GAP_X
    cut = {*counterfactual.do, *counterfactual.noise.held} if counterfactual else set()
    edges = tuple(
        Edge(cause, effect, states[cause] in ("set", "follows") and states[effect] == "follows", effect in cut)
        for cause, effect in graph.edges
    )
    return Drawing(tuple(nodes), edges, layers, total, y + _HEIGHT / 2 + _MARGIN)


def _layers(graph: CausalGraph) -> tuple[tuple[str, ...], ...]:
    """The graph's layers, each ordered by the mean place of its causes; unconnected variables in a last row."""
    alone = {name for name in graph.variables if not graph.parents(name) and not graph.children(name)}
    layers: list[tuple[str, ...]] = []
    place: dict[str, float] = {}
    for names in graph.layers():
        connected = [name for name in names if name not in alone]
        causes = {name: [place[parent] for parent in graph.parents(name)] for name in connected}
        ordered = sorted(connected, key=lambda name: sum(causes[name]) / len(causes[name]) if causes[name] else 0.0)
        place.update({name: (index + 0.5) / len(ordered) for index, name in enumerate(ordered)})
        if ordered:
            layers.append(tuple(ordered))
    if alone:
        layers.append(tuple(name for name in graph.variables if name in alone))
    return tuple(layers)


def _labels(graph: CausalGraph, counterfactual: Counterfactual | None) -> tuple[dict[str, str], Mapping[str, State]]:
    if counterfactual is None:
        labels = {name: " | ".join(variable.values) for name, variable in graph.variables.items()}
        return labels, dict.fromkeys(graph.variables, "plain")
    before, after = counterfactual.factual, counterfactual.attributes
    labels = {n: after[n] if before[n] == after[n] else f"{before[n]} \N{RIGHTWARDS ARROW} {after[n]}" for n in after}
    states: dict[str, State] = {
        name: "set" if name in counterfactual.do else "kept" if before[name] == after[name] else "follows"
        for name in after
    }
    return labels, states


def _readable(name: str) -> str:
    return name.replace("_", " ")


def _svg(drawing: Drawing) -> str:
    place = {node.name: node for node in drawing.nodes}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {drawing.width:.0f} {drawing.height:.0f}" '
        f'width="{drawing.width:.0f}" height="{drawing.height:.0f}" role="img" '
        f'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" text-anchor="middle">',
        "<title>Causal graph</title><defs>",
    ]
    for kind, colour in (("on", "#3f8a46"), ("off", "#8a94ad"), ("cut", "#d9b8a0")):
        parts.append(
            f'<marker id="arrow-{kind}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="10" markerHeight="10" '
            f'markerUnits="userSpaceOnUse" '
            f'orient="auto"><path d="M0 1 L10 5 L0 9 Z" fill="{colour}"/></marker>'
        )
    parts.append(
        f'</defs><rect width="{drawing.width:.0f}" height="{drawing.height:.0f}" rx="12" fill="#ffffff" '
        f'stroke="#e3e7ef"/>'
    )
    for edge in drawing.edges:
        cause, effect = place[edge.cause], place[edge.effect]
        x0, y0 = cause.x, cause.y + cause.height / 2
        causes = sorted((e.cause for e in drawing.edges if e.effect == edge.effect), key=lambda name: place[name].x)
        port = min(_PORT, effect.width / (len(causes) + 1)) * (causes.index(edge.cause) - (len(causes) - 1) / 2)
        x1, y1 = effect.x + port, effect.y - effect.height / 2
        bend = 0.45 * (y1 - y0)
        kind, colour = ("cut", "#d9b8a0") if edge.cut else ("on", "#3f8a46") if edge.active else ("off", "#8a94ad")
        dash = ' stroke-dasharray="3 5"' if edge.cut else ""
        parts.append(
            f'<path d="M{x0:.1f} {y0:.1f} C{x0:.1f} {y0 + bend:.1f} {x1:.1f} {y1 - bend:.1f} {x1:.1f} {y1:.1f}" '
            f'fill="none" stroke="{colour}" stroke-width="{2.4 if edge.active else 1.5}"{dash} '
            f'marker-end="url(#arrow-{kind})"/>'
        )
    for node in drawing.nodes:
        fill, outline = _COLOURS[node.state]
        parts.append(
            f'<rect x="{node.x - node.width / 2:.1f}" y="{node.y - node.height / 2:.1f}" width="{node.width:.1f}" '
            f'height="{node.height:.1f}" rx="11" fill="{fill}" stroke="{outline}" stroke-width="1.5"/>'
            f'<text x="{node.x:.1f}" y="{node.y - 3:.1f}" font-size="14" font-weight="600" fill="#20293a">'
            f"{escape(_readable(node.name))}</text>"
            f'<text x="{node.x:.1f}" y="{node.y + 15:.1f}" font-size="12" fill="#55607a">{escape(node.label)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"
