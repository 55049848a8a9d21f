"""The causal graph as a picture: inline SVG that takes its colours from the page around it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from countervid.causal.counterfactual import Counterfactual
from countervid.causal.graph import CausalGraph

_WIDTH, _HEIGHT, _GAP, _RISE = 152, 56, 22, 62  # of a node; between nodes; between layers; px


def draw_graph(graph: CausalGraph, outcome: Counterfactual) -> str:
    """An `<svg>` of the graph with what the intervention did: set, followed, unchanged; cut edges dashed.

    Classes: `node` with `set` or `follows` where it changed, `edge` with `cut` or `active`.
    """
    linked = {name for edge in graph.edges for name in edge}
    rows = [[name for name in layer if name in linked] for layer in graph.layers()]
    rows = _untangled([row for row in rows if row], graph)
    alone = [name for name in graph.variables if name not in linked]
    if alone:
        rows.append(alone)
    widest = max(len(row) for row in rows)
    width = widest * _WIDTH + (widest - 1) * _GAP + 4
    height = len(rows) * _HEIGHT + (len(rows) - 1) * _RISE + 4
    place: dict[str, tuple[float, float]] = {}
    for depth, row in enumerate(rows):
        left = (width - len(row) * _WIDTH - (len(row) - 1) * _GAP) / 2
        for column, name in enumerate(row):
            place[name] = (left + column * (_WIDTH + _GAP), 2 + depth * (_HEIGHT + _RISE))
    changed = {change.variable: change for change in outcome.changes}
    parts = [_edge(cause, effect, place, outcome, set(changed)) for cause, effect in graph.edges]
    parts += [_node(name, place[name], outcome, name in changed) for name in place]
    label = escape(f"Causal graph {graph.name}")
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}"'
    tips = "".join(
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerUnits="userSpaceOnUse" markerWidth="10" '
        f'markerHeight="10" orient="auto"><path d="M0 0 8 4 0 8z" class="{kind}"/></marker>'
        for name, kind in (("tip", "tip"), ("tip-on", "tip on"))
    )
    return f'<svg class="graph" {size} role="img" aria-label="{label}"><defs>{tips}</defs>{"".join(parts)}</svg>'


def _untangled(rows: list[list[str]], graph: CausalGraph) -> list[list[str]]:
    """Each row in the order of its causes' mean place: fewer crossings (Sugiyama et al. 1981, barycentre rule)."""
    place = {name: float(index) for row in rows[:1] for index, name in enumerate(row)}
    result = rows[:1]
    for row in rows[1:]:

        def barycentre(name: str) -> float:
            causes = [place[cause] for cause in graph.parents(name) if cause in place]
            return sum(causes) / len(causes) if causes else 0.0

        ordered = sorted(row, key=barycentre)  # stable: ties keep the graph's order
        place.update({name: index * max(1, len(rows[0])) / len(ordered) for index, name in enumerate(ordered)})
        result.append(ordered)
    return result


def _edge(
    cause: str, effect: str, place: Mapping[str, tuple[float, float]], outcome: Counterfactual, changed: set[str]
) -> str:
    x1, y1 = place[cause][0] + _WIDTH / 2, place[cause][1] + _HEIGHT
    x2, y2 = place[effect][0] + _WIDTH / 2, place[effect][1] - 2
    cut = effect in outcome.do
    active = not cut and cause in changed and effect in changed
    bend = (y2 - y1) / 2
    path = f"M{x1:g} {y1:g}C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"
    kind, tip = ("cut", "tip") if cut else ("active", "tip-on") if active else ("", "tip")
    note = escape(f"{cause} causes {effect}" + (", cut by the intervention" if cut else ""))
    return f'<path class="edge {kind}" d="{path}" marker-end="url(#{tip})"><title>{note}</title></path>'


def _node(name: str, place: tuple[float, float], outcome: Counterfactual, changed: bool) -> str:
    x, y = place
    kind = "set" if name in outcome.do else "follows" if changed else ""
    before, after = outcome.factual[name], outcome.attributes[name]
    title = escape(f"do({spoken(name)})" if name in outcome.do else spoken(name))
    value = f"{escape(before)} → <tspan>{escape(after)}</tspan>" if changed else escape(after)
    middle = x + _WIDTH / 2
    return (
        f'<g class="node {kind}"><rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="12"/>'
        f'<text class="name" x="{middle:g}" y="{y + 22:g}">{title}</text>'
        f'<text class="value" x="{middle:g}" y="{y + 42:g}">{value}</text></g>'
    )


def spoken(name: str) -> str:
    """A variable's name as people write it."""
    return name.replace("_", " ")
