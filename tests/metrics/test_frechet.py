"""Fréchet distance against the reference's answers and two other ways to the same number; running moments."""

import doctest
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from countervid.errors import ConfigError
from countervid.metrics import frechet
from countervid.metrics.frechet import Moments, frechet_distance, set_distance

GOLDEN = Path(__file__).parent / "goldens" / "frechet.safetensors"
ANSWERS = {  # StyleGAN-V's code in double precision, and how near we must be
    "well_posed": (21.466836621293048, 21.466836621293048 * 1e-6),
    "fewer_samples_than_dimensions": (122.05614537159657, 1e-3),
    "one_pair_as_csvc_uses_it": (3314.1785213066587, 3314.1785213066587 * 1e-6),
    "identical": (-3.774758283725532e-15, 1e-6),
}


def test_examples():
    assert doctest.testmod(frechet).failed == 0


@pytest.mark.parametrize("name", ANSWERS)
def test_agrees_with_the_golden(name):
    sets = load_file(GOLDEN)
    answer, tolerance = ANSWERS[name]
    assert frechet_distance(sets[f"{name}_a"], sets[f"{name}_b"]) == pytest.approx(answer, abs=tolerance)


def drawn(count, width, seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return features @ torch.randn(width, width, generator=generator, dtype=torch.float64)


def test_agrees_with_scipys_root_of_a_matrix():
    one, two = drawn(50, 6, 0), drawn(40, 6, 1) + 1
    covariances = [np.cov(features.numpy(), rowvar=False) for features in (one, two)]
    cross = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = ((one.mean(0) - two.mean(0)) ** 2).sum().item()
    expected += np.trace(covariances[0] + covariances[1] - 2 * cross)
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("n", "m", "width"), [(30, 25, 4), (5, 7, 60), (2, 2, 400)])
def test_the_root_is_the_nuclear_norm_of_the_samples_product(n, m, width):
    """tr (A'A B'B)^1/2 is the sum of the singular values of A B': no root of a singular matrix is taken."""
    one, two = drawn(n, width, 2), drawn(m, width, 3)
    a, b = ((x - x.mean(0)) / (len(x) - 1) ** 0.5 for x in (one, two))
    expected = (one.mean(0) - two.mean(0)).square().sum() + a.square().sum() + b.square().sum()
    expected -= 2 * torch.linalg.svdvals(a @ b.T).sum()
    assert frechet_distance(one, two) == pytest.approx(expected.item(), rel=1e-6)


@given(cuts=st.sets(st.integers(1, 19)))
@settings(max_examples=25, deadline=None)
def test_moments_do_not_depend_on_how_vectors_come(cuts):
    features = drawn(20, 3, 4) + 100
    moments = Moments()
    edges = [0, *sorted(cuts), 20]
    for start, stop in zip(edges, edges[1:], strict=False):
        moments.add(features[start:stop])
    np.testing.assert_allclose(moments.mean, features.numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(features.numpy(), rowvar=False), rtol=1e-9)


def test_a_set_of_one_has_no_distance():
    one, two = Moments(), Moments()
    one.add(torch.ones(1, 3))
    two.add(torch.zeros(5, 3))
    with pytest.raises(ConfigError, match="is of sets, got 1 and 5 videos"):
        set_distance(one, two)
    one.add(torch.ones(1, 3))
    assert set_distance(one, two) == pytest.approx(3)


def test_what_is_no_feature_is_refused():
    moments = Moments()
    with pytest.raises(ValueError, match="NaN"):
        moments.add(torch.full((1, 2), torch.nan))
    moments.add(torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"must be \(n, 2\)"):
        moments.add(torch.zeros(1, 3))
