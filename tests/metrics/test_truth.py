"""Measures against the truth, on cases whose answer is known by construction."""

import math

import pytest
import torch

from countervid.metrics.truth import Truth, effect_region, skill


def scores(factual, edited, truth):
    meter = Truth()
    meter.update(factual, edited, truth)
    return meter.compute()


@pytest.fixture
def clip():
    generator = torch.Generator().manual_seed(0)
    factual = torch.rand(3, 3, 24, 24, generator=generator) * 0.5
    truth = factual.clone()
    truth[:, :, 8:16, 8:16] += 0.3
    return factual, truth


def test_the_truth_is_perfect(clip):
    factual, truth = clip
    found = scores(factual, truth, truth)
    assert found.skill == 1.0 and found.strength == pytest.approx(1.0) and found.direction == pytest.approx(1.0)
    assert found.spill == 0.0 and found.hole == 0.0


def test_doing_nothing_is_zero(clip):
    factual, truth = clip
    found = scores(factual, factual, truth)
    assert found.skill == 0.0 and found.strength == 0.0 and found.spill == 0.0
    # the region is grown by 2 px: 64 of 144 pixels should have changed and did not
    assert found.hole == pytest.approx(64 / 144)


def test_overdoing_shows_in_the_strength_not_in_the_direction(clip):
    factual, truth = clip
    found = scores(factual, factual + 1.5 * (truth - factual), truth)
    assert found.strength == pytest.approx(1.5) and found.direction == pytest.approx(1.0)
    assert found.skill == pytest.approx(0.5)


def test_moving_the_background_is_spill(clip):
    factual, truth = clip
    edited = truth.clone()
    edited[:, :, :4, :4] += 0.1
    expected = 3 * 3 * 16 * 0.1**2 / (3 * 3 * 64 * 0.3**2)
    assert scores(factual, edited, truth).spill == pytest.approx(expected, rel=1e-5)


def test_an_edit_the_wrong_way_is_negative(clip):
    factual, truth = clip
    found = scores(factual, factual - (truth - factual), truth)
    assert found.skill == pytest.approx(-1.0) and found.direction == pytest.approx(-1.0)


def test_windows_agree_with_the_whole(clip):
    factual, truth = clip
    edited = factual + 0.7 * (truth - factual) + 0.01
    meter = Truth()
    for start in range(3):
        window = slice(start, start + 1)
        meter.update(factual[window], edited[window], truth[window])
    whole = scores(factual, edited, truth)
    for name in ("skill", "strength", "direction", "spill", "hole"):
        assert getattr(meter.compute(), name) == pytest.approx(getattr(whole, name), rel=1e-9)


def test_nothing_to_change_is_not_a_number(clip):
    factual, _ = clip
    assert math.isnan(skill(factual, factual, factual))


def test_the_region_is_grown_by_two_pixels():
    factual, truth = torch.zeros(1, 3, 9, 9), torch.zeros(1, 3, 9, 9)
    truth[:, 0, 4, 4] = 5 / 255
    assert int(effect_region(factual, truth).sum()) == 25
    truth[:, 0, 4, 4] = 3 / 255
    assert int(effect_region(factual, truth).sum()) == 0
