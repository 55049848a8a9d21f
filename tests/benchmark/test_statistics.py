"""Intervals, p-values and rank correlations against scipy, against the naive computation, and by their properties."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats

from countervid.benchmark import statistics
from countervid.benchmark.statistics import balanced, bootstrap, deviation_over_seeds, holm, interval, paired, spearman

number = some.floats(-100, 100).map(lambda value: round(value, 3))
scores = some.dictionaries(
    some.sampled_from("abcdefgh"), some.lists(number, min_size=1, max_size=4), min_size=2, max_size=8
)
few = settings(max_examples=40, deadline=None)


def one_each(values):
    return {f"{index:03}": [value] for index, value in enumerate(values)}


def test_examples_in_the_docstrings():
    assert doctest.testmod(statistics).failed == 0


def test_interval_is_scipys_where_clips_are_many():
    """With 400 clips the correction has faded; scipy draws by itself, hence the tolerance."""
    values = np.random.default_rng(1).gamma(2.0, size=400)
    ours = bootstrap(one_each(values))
    theirs = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=0).confidence_interval
    assert ours.mean == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_interval_covers_what_it_says_with_few_clips():
    rng = np.random.default_rng(2)
    found = [bootstrap(one_each(rng.normal(size=8)), draws=2_000) for _ in range(400)]
    covered = np.mean([one.low <= 0 <= one.high for one in found])
    assert 0.92 <= covered <= 0.98  # plain percentiles: 0.89


def test_a_clip_is_drawn_with_all_its_jobs():
    """Ten equal jobs a clip tell no more than one."""
    values = np.random.default_rng(3).normal(size=12)
    once = bootstrap(one_each(values))
    tenfold = bootstrap({clip: found * 10 for clip, found in one_each(values).items()})
    assert tenfold == pytest.approx(once)


@few
@given(scores)
def test_the_mean_lies_inside_and_order_does_not_matter(by_clip):
    found = bootstrap(by_clip, draws=500)
    slack = 1e-9 * (1 + abs(found.mean))
    everything = [value for values in by_clip.values() for value in values]
    assert found.mean == pytest.approx(np.mean(everything), abs=1e-9)
    assert min(everything) - slack <= found.low <= found.high <= max(everything) + slack
    assert found == bootstrap(dict(reversed(by_clip.items())), draws=500)


@few
@given(scores, number, some.floats(0.1, 10))
def test_shift_and_scale_pass_through(by_clip, shift, scale):
    found = bootstrap(by_clip, draws=500)
    moved = bootstrap(
        {clip: [scale * value + shift for value in values] for clip, values in by_clip.items()}, draws=500
    )
    assert moved == pytest.approx([scale * value + shift for value in found], abs=1e-6)


def test_what_is_not_defined_is_left_out():
    assert bootstrap({"a": [1.0, math.nan], "b": [3.0], "c": [math.nan]}).mean == 2.0
    assert all(map(math.isnan, bootstrap({"a": [math.nan]})))
    single = bootstrap({"a": [1.0, 2.0]})
    assert single.mean == 1.5 and math.isnan(single.low) and math.isnan(single.high)


def test_p_is_near_students():
    values = np.random.default_rng(4).normal(0.35, size=40)
    ours = paired({(str(i),): v for i, v in enumerate(values)}, {(str(i),): 0.0 for i in range(40)})
    assert ours.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.01)
    assert ours.pairs == ours.clips == 40


def test_false_alarms_stay_below_the_level():
    rng, alarms = np.random.default_rng(5), 0
    for _ in range(400):
        one, two = rng.normal(size=(2, 8))
        cases = [(str(clip),) for clip in range(8)]
        alarms += paired(dict(zip(cases, one, strict=True)), dict(zip(cases, two, strict=True)), draws=1_000).p < 0.05
    assert alarms / 400 < 0.08  # plain percentiles: 0.11


def test_a_planted_difference_is_found_and_pairs_matter():
    """Clips differ much more than the two do: unpaired, it would drown."""
    rng = np.random.default_rng(6)
    clip = rng.normal(scale=10, size=12)
    cases = [(str(index), "age", 0) for index in range(12)]
    baseline = dict(zip(cases, clip, strict=True))
    ours = {case: value + 1 + 0.2 * rng.normal() for case, value in baseline.items()}
    found = paired({**ours, ("extra", "age", 0): 99.0}, baseline)
    assert found.mean == pytest.approx(1, abs=0.2) and found.low > 0.8 and found.p < 0.001
    assert found.pairs == 12


@few
@given(some.lists(number, min_size=2, max_size=8))
def test_turning_a_difference_round_keeps_p(values):
    ours = {(str(i),): v for i, v in enumerate(values)}
    zero = dict.fromkeys(ours, 0.0)
    one, other = paired(ours, zero, draws=500), paired(zero, ours, draws=500)
    assert 0 < one.p <= 1 and one.p == pytest.approx(other.p, abs=1e-9)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=0.02 * (1 + np.ptp(values)))


def test_equal_differences_get_the_sign_tests_p():
    cases = {(str(clip),): 1.0 for clip in range(5)}
    found = paired(cases, dict.fromkeys(cases, 0.0))
    assert found.p == stats.binomtest(5, 5).pvalue == 0.0625
    assert paired(cases, cases).p == 1.0
    assert math.isnan(paired({("a",): 1.0}, {("a",): 0.0}).p)  # one clip
    assert paired({("a",): 1.0}, {("b",): 0.0}).pairs == 0


@few
@given(some.lists(some.floats(0, 1), min_size=1, max_size=12))
def test_holm_corrects_less_than_bonferroni_and_keeps_the_order(values):
    found = holm(values)
    for value, corrected in zip(values, found, strict=True):
        assert value <= corrected <= min(1.0, value * len(values))
    order = np.argsort(values, kind="stable")
    assert np.all(np.diff(np.array(found)[order]) >= 0)


def test_holm_leaves_out_what_is_not_defined():
    found = holm([0.01, math.nan, 0.04])
    assert found[0] == 0.02 and math.isnan(found[1]) and found[2] == 0.04


def test_seeds():
    cases = {(clip, seed): 10.0 * index + seed for index, clip in enumerate("abc") for seed in range(3)}
    assert deviation_over_seeds(cases) == pytest.approx(1.0)  # clips differ, and do not count
    del cases["c", 2]
    assert deviation_over_seeds(cases) == pytest.approx(1.0)
    assert math.isnan(deviation_over_seeds({("a", 0): 1.0}))
    assert math.isnan(deviation_over_seeds({("a", 0): 1.0, ("a", 1): math.nan}))


def test_a_constant_answer_reaches_half_of_balanced_accuracy():
    """Nine in ten are not bald: always saying so is right in 90 %."""
    answers = {str(clip): [("no", 1.0)] * 9 + [("yes", 0.0)] for clip in range(6)}
    assert bootstrap({clip: [right for _, right in found] for clip, found in answers.items()}).mean == 0.9
    assert balanced(answers) == (0.5, 0.5, 0.5)


def test_balanced_accuracy_by_hand():
    found = balanced({"a": [("x", 1.0), ("y", 1.0)], "b": [("x", 0.0), ("x", 1.0)], "c": [("y", 0.0), ("y", math.nan)]})
    assert found.mean == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found.low < found.mean < found.high


@few
@given(some.lists(some.tuples(some.integers(0, 6), some.integers(0, 6)), min_size=3, max_size=20))
def test_rank_correlation_is_scipys_with_ties(pairs):
    one, two = zip(*pairs, strict=True)
    found = spearman(one, two, [str(i % 4) for i in range(len(pairs))], draws=10)
    if len(set(one)) == 1 or len(set(two)) == 1:
        assert math.isnan(found.mean)
    else:
        assert found.mean == pytest.approx(stats.spearmanr(one, two).statistic, abs=1e-9)


def test_rank_correlation_of_a_draw_is_that_of_the_rows_drawn(monkeypatch):
    """Weights stand for repeated rows, in several blocks too."""
    rng = np.random.default_rng(7)
    clips = np.repeat(np.arange(6), 5)
    one = rng.integers(0, 5, 30).astype(float)
    two = one + rng.normal(size=30).round(1)
    drawn = rng.multinomial(6, np.full(6, 1 / 6), size=25).astype(float)
    monkeypatch.setattr(statistics, "_BLOCK", 100)
    found = statistics._rank_correlations(one, two, clips, drawn)
    for times, value in zip(drawn, found, strict=True):
        rows = np.repeat(np.arange(30), times[clips].astype(int))
        assert value == pytest.approx(stats.spearmanr(one[rows], two[rows]).statistic, abs=1e-9)


def test_easy_and_hard_groups_do_not_fake_agreement():
    """Inside each group the two are opposite; between groups both grow."""
    one = [0, 1, 2, 10, 11, 12]
    two = [2, 1, 0, 12, 11, 10]
    clips = ["a", "b", "c"] * 2
    assert spearman(one, two, clips).mean > 0
    assert spearman(one, two, clips, ["x"] * 3 + ["y"] * 3).mean == -1
    assert spearman([*one, 1, 1], [*two, 1, 2], [*clips, "a", "b"], ["x"] * 3 + ["y"] * 3 + ["z"] * 2).mean == -1


def test_groups_of_one_clip_are_drawn_with_it():
    rng = np.random.default_rng(8)
    clips = np.repeat(np.arange(8), 12)
    groups = [f"{clip} {index % 2}" for index, clip in enumerate(clips)]
    one, two = rng.normal(size=(2, 96))
    two += one * (clips % 3)
    each: dict[str, list[float]] = {}
    for group in sorted(set(groups)):
        rows = [index for index, name in enumerate(groups) if name == group]
        each.setdefault(group[0], []).append(stats.spearmanr(one[rows], two[rows]).statistic)
    assert spearman(one, two, clips.astype(str), groups) == pytest.approx(bootstrap(each))


def test_rank_correlation_without_numbers():
    assert math.isnan(spearman([math.nan], [1.0], ["a"]).mean)
    assert math.isnan(spearman([1.0, 1.0], [1.0, 2.0], ["a", "b"]).mean)
    assert spearman([1, 2, math.nan, 3], [1, 2, 0, 3], list("abcd")).mean == 1.0


def test_interval_of_one_clip_is_not_known():
    assert all(map(math.isnan, interval(np.ones(10), 1)))
