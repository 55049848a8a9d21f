"""Identity over time against the recorded formulas and against hand-made cases."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from countervid.metrics.identity import likeness, tg_id, tl_id, weakest_similarity

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
