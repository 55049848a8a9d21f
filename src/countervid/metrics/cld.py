"""Counterfactual latent divergence: minimality by rank among other clips (Melistas et al., NeurIPS 2024), and of video.

    CLD = log(w1 exp(P(S* <= D)) + w2 exp(P(S >= D)))

D = d(x, f(x)); S = d(x, x') over clips x' with the factual values; S* over clips with the counterfactual ones. The
first term asks that the edit is nearer to x than clips of the target class are, the second that it is farther than
clips of x's own class: they pull apart, and what is best is between.

Two things to know. Pixels of two different people are always farther apart than an edit is from its source, and then
CLD is log(w1 + w2 e) whatever the edit: use a distance of embeddings, of the identity encoder for one. And the ideal is
not 0 but what the truth itself scores, so that CLD(f(x)) - CLD(y) is the number to look at.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from countervid.metrics.axioms import Distance
from countervid.metrics.base import About
from countervid.metrics.quality import l1

TARGET_WEIGHT, OWN_WEIGHT = 0.8, 0.2  # as in the code of Melistas et al.

_SOURCE = "Melistas et al., NeurIPS 2024 (arXiv:2403.20287); distances over frames: ours"
ABOUT: dict[str, About] = {
    "cld": About(
        title="Counterfactual latent divergence", better="lower", low=0, high=1,
        formula="log(0.8 exp P(S* <= D) + 0.2 exp P(S >= D))", source=_SOURCE,
    ),
    "cld_excess": About(
        title="CLD beyond the truth's", better="zero", low=-1, high=1, formula="CLD(f(x)) - CLD(y)", source=_SOURCE
    ),
}  # fmt: skip
"""What is measured with pools of clips, and so not of the windows of one clip."""


def cld(
    distance: float,
    own: Iterable[float],
    target: Iterable[float],
    *,
    target_weight: float = TARGET_WEIGHT,
    own_weight: float = OWN_WEIGHT,
) -> float:
    """CLD of one edit from distances; 0 is best and 1 worst when the weights sum to 1.

    Args:
        distance: D = d(x, f(x)).
        own: S: distances from x to clips with x's own attributes, without x itself.
        target: S*: distances from x to clips with the counterfactual attributes.
        target_weight, own_weight: w1 and w2.

    Raises:
        ValueError: A pool is empty, or a distance is not a number.

    >>> cld(2.0, own=[1.0, 1.5], target=[3.0, 4.0])  # farther than one's like, nearer than any of the others
    0.0
    >>> round(cld(0.0, own=[1.0, 1.5], target=[3.0, 4.0]), 4)  # doing nothing
    0.2954
    """
    pools = [torch.as_tensor(list(one), dtype=torch.float64) for one in (own, target)]
    for name, one in zip(("own", "target"), pools, strict=True):
        if not len(one):
            raise ValueError(f"The pool `{name}` is empty. Render or collect clips with those attributes.")
    if not math.isfinite(distance) or not all(bool(one.isfinite().all()) for one in pools):
        raise ValueError("CLD needs finite distances. Leave out the clips in which no face was found.")
    not_nearer = float((pools[0] >= distance).double().mean())
    not_farther = float((pools[1] <= distance).double().mean())
    return math.log(target_weight * math.exp(not_farther) + own_weight * math.exp(not_nearer))


def clip_distance(one: Tensor, two: Tensor, *, distance: Distance | None = None) -> float:
    """D of two clips: the mean over frames of d.

    Args:
        one, two: Clips `(F, 3, H, W)` in 0..1, or embeddings `(F, D)`, one row a frame. A row of NaN (no face) is
            left out.
        distance: One number a frame. By default the mean absolute difference of pictures, the Euclidean distance of
            embeddings.

    >>> clip_distance(torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)), clip_distance(torch.eye(2), torch.zeros(2, 2))
    (1.0, 1.0)
    """
    if one.shape != two.shape:
        raise ValueError(f"Clips of a pool must be of one shape, got {tuple(one.shape)} and {tuple(two.shape)}.")
    if distance is None:
        distance = l1 if one.ndim == 4 else lambda a, b: (a - b).norm(dim=-1)
    return float(distance(one, two).nanmean())


def video_cld(
    factual: Tensor,
    edited: Tensor,
    own: Iterable[Tensor],
    target: Iterable[Tensor],
    *,
    truth: Tensor | None = None,
    distance: Distance | None = None,
) -> dict[str, float]:
    """CLD of a clip, and how far it is beyond the truth's.

    Args:
        factual, edited: Clips or embeddings as for `clip_distance`.
        own, target: Pools of the same shape: clips with the factual, with the counterfactual attributes; looked at
            once, one at a time (`metrics.rendered.pool` renders them).
        truth: The true counterfactual, where it is known.
        distance: As for `clip_distance`.

    Returns:
        `cld`, and with the truth `cld_excess`, whose ideal is 0.

    >>> x = torch.zeros(2, 3, 4, 4)
    >>> video_cld(x, x + 0.2, own=[x + 0.1], target=[x + 0.3], truth=x + 0.2)
    {'cld': 0.0, 'cld_excess': 0.0}
    """
    pools = [[clip_distance(factual, clip, distance=distance) for clip in pool] for pool in (own, target)]
    found = {"cld": cld(clip_distance(factual, edited, distance=distance), *pools)}
    if truth is not None:
        found["cld_excess"] = found["cld"] - cld(clip_distance(factual, truth, distance=distance), *pools)
    return found
