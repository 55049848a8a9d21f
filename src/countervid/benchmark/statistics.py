"""How sure a mean, a difference or a rank correlation is: the bootstrap over clips, and Holm's correction.

Jobs of one clip are not independent: the same face, drawn by many editors. So clips are what is drawn again, each with
all its jobs (the cluster bootstrap; Davison and Hinkley 1997, 3.8). Benchmarks have few clips, and with few the plain
percentile method is too sure of itself: with 8 clips, "95 %" covers about 89 %, and "p below 0.05" comes up by chance
in 11 % of comparisons. Two corrections mend that, and fade as clips are added:

- Intervals take percentiles further out, by the ratio of Student's quantile to the normal one and by sqrt(n / (n - 1))
  (the expanded percentile interval; Hesterberg 2015, doi:10.1080/00031305.2015.1089789).
- p-values come from the studentised bootstrap (Efron and Tibshirani 1993, 16.4): how often |difference / its error| is
  by chance as large as it was found.

Everything is a pure function of numbers, `draws` and `seed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

DRAWS = 10_000
LEVEL = 0.95
_BLOCK = 1_000_000  # numbers an array while ranks are drawn: 8 MB


class Estimate(NamedTuple):
    """A number and its interval; NaN where there is nothing to estimate, or a single clip to draw from."""

    mean: float
    low: float
    high: float


class Difference(NamedTuple):
    """By how much one thing exceeds another, over what both were measured on."""

    mean: float
    low: float
    high: float
    p: float  # two-sided: that chance alone makes so large a difference
    pairs: int
    clips: int


NOTHING = Estimate(np.nan, np.nan, np.nan)


def bootstrap(scores: Mapping[str, Sequence[float]], *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """The mean of all scores, and its interval over clips.

    Args:
        scores: Clip -> its scores, any number a clip; NaN is left out.
        draws: How often clips are drawn again.
        seed: Of the drawing.

    >>> bootstrap({"a": [1.0], "b": [1.0, 1.0]})
    Estimate(mean=1.0, low=1.0, high=1.0)
    """
    sums, counts = _sums(scores)
    if not len(sums):
        return NOTHING
    drawn = _times(len(sums), draws, seed)
    return Estimate(float(sums.sum() / counts.sum()), *interval((drawn @ sums) / (drawn @ counts), len(sums)))


def paired(
    ours: Mapping[tuple[Any, ...], float],
    baseline: Mapping[tuple[Any, ...], float],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Difference:
    """The mean of `ours - baseline` over the cases that both have, its interval, and a two-sided p-value.

    Args:
        ours, baseline: Case -> score. A case is a tuple that begins with its clip: `(clip, variable, seed)`.
            NaN counts as not there.

    The error of a mean over clips of different numbers of cases is that of a ratio: sqrt(sum over clips of
    (sum - mean * count)^2) / count. Where all clips say exactly the same, it is 0 and the exact sign test serves.

    >>> paired({("a", 0): 1.0, ("b", 0): 2.0}, {("a", 0): 1.0, ("b", 0): 1.0}).mean
    0.5
    """
    by_clip: dict[str, list[float]] = {}
    for case in sorted(ours.keys() & baseline.keys()):
        by_clip.setdefault(case[0], []).append(ours[case] - baseline[case])
    sums, counts = _sums(by_clip)
    clips, pairs = len(sums), int(counts.sum())
    if not clips:
        return Difference(np.nan, np.nan, np.nan, np.nan, 0, 0)
    mean = float(sums.sum() / counts.sum())
    if clips < 2:
        return Difference(mean, np.nan, np.nan, np.nan, pairs, clips)
    drawn = _times(clips, draws, seed)
    there = drawn @ counts
    means = (drawn @ sums) / there
    squares = drawn @ sums**2 - 2 * means * (drawn @ (sums * counts)) + means**2 * (drawn @ counts**2)
    smallest = 1e-18 * float((sums**2).sum())  # below this it is rounding
    errors = np.sqrt(np.where(squares > smallest, squares, 0.0)) / there
    spread = float(((sums - mean * counts) ** 2).sum())
    error = np.sqrt(spread) / counts.sum()
    if mean == 0:
        p = 1.0
    elif spread <= smallest:
        p = 2.0 ** (1 - clips)
    else:
        with np.errstate(divide="ignore", invalid="ignore"):  # a draw without spread counts as extreme
            chance = np.abs(means - mean) / errors
        p = float((1 + np.sum(~(chance < abs(mean) / error))) / (draws + 1))
    return Difference(mean, *interval(means, clips), p, pairs, clips)


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, so that the chance of any false alarm stays below the level.

    Holm 1979: the k-th smallest of m is multiplied by m - k + 1, never below the one before it. NaN stays and does
    not count.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    known = [value for value in values if not np.isnan(value)]
    corrected = list(values)
    reached = 0.0
    order = sorted((i for i, value in enumerate(values) if not np.isnan(value)), key=lambda i: values[i])
    for done, index in enumerate(order):
        reached = max(reached, min(1.0, values[index] * (len(known) - done)))
        corrected[index] = reached
    return corrected


def deviation_over_seeds(scores: Mapping[tuple[Any, ...], float]) -> float:
    """Standard deviation of the mean score from seed to seed; NaN with fewer than two seeds.

    Args:
        scores: Case -> score, a case being a tuple that ends with its seed. Only cases that every seed has count, so
            that a job that failed is not taken for chance.

    >>> deviation_over_seeds({("a", 0): 1.0, ("a", 1): 3.0, ("b", 1): 9.0})
    1.4142135623730951
    """
    by_seed: dict[Any, dict[tuple[Any, ...], float]] = {}
    for (*case, seed), score in scores.items():
        if not np.isnan(score):
            by_seed.setdefault(seed, {})[tuple(case)] = score
    common = set.intersection(*map(set, by_seed.values())) if by_seed else set()
    if len(by_seed) < 2 or not common:
        return float("nan")
    cases = sorted(common)
    return float(np.std([np.mean([found[case] for case in cases]) for found in by_seed.values()], ddof=1))


def balanced(answers: Mapping[str, Sequence[tuple[str, float]]], *, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Balanced accuracy, and its interval over clips: the mean over classes of the share that is right.

    A judge, or an editor, that always says the same reaches 1 / classes, however often that is the answer.

    Args:
        answers: Clip -> (class that was wanted, 1 right or 0 wrong) of each of its jobs; NaN is left out. Classes
            that a draw lacks are left out of it.

    >>> balanced({"a": [("old", 1.0), ("old", 1.0), ("young", 0.0)], "b": [("old", 1.0), ("young", 0.0)]}).mean
    0.5
    """
    cases = [(clip, kind, right) for clip, found in answers.items() for kind, right in found if not np.isnan(right)]
    if not cases:
        return NOTHING
    clips, kinds = (sorted({case[column] for case in cases}) for column in (0, 1))
    right, counts = np.zeros((2, len(clips), len(kinds)))
    for clip, kind, score in cases:
        right[clips.index(clip), kinds.index(kind)] += score
        counts[clips.index(clip), kinds.index(kind)] += 1
    drawn = _times(len(clips), draws, seed)
    there = drawn @ counts
    shares = np.divide(drawn @ right, there, out=np.full(there.shape, np.nan), where=there > 0)
    mean = float((right.sum(0) / counts.sum(0)).mean())
    return Estimate(mean, *interval(np.nanmean(shares, axis=1), len(clips)))


def spearman(
    one: Sequence[float] | Array,
    two: Sequence[float] | Array,
    clips: Sequence[str],
    groups: Sequence[str] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """Spearman's rank correlation, and its interval over clips.

    With `groups`, the mean of the correlations inside each group: what differs between groups alone does not count. A
    group in which one side never differs says nothing and is left out. Where each group is of one clip, a clip that is
    drawn twice counts with its groups twice.

    Args:
        one, two: A number a row; rows with a NaN in either are left out.
        clips: The clip of each row.
        groups: The group of each row.

    >>> spearman([1, 2, 3, 4], [1, 2, 3, 9], ["a", "a", "b", "b"]).mean
    1.0
    """
    x, y = np.asarray(one, np.float64), np.asarray(two, np.float64)
    known = ~(np.isnan(x) | np.isnan(y))
    if not known.any():
        return NOTHING
    x, y = x[known], y[known]
    names, clip = np.unique(np.asarray(clips, np.str_)[known], return_inverse=True)
    told = np.zeros(len(x)) if groups is None else np.asarray(groups, np.str_)[known]
    members = [np.flatnonzero(told == group) for group in np.unique(told)]
    if groups is not None and all(np.ptp(clip[rows]) == 0 for rows in members):
        inside: dict[str, list[float]] = {}
        for rows in members:
            inside.setdefault(str(names[clip[rows[0]]]), []).append(_rank_correlation(x[rows], y[rows]))
        return bootstrap(inside, draws=draws, seed=seed)
    drawn = np.concatenate([np.ones((1, len(names))), _times(len(names), draws, seed)])  # the first: as it is
    total, defined = np.zeros(len(drawn)), np.zeros(len(drawn))
    for rows in members:
        there, own = np.unique(clip[rows], return_inverse=True)  # a group may be of few of the clips
        found = _rank_correlations(x[rows], y[rows], own, drawn[:, there])
        total += np.nan_to_num(found)
        defined += ~np.isnan(found)
    means = np.divide(total, defined, out=np.full(len(drawn), np.nan), where=defined > 0)
    return Estimate(float(means[0]), *interval(means[1:], len(names)))


def interval(drawn: Array, clips: int) -> tuple[float, float]:
    """The expanded percentile interval of what was drawn, `(draws,)`; NaN draws are left out.

    NaN with fewer than two clips: drawing one clip again and again says nothing.
    """
    drawn = drawn[~np.isnan(drawn)]
    if clips < 2 or not len(drawn):
        return float("nan"), float("nan")
    low, high = np.quantile(drawn, _percentiles(clips))
    return float(low), float(high)


def _rank_correlation(x: Array, y: Array) -> float:
    """Correlation of the ranks of x and y; NaN where one is constant."""
    one, two = (stats.rankdata(values) - (len(values) + 1) / 2 for values in (x, y))
    scale = float(np.sqrt(one @ one) * np.sqrt(two @ two))
    return float(np.clip(one @ two / scale, -1.0, 1.0)) if scale else float("nan")


def _rank_correlations(x: Array, y: Array, clip: NDArray[np.int64], drawn: Array) -> Array:
    """Correlation of the ranks of x and y, `(n,)`, when clip c is there `drawn[:, c]` times; NaN where one is constant.

    No draw is sorted. A row's rank is linear in how often each clip is there, rank = sum over c of w_c R_c, with R_c
    the rows of clip c below it and half of those that tie. So the sum over rows of w * rank * rank is a cubic form in
    w, whose coefficients are summed over rows once. The mean rank is always half of the total weight.
    """
    below = [_below(values, clip, drawn.shape[1]) for values in (x, y)]
    count = np.bincount(clip, minlength=drawn.shape[1]).astype(np.float64)
    rows = [np.flatnonzero(clip == index) for index in range(drawn.shape[1])]
    first, second = np.triu_indices(drawn.shape[1])  # w_d w_e is w_e w_d: of both, the one holds their sum

    def coefficients(i: int, j: int) -> Array:
        whole = np.stack([below[i][own].T @ below[j][own] for own in rows])
        both: Array = (whole + whole.transpose(0, 2, 1))[:, first, second]
        both[:, first == second] /= 2
        return both

    forms = [coefficients(i, j) for i, j in ((0, 1), (0, 0), (1, 1))]
    found = np.empty(len(drawn))
    step = max(1, _BLOCK // len(count) ** 2)
    for start in range(0, len(drawn), step):
        weight = drawn[start : start + step]
        squares = weight[:, first] * weight[:, second]
        cross, one, two = (
            np.einsum("dk,dk->d", weight @ form, squares) - (weight @ count) ** 3 / 4 for form in forms
        )  # fmt: skip
        # sums of multiples of 1/4, exact in double precision: a constant side is exactly 0
        scale = np.sqrt(np.maximum(one, 0.0) * np.maximum(two, 0.0))
        found[start : start + step] = np.divide(cross, scale, out=np.full(len(cross), np.nan), where=scale > 1e-3)
    return np.clip(found, -1.0, 1.0)


def _below(values: Array, clip: NDArray[np.int64], clips: int) -> Array:
    """Of each row and each clip: how many of the clip's rows are below it, ties counted half. `(n, clips)`."""
    columns = []
    for index in range(clips):
        own = np.sort(values[clip == index])
        columns.append((np.searchsorted(own, values, "left") + np.searchsorted(own, values, "right")) / 2)
    return np.stack(columns, axis=1)


def _sums(scores: Mapping[str, Sequence[float]]) -> tuple[Array, Array]:
    """Sum and number of each clip's scores, clips in order of name; clips without any are left out."""
    kept = [[score for score in scores[clip] if not np.isnan(score)] for clip in sorted(scores)]
    kept = [found for found in kept if found]
    return np.array([sum(found) for found in kept], np.float64), np.array([len(found) for found in kept], np.float64)


@lru_cache
def _percentiles(clips: int) -> tuple[float, float]:
    """Where the expanded percentile interval ends, as shares of the draws."""
    reach = np.sqrt(clips / (clips - 1)) * stats.t.ppf((1 + LEVEL) / 2, clips - 1)
    return float(stats.norm.cdf(-reach)), float(stats.norm.cdf(reach))


@lru_cache(maxsize=8)
def _times(clips: int, draws: int, seed: int) -> Array:
    """How often each clip is drawn, `(draws, clips)`."""
    times = np.random.default_rng(seed).multinomial(clips, np.full(clips, 1 / clips), size=draws).astype(np.float64)
    times.flags.writeable = False  # it is shared
    return times
