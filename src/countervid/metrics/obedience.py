"""Whether an editor follows the graph, the paths, the dose and the order that it was told.

Clips are `(F, 3, H, W)`, 0..1. What is asked of an editor several times over is compared here; who asks is elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from torch import Tensor

from countervid.metrics.axioms import Distance
from countervid.metrics.base import About
from countervid.metrics.quality import l1

_SOURCE = "ours"
ABOUT: dict[str, About] = {
    "obedience": About(
        title="Edits that are nearest to the truth of the graph told", better="higher", low=0, high=1,
        formula="share of clips with argmin over graphs of d(f(x), y_G) = the graph told", source=_SOURCE,
    ),
    "path_share": About(
        title="How much of the indirect effect was made", better="one",
        formula="<f(x) - y_direct, y_total - y_direct> / |y_total - y_direct|^2", source=_SOURCE,
    ),
    "path_margin": About(
        title="Nearer to the total than to the direct effect", better="higher", low=-1, high=1,
        formula="1 - 2 d(f, y_total) / (d(f, y_total) + d(f, y_direct))", source=_SOURCE,
    ),
    "dose_rank": About(
        title="Whether more strength gives more effect", better="higher", low=-1, high=1,
        formula="Spearman correlation of the reading of the edit and of the world", source=_SOURCE,
    ),
    "dose_slope": About(
        title="How much effect a step of strength gives", better="one",
        formula="least-squares slope of the reading of the edit over that of the world", source=_SOURCE,
    ),
    "order": About(
        title="How much the order of two edits matters", better="neither", low=0,
        formula="2 d(f_AB, f_BA) / (d(x, f_AB) + d(x, f_BA)); compare with the same number of the truth",
        source=_SOURCE,
    ),
}  # fmt: skip
"""What is measured of several edits of one clip, and so not of the windows of one."""


def distances(edited: Tensor, truths: Mapping[str, Tensor], *, distance: Distance = l1) -> dict[str, float]:
    """d(f(x), y_G) for the true counterfactual of each graph, by the graphs' names.

    >>> import torch
    >>> distances(torch.zeros(1, 3, 4, 4), {"true": torch.zeros(1, 3, 4, 4), "none": torch.ones(1, 3, 4, 4)})
    {'true': 0.0, 'none': 1.0}
    """
    return {name: float(distance(edited, truth).mean()) for name, truth in truths.items()}


def obeyed(told: str, distances: Mapping[str, float]) -> float:
    """1 if the truth of the graph told is the nearest, 0 if another is, NaN where the nearest are equally near.

    Graphs often agree on a person (a woman without a beard grows none under any). Such a clip cannot tell them apart.

    >>> obeyed("true", {"true": 0.1, "none": 0.2}), obeyed("true", {"true": 0.2, "none": 0.1})
    (1.0, 0.0)
    >>> obeyed("true", {"true": 0.1, "none": 0.1, "reversed": 0.2})
    nan
    """
    nearest = min(distances.values())
    winners = [name for name, value in distances.items() if value == nearest]
    if told not in winners:
        return 0.0
    return 1.0 if len(winners) == 1 else math.nan


def obedience(cases: Iterable[tuple[str, Mapping[str, float]]]) -> float:
    """Share of edits that are nearest to the truth of the graph told, over those that can tell; NaN for none.

    Chance is one over the number of graphs. Tell each graph equally often: an editor that always follows the same one,
    told or not, then scores chance.

    Args:
        cases: (the graph told, `distances` of the edit made under it), one an edit.

    >>> obedience([("true", {"true": 0.1, "none": 0.2}), ("none", {"true": 0.1, "none": 0.2})])
    0.5
    """
    known = [value for value in (obeyed(told, found) for told, found in cases) if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def attribution(edited: Tensor, total: Tensor, direct: Tensor, *, distance: Distance = l1) -> dict[str, float]:
    """Does an edit move the children too, or only what was named?

    Args:
        edited: The edit that should have the total effect.
        total: The truth: the intervention and all that follows from it.
        direct: The truth with the descendants held as they were.
        distance: One number a frame.

    Returns:
        `to_total` and `to_direct`: d to each; `path_margin`: 1 at the total effect, -1 at the direct one;
        `path_share`: how far along the way from direct to total, 0 direct, 1 total. NaN where nothing follows.

    >>> import torch
    >>> direct, total = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    >>> attribution(0.75 * total, total, direct)
    {'to_total': 0.25, 'to_direct': 0.75, 'path_margin': 0.5, 'path_share': 0.75}
    """
    to_total, to_direct = (float(distance(edited, truth).mean()) for truth in (total, direct))
    way = (total - direct).double()
    length = float(way.square().sum())
    if length == 0:
        return {"to_total": to_total, "to_direct": to_direct, "path_margin": math.nan, "path_share": math.nan}
    return {
        "to_total": to_total,
        "to_direct": to_direct,
        "path_margin": 1 - 2 * to_total / (to_total + to_direct),
        "path_share": float(((edited - direct).double() * way).sum()) / length,
    }


@dataclass(frozen=True, kw_only=True)
class Dose:
    """How readings of an edit follow those of the world. NaN where either does not vary."""

    rank: float  # Spearman correlation
    slope: float  # least squares; 1: each step has the effect that it has in the world
    offset: float  # the reading of the edit where the world's is 0


def dose(edited: Sequence[float], world: Sequence[float]) -> Dose:
    """Does more strength give more effect, and as much more?

    Args:
        edited: The examiner's readings of the edits, one a strength (a probability, years), at least 3.
        world: The same examiner's readings of the truth at those strengths; where the world knows no strength between,
            the two ends' readings, interpolated.

    >>> found = dose([0.1, 0.2, 0.3], [0.0, 0.5, 1.0])
    >>> round(found.rank, 6), round(found.slope, 6)
    (1.0, 0.2)
    """
    pairs = np.array([edited, world], dtype=np.float64)
    if pairs.ndim != 2 or pairs.shape[1] < 3:
        raise ValueError(f"A dose needs at least 3 strengths, got {pairs.shape[-1]}.")
    if not np.isfinite(pairs).all() or (np.ptp(pairs, axis=1) == 0).any():
        flat = bool(np.isfinite(pairs).all()) and np.ptp(pairs[1]) > 0  # the world moves, the edit does not
        return Dose(rank=math.nan, slope=0.0 if flat else math.nan, offset=float(pairs[0, 0]) if flat else math.nan)
    line = stats.linregress(pairs[1], pairs[0])
    rank = stats.spearmanr(pairs[0], pairs[1]).statistic
    return Dose(rank=float(rank), slope=float(line.slope), offset=float(line.intercept))


def order(factual: Tensor, first_a: Tensor, first_b: Tensor, *, distance: Distance = l1) -> float:
    """How much it matters which of two interventions comes first: 0 not at all; NaN where neither changed anything.

    Args:
        factual: x.
        first_a, first_b: After do(A) then do(B), and after do(B) then do(A).
        distance: One number a frame.

    >>> import torch
    >>> x = torch.zeros(1, 3, 4, 4)
    >>> order(x, x + 1, x + 1), order(x, x + 1, x - 1)
    (0.0, 2.0)
    """
    apart = float(distance(first_a, first_b).mean())
    moved = float(distance(factual, first_a).mean()) + float(distance(factual, first_b).mean())
    return 2 * apart / moved if moved > 0 else math.nan
