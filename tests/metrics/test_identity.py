"""Identity over time against the recorded formulas and against hand-made cases."""

import doctest
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from countervid import models
from countervid.autoencoder.identity import IdentityNet
from countervid.metrics import identity
from countervid.metrics.base import measured
from countervid.metrics.identity import likeness, tg_id, tl_id, weakest_similarity
from looking_windows import aged, looked

GOLDEN = Path(__file__).parent / "goldens" / "identity.safetensors"
ANSWERS = {  # recorded with the file, tolerance 1e-10
    (tl_id, "mean of ratios"): 0.9515324539307904,
    (tg_id, "mean of ratios"): 0.9223837452470557,
    (tl_id, "ratio of means"): 0.9509020881524543,
    (tg_id, "ratio of means"): 0.9219673762297228,
}


@pytest.fixture
def embeddings():
    tensors = load_file(GOLDEN)
    return tensors["source"], tensors["edited"]


@pytest.mark.parametrize("key", ANSWERS, ids=lambda key: f"{key[0].__name__} {key[1]}")
def test_agrees_with_the_golden(key, embeddings):
    function, reading = key
    assert abs(function(*embeddings, reading=reading) - ANSWERS[key]) < 1e-10


def test_blocks_do_not_change_the_global_score(embeddings, monkeypatch):
    whole = tg_id(*embeddings)
    monkeypatch.setattr("countervid.metrics.identity._BLOCK", 2)
    assert tg_id(*embeddings) == pytest.approx(whole, abs=1e-12)


def test_a_frame_without_a_face_is_left_out():
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(6, 8, generator=generator) + 3
    edited = torch.randn(6, 8, generator=generator) + 3
    gap_source, gap_edited = source.clone(), edited.clone()
    gap_source[5], gap_edited[5] = torch.nan, torch.nan
    assert tl_id(gap_source, gap_edited) == pytest.approx(tl_id(source[:5], edited[:5]))
    assert tg_id(gap_source, gap_edited) == pytest.approx(tg_id(source[:5], edited[:5]))
    assert likeness(gap_source, gap_edited) == pytest.approx(likeness(source[:5], edited[:5]))


def test_the_length_of_an_embedding_does_not_matter():
    generator = torch.Generator().manual_seed(1)
    source, edited = torch.randn(2, 5, 8, generator=generator) + 2
    assert tl_id(source * 7, edited) == pytest.approx(tl_id(source, edited))


def test_no_pair_of_faces_is_not_a_number():
    nothing = torch.full((3, 4), torch.nan)
    assert math.isnan(tl_id(nothing, nothing)) and math.isnan(tg_id(nothing, nothing))


def test_likeness_of_a_stranger_is_low_though_steady():
    source, stranger = torch.eye(4)[[0, 0, 0]], torch.eye(4)[[1, 1, 1]]
    assert tl_id(source, stranger) == 1.0
    assert likeness(source, stranger) == 0.0
    assert weakest_similarity(source) == 1.0


def test_clips_of_different_length_are_refused():
    with pytest.raises(ValueError, match="one embedding a frame"):
        tl_id(torch.ones(3, 4), torch.ones(2, 4))


def test_examples_in_docstrings_hold():
    assert doctest.testmod(identity, extraglobs={"torch": torch}).failed == 0


@pytest.mark.parametrize("size", [6, 4, 1])
def test_the_family_says_what_the_functions_say_of_the_bundled_encoders_vectors(size):
    window = looked("truth")[0]
    network = IdentityNet.from_folder(models.bundled("identity"))
    with torch.inference_mode():
        before, after = (network(window.faces[clip] * 2 - 1) for clip in ("factual", "truth"))
    found = measured(["identity"], looked("truth", size=size), ("face", "truth"))
    wanted = {
        "identity.tl_id": tl_id(before, after),
        "identity.tg_id": tg_id(before, after),
        "identity.likeness": likeness(before, after),
        "identity.weakest": weakest_similarity(before),
        "identity.faceless": 0.0,
        "identity.likeness_to_truth": 1.0,
        "identity.likeness_of_truth": likeness(before, after),
    }
    assert found == pytest.approx(wanted, abs=1e-5)
    assert found["identity.likeness_of_truth"] < 0.99  # to age moves who somebody seems to be


def test_doing_nothing_is_as_steady_as_the_source_and_a_stranger_is_nobody():
    found = measured(["identity"], looked("factual"), ("face", "truth"))
    assert found["identity.tl_id"] == found["identity.tg_id"] == pytest.approx(1)
    assert found["identity.likeness"] == pytest.approx(1)
    assert found["identity.likeness_to_truth"] == pytest.approx(found["identity.likeness_of_truth"])
    mirrored = measured(["identity"], looked(aged()[0]["factual"].flip(1)), ("face",))  # blue where red was
    assert mirrored["identity.likeness"] < 0.9 and "identity.likeness_to_truth" not in mirrored


def test_frames_without_a_face_are_counted_and_left_out():
    found = measured(["identity"], looked("truth", size=3, faceless=(3, 4, 5)), ("face", "truth"))
    first = measured(["identity"], looked("truth", size=3)[:1], ("face", "truth"))
    assert found.pop("identity.faceless") == 0.5 and first.pop("identity.faceless") == 0
    assert found == pytest.approx(first, abs=1e-5)


def test_no_face_at_all_is_not_a_number():
    found = measured(["identity"], looked("truth", faceless=range(6)), ("face",))
    assert found.pop("identity.faceless") == 1
    assert all(math.isnan(value) for value in found.values())
