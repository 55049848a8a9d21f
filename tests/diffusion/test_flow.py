"""Optical flow against the phantom world's truth."""

from __future__ import annotations

import importlib

import pytest
import torch

from countervid.diffusion.flow import DIS, RAFT, end_point_error, optical_flow
from countervid.errors import ConfigError, MissingExtraError
from countervid.phantom.world import render_clip, sample_person


def test_dis_follows_a_rendered_head() -> None:
    part = render_clip(sample_person(2_000_003), frames=4, fps=8.0, size=128, layers=True)
    assert part.flow is not None and part.visible is not None and part.masks is not None
    truth = torch.from_numpy(part.flow).float()
    person = torch.from_numpy(part.visible).bool() & (torch.from_numpy(part.masks[:-1]) > 0)
    found = DIS()(torch.from_numpy(part.frames))
    assert found.shape == truth.shape
    moved = end_point_error(torch.zeros_like(truth), truth, person)
    assert end_point_error(found, truth, person) < 0.5 * moved  # better than to say that nothing moves


def test_one_frame_has_no_flow() -> None:
    assert DIS()(torch.zeros(1, 32, 48, 3, dtype=torch.uint8)).shape == (0, 32, 48, 2)


def test_raft_without_torchvision_says_what_else() -> None:
    try:
        importlib.import_module("torchvision.models.optical_flow")
    except Exception:
        with pytest.raises(MissingExtraError, match="flow=dis"):
            RAFT()
    else:
        pytest.skip("torchvision is installed: RAFT would fetch its weights")


def test_a_flow_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match="dis, raft"):
        optical_flow("farneback")
