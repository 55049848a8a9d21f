"""The axioms of counterfactuals (Monteiro et al. 2023, arXiv:2303.01274): composition and reversibility.

Composition: intervening to the value that something has changes nothing. Reversibility: there and back again is where
one started. The other two axioms are measured elsewhere: effectiveness in `effectiveness` (and, against the truth, by
strength and direction in `truth`), minimality in `minimality`, `factors`, `cld` and by the spill in `truth`. Doing
nothing satisfies composition, reversibility and minimality; erasing the person may satisfy effectiveness. Only all four
together say something.

The edits themselves are made elsewhere: these functions take clips `(F, 3, H, W)`, 0..1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from countervid.causal.graph import CausalGraph
from countervid.metrics.base import About, Need, Window, register
from countervid.metrics.quality import l1

Distance = Callable[[Tensor, Tensor], Tensor]  # two clips of F frames -> (F,)

_SOURCE = "Monteiro et al., ICLR 2023 (arXiv:2303.01274)"
ABOUT: dict[str, About] = {
    "composition": About(
        title="Null intervention, m rounds", better="zero", low=0, formula="d(x, f^m(x, a, a))", source=_SOURCE
    ),
    "composition_flicker": About(
        title="Flicker that the null intervention adds", better="zero", low=0, high=2,
        formula="mean of |(f(x)_t+1 - f(x)_t) - (x_t+1 - x_t)|", source="ours",
    ),
    "reversibility": About(
        title="There and back again, the noise carried", better="zero", low=0,
        formula="d(x, f(f(x, a, a*), a*, a))", source=_SOURCE,
    ),
    "graph_reversibility": About(
        title="Attribute sets that the rules lead back to, the noise abducted anew", better="neither", low=0, high=1,
        formula="share of a with CF(CF(a; do), undo) = a", source="ours: a property of the graph, not of an editor",
    ),
}  # fmt: skip
"""What is measured of several clips or of a graph, and so not of the windows of one clip."""


def composition(factual: Tensor, rounds: Sequence[Tensor], *, distance: Distance = l1) -> list[float]:
    """d(x, f^m(x)) for each round m of a null intervention: 0 is perfect.

    Args:
        factual: `(F, 3, H, W)`, 0..1.
        rounds: The clip after 1, 2, ... rounds, same shape. From the second on, an editor edits its own result.
        distance: One number a frame; the mean absolute difference by default.

    >>> import torch
    >>> x = torch.zeros(2, 3, 4, 4)
    >>> [round(value, 6) for value in composition(x, [x, x + 0.1, x + 0.3])]
    [0.0, 0.1, 0.3]
    """
    return [float(distance(factual, edited).mean()) for edited in rounds]


def flicker(factual: Tensor, edited: Tensor) -> float:
    """What an edit adds to the change from frame to frame, 0..2: a still of it hides this; NaN for one frame.

    Mean |(f(x)_t+1 - f(x)_t) - (x_t+1 - x_t)|.

    >>> import torch
    >>> x = torch.zeros(3, 3, 4, 4)
    >>> flicker(x, x + 0.2), round(flicker(x, x + torch.tensor([0.0, 0.2, 0.0]).view(3, 1, 1, 1)), 6)
    (0.0, 0.2)
    """
    meter = Change()
    meter.add(factual, edited)
    return meter.compute()["change.flicker"]


def reversibility(factual: Tensor, returned: Tensor, *, distance: Distance = l1) -> float:
    """d(x, f(f(x, a, a*), a*, a)): how far from its start a clip is that was edited there and back. 0 is perfect.

    Back to the factual attributes as they were, whatever the graph's rules would say: the noise is carried.

    >>> import torch
    >>> reversibility(torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4))
    1.0
    """
    return float(distance(factual, returned).mean())


@dataclass(frozen=True, kw_only=True)
class Returned:
    """How many sets of attributes an intervention and its opposite lead back to."""

    sets: int
    returned: int

    @property
    def share(self) -> float:
        return self.returned / self.sets


def graph_reversibility(graph: CausalGraph, variable: str, *, carried: bool = False) -> Returned:
    """Whether a graph's own counterfactuals can be undone from what is seen of them.

    For every set of attributes, the variable is set to each of its other values and then back. Without `carried`, the
    second counterfactual knows only the attributes that the first ended with, and abducts the noise anew.

    Args:
        graph: Small: every combination of its values is tried.
        variable: What is intervened on.
        carried: Carry the noise along; then every set returns.

    Raises:
        InterventionError: The graph has no such variable.

    >>> graph_reversibility(CausalGraph.load("face"), "gender")  # the published rules rewrite beard and hair
    Returned(sets=16, returned=4)
    """
    graph.parents(variable)  # refuses a name that the graph does not know
    sets = returned = 0
    for values in itertools.product(*(one.values for one in graph.variables.values())):
        factual = dict(zip(graph.variables, values, strict=True))
        for value in graph.variables[variable].values:
            if value == factual[variable]:
                continue
            there = graph.counterfactual(factual, {variable: value})
            undo = {variable: factual[variable]}
            back = graph.counterfactual(there.attributes, undo, noise=there.noise if carried else None)
            sets += 1
            returned += back.attributes == factual
    return Returned(sets=sets, returned=returned)


@register
class Change:
    """How much an edit changed, and how unsteadily. Of a null intervention this is the axiom of composition."""

    needs: ClassVar[frozenset[Need]] = frozenset()
    about: ClassVar[Mapping[str, About]] = {
        "change.amount": About(
            title="How much was changed", better="neither", low=0, high=1, formula="mean of |f(x) - x|", source=_SOURCE
        ),
        "change.flicker": About(
            title="How much of the change comes and goes from frame to frame", better="neither", low=0, high=2,
            formula="mean of |(f(x)_t+1 - f(x)_t) - (x_t+1 - x_t)|", source="ours; 0 for a null intervention",
        ),
    }  # fmt: skip

    def __init__(self) -> None:
        self._amount = self._flicker = 0.0
        self._frames = 0
        self._last: Tensor | None = None

    def update(self, window: Window) -> None:
        self.add(window.frames["factual"], window.frames["counterfactual"])

    def add(self, factual: Tensor, edited: Tensor) -> None:
        """Add frames that follow those added before: `(f, 3, H, W)`, 0..1."""
        edit = edited - factual
        self._amount += float(edit.abs().double().mean((1, 2, 3)).sum())
        if self._last is not None:
            self._flicker += float((edit[0] - self._last).abs().double().mean())
        self._flicker += float((edit[1:] - edit[:-1]).abs().double().mean((1, 2, 3)).sum())
        self._frames += len(edit)
        self._last = edit[-1]

    def compute(self) -> dict[str, float]:
        return {
            "change.amount": self._amount / self._frames if self._frames else math.nan,
            "change.flicker": self._flicker / (self._frames - 1) if self._frames > 1 else math.nan,
        }
