"""Clips side by side: every pass starts anew, and lengths must agree."""

import pytest
import torch

from countervid.clip import Clip
from countervid.errors import ClipError
from countervid.runs.together import together


@pytest.fixture
def clip():
    return Clip.from_frames(torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 2, 2, 3).contiguous())


def test_frames_of_one_moment_meet(clip):
    doubled = clip.mapped(lambda _, frames: frames * 2, window=4)
    difference = together(lambda one, two: two - one, clip, doubled, window=4)
    assert torch.equal(difference.frames, clip.frames)
    assert torch.equal(difference.frames, clip.frames)  # again: a second pass


def test_passes_that_take_turns_do_not_disturb_each_other(clip):
    difference = together(lambda one, two: two - one, clip, clip.mapped(lambda _, f: f * 2, window=3), window=3)
    for (_, first), (_, second) in zip(difference.windows(3), difference.windows(3), strict=True):
        assert torch.equal(first, second)


def test_clips_of_different_length_are_refused(clip):
    with pytest.raises(ClipError, match="10 and 4 frames"):
        together(lambda one, two: one, clip, Clip.from_frames(clip.frames[:4]))
