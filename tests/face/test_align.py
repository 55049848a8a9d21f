"""The square, its smoothing and the crop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from countervid.face import align, reference
from countervid.face.smooth import smooth

GOLDEN = Path(__file__).parents[1] / "goldens" / "dva" / "align.safetensors"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return load_file(GOLDEN)


def wandering(frames: int, seed: int = 0) -> np.ndarray:
    """Landmarks of a head that moves; random, but a face's eyes are above its mouth."""
    rng = np.random.default_rng(seed)
    base = rng.normal(0, 30, (68, 2))
    base[36:42] += (-40, -40)
    base[42:48] += (40, -40)
    base[[48, 54]] += ((-25, 50), (25, 50))
    return base + rng.normal(0, 3, (frames, 1, 2)).cumsum(0) + rng.normal(0, 1, (frames, 68, 2)) + 200


def test_square_matches_the_reference(golden):
    centre, x = align.oriented_squares(golden["landmarks"])
    np.testing.assert_allclose(centre, golden["c_raw"], atol=1e-9)
    np.testing.assert_allclose(x, golden["x_raw"], atol=1e-9)
    np.testing.assert_allclose(smooth(centre, 1.0), golden["c"], atol=1e-9)
    np.testing.assert_allclose(smooth(x, 3.0), golden["x"], atol=1e-9)
    np.testing.assert_allclose(align.quads(golden["landmarks"]), golden["quads"], atol=1e-9)


def test_reference_crops_match(golden):
    frame, quad = golden["frame_u8"], golden["quads"][5]
    np.testing.assert_array_equal(reference.crop(frame, quad, 256), golden["crop256_u8"])
    np.testing.assert_array_equal(reference.crop(frame, golden["quad_outside"], 256), golden["crop256_outside_u8"])
    # Lanczos reductions may differ by a grey level or two between versions of Pillow.
    for got, want in [
        (reference.crop(frame, quad, 64), golden["crop64_u8"]),
        (reference.crop(frame, golden["quad_rotated"], 40), golden["crop40_rotated_shrunk_u8"]),
    ]:
        assert np.abs(got.astype(int) - want).max() <= 2


def test_reference_crop_at_1024_then_reduced(golden):
    from PIL import Image

    large = Image.fromarray(reference.crop(golden["frame_u8"], golden["quads"][5], 1024))
    small = np.asarray(large.resize((256, 256), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(small - golden["crop1024_to256_u8"]).max() <= 2


def test_reference_paste_matches(golden):
    for quad, want in zip(golden["quads"], golden["inverse_coeffs"], strict=True):
        np.testing.assert_allclose(reference.inverse_coefficients(quad), want, atol=1e-9)
    pasted = reference.paste(golden["frame_u8"], golden["edited_u8"], golden["inverse_coeffs"][5])
    np.testing.assert_array_equal(pasted, golden["pasted_u8"])
    np.testing.assert_array_equal(reference.to_bytes(golden["tensor2pil_in"]), golden["tensor2pil_out_u8"])


def test_a_wider_framing_holds_the_ffhq_square_and_more_above_than_below():
    ffhq, portrait = (align.quads(wandering(6), framing=framing) for framing in (align.FFHQ, align.PORTRAIT))
    inside = align.to_square(ffhq, portrait)
    margin, up = (1.15 - 1) / 2, 0.05
    expected = np.array([[margin, margin + up], [margin, 1 + margin + up]]) / 1.15  # upper and lower left corner
    np.testing.assert_allclose(inside[:, :2], np.broadcast_to(expected, (6, 2, 2)), atol=1e-9)


def test_square_is_a_square_and_follows_rotation():
    points = wandering(6)
    turn = np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]])
    squares, turned = align.quads(points, smooth=False), align.quads(points @ turn.T, smooth=False)
    np.testing.assert_allclose(turned, squares @ turn.T, atol=1e-9)
    edges = np.linalg.norm(np.roll(squares, -1, 1) - squares, axis=-1)
    np.testing.assert_allclose(edges, edges[:, :1].repeat(4, 1), rtol=1e-12)


def test_crop_of_whole_pixels_copies_them():
    frames = torch.randint(0, 256, (3, 40, 50, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    quad = np.array([[9.5, 4.5], [9.5, 20.5], [25.5, 20.5], [25.5, 4.5]])
    assert torch.equal(align.crop(frames, np.stack([quad] * 3), 16), frames[:, 5:21, 10:26])


def test_crop_is_antialiased():
    board = ((torch.arange(256)[:, None] + torch.arange(256)) % 2 * 255).to(torch.uint8)
    frames = board[None, ..., None].expand(1, 256, 256, 3).contiguous()
    quad = np.array([[[20.2, 20.3], [20.2, 220.3], [220.2, 220.3], [220.2, 20.3]]])
    got = align.crop(frames, quad, 25).float()
    assert (got - 127.5).abs().max() < 3  # a fine chequerboard becomes grey, not a pattern


def test_crop_of_a_large_square_is_its_mean():
    frames = torch.rand((1, 200, 200, 1), generator=torch.Generator().manual_seed(3))
    whole = np.array([[[-0.5, -0.5], [-0.5, 199.5], [199.5, 199.5], [199.5, -0.5]]])
    want = torch.nn.functional.avg_pool2d(frames.permute(0, 3, 1, 2), 20)[0, 0]
    got = align.crop(frames, whole, 10)[0, ..., 0]
    assert (got - want).abs().max() < 0.03  # of a spread of 0.29 a pixel: the filter's footprint is the cell


def test_a_frames_crop_does_not_depend_on_the_batch():
    frames = torch.randint(0, 256, (5, 60, 70, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    centre, x = np.array([[30.0, 30], [10, 12], [60, 50], [35, 30], [20, 40]]), np.zeros((5, 2))
    x[:, 0], x[:, 1] = [8, 40, 11, 25, 90], [3, -4, 0, 2, 20]
    squares = align.corners(centre, x)
    whole = align.crop(frames, squares, 16)
    for i in range(5):
        assert torch.equal(align.crop(frames[i : i + 1], squares[i : i + 1], 16)[0], whole[i])


def test_crop_keeps_floating_point():
    frames = torch.rand((2, 30, 30, 3), generator=torch.Generator().manual_seed(2))
    squares = align.corners(np.full((2, 2), 14.0), np.array([[6.0, 1.0]] * 2))
    as_bytes = align.crop((frames * 255).round().to(torch.uint8), squares, 8).float()
    torch.testing.assert_close(align.crop(frames, squares, 8) * 255, as_bytes, atol=1.0, rtol=0)  # two roundings


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_to_square_and_back(seed):
    points = wandering(3, seed)
    squares = align.quads(points)
    np.testing.assert_allclose(align.from_square(align.to_square(points, squares), squares), points, atol=1e-6)


def test_to_square_places_a_drawn_dot():
    frames = torch.zeros((1, 100, 100, 1))
    frames[0, 40, 62] = 1.0
    squares = align.corners(np.array([[55.0, 45.0]]), np.array([[20.0, 5.0]]))
    drawn = align.crop(frames, squares, 64)[0, ..., 0]
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    found = torch.stack([(drawn * columns).sum(), (drawn * rows).sum()]) / drawn.sum()
    want = align.to_square(np.array([[[62.0, 40.0]]]), squares)[0, 0] * 64 - 0.5
    np.testing.assert_allclose(found.numpy(), want, atol=0.1)  # bilinear samples of one dot are a little uneven


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="68, 2"):
        align.quads(np.zeros((4, 67, 2)))
    with pytest.raises(ValueError, match="parallelograms"):
        align.to_square(np.zeros((1, 1, 2)), np.array([[[0, 0], [0, 9], [9, 9], [5, 0]]], dtype=float))
