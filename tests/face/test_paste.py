"""Pasting leaves what it should, and changes what it should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from countervid.face import align
from countervid.face.paste import MODES, paste


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(seed))


def squares(count: int, half: float = 25.0, centre: tuple[float, float] = (50.0, 45.0)) -> np.ndarray:
    return align.corners(np.array([centre] * count), np.array([[half, 0.2 * half]] * count))


def soft_mask(count: int, size: int) -> Tensor:
    cell = (torch.arange(size) + 0.5) / size - 0.5
    distance = (cell[:, None] ** 2 + cell[None] ** 2).sqrt()
    return ((0.4 - distance) / 0.1).clamp(0, 1).expand(count, size, size).contiguous()


@given(
    seed=st.integers(0, 100),
    half=st.floats(3, 80),
    x=st.floats(-20, 120),
    y=st.floats(-20, 110),
    mode=st.sampled_from(MODES),
)
@settings(max_examples=40, deadline=None)
def test_outside_the_mask_every_pixel_is_the_sources(seed, half, x, y, mode):
    frames = noise((1, 90, 100, 3), seed)
    where = squares(1, half, (x, y))
    before, edited = align.crop(frames, where, 32), noise((1, 32, 32, 3), seed + 1)
    mask = soft_mask(1, 32)
    got = paste(frames, edited, where, mask, before=before, mode=mode)
    rows, columns = np.mgrid[:90, :100]
    grid = np.stack([columns, rows], -1).reshape(1, -1, 2).astype(float)
    far = np.abs(align.to_square(grid, where) - 0.5)
    # The mask ends at 0.4 of the side from the centre; one cell of it, or one pixel, is interpolation.
    outside = np.hypot(far[0, :, 0], far[0, :, 1]).reshape(90, 100) > 0.4 + 1.5 * max(1 / 32, 1 / (2 * half))
    assert torch.equal(got[0][torch.from_numpy(outside)], frames[0][torch.from_numpy(outside)])


@pytest.mark.parametrize("mode", ["residual", "adaptive"])
@pytest.mark.parametrize("half", [6.0, 16.0, 44.0])
def test_an_unchanged_crop_gives_the_source_back_exactly(mode, half):
    frames = noise((3, 90, 100, 3))
    where = squares(3, half)
    crops = align.crop(frames.float(), where, 32)
    assert torch.equal(paste(frames, crops, where, soft_mask(3, 32), before=crops, mode=mode), frames)


def test_a_mask_of_zeros_gives_the_source_back_exactly():
    frames = noise((2, 40, 50, 3))
    got = paste(frames, noise((2, 16, 16, 3)), squares(2, 10, (20, 20)), torch.zeros(2, 16, 16), mode="replace")
    assert torch.equal(got, frames)


def test_replace_puts_the_crop_where_it_was_cut():
    frames = noise((1, 60, 60, 3))
    where = np.array([[[9.5, 4.5], [9.5, 36.5], [41.5, 36.5], [41.5, 4.5]]])  # whole pixels, so nothing is resampled
    edited = noise((1, 32, 32, 3), 5)
    mask = torch.zeros(1, 32, 32)
    mask[:, 4:-4, 4:-4] = 1
    got = paste(frames, edited, where, mask, mode="replace")
    assert torch.equal(got[0, 9:33, 14:38], edited[0, 4:-4, 4:-4])
    got[0, 9:33, 14:38] = frames[0, 9:33, 14:38]
    assert torch.equal(got, frames)


def test_residual_keeps_the_sources_sharpness_and_replace_does_not():
    frames = noise((1, 90, 100, 3))
    where = squares(1, 40)
    before = align.crop(frames, where, 16)
    edited = (before.float() * 0.5 + 20).clamp(0, 255)
    mask = soft_mask(1, 16)
    inner = (slice(0, 1), slice(40, 50), slice(45, 55))
    detail = frames[inner].float().std()
    assert paste(frames, edited, where, mask, before=before, mode="residual")[inner].float().std() > 0.8 * detail
    assert paste(frames, edited, where, mask, mode="replace")[inner].float().std() < 0.4 * detail


def test_adaptive_removes_fine_detail_where_the_edit_is_strong():
    """A beard of fine lines on skin, and its edit: plain skin."""
    frames = torch.full((1, 90, 100, 3), 180, dtype=torch.uint8)
    frames[:, 30:60, 35:65] = 150
    frames[:, 30:60, 35:65:2] = 40
    where = squares(1, 40)
    before = align.crop(frames, where, 32)
    edited = torch.full_like(before, 180)
    mask = soft_mask(1, 32)
    inner = (slice(0, 1), slice(38, 52), slice(42, 58))
    kept = paste(frames, edited, where, mask, before=before, mode="residual")[inner].float()
    gone = paste(frames, edited, where, mask, before=before, mode="adaptive")[inner].float()
    assert kept.std() > 30
    assert gone.std() < 6
    assert (gone - 180).abs().mean() < 6


def test_a_frame_does_not_depend_on_the_others():
    frames, where = noise((4, 60, 70, 3)), squares(4, 18, (30, 30))
    where[1] += 4
    before, edited = align.crop(frames, where, 24), noise((4, 24, 24, 3), 9)
    whole = paste(frames, edited, where, soft_mask(4, 24), before=before, mode="adaptive")
    for i in range(4):
        one = slice(i, i + 1)
        alone = paste(frames[one], edited[one], where[one], soft_mask(1, 24), before=before[one], mode="adaptive")
        assert torch.equal(alone[0], whole[i])


def test_the_source_is_not_written_to():
    frames = noise((1, 40, 40, 3))
    copy = frames.clone()
    paste(frames, noise((1, 16, 16, 3), 1), squares(1, 12, (20, 20)), torch.ones(1, 16, 16), mode="replace")
    assert torch.equal(frames, copy)


def test_modes_are_checked():
    with pytest.raises(ValueError, match="before"):
        paste(noise((1, 9, 9, 3)), noise((1, 4, 4, 3)), squares(1, 3, (4, 4)), torch.ones(1, 4, 4))
    with pytest.raises(ValueError, match="replace, residual, adaptive"):
        paste(noise((1, 9, 9, 3)), noise((1, 4, 4, 3)), squares(1, 3, (4, 4)), torch.ones(1, 4, 4), mode="blend")
