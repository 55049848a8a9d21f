"""Effectiveness: whether the attributes of the result are those that were asked for, as the examiner reads them.

The examiner gives every face crop one distribution a variable. Over a clip the frames vote with the mean of their
log-probabilities; frame by frame, the probability of the value asked for is the attribute's track, which should
neither blink nor wander from the track of the true counterfactual.

The axiom is Monteiro et al. (ICLR 2023): d(a*_k, predictor_k(f(x))) for every variable k; here d is 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from countervid.metrics.base import About, Asked, Need, Window, register
from countervid.metrics.examiner import Examiner
from countervid.phantom.scm import DOMAINS

WEIGHTS = "`examiner`, bundled (Apache-2.0)"


def track(probabilities: Tensor, wanted: int) -> Tensor:
    """How probable the value asked for is in each frame, `(F,)`, 0..1.

    Args:
        probabilities: `(F, values)` of one variable.
        wanted: The place of the value asked for.

    >>> track(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), 1)
    tensor([0.1000, 0.8000])
    """
    return probabilities[:, wanted]


def blink(q: Tensor) -> float:
    """How much an attribute comes and goes: the standard deviation of its track over time.

    Args:
        q: `(F,)`, 0..1.

    Returns:
        0 where it is the same in every frame, at most 0.5; NaN without frames.

    >>> blink(torch.tensor([0.0, 1.0, 0.0, 1.0])), blink(torch.tensor([0.7, 0.7]))
    (0.5, 0.0)
    """
    return float(q.double().std(correction=0)) if len(q) else math.nan


def track_error(q: Tensor, q_true: Tensor) -> float:
    """How far an attribute's track is from that of the true counterfactual: mean over t of |q_t(f(x)) - q_t(y*)|.

    Args:
        q, q_true: `(F,)`, 0..1, of the same frames.

    Returns:
        0..1; NaN without frames.

    >>> track_error(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 1.0]))
    0.25
    """
    if q.shape != q_true.shape:
        raise ValueError(f"Both tracks must be of the same frames, got {tuple(q.shape)} and {tuple(q_true.shape)}.")
    return float((q.double() - q_true.double()).abs().mean()) if len(q) else math.nan


def share_right(said: Mapping[str, str], wanted: Mapping[str, str]) -> float:
    """The share of the wanted attributes that were read so, 0..1; NaN where none of them was read.

    >>> share_right({"age": "old", "beard": "no"}, {"age": "old", "beard": "yes", "hat": "no"})
    0.5
    """
    right = [said[name] == value for name, value in wanted.items() if name in said]
    return sum(right) / len(right) if right else math.nan


def share_gained(before: Mapping[str, str], after: Mapping[str, str], wanted: Mapping[str, str]) -> float:
    """The share of the wanted attributes that were not read so before and are afterwards, 0..1.

    What the reader took for so before cannot be seen to change: it counts as not gained. NaN where none of the wanted
    attributes was read both times.

    >>> share_gained({"age": "young", "beard": "yes"}, {"age": "old", "beard": "yes"}, {"age": "old", "beard": "yes"})
    0.5
    """
    gained = [
        after[name] == value != before[name] for name, value in wanted.items() if name in before and name in after
    ]
    return sum(gained) / len(gained) if gained else math.nan


def examined(window: Window, clip: str) -> dict[str, Tensor]:
    """What the examiner says of each face crop of the window: variable -> log-probabilities `(n, values)`, on the CPU.

    Computed once a window and clip, whoever asks.

    Raises:
        ModelError: The examiner's weights are missing or damaged.
    """

    def look() -> dict[str, Tensor]:
        said = examiner_of(window)(window.faces[clip] * 2 - 1)
        return {name: values.cpu() for name, values in said.items()}

    found: dict[str, Tensor] = window.once("examiner", clip, look)
    return found


def examiner_of(window: Window) -> Examiner:
    """The examiner that a window's eyes have."""
    found: Examiner = window.eyes.get("examiner", Examiner.from_folder)
    return found


class Votes:
    """What the examiner reads off one clip: every frame votes with its log-probabilities, as in `Examiner.read`."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._frames = 0
        self._domains: Mapping[str, tuple[str, ...]] = {}

    def update(self, window: Window, clip: str) -> None:
        """Add the window's face crops of that clip; there may be none."""
        if not len(window.faces.get(clip, ())):
            return
        self._domains = examiner_of(window).domains
        for name, said in examined(window, clip).items():
            self._sums[name] = self._sums.get(name, torch.zeros(said.shape[1])) + said.sum(0)
        self._frames += len(window.faces[clip])

    def shares(self) -> dict[str, dict[str, float]]:
        """Variable -> value -> its probability after the vote; empty where no face was seen."""
        found = {}
        for name, votes in self._sums.items():
            shares = (votes / self._frames).softmax(0).tolist()
            found[name] = dict(zip(self._domains[name], shares, strict=True))
        return found

    def reading(self) -> dict[str, dict[str, Any]]:
        """Variable -> `value`, the likeliest, and `confidence`, its probability."""
        found = {}
        for name, shares in self.shares().items():
            best = max(shares, key=shares.__getitem__)
            found[name] = {"value": best, "confidence": shares[best]}
        return found

    def values(self) -> dict[str, str]:
        """Variable -> the likeliest value."""
        return {name: said["value"] for name, said in self.reading().items()}


def _about(title: str, formula: str, **more: Any) -> About:
    source = more.pop("source", "effectiveness axiom, Monteiro et al. (ICLR 2023)")
    given = {"better": "higher", "low": 0.0, "high": 1.0, **more}
    return About(title=title, formula=formula, source=source, weights=WEIGHTS, **given)


_TRACKS = "attribute tracks, this package"
_GAINED = "this package; the same reader before and after"
_NOTHING_CHANGES = "nothing was asked to change"
_NOTHING_STAYS = "nothing was asked to stay"


@register
class Effectiveness:
    """The examiner's answers about the result, held against what was asked for."""

    about: ClassVar[Mapping[str, About]] = {
        "effectiveness.target": _about("Intervened attributes read as asked", "share over do of [read_k(f(x)) = a*_k]"),
        "effectiveness.changed": _about(
            "Attributes that must change, and do", "share over a*_k != a_k of [read_k(f(x)) = a*_k]"
        ),
        "effectiveness.target_gained": _about(
            "Intervened attributes read as asked, and not so before",
            "share over do of [read_k(f(x)) = a*_k != read_k(x)]",
            source=_GAINED,
        ),
        "effectiveness.gained": _about(
            "Attributes that must change: read so afterwards, and not before",
            "share over a*_k != a_k of [read_k(f(x)) = a*_k != read_k(x)]",
            source=_GAINED,
        ),
        "effectiveness.kept": _about(
            "Attributes that must stay, and do", "share over a*_k = a_k of [read_k(f(x)) = a*_k]"
        ),
        "effectiveness.confidence": _about(
            "Probability of the intervened values, by vote", "mean over do of softmax(mean_t log p_t)_k [a*_k]"
        ),
        **{
            f"effectiveness.{name}": _about(
                f"{name.replace('_', ' ').capitalize()} read as it should be",
                f"[read(f(x)) = a*] of {name}: 1 right, 0 wrong",
            )
            for name in DOMAINS
        },
        "effectiveness.blink": _about(
            "How much the intervened attributes come and go",
            "mean over do of std_t q_t(f(x)), q_t the probability of a* in frame t",
            better="lower", high=0.5, source=_TRACKS,
        ),
        "effectiveness.track_error": _about(
            "Distance of the attribute's track to the true one",
            "mean over do and t of |q_t(f(x)) - q_t(y*)|",
            better="lower", source=_TRACKS,
        ),
        "effectiveness.ceiling": _about(
            "Attributes that must change, as read off the truth",
            "share over a*_k != a_k of [read_k(y*) = a*_k]; divide `effectiveness.changed` by it, over many clips",
            better="neither",
        ),
        "effectiveness.ceiling_gained": _about(
            "Attributes that must change, as read off the truth and not off the source",
            "share over a*_k != a_k of [read_k(y*) = a*_k != read_k(x)]; divide `effectiveness.gained` by it",
            better="neither", source=_GAINED,
        ),
        "effectiveness.ceiling_kept": _about(
            "Attributes that must stay, as read off the truth",
            "share over a*_k = a_k of [read_k(y*) = a*_k]",
            better="neither",
        ),
    }  # fmt: skip
    needs: ClassVar[frozenset[Need]] = frozenset({"face", "attributes"})
    undefined: ClassVar[Mapping[str, str]] = {  # why a number is not defined, for whoever reads it
        "effectiveness.changed": _NOTHING_CHANGES,
        "effectiveness.ceiling": _NOTHING_CHANGES,
        "effectiveness.gained": _NOTHING_CHANGES,
        "effectiveness.ceiling_gained": _NOTHING_CHANGES,
        "effectiveness.kept": _NOTHING_STAYS,
        "effectiveness.ceiling_kept": _NOTHING_STAYS,
        **dict.fromkeys(
            (
                "effectiveness.target",
                "effectiveness.target_gained",
                "effectiveness.confidence",
                "effectiveness.blink",
                "effectiveness.track_error",
            ),
            "the examiner does not know the attribute",
        ),
    }

    def __init__(self) -> None:
        self._before, self._after, self._true = Votes(), Votes(), Votes()
        self._tracks: dict[str, dict[str, list[Tensor]]] = {"counterfactual": {}, "truth": {}}
        self._asked: Asked | None = None

    def update(self, window: Window) -> None:
        self._asked = window.asked
        self._before.update(window, "factual")
        self._after.update(window, "counterfactual")
        clips = ["counterfactual"]
        if "truth" in window.frames:
            self._true.update(window, "truth")
            clips.append("truth")
        if not window.faces or window.asked is None:
            return
        domains = examiner_of(window).domains
        for name, value in window.asked.do.items():
            if value in domains.get(name, ()):
                for clip in clips:
                    said = examined(window, clip)[name].exp()
                    self._tracks[clip].setdefault(name, []).append(track(said, domains[name].index(value)))

    def compute(self) -> dict[str, float]:
        asked = self._asked
        if asked is None:
            return {}
        wanted = {**asked.do, **asked.counterfactual}
        before, shares, said = self._before.values(), self._after.shares(), self._after.values()
        q = {name: torch.cat(parts) for name, parts in self._tracks["counterfactual"].items()}
        found = {
            "target": share_right(said, asked.do),
            "changed": share_right(said, asked.changed),
            "target_gained": share_gained(before, said, asked.do),
            "gained": share_gained(before, said, asked.changed),
            "kept": share_right(said, asked.kept),
            "confidence": _mean(
                [shares[name][value] for name, value in asked.do.items() if value in shares.get(name, ())]
            ),
            **{name: float(said[name] == wanted[name]) for name in DOMAINS if name in said and name in wanted},
            "blink": _mean([blink(values) for values in q.values()]),
        }
        true = self._true.values()
        if true:
            q_true = {name: torch.cat(parts) for name, parts in self._tracks["truth"].items()}
            found["track_error"] = _mean([track_error(values, q_true[name]) for name, values in q.items()])
            found["ceiling"] = share_right(true, asked.changed)
            found["ceiling_gained"] = share_gained(before, true, asked.changed)
            found["ceiling_kept"] = share_right(true, asked.kept)
        return {f"effectiveness.{name}": value for name, value in found.items()}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
