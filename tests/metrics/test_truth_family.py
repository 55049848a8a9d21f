"""The truth as a family of metrics, on rendered people: what doing nothing and the truth itself score."""

import doctest

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from countervid.metrics import truth
from countervid.metrics.base import measured
from countervid.phantom.world import render_clip, sample_person
from rendered_windows import faces, pictures, squares, windows

EVERYTHING = ("truth", "face")


@pytest.fixture(scope="module")
def clips():
    person = sample_person(5)
    other = next(value for value in ("young", "old") if value != person.attributes["age"])
    old = person.counterfactual({"age": other}).attributes
    factual = render_clip(person, frames=5, size=128)
    return pictures(factual), pictures(render_clip(person, frames=5, size=128, attributes=old)), squares(factual)


def scores(clips, edited, size=3):
    factual, true, where = clips
    triple = {"factual": factual, "counterfactual": edited, "truth": true}
    return measured(["truth"], windows(triple, where, size=size), EVERYTHING)


def test_examples():
    assert doctest.testmod(truth).failed == 0


def test_the_truth_itself_is_perfect_everywhere(clips):
    found = scores(clips, clips[1])
    for part in ("truth.", "truth.frame."):
        assert found[f"{part}skill"] == found[f"{part}skill_ssim"] == 1.0
        assert found[f"{part}strength"] == pytest.approx(1) and found[f"{part}direction"] == pytest.approx(1)
        assert found[f"{part}hole"] == found[f"{part}edited_error"] == 0.0
        assert found[f"{part}spill"] < 1e-4  # changes too small to be seen lie outside the region
    assert found["truth.skill_features"] == 1.0


def test_doing_nothing_has_no_skill_by_any_distance(clips):
    found = scores(clips, clips[0])
    for name in ("skill", "skill_ssim", "skill_features", "frame.skill", "frame.skill_ssim", "strength", "spill"):
        assert found[f"truth.{name}"] == 0.0, name
    assert found["truth.edited_error"] == found["truth.factual_error"] > 0


def test_another_person_harms_by_every_distance(clips):
    stranger = pictures(render_clip(sample_person(6), frames=5, size=128))
    found = scores(clips, stranger)
    assert all(found[f"truth.{name}"] < 0 for name in ("skill", "skill_ssim", "skill_features", "frame.skill"))


def test_windows_do_not_change_a_number(clips):
    edited = torch.lerp(clips[0], clips[1], 0.6)
    whole, parts = scores(clips, edited, size=5), scores(clips, edited, size=2)
    assert whole.keys() == parts.keys()
    assert parts == pytest.approx(whole, rel=1e-5)  # a network's kernels round by batch size


def test_skill_by_structure_agrees_with_scikit_image(clips):
    factual, true, where = clips
    edited = torch.lerp(factual, true, 0.5)
    crops = [faces(frames, where).numpy() for frames in (factual, edited, true)]

    def distance(one, two):
        settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
        return sum(1 - structural_similarity(a, b, channel_axis=0, **settings) for a, b in zip(one, two, strict=True))

    expected = 1 - distance(crops[1], crops[2]) / distance(crops[0], crops[2])
    assert scores(clips, edited)["truth.skill_ssim"] == pytest.approx(expected, abs=1e-4)


def test_the_curve_over_thresholds_by_hand():
    generator = np.random.default_rng(0)
    factual = generator.random((2, 3, 20, 20))
    true = factual + generator.normal(0, 0.05, factual.shape)
    edited = factual + 0.5 * (true - factual) + generator.normal(0, 0.01, factual.shape)
    curve = truth.over_thresholds(*(torch.from_numpy(clip) for clip in (factual, edited, true)), (0.0, 0.1))
    assert curve[0.0].spill == 0.0  # everything is inside
    assert curve[0.1].spill > 0 and curve[0.1].skill == curve[0.0].skill
    region = (np.abs(true - factual).max(1) > 0.1)[:, None]
    grown = np.zeros_like(region)
    for f, _, i, j in zip(*np.nonzero(region), strict=True):
        grown[f, 0, max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3] = True
    edit, effect = (edited - factual) * grown, (true - factual) * grown
    assert curve[0.1].strength == pytest.approx((edit * effect).sum() / (effect * effect).sum())


def test_a_clip_without_a_face_keeps_its_frames(clips):
    factual, true, where = clips
    triple = {"factual": factual, "counterfactual": true, "truth": true}
    bare = list(windows(triple, where, size=5))
    for window in bare:
        window.faces = {}
    found = measured(["truth"], bare, EVERYTHING)
    assert found["truth.frame.skill"] == 1.0 and np.isnan(found["truth.skill"])
