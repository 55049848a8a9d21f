"""Motion against a recorded number, against movements known by construction, and against the rendered world's flow."""

import doctest
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.ndimage import map_coordinates

from countervid.metrics import motion
from countervid.metrics.base import Eyes, Window, World, measured
from countervid.metrics.motion import alignment, end_point_errors, jump, seen_in_both, warp_errors, warped
from countervid.phantom.world import render_clip, sample_person

GOLDENS = Path(__file__).parent / "goldens"
FRAMES = 6
EYES = Eyes()


def test_examples():
    assert doctest.testmod(motion).failed == 0


def test_alignment_agrees_with_the_golden():
    flows = load_file(GOLDENS / "motion.safetensors")
    edited, source = (flows[name].permute(0, 2, 3, 1) for name in ("edit_flow", "reference_flow"))
    assert alignment(edited, source) == pytest.approx(-1.2684485912322998, abs=1e-5)  # V2VBench's own code


def test_warping_reads_where_scipy_reads():
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(2, 1, 9, 13, generator=generator, dtype=torch.float64)
    flow = 4 * torch.rand(2, 9, 13, 2, generator=generator, dtype=torch.float64) - 2
    rows, columns = torch.meshgrid(torch.arange(9), torch.arange(13), indexing="ij")
    for t in range(2):
        at = torch.stack([rows + flow[t, ..., 1], columns + flow[t, ..., 0]]).numpy()
        expected = map_coordinates(frames[t, 0].numpy(), at, order=1, mode="nearest")
        torch.testing.assert_close(warped(frames, flow)[t, 0], torch.from_numpy(expected), atol=1e-12, rtol=0)


def test_a_moved_picture_warps_back_without_error():
    picture = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    clip = torch.cat([picture, picture.roll((2, -3), dims=(2, 3))])
    flow = torch.tensor([-3.0, 2.0]).expand(1, 12, 16, 2)
    visible = seen_in_both(flow, -flow)
    assert int(visible.sum()) == (12 - 2) * (16 - 3)  # what left the frame does not count
    assert warp_errors(clip, flow, visible).item() == pytest.approx(0, abs=1e-6)
    assert warp_errors(clip, torch.zeros_like(flow), visible).item() > 0.1


def test_a_flow_that_is_not_undone_is_an_occlusion():
    flow = torch.zeros(1, 4, 6, 2)
    flow[..., :3, 0] = 2  # the left half moves onto the right half, which stays
    back = torch.zeros(1, 4, 6, 2)
    assert seen_in_both(flow, back)[0, 0].tolist() == [False, False, False, True, True, True]


def test_nothing_visible_is_left_out_of_the_mean():
    flow = torch.zeros(2, 4, 4, 2)
    visible = torch.ones(2, 4, 4, dtype=torch.bool)
    visible[1] = False
    assert math.isnan(end_point_errors(flow, flow + 1, visible)[1])
    world = World(flow=flow, visible=visible)
    still = torch.zeros(3, 3, 4, 4)
    window = Window(start=0, frames={"factual": still, "counterfactual": still}, eyes=EYES, world=world)
    assert measured(["motion.warp_true"], [window], has=["world"]) == {"motion.warp_true": 0.0}


def test_a_source_that_stands_still_has_no_jump():
    still = torch.zeros(3, 3, 4, 4)
    assert math.isnan(jump(still, still))


def test_frames_and_flow_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="the same frames at the same size"):
        warp_errors(torch.zeros(2, 3, 8, 8), torch.zeros(1, 4, 4, 2), torch.ones(1, 4, 4))


@pytest.fixture(scope="module")
def rendered():
    rendering = render_clip(sample_person(5), frames=FRAMES, size=128, layers=True)
    frames = torch.from_numpy(rendering.frames).permute(0, 3, 1, 2).float() / 255
    world = World(flow=torch.from_numpy(rendering.flow), visible=torch.from_numpy(rendering.visible).bool())
    return frames, world


def numbers(factual, edited, world, sizes):
    windows, start = [], 0
    for size in sizes:
        part = slice(start, start + size)
        clips = {"factual": factual[part], "counterfactual": edited[part]}
        windows.append(Window(start=start, frames=clips, eyes=EYES, world=world.part(part)))
        start += size
    return measured(["motion"], windows, has=["world"])


@pytest.fixture(scope="module")
def flickering(rendered):
    frames, _ = rendered
    return (frames + 0.1 * (-1) ** torch.arange(FRAMES)[:, None, None, None]).clamp(0, 1)


@pytest.fixture(scope="module")
def whole(rendered, flickering):
    frames, world = rendered
    return numbers(frames, flickering, world, [FRAMES])


def test_the_truth_follows_its_own_flow(rendered):
    frames, world = rendered
    found = numbers(frames, frames, world, [FRAMES])
    assert found["motion.alignment"] == 0 and found["motion.jump"] == 1
    assert found["motion.epe_true"] < 0.5  # px: what the estimator itself is wrong by
    assert found["motion.warp_true"] < 0.02  # grain and resampling; standing still leaves more
    standing = World(flow=torch.zeros_like(world.flow), visible=world.visible)
    assert numbers(frames, frames, standing, [FRAMES])["motion.warp_true"] > found["motion.warp_true"]


def test_flicker_shows(rendered, whole):
    frames, world = rendered
    steady = numbers(frames, frames, world, [FRAMES])
    assert whole["motion.warp"] > steady["motion.warp"] + 0.1
    assert whole["motion.warp_true"] > steady["motion.warp_true"] + 0.1
    assert whole["motion.jump"] > 2


def test_the_functions_say_what_the_classes_say(rendered, flickering, whole):
    frames, world = rendered
    assert jump(flickering, frames) == pytest.approx(whole["motion.jump"], rel=1e-6)
    errors = warp_errors(flickering, world.flow, world.visible)
    assert errors.double().mean().item() == pytest.approx(whole["motion.warp_true"], rel=1e-6)


@given(cuts=st.sets(st.integers(1, FRAMES - 1)))
@settings(max_examples=6, deadline=None)
def test_any_windows_give_the_numbers_of_the_whole(rendered, flickering, whole, cuts):
    frames, world = rendered
    edges = [0, *sorted(cuts), FRAMES]
    parts = numbers(frames, flickering, world, [b - a for a, b in zip(edges, edges[1:], strict=False)])
    assert parts == pytest.approx(whole, rel=1e-6)  # sums in another order


def test_a_clip_of_one_frame_has_no_motion(rendered):
    frames, world = rendered
    found = numbers(frames[:1], frames[:1], World(flow=world.flow[:0], visible=world.visible[:0]), [1])
    assert all(math.isnan(value) for value in found.values())
