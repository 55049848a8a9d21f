"""Identity over time and likeness: TL-ID, TG-ID and cosine to the source.

All functions take face embeddings, one row a frame, of any length: rows are normalised here. A frame
without a face is a row of NaN; pairs that touch it are left out (the reference aborts instead).
TL-ID and TG-ID come from STIT (arXiv:2201.08361, section 4); its authors published no code, so the form
is the mean of per-pair ratios, and the ratio of means is the other reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from countervid.autoencoder.identity import IdentityNet
from countervid.metrics.base import About, Need, Window, register

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


_WEIGHTS = "`identity`, bundled (Apache-2.0); it has only seen the phantom world's faces"
_ID_SOURCE = "STIT (arXiv:2201.08361), section 4; used by DVA (arXiv:2212.02802)"


def faces(window: Window, clip: str) -> Tensor:
    """Identity vectors of a window's face crops, one row a frame `(len(window), 128)`; NaN where no face was found.

    Raises:
        ModelError: The identity encoder's weights are missing or damaged.
    """

    def look() -> Tensor:
        network = window.eyes.get("identity", IdentityNet.from_folder)
        crops = window.faces[clip].to(window.eyes.device)
        if not len(crops):
            return torch.full((len(window), network.config.dimensions), torch.nan)
        return window.every(network(crops * 2 - 1).cpu())

    rows: Tensor = window.once("identity", clip, look)
    return rows


class _Faces:
    """Keeps every frame's identity vector of some clips: 512 bytes a frame and clip."""

    clips: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        self._rows: dict[str, list[Tensor]] = {clip: [] for clip in self.clips}

    def update(self, window: Window) -> None:
        for clip, rows in self._rows.items():
            rows.append(faces(window, clip))

    def _all(self) -> tuple[Tensor, ...]:
        return tuple(torch.cat(rows) if rows else torch.zeros(0, 1) for rows in self._rows.values())


@register
class Identity(_Faces):
    """How steady the edited face is over time, and how much it is still the source's."""

    clips = ("factual", "counterfactual")
    needs: ClassVar[frozenset[Need]] = frozenset({"face"})
    about: ClassVar[Mapping[str, About]] = {
        "identity.tl_id": About(
            title="TL-ID", better="one", formula="mean over t of cos(e'_t, e'_t+1) / cos(e_t, e_t+1)",
            source=_ID_SOURCE, weights=_WEIGHTS,
        ),
        "identity.tg_id": About(
            title="TG-ID", better="one", formula="mean over t != u of cos(e'_t, e'_u) / cos(e_t, e_u)",
            source=_ID_SOURCE, weights=_WEIGHTS,
        ),
        "identity.likeness": About(
            title="Likeness to the source", better="neither", low=-1, high=1, formula="mean over t of cos(e_t, e'_t)",
            source="ours: read it against identity.likeness_of_truth", weights=_WEIGHTS,
        ),
        "identity.weakest": About(
            title="Weakest likeness of adjacent source frames", better="neither", low=0, high=1,
            formula="min over t of |cos(e_t, e_t+1)|; near 0, TL-ID and TG-ID explode", source="ours", weights=_WEIGHTS,
        ),
        "identity.faceless": About(
            title="Frames without a face", better="zero", low=0, high=1,
            formula="share of frames in which no face was found; the other numbers leave them out", source="ours",
            weights=_WEIGHTS,
        ),
    }  # fmt: skip

    undefined: ClassVar[Mapping[str, str]] = {
        "identity.tl_id": "no two adjacent frames both show a face",
        "identity.tg_id": "fewer than two frames show a face",
        "identity.likeness": "no frame shows a face",
        "identity.weakest": "no two adjacent frames both show a face",
    }

    def compute(self) -> Mapping[str, float]:
        before, after = self._all()
        missing = before.isnan().any(-1) | after.isnan().any(-1)
        return {
            "identity.tl_id": tl_id(before, after),
            "identity.tg_id": tg_id(before, after),
            "identity.likeness": likeness(before, after),
            "identity.weakest": weakest_similarity(before),
            "identity.faceless": float(missing.double().mean()),
        }


@register
class IdentityAndTruth(_Faces):
    """The same person as in the truth? And how much the intervention itself moves who somebody seems to be."""

    clips = ("factual", "counterfactual", "truth")
    needs: ClassVar[frozenset[Need]] = frozenset({"face", "truth"})
    about: ClassVar[Mapping[str, About]] = {
        "identity.likeness_to_truth": About(
            title="Likeness to the truth", better="higher", low=-1, high=1, formula="mean over t of cos(e'_t, e*_t)",
            source="ours", weights=_WEIGHTS,
        ),
        "identity.likeness_of_truth": About(
            title="Likeness of the truth to the source", better="neither", low=-1, high=1,
            formula="mean over t of cos(e_t, e*_t): what the intervention itself leaves", source="ours",
            weights=_WEIGHTS,
        ),
    }  # fmt: skip

    def compute(self) -> Mapping[str, float]:
        before, after, true = self._all()
        return {
            "identity.likeness_to_truth": likeness(true, after),
            "identity.likeness_of_truth": likeness(true, before),
        }
