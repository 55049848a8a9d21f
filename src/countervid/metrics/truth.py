"""How near an edit is to the true counterfactual, where a world knows it.

Notation: x the factual clip, f(x) the edit, y the truth; e = f(x) - x and e* = y - x. M is the true effect
region: where e* exceeds 4 / 255 in some channel, grown by 2 px. Pictures are `(F, 3, H, W)`, 0..1.

`Truth` streams: feed it windows of any size, ask at the end. Sums run over all frames of a clip before a ratio is
taken, so a frame in which little should change cannot rule the number. `docs/truth.md` says how to read each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from countervid.metrics.base import CLIPS, About, Need, Window, register
from countervid.metrics.examiner import Examiner
from countervid.metrics.quality import ssim

THRESHOLD = 4 / 255  # below this a change cannot be seen
THRESHOLDS = (0, 1 / 255, 2 / 255, 4 / 255, 8 / 255, 16 / 255, 32 / 255)  # of the curve; see `over_thresholds`
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

    Args:
        threshold, grow: Of the effect region; see `effect_region`.

    >>> meter = Truth()
    >>> x, y = torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8)
    >>> meter.update(x, y / 2, y)
    >>> scores = meter.compute()
    >>> scores.strength, scores.direction, scores.hole
    (0.5, 1.0, 0.0)
    """

    def __init__(self, *, threshold: float = THRESHOLD, grow: int = GROWTH_PX) -> None:
        self._threshold, self._grow = threshold, grow
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
        region = effect_region(factual, truth, threshold=self._threshold, grow=self._grow)
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


class Skill:
    """`skill` with any distance: two numbers a frame in, 1 - sum d(f(x), y) / sum d(x, y) out.

    >>> meter = Skill()
    >>> meter.update(torch.tensor([0.1, 0.2]), torch.tensor([0.3, 0.3]))
    >>> round(meter.compute(), 6)
    0.5
    """

    def __init__(self) -> None:
        self._edited = self._factual = 0.0

    def update(self, edited: Tensor, factual: Tensor) -> None:
        """Add frames: distances to the truth of the edit and of the factual, `(f,)` each."""
        self._edited += float(edited.sum(dtype=torch.float64))
        self._factual += float(factual.sum(dtype=torch.float64))

    def compute(self) -> float:
        """The skill over all frames so far; NaN where the truth is the factual."""
        return 1 - _over(self._edited, self._factual)


def over_thresholds(
    factual: Tensor,
    edited: Tensor,
    truth: Tensor,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[float, TruthScores]:
    """The scores for effect regions of several thresholds.

    A hard threshold rewards timid edits: what changes by less than it is no part of the region. Look at the curve
    once; where strength and direction are flat around 4 / 255, the threshold decides nothing.

    Args:
        factual, edited, truth: Clips `(F, 3, H, W)`, 0..1.
        thresholds: The smallest changes that count, 0..1.

    Returns:
        Threshold -> scores. Skill and the errors do not depend on it.

    >>> x, y = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.1)
    >>> [scores.strength for scores in over_thresholds(x, y / 2, y, (0.05, 0.2)).values()]
    [0.5, nan]
    """
    curve = {}
    for threshold in thresholds:
        meter = Truth(threshold=threshold)
        meter.update(factual, edited, truth)
        curve[threshold] = meter.compute()
    return curve


_SOURCE = "Ours: possible where the true counterfactual can be rendered"
_SKILL = "1 perfect, 0 as good as doing nothing, negative harmful"
_ABOUT = {
    "skill": About(
        title=f"Skill: {_SKILL}", better="higher", high=1, formula="1 - |f(x) - y| / |x - y|", source=_SOURCE
    ),
    "edited_error": About(
        title="Mean absolute difference of edit and truth", better="lower", low=0, high=1, formula="|f(x) - y|",
        source=_SOURCE,
    ),
    "factual_error": About(
        title="Mean absolute difference that doing nothing leaves", better="neither", low=0, high=1, formula="|x - y|",
        source=_SOURCE,
    ),
    "strength": About(
        title="How much of the true change was made: 0 nothing, 1 right, above 1 overdone", better="one",
        formula="<e, e*> / <e*, e*> inside M, where |y - x| > 4/255", source=_SOURCE,
    ),
    "direction": About(
        title="Whether the change is the true one, however strong", better="higher", low=-1, high=1,
        formula="cos(e, e*) inside M", source=_SOURCE,
    ),
    "spill": About(
        title="Change outside the true effect region", better="zero", low=0,
        formula="sum of e^2 outside M / sum of e*^2", source=_SOURCE,
    ),
    "hole": About(
        title="Share of the true effect region that was left as it was", better="zero", low=0, high=1,
        formula="share of M with |e| < |e*| / 4", source=_SOURCE,
    ),
    "skill_ssim": About(
        title=f"Skill by structure: {_SKILL}", better="higher", high=1,
        formula="1 - d(f(x), y) / d(x, y), d = 1 - SSIM", source=_SOURCE,
    ),
}  # fmt: skip
_EXAMINER = "examiner (bundled, Apache-2.0)"


class _Against:
    """The scores and the skill by structure of one part of the picture."""

    def __init__(self) -> None:
        self._scores, self._structure = Truth(), Skill()

    def look(self, clips: Mapping[str, Tensor]) -> None:
        factual, edited, truth = (clips[name] for name in CLIPS)
        self._scores.update(factual, edited, truth)
        self._structure.update(1 - ssim(edited, truth), 1 - ssim(factual, truth))

    def said(self, prefix: str) -> dict[str, float]:
        found = asdict(self._scores.compute()) | {"skill_ssim": self._structure.compute()}
        return {prefix + name: value for name, value in found.items()}


@register
class TruthOfFrames(_Against):
    """All of it on whole frames, as `truth.frame.*`."""

    about: ClassVar[Mapping[str, About]] = {f"truth.frame.{name}": about for name, about in _ABOUT.items()}
    needs: ClassVar[frozenset[Need]] = frozenset({"truth"})

    def update(self, window: Window) -> None:
        self.look(window.frames)

    def compute(self) -> Mapping[str, float]:
        return self.said("truth.frame.")


@register
class TruthOfFaces(_Against):
    """All of it on the face's square, as `truth.*`, and the skill by what the examiner sees."""

    about: ClassVar[Mapping[str, About]] = {f"truth.{name}": about for name, about in _ABOUT.items()} | {
        "truth.skill_features": About(
            title=f"Skill by what the examiner sees: {_SKILL}", better="higher", high=1,
            formula="1 - d(f(x), y) / d(x, y), d = Euclidean distance of the examiner's last features",
            source=_SOURCE, weights=_EXAMINER,
        )
    }  # fmt: skip
    needs: ClassVar[frozenset[Need]] = frozenset({"truth", "face"})

    def __init__(self) -> None:
        super().__init__()
        self._features = Skill()

    def update(self, window: Window) -> None:
        if not window.faces or not len(window.faces["truth"]):
            return
        self.look(window.faces)
        factual, edited, truth = (examiner_features(window, name) for name in CLIPS)
        self._features.update((edited - truth).norm(dim=1), (factual - truth).norm(dim=1))

    def compute(self) -> Mapping[str, float]:
        return self.said("truth.") | {"truth.skill_features": self._features.compute()}


def examiner_features(window: Window, clip: str) -> Tensor:
    """What the examiner's answers are drawn from, `(n, D)`: one row a face crop of that clip."""

    def look() -> Tensor:
        examiner = window.eyes.get("examiner", Examiner.from_folder)
        features: Tensor = examiner.trunk(window.faces[clip].to(window.eyes.device) * 2 - 1)
        return features

    found: Tensor = window.once("examiner.features", clip, look)
    return found


def _over(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else float("nan")
