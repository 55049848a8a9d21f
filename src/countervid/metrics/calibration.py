"""What a judge's answers are worth: its own ceiling, its confidence, its habits, and answers corrected for them.

A judge that is wrong on the true counterfactual cannot be right about an edit. Where truths are known, its accuracy on
them is the ceiling that accuracy on edits is read against; and its confusion matrix, measured there, corrects what it
says of clips whose truth nobody knows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


def balanced_accuracy(true: Sequence[str], said: Sequence[str | None]) -> float:
    """Mean over the values that occur of how often each is recognised: a constant answer earns no more than chance.

    Args:
        true, said: One value each; None, no answer, is wrong.

    Returns:
        0..1; NaN where nothing was asked.

    >>> balanced_accuracy(["yes", "no", "no", "no"], ["no", "no", "no", "no"])
    0.5
    """
    _same_length(true, said)
    recalls = []
    for value in dict.fromkeys(true):
        of_it = [answer == value for one, answer in zip(true, said, strict=True) if one == value]
        recalls.append(sum(of_it) / len(of_it))
    return sum(recalls) / len(recalls) if recalls else math.nan


def calibration_error(confidence: Sequence[float], correct: Sequence[bool], *, bins: int = 15) -> float:
    """Expected calibration error: how far a judge's confidence is from how often it is right.

    Sum over bins of confidence of n_b / n * |accuracy_b - mean confidence_b| (Guo et al. 2017, eq. 3 of
    arXiv:1706.04599); bins of equal width, open below.

    Args:
        confidence: Of each answer, 0..1.
        correct: Whether it was right.
        bins: How many.

    Returns:
        0 (calibrated) to 1; NaN without answers.

    >>> round(calibration_error([0.8] * 5, [True, True, True, True, False]), 6)
    0.0
    """
    _same_length(confidence, correct)
    sure, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if not len(sure):
        return math.nan
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, right - sure, minlength=bins)
    return float(np.abs(gaps).sum() / len(sure))


def calibrated(accuracy: float, ceiling: float) -> float:
    """Accuracy on edits over accuracy on the truth, of the same questions: 1 is as good as the truth itself.

    NaN where the judge reads nothing right off the truth.

    >>> calibrated(0.5, 0.8)
    0.625
    """
    return accuracy / ceiling if ceiling > 0 else math.nan


def confusion(true: Sequence[str], said: Sequence[str], values: Sequence[str]) -> npt.NDArray[np.int64]:
    """How often each value was read as each: `(values, values)`, rows said, columns true.

    >>> confusion(["a", "a", "b"], ["a", "b", "b"], ["a", "b"])
    array([[1, 0],
           [1, 1]])
    """
    _same_length(true, said)
    counts = np.zeros((len(values), len(values)), np.int64)
    for one, answer in zip(true, said, strict=True):
        counts[values.index(answer), values.index(one)] += 1
    return counts


@dataclass(frozen=True)
class Corrected:
    """Shares of each value, corrected for the judge's confusions; 0..1."""

    share: Float  # (values,)
    low: Float  # the interval's ends
    high: Float


def corrected_shares(
    seen: Sequence[int], counts: npt.NDArray[np.int64], *, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> Corrected:
    """How often each value is truly there, from how often a judge with known confusions says so.

    p_true = C^-1 p_seen, C[i, j] the probability of saying i of a true j (Rogan and Gladen 1978 for two values,
    doi:10.1093/oxfordjournals.aje.a112510); brought back to shares where noise drives it out of 0..1. The interval
    takes both samples for what they are: p_seen and the columns of C are redrawn from their posteriors under a flat
    prior, so it is wider the more the judge confuses and the less that was measured.

    Args:
        seen: How often each value was said of the clips in question, `(values,)`.
        counts: What it said of known truths, as `confusion` gives it.
        level: Of the interval.
        draws, seed: How the interval is drawn.

    Returns:
        Shares in the order of the values. NaN where the judge cannot tell values apart (C has no inverse).

    >>> corrected_shares([60, 40], np.array([[80, 10], [20, 90]])).share.round(3).tolist()
    [0.714, 0.286]
    """
    said, table = np.asarray(seen, np.float64), np.asarray(counts, np.float64)
    if table.shape != (len(said), len(said)):
        raise ValueError(f"`counts` must be ({len(said)}, {len(said)}), a row and a column a value, got {table.shape}.")
    unknown = np.full(len(said), math.nan)
    if not said.sum() or not table.sum(0).all() or np.linalg.cond(table / table.sum(0)) > 1e6:
        return Corrected(unknown, unknown, unknown)
    rng = np.random.default_rng(seed)
    drawn_seen = rng.dirichlet(said + 1, draws)
    columns = [rng.dirichlet(column + 1, draws) for column in table.T]
    drawn_true = _solved(np.stack(columns, axis=2), drawn_seen)
    low, high = np.quantile(drawn_true, [(1 - level) / 2, (1 + level) / 2], axis=0)
    share = _solved((table / table.sum(0))[None], (said / said.sum())[None])[0]
    return Corrected(share, np.minimum(low, share), np.maximum(high, share))


def _solved(confusions: Float, seen: Float) -> Float:
    """C^-1 p for each draw, cut to 0..1 and made to sum to 1; draws of `(n, K, K)` and `(n, K)`."""
    found = np.clip(np.linalg.solve(confusions, seen[..., None])[..., 0], 0.0, 1.0)
    return np.asarray(found / found.sum(1, keepdims=True))


def _same_length(one: Sequence[object], two: Sequence[object]) -> None:
    if len(one) != len(two):
        raise ValueError(f"Both sequences must be of one length, got {len(one)} and {len(two)}.")
