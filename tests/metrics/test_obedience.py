"""Graphs, paths, dose and order: cases whose answer is known, scipy, and the phantom world's own truths."""

import doctest
import math

import numpy as np
import pytest
import torch
from scipy import stats

from countervid.metrics import obedience as family
from countervid.metrics.obedience import attribution, distances, dose, obedience, obeyed, order


def test_examples():
    assert doctest.testmod(family).failed == 0


@pytest.fixture
def truths(seeded):
    return {name: torch.rand(2, 3, 6, 6, generator=seeded(k)) for k, name in enumerate(("true", "none", "reversed"))}


def test_whoever_makes_the_truth_of_the_graph_told_obeys(truths):
    cases = [(told, distances(clip, truths)) for told, clip in truths.items()]
    assert obedience(cases) == 1.0


def test_whoever_always_follows_one_graph_scores_chance(truths):
    cases = [(told, distances(truths["true"], truths)) for told in truths]
    assert obedience(cases) == pytest.approx(1 / 3)


def test_graphs_that_agree_tell_nothing(truths):
    same = {"true": truths["true"], "none": truths["true"], "reversed": truths["reversed"]}
    assert math.isnan(obeyed("true", distances(truths["true"], same)))
    assert math.isnan(obedience([("true", distances(truths["true"], same))]))
    assert obeyed("reversed", distances(truths["true"], same)) == 0.0


def test_attribution_at_both_ends_and_beyond(truths):
    total, direct = truths["true"], truths["none"]
    at_total, at_direct = attribution(total, total, direct), attribution(direct, total, direct)
    assert at_total["path_margin"] == 1 and at_total["path_share"] == pytest.approx(1)
    assert at_direct["path_margin"] == -1 and at_direct["path_share"] == 0
    assert attribution(direct + 1.5 * (total - direct), total, direct)["path_share"] == pytest.approx(1.5, rel=1e-5)
    assert math.isnan(attribution(total, direct, direct)["path_share"])


def test_dose_agrees_with_scipy():
    rng = np.random.default_rng(0)
    world = np.linspace(0, 1, 6)
    edited = 0.4 * world + 0.1 + rng.normal(0, 0.05, 6)
    found = dose(edited, world)
    assert found.rank == pytest.approx(stats.spearmanr(world, edited).statistic)
    slope, offset = np.polyfit(world, edited, 1)
    assert (found.slope, found.offset) == (pytest.approx(slope), pytest.approx(offset))


def test_the_worlds_own_dose_is_perfect():
    world = [0.0, 0.1, 0.4, 0.5, 0.9, 1.0]
    found = dose(world, world)
    assert (found.rank, found.slope, found.offset) == (pytest.approx(1), pytest.approx(1), pytest.approx(0, abs=1e-12))


def test_a_dose_without_effect():
    found = dose([0.3, 0.3, 0.3], [0.0, 0.5, 1.0])
    assert math.isnan(found.rank) and found.slope == 0.0 and found.offset == 0.3
    assert math.isnan(dose([0.1, 0.2, 0.3], [1.0, 1.0, 1.0]).slope)
    with pytest.raises(ValueError, match="at least 3 strengths, got 2"):
        dose([0.0, 1.0], [0.0, 1.0])


def test_order_by_hand(truths):
    x, ab, ba = truths.values()
    apart, moved = (ab - ba).abs().mean(), ((x - ab).abs().mean() + (x - ba).abs().mean()) / 2
    assert order(x, ab, ba) == pytest.approx(float(apart / moved))
    assert order(x, ab, ab) == 0.0 and math.isnan(order(x, x, x))
