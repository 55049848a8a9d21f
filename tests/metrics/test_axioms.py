"""Composition, reversibility, CLD: against plain numpy, and on graphs whose answer is known."""

import doctest
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from countervid.causal.graph import CausalGraph
from countervid.errors import InterventionError
from countervid.metrics import axioms, cld
from countervid.metrics.axioms import Change, composition, flicker, graph_reversibility, reversibility
from countervid.metrics.base import Eyes, Window, measured
from countervid.metrics.quality import ssim


@pytest.fixture
def clips(seeded):
    factual = torch.rand(6, 3, 16, 20, generator=seeded(0))
    return factual, (factual + 0.1 * torch.rand(6, 3, 16, 20, generator=seeded(1))).clamp(0, 1)


@pytest.mark.parametrize("module", [axioms, cld])
def test_examples(module):
    assert doctest.testmod(module).failed == 0


def test_doing_nothing_satisfies_composition_and_reversibility(clips):
    factual, _ = clips
    assert composition(factual, [factual] * 3) == [0.0, 0.0, 0.0]
    assert reversibility(factual, factual) == flicker(factual, factual) == 0.0


def test_composition_takes_any_distance(clips):
    factual, edited = clips
    found = composition(factual, [edited], distance=lambda one, two: 1 - ssim(one, two))
    assert found[0] == pytest.approx(float(1 - ssim(factual, edited).mean()), abs=1e-6)


def test_flicker_by_hand_and_in_windows(clips):
    factual, edited = clips
    x, y = factual.double().numpy(), edited.double().numpy()
    expected = np.abs(np.diff(y, axis=0) - np.diff(x, axis=0)).mean()
    assert flicker(factual, edited) == pytest.approx(expected, rel=1e-5)
    for size in (1, 2, 4):
        windows = [
            Window(
                start=k, frames={"factual": factual[k : k + size], "counterfactual": edited[k : k + size]}, eyes=Eyes()
            )
            for k in range(0, 6, size)
        ]
        found = measured(["change"], windows)
        assert found["change.flicker"] == pytest.approx(expected, rel=1e-5)
        assert found["change.amount"] == pytest.approx(np.abs(x - y).mean(), rel=1e-5)


def test_a_still_has_no_flicker():
    still = torch.zeros(1, 3, 4, 4)
    assert math.isnan(flicker(still, still + 0.1))
    assert math.isnan(Change().compute()["change.amount"])


def test_the_published_rules_return_four_of_sixteen():
    graph = CausalGraph.load("face")
    assert graph_reversibility(graph, "gender") == axioms.Returned(sets=16, returned=4)
    assert graph_reversibility(graph, "gender").share == 0.25
    assert graph_reversibility(graph, "gender", carried=True).share == 1.0


@pytest.mark.parametrize("variable", ["beard", "bald"])
def test_what_causes_nothing_can_be_undone(variable):
    assert graph_reversibility(CausalGraph.load("face"), variable).share == 1.0
    assert graph_reversibility(CausalGraph.load("empty"), "age").share == 1.0


def test_a_variable_that_the_graph_does_not_know():
    with pytest.raises(InterventionError, match="no variable `sex`"):
        graph_reversibility(CausalGraph.load("face"), "sex")


def oracle_cld(distance, own, target):
    share = np.mean([s <= distance for s in target]), np.mean([s >= distance for s in own])
    return np.log(0.8 * np.exp(share[0]) + 0.2 * np.exp(share[1]))


numbers = st.floats(0, 10).map(lambda value: round(value, 1))  # ties happen


@given(numbers, st.lists(numbers, min_size=1), st.lists(numbers, min_size=1))
def test_cld_agrees_with_numpy_and_keeps_its_range(distance, own, target):
    found = cld.cld(distance, own, target)
    assert found == pytest.approx(oracle_cld(distance, own, target), abs=1e-12)
    assert -1e-12 <= found <= 1 + 1e-12


def test_video_cld_of_clips_and_of_embeddings(seeded):
    pool = torch.rand(8, 3, 3, 4, 4, generator=seeded(2))
    x, own, target = pool[0], pool[1:4], pool[4:7]
    apart = [float((x - clip).abs().mean()) for clip in pool]
    found = cld.video_cld(x, pool[7], own, target, truth=pool[6])
    assert found["cld"] == pytest.approx(oracle_cld(apart[7], apart[1:4], apart[4:7]))
    assert found["cld_excess"] == pytest.approx(found["cld"] - oracle_cld(apart[6], apart[1:4], apart[4:7]))
    vectors = torch.randn(8, 5, 16, generator=seeded(3))
    apart = [float((vectors[0] - row).norm(dim=1).mean()) for row in vectors]
    found = cld.video_cld(vectors[0], vectors[7], vectors[1:4], vectors[4:7])
    assert found == {"cld": pytest.approx(oracle_cld(apart[7], apart[1:4], apart[4:7]))}


def test_the_truth_has_no_excess(clips):
    x, y = clips
    assert cld.video_cld(x, y, [x + 0.01], [x + 0.5], truth=y)["cld_excess"] == 0.0


def test_frames_without_a_face_are_left_out(seeded):
    one, two = torch.randn(3, 4, generator=seeded(4)), torch.randn(3, 4, generator=seeded(5))
    hole = two.clone()
    hole[1] = torch.nan
    assert cld.clip_distance(one, hole) == pytest.approx(float((one - two).norm(dim=1)[[0, 2]].mean()))


@pytest.mark.parametrize(
    ("own", "target", "message"), [([], [1.0], "`own` is empty"), ([1.0], [float("nan")], "finite distances")]
)
def test_pools_that_say_nothing_are_refused(own, target, message):
    with pytest.raises(ValueError, match=message):
        cld.cld(1.0, own, target)
