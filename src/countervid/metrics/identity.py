"""Identity over time and likeness: TL-ID, TG-ID and cosine to the source.

All functions take face embeddings, one row a frame, of any length: rows are normalised here. A frame
without a face is a row of NaN; pairs that touch it are left out (the reference aborts instead).
TL-ID and TG-ID come from STIT (arXiv:2201.08361, section 4); its authors published no code, so the form
is the mean of per-pair ratios, and the ratio of means is the other reading.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Reading = Literal["mean of ratios", "ratio of means"]
_BLOCK = 1024  # rows of the similarity matrix at a time: memory stays linear in the clip's length


def tl_id(source: Tensor, edited: Tensor, *, reading: Reading = "mean of ratios") -> float:
    """How steady identity is from frame to frame, relative to the source: 1 is as steady as the source.

    Mean over t of cos(e'_t, e'_t+1) / cos(e_t, e_t+1).

    Args:
        source, edited: Embeddings `(F, D)` of the two clips' frames; a row of NaN is a frame without a face.
        reading: Mean of the ratios (as the field computes it), or ratio of the means.

    Returns:
        The ratio, about 1; NaN when no two adjacent frames both show a face.

    >>> steady = torch.eye(4)[:1].repeat(3, 1)
    >>> tl_id(steady, steady)
    1.0
    """
    source, edited = _unit_pair(source, edited)
    before = (source[:-1] * source[1:]).sum(-1)
    after = (edited[:-1] * edited[1:]).sum(-1)
    known = before.isfinite() & after.isfinite()
    return _ratio(before[known], after[known], reading)


def tg_id(source: Tensor, edited: Tensor, *, reading: Reading = "mean of ratios") -> float:
    """How little identity drifts over the clip, relative to the source: 1 is as little as the source.

    Mean over t != u of cos(e'_t, e'_u) / cos(e_t, e_u). Arguments and NaN as `tl_id`.

    >>> steady = torch.eye(4)[:1].repeat(3, 1)
    >>> tg_id(steady, steady)
    1.0
    """
    source, edited = _unit_pair(source, edited)
    known = source.isfinite().all(-1) & edited.isfinite().all(-1)
    source, edited = source[known], edited[known]
    frames = len(source)
    if frames < 2:
        return float("nan")
    total_before = total_after = total_ratio = 0.0
    for start in range(0, frames, _BLOCK):
        rows = slice(start, min(start + _BLOCK, frames))
        before, after = source[rows] @ source.T, edited[rows] @ edited.T
        index = torch.arange(rows.start, rows.stop)
        other = torch.ones_like(before, dtype=torch.bool)
        other[torch.arange(len(index)), index] = False  # t = u says nothing
        total_before += float(before[other].sum())
        total_after += float(after[other].sum())
        total_ratio += float((after[other] / before[other]).sum())
    if reading == "ratio of means":
        return total_after / total_before
    return total_ratio / (frames * (frames - 1))


def likeness(source: Tensor, edited: Tensor) -> float:
    """How much the edited person looks like the source: mean cosine of the same frame's embeddings, -1..1.

    TL-ID and TG-ID measure steadiness, not likeness; this is the other half. Read it against how much the
    intervention itself may change a face.

    >>> likeness(torch.eye(3), torch.eye(3))
    1.0
    """
    source, edited = _unit_pair(source, edited)
    cosine = (source * edited).sum(-1)
    known = cosine.isfinite()
    return float(cosine[known].mean()) if bool(known.any()) else float("nan")


def weakest_similarity(source: Tensor) -> float:
    """The smallest absolute cosine between adjacent source frames; near 0 the ratios above explode."""
    unit = _unit(source)
    cosine = (unit[:-1] * unit[1:]).sum(-1).abs()
    known = cosine[cosine.isfinite()]
    return float(known.min()) if len(known) else float("nan")


def _ratio(before: Tensor, after: Tensor, reading: Reading) -> float:
    if not len(before):
        return float("nan")
    if reading == "ratio of means":
        return float(after.mean() / before.mean())
    return float((after / before).mean())


def _unit(embeddings: Tensor) -> Tensor:
    embeddings = embeddings.to(torch.float64)
    unit: Tensor = embeddings / embeddings.norm(dim=-1, keepdim=True)
    return unit


def _unit_pair(source: Tensor, edited: Tensor) -> tuple[Tensor, Tensor]:
    if source.ndim != 2 or source.shape != edited.shape:
        raise ValueError(
            f"`source` and `edited` must both be (F, D), got {tuple(source.shape)} and {tuple(edited.shape)}. "
            "Give one embedding a frame; a row of NaN for a frame without a face."
        )
    return _unit(source), _unit(edited)
