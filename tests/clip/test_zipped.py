"""Clips side by side: frames of one moment meet, and what clips have in common is computed once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from countervid.clip import Clip
from countervid.clip.clip import zip_clips
from countervid.clip.seeking import DECODED
from countervid.errors import ClipError

SIZES = st.integers(1, 13)


def numbered(count: int = 23) -> Clip:
    """Frames that say their number."""
    return Clip.from_frames(
        torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(-1, 2, 2, 3).contiguous()
    )


@given(SIZES, SIZES, SIZES, SIZES, SIZES, st.integers(0, 23))
@settings(deadline=None)
def test_frames_of_one_moment_meet_whatever_the_windows(
    one: int, two: int, three: int, four: int, size: int, start: int
) -> None:
    clip = numbered()
    calls: list[tuple[int, int]] = []

    def plus(start: int, frames: Tensor) -> Tensor:
        calls.append((start, len(frames)))
        return frames + 100

    high = clip.mapped(plus, window=one)
    higher = high.mapped(lambda _, frames: frames + 100, window=two)
    apart = clip.zipped(lambda low, up: up - low, high, window=three)
    total = higher.zipped(lambda *parts: torch.stack(parts).sum(0).to(torch.uint8), apart, clip, clip, window=four)
    expected = clip.frames[start:]
    windows = list(zip_clips([clip, high, higher, apart, total, clip], size, start))
    assert [at for at, _ in windows] == list(range(start, 23, size))
    if windows:
        parts = [torch.cat(column) for column in zip(*(frames for _, frames in windows), strict=True)]
        for part, added, times in zip(parts, (0, 100, 200, 100, 300, 0), (1, 1, 1, 0, 3, 1), strict=True):
            assert torch.equal(part, (expected.int() * times + added).to(torch.uint8))
    assert len(calls) == len(set(calls))  # each window of a shared map once
    assert all(at % one == 0 for at, _ in calls)  # and the windows that it always sees
    assert torch.equal(torch.cat([*(f for _, f in total.windows(size, start)), total.frames[:0]]), total.frames[start:])


def test_a_file_is_decoded_once_for_all(make_video: Callable[..., Path], tiny_frames: Tensor) -> None:
    path = make_video(tiny_frames)
    clip = Clip.read(path)
    edited = clip.mapped(lambda _, frames: 255 - frames, window=5)
    marked = clip.zipped(lambda source, other: source // 2 + other // 2, edited)
    DECODED.clear()
    for _ in zip_clips([clip, marked, clip.zipped(lambda *f: f[1], marked, edited)], 3):
        pass
    assert DECODED[path] == len(clip)
    assert torch.equal(marked.frames_at([7]), marked.frames[[7]])


def test_passes_that_take_turns_do_not_disturb_each_other() -> None:
    clip = numbered(10)
    difference = clip.zipped(lambda one, two: two - one, clip.mapped(lambda _, f: f * 2, window=3), window=3)
    for (_, first), (_, second) in zip(difference.windows(3), difference.windows(3), strict=True):
        assert torch.equal(first, second)


def test_clips_of_different_length_are_refused() -> None:
    with pytest.raises(ClipError, match="10 and 4 frames"):
        numbered(10).zipped(lambda one, two: one, numbered(4))
    with pytest.raises(ValueError, match="must return"):
        _ = numbered(4).zipped(lambda one, two: one[:1], numbered(4)).frames
