"""How near an edit is to the true counterfactual, where a world knows it.

Notation: x the factual clip, f(x) the edit, y the truth; e = f(x) - x and e* = y - x. M is the true effect
region: where e* exceeds 4 / 255 in some channel, grown by 2 px. Pictures are `(F, 3, H, W)`, 0..1.

`Truth` streams: feed it windows of any size, ask at the end. Every number is of the clip as a whole, or the
mean over its frames, as said beside each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

THRESHOLD = 4 / 255  # below this a change cannot be seen
GROWTH_PX = 2  # resampling and rounding bleed about this far


@dataclass(frozen=True, kw_only=True)
class TruthScores:
    """What `Truth` says of one clip. Each is NaN where the truth changes nothing."""

    skill: float  # 1 - d(f(x), y) / d(x, y): 1 perfect, 0 as good as doing nothing, negative harmful
    edited_error: float  # d(f(x), y): mean absolute difference, 0..1
    factual_error: float  # d(x, y): what doing nothing would leave
    strength: float  # <e, e*> / <e*, e*> inside M: 0 nothing done, 1 right, above 1 overdone
    direction: float  # cosine of e and e* inside M: 1 right, 0 unrelated, -1 opposite
    spill: float  # sum of e^2 outside M over sum of e*^2: 0 nothing moved that should not
    hole: float  # share of M that changed by less than a quarter of what it should


def effect_region(factual: Tensor, truth: Tensor, *, threshold: float = THRESHOLD, grow: int = GROWTH_PX) -> Tensor:
    """Where the true counterfactual differs: `(F, 1, H, W)` bool.

    Args:
        factual, truth: `(F, 3, H, W)`, 0..1.
        threshold: The smallest change that counts, 0..1.
        grow: How many pixels the region is dilated by.

    >>> bool(effect_region(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)).any())
    False
    """
    changed = ((truth - factual).abs().amax(dim=1, keepdim=True) > threshold).to(torch.float32)
    if grow:
        changed = functional.max_pool2d(changed, 2 * grow + 1, stride=1, padding=grow)
    return changed > 0.5


def skill(factual: Tensor, edited: Tensor, truth: Tensor) -> float:
    """1 - d(edited, truth) / d(factual, truth), d the mean absolute difference over the whole clip.

    1 is perfect, 0 as good as doing nothing, negative worse than that; NaN when the truth is the factual.

    >>> x, y = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)
    >>> skill(x, y, y), skill(x, x, y), skill(x, y / 2, y)
    (1.0, 0.0, 0.5)
    """
    meter = Truth()
    meter.update(factual, edited, truth)
    return meter.compute().skill


class Truth:
    """Accumulates the sums behind `TruthScores`, a window of frames at a time.

    >>> meter = Truth()
    >>> x, y = torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8)
    >>> meter.update(x, y / 2, y)
    >>> scores = meter.compute()
    >>> scores.strength, scores.direction, scores.hole
    (0.5, 1.0, 0.0)
    """

    def __init__(self) -> None:
        self._pixels = self._edited = self._factual = 0.0
        self._cross = self._true_power = self._edit_power = 0.0
        self._spilt = self._all_true_power = self._region = self._empty = 0.0

    def update(self, factual: Tensor, edited: Tensor, truth: Tensor) -> None:
        """Add frames: three tensors `(f, 3, H, W)`, 0..1, of one shape."""
        if not factual.ndim == 4 or not factual.shape == edited.shape == truth.shape:
            raise ValueError(
                f"The three clips must be (F, 3, H, W) of one shape, got {tuple(factual.shape)}, "
                f"{tuple(edited.shape)}, {tuple(truth.shape)}. Cut them to the same frames and size first."
            )
        factual, edited, truth = (clip.to(torch.float64) for clip in (factual, edited, truth))
        edit, true_edit = edited - factual, truth - factual
        region = effect_region(factual, truth)
        self._pixels += factual.numel()
        self._edited += float((edited - truth).abs().sum())
        self._factual += float(true_edit.abs().sum())
        self._cross += float((edit * true_edit * region).sum())
        self._true_power += float((true_edit.square() * region).sum())
        self._edit_power += float((edit.square() * region).sum())
        self._spilt += float((edit.square() * ~region).sum())
        self._all_true_power += float(true_edit.square().sum())
        small = edit.norm(dim=1, keepdim=True) < true_edit.norm(dim=1, keepdim=True) / 4
        self._region += float(region.sum())
        self._empty += float((small & region).sum())

    def compute(self) -> TruthScores:
        """The scores of all frames so far."""
        return TruthScores(
            skill=1 - _over(self._edited, self._factual),
            edited_error=_over(self._edited, self._pixels),
            factual_error=_over(self._factual, self._pixels),
            strength=_over(self._cross, self._true_power),
            direction=_over(self._cross, (self._true_power * self._edit_power) ** 0.5),
            spill=_over(self._spilt, self._all_true_power),
            hole=_over(self._empty, self._region),
        )


def _over(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else float("nan")
