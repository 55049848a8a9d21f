"""Steadiness over time, by what a network sees of each frame: CLIP and DINO temporal consistency (V2VBench, CSVC).

Functions take one embedding a frame, of any length; a row of NaN is a frame of which nothing was seen, and pairs that
touch it are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from countervid.metrics import vision
from countervid.metrics.base import About, Need, Window, register
from countervid.metrics.published import PUBLISHED

_FORMULA = "mean over t of max(0, cos(f_t, f_t+1))"


def consistency(embeddings: Tensor) -> float:
    """How alike adjacent frames look: mean over t of max(0, cos(f_t, f_t+1)), 0..1; NaN without a known pair.

    V2VBench's CLIP and DINO consistency. A clip that stands still has 1, whatever it shows.

    Args:
        embeddings: `(F, D)`, in time order, of any length each.

    >>> consistency(torch.tensor([[1.0, 0.0], [1.0, 1.0], [-1.0, 0.0]]))  # 45 degrees, then 135: clamped to 0
    0.35355339059327373
    """
    meter = Consistency()
    meter.update(embeddings)
    return meter.mean


class Consistency:
    """The same, fed a window at a time; pairs across windows count."""

    def __init__(self) -> None:
        self._last: Tensor | None = None
        self._sum = 0.0
        self._pairs = 0
        self.lowest = float("nan")

    def update(self, embeddings: Tensor) -> None:
        """Add the next frames' embeddings, `(f, D)`."""
        if embeddings.ndim != 2:
            raise ValueError(f"`embeddings` must be (F, D), got {tuple(embeddings.shape)}. Give one row a frame.")
        rows = unit(embeddings)
        if self._last is not None:
            rows = torch.cat([self._last, rows])
        self._last = rows[-1:]
        cosine = (rows[:-1] * rows[1:]).sum(-1)
        known = cosine[cosine.isfinite()].clamp_min(0)
        if len(known):
            self._sum += float(known.sum())
            self._pairs += len(known)
            self.lowest = min(float(known.min()), self.lowest) if self._pairs > len(known) else float(known.min())

    @property
    def mean(self) -> float:
        """Of all pairs so far."""
        return self._sum / self._pairs if self._pairs else float("nan")


def unit(rows: Tensor) -> Tensor:
    """Rows of length 1, in double precision.

    >>> unit(torch.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]], dtype=torch.float64)
    """
    rows = rows.to(torch.float64)
    scaled: Tensor = rows / rows.norm(dim=-1, keepdim=True)
    return scaled


_CLIP_WEIGHTS = f"bundled miniature on face crops; {PUBLISHED['clip'].terms('clip')}, on whole frames"


class _OfClip:
    needs: ClassVar[frozenset[Need]] = frozenset()
    about: ClassVar[Mapping[str, About]]
    preprocessing: ClassVar[vision.Preprocessing]

    def __init__(self) -> None:
        self._meter = Consistency()

    def update(self, window: Window) -> None:
        self._meter.update(vision.pooled(window, "counterfactual", self.preprocessing))

    def compute(self) -> Mapping[str, float]:
        return dict.fromkeys(self.about, self._meter.mean)


@register
class ClipConsistency(_OfClip):
    """CLIP's pooled output (before the projection) of pictures prepared as the model's own processor does."""

    preprocessing = "own"
    about = {
        "clip.consistency": About(
            title="CLIP temporal consistency", better="higher", low=0, high=1, formula=_FORMULA,
            source="V2VBench, clip_consistency", weights=_CLIP_WEIGHTS,
        )
    }  # fmt: skip


@register
class ClipConsistencyOfCsvc(_OfClip):
    """The same of pictures as CSVC feeds them: about 0.98 where the other says 0.94. Not comparable."""

    preprocessing = "csvc"
    about = {
        "clip.consistency_csvc": About(
            title="CLIP temporal consistency, CSVC's preprocessing", better="higher", low=0, high=1, formula=_FORMULA,
            source="CSVC (arXiv:2506.14404), its code: bilinear to the model's size, not normalised",
            weights=_CLIP_WEIGHTS,
        )
    }  # fmt: skip


@register
class DinoConsistency:
    """The same formula on DINOv2's class token."""

    needs: ClassVar[frozenset[Need]] = frozenset()
    about: ClassVar[Mapping[str, About]] = {
        "dino.consistency": About(
            title="DINO temporal consistency", better="higher", low=0, high=1, formula=_FORMULA,
            source="V2VBench, dino_consistency", weights=PUBLISHED["dino"].terms("dino"),
        )
    }  # fmt: skip

    def __init__(self) -> None:
        self._meter = Consistency()

    def update(self, window: Window) -> None:
        self._meter.update(vision.dino(window, "counterfactual", "dino.consistency"))

    def compute(self) -> Mapping[str, float]:
        return {"dino.consistency": self._meter.mean}
