"""A judge's worth, against cases that are known by construction."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from countervid.metrics import calibration
from countervid.metrics.calibration import balanced_accuracy, calibrated, calibration_error, confusion, corrected_shares


def test_doctests():
    assert doctest.testmod(calibration).failed == 0


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=40), st.sampled_from(["a", "b", "c"]))
def test_a_constant_answer_earns_one_over_the_values_there_are(true, constant):
    expected = 1 / len(set(true)) if constant in true else 0.0
    assert balanced_accuracy(true, [constant] * len(true)) == pytest.approx(expected)


def test_a_failure_is_wrong():
    assert balanced_accuracy(["a", "b"], ["a", None]) == 0.5
    assert np.isnan(balanced_accuracy([], []))


def test_calibration_error_of_hand_made_bins():
    # two bins of two: gaps |0.5 - 0.9| and |1 - 0.6|, each half of the answers
    assert calibration_error([0.9, 0.9, 0.6, 0.6], [True, False, True, True], bins=10) == pytest.approx(0.4)
    assert calibration_error([1.0, 1.0], [True, True]) == 0.0
    assert calibration_error([0.0], [True]) == 1.0
    assert np.isnan(calibration_error([], []))


def test_calibration_error_agrees_with_a_slow_one(bins=15):
    rng = np.random.default_rng(0)
    sure, right = rng.random(500), rng.random(500) < 0.7
    edges, slow = np.linspace(0, 1, bins + 1), 0.0
    for low, high in zip(edges, edges[1:], strict=False):
        inside = (sure > low) & (sure <= high)
        if inside.any():
            slow += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert calibration_error(sure.tolist(), right.tolist()) == pytest.approx(slow, abs=1e-12)


def test_the_ceiling_divides():
    assert calibrated(0.4, 0.5) == pytest.approx(0.8) and np.isnan(calibrated(0.0, 0.0))


@given(
    st.lists(st.floats(0.05, 1), min_size=3, max_size=3),
    st.lists(st.lists(st.floats(0, 0.3), min_size=3, max_size=3), min_size=3, max_size=3),
)
def test_correction_undoes_the_confusion(weights, noise):
    true = np.asarray(weights) / np.sum(weights)
    table = np.asarray(noise) + np.eye(3)
    table = table / table.sum(0)
    seen = table @ true
    found = corrected_shares((1e6 * seen).tolist(), 1e6 * table, draws=10)
    np.testing.assert_allclose(found.share, true, atol=1e-9)


def test_a_perfect_judge_is_taken_at_its_word():
    found = corrected_shares([30, 70], np.array([[500, 0], [0, 500]]))
    np.testing.assert_allclose(found.share, [0.3, 0.7])
    assert (found.low < found.share).all() and (found.share < found.high).all()


def test_a_worse_judge_and_fewer_truths_widen_the_interval():
    def width(seen, counts):
        found = corrected_shares(seen, np.array(counts))
        return found.high[0] - found.low[0]

    sharp = width([50, 50], [[1000, 0], [0, 1000]])
    blunt = width([50, 50], [[700, 300], [300, 700]])
    blunt_and_unsure = width([50, 50], [[7, 3], [3, 7]])
    assert sharp < blunt < blunt_and_unsure


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, true, hits = np.random.default_rng(0), 0.3, 0
    table = np.array([[0.85, 0.2], [0.15, 0.8]])
    for trial in range(200):
        known = np.stack([rng.multinomial(120, table[:, j]) for j in (0, 1)], 1)
        seen = rng.multinomial(80, table @ [true, 1 - true])
        found = corrected_shares(seen.tolist(), known, draws=500, seed=trial)
        hits += found.low[0] <= true <= found.high[0]
    assert 0.90 <= hits / 200 <= 1.0  # 95 % asked for; three standard errors of 200 trials are 0.046


def test_a_judge_that_cannot_tell_corrects_nothing():
    for counts in ([[5, 5], [5, 5]], [[5, 0], [5, 0]]):
        assert np.isnan(corrected_shares([3, 4], np.array(counts)).share).all()
    with pytest.raises(ValueError, match=r"must be \(2, 2\)"):
        corrected_shares([3, 4], np.eye(3, dtype=int))


def test_confusion_counts_what_was_said_of_what():
    true, said = ["a", "a", "b", "c"], ["a", "b", "b", "a"]
    found = confusion(true, said, ["a", "b", "c"])
    assert found.tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
