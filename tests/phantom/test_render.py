"""The renderer keeps its promises: the same bytes, a background that knows no person, landmarks and flow that fit."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numba
import numpy as np
import pytest

from countervid.phantom import BONES, Look, Motion, Rendering, Scene, render

SIZE = 96


def colour(*rgb: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(rgb, np.float32)


LOOK = Look(
    bones=np.zeros(len(BONES), np.float32), years=35.0, skin=colour(0.55, 0.32, 0.22), iris=colour(0.1, 0.2, 0.4),
    hair=colour(0.10, 0.05, 0.03), brow=colour(0.08, 0.04, 0.03), lips=colour(0.50, 0.22, 0.19), lipstick=0.0,
    hair_style=3, hair_length=0.5, hair_volume=0.5, hair_curl=0.5, bald=0.0, beard=0.0, beard_length=0.5,
    moustache=0.0, freckles=0.3, glasses=0.0, glasses_style=0, glasses_colour=colour(0.02, 0.02, 0.02), hat=0.0,
    hat_style=0, hat_colour=colour(0.4, 0.1, 0.1), clothes=0, clothes_colour=colour(0.1, 0.2, 0.4), texture_seed=7,
)  # fmt: skip

SCENE = Scene(
    background=1, background_seed=5, background_blur=0.7, key_light=colour(0.53, 0.53, 0.66),
    key_colour=colour(1.1, 1.0, 0.95), fill=colour(0.40, 0.42, 0.45), bounce=colour(0.22, 0.20, 0.18), key_softness=0.6,
    exposure=1.0, focal_length=3.2, grain=0.8, grain_seed=3,
)  # fmt: skip


def motion(frames: int, **changes: Any) -> Motion:
    """A head that turns, speaks and blinks a little."""
    t = np.arange(frames, dtype=np.float32)
    still = np.zeros(frames, np.float32)
    values = dict[str, Any](
        yaw=0.10 + 0.05 * t, pitch=0.02 * t, roll=-0.02 * t, position=np.stack([0.02 * t, 0.01 * t, 0.8 + still], 1),
        jaw=0.2 + 0.06 * t, mouth_wide=still, smile=0.3 + 0.05 * t, blink=still, brow_raise=0.1 * t,
        gaze=np.zeros((frames, 2), np.float32), camera=np.stack([0.004 * t, 0.003 * t, 1.0 + 0.004 * t], 1),
        light_turn=still, occluder=np.zeros((frames, 4), np.float32), occluder_kind=0,
        occluder_colour=colour(0.5, 0.3, 0.2), fps=25.0,
    )  # fmt: skip
    return Motion(**(values | changes))


def look(**changes: Any) -> Look:
    return dataclasses.replace(LOOK, **changes)


@cache
def clip() -> Rendering:
    return render(LOOK, SCENE, motion(4), SIZE, layers=True)


def test_a_frame_alone_is_the_frame_of_the_clip() -> None:
    alone = render(LOOK, SCENE, motion(4), SIZE, frames=slice(2, 3))
    np.testing.assert_array_equal(alone.frames[0], clip().frames[2])
    np.testing.assert_array_equal(alone.landmarks[0], clip().landmarks[2])


def test_the_number_of_threads_changes_nothing() -> None:
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        alone = render(LOOK, SCENE, motion(4), SIZE, frames=slice(0, 2), layers=True)
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(alone.frames, clip().frames[:2])
    np.testing.assert_array_equal(alone.flow, clip().flow[:1])  # type: ignore[index]


@pytest.mark.parametrize(
    "change", [{"bald": 1.0}, {"beard": 1.0}, {"glasses": 1.0}, {"hat": 1.0, "hat_style": 2}, {"years": 80.0}]
)
def test_an_attribute_leaves_the_background_bit_for_bit(change: dict[str, float]) -> None:
    other = render(look(**change), SCENE, motion(4), SIZE, frames=slice(1, 2), layers=True)
    before, after = clip().frames[1], other.frames[0]
    masks = clip().masks
    assert masks is not None and other.masks is not None
    person = (masks[1] > 0) | (other.masks[0] > 0)
    edge = np.zeros_like(person)  # a silhouette covers part of the pixels around it
    padded = np.pad(person, 1)
    for dy in range(3):
        for dx in range(3):
            edge |= padded[dy : dy + SIZE, dx : dx + SIZE]
    np.testing.assert_array_equal(before[~edge], after[~edge])
    assert (before != after).any(-1).sum() > 30  # and the change is seen


@pytest.mark.parametrize("bone", BONES)
def test_every_bone_is_seen(bone: str) -> None:
    looks = []
    for value in (-2.0, 2.0):
        bones = LOOK.bones.copy()
        bones[BONES.index(bone)] = value
        looks.append(look(bones=bones, bald=1.0))
    a, b = (render(each, SCENE, motion(1), SIZE).frames[0].astype(int) for each in looks)
    changed = np.abs(a - b).max(-1) > 12
    assert changed.sum() >= 12, f"{bone} changes {changed.sum()} pixels"


def test_each_material_has_its_class() -> None:
    everything = look(beard=1.0, moustache=1.0, glasses=1.0, hat=1.0)
    occluder = np.array([[0.25, -0.35, 0.0, 1.0]], np.float32)
    seen = render(everything, SCENE, motion(1, occluder=occluder, smile=np.ones(1)), 128, layers=True).masks
    assert seen is not None
    assert set(np.unique(seen)) == set(range(9))
    bare = render(look(bald=1.0), SCENE, motion(1), 128, layers=True).masks
    assert bare is not None
    assert not np.isin(bare, (2, 6, 7, 8)).any()


def test_landmarks_lie_on_what_they_name() -> None:
    r = render(look(bald=1.0), SCENE, motion(1, smile=np.zeros(1), yaw=np.zeros(1)), 256, layers=True)
    assert r.masks is not None
    points, mask = r.landmarks[0], r.masks[0]

    def classes(first: int, last: int) -> set[int]:
        middle = points[first:last].mean(0).astype(int)
        return set(np.unique(mask[middle[1] - 1 : middle[1] + 2, middle[0] - 1 : middle[0] + 2]).tolist())

    assert classes(36, 42) == {3} and classes(42, 48) == {3}  # the middles of the eyes
    assert 4 in classes(60, 68)  # the middle of the mouth
    assert classes(27, 36) == {1}
    assert points[36, 0] < points[39, 0] < points[42, 0] < points[45, 0]  # from the image's left to its right
    assert points[8, 1] > points[57, 1] > points[51, 1] > points[33, 1] > points[27, 1] > points[19, 1]
    assert points[0, 0] < points[36, 0] and points[16, 0] > points[45, 0]


def test_positive_yaw_turns_the_face_to_the_right() -> None:
    left, right = (render(LOOK, SCENE, motion(1, yaw=np.array([yaw])), 64).landmarks[0] for yaw in (-0.4, 0.4))
    for points, sign in ((left, -1), (right, 1)):
        eyes = points[36:48].mean(0)
        assert sign * (points[30, 0] - eyes[0]) > 2.0  # the nose's tip leads


def test_blinking_closes_the_eyes_and_their_landmarks() -> None:
    opened, closed = (render(LOOK, SCENE, motion(1, blink=np.array([b])), 128, layers=True) for b in (0.0, 1.0))
    assert opened.masks is not None and closed.masks is not None
    assert (opened.masks == 3).sum() > 60 and (closed.masks == 3).sum() == 0
    height = [r.landmarks[0, 41, 1] - r.landmarks[0, 37, 1] for r in (opened, closed)]
    assert height[0] > 3 and abs(height[1]) < 1


def test_the_next_frame_warped_back_is_this_frame() -> None:
    from scipy.ndimage import map_coordinates

    r = render(LOOK, dataclasses.replace(SCENE, grain=0.0), motion(3), 128, layers=True)
    assert r.flow is not None and r.visible is not None
    rows, columns = np.mgrid[:128, :128].astype(np.float64)
    for k in range(2):
        at = [rows + r.flow[k, :, :, 1], columns + r.flow[k, :, :, 0]]
        after = r.frames[k + 1].astype(float)
        back = np.stack([map_coordinates(after[..., c], at, order=1, mode="nearest") for c in range(3)], -1)
        seen = r.visible[k] > 0
        assert seen.mean() > 0.85
        here = r.frames[k].astype(float)
        warped = np.abs(back - here).mean(-1)[seen].mean()
        still = np.abs(r.frames[k + 1] - here).mean(-1)[seen].mean()
        assert warped < 0.35 * still, f"{warped:.2f} against {still:.2f} levels without the flow"


def test_a_view_is_the_frame_seen_through_a_quad() -> None:
    half = np.array([[[24, 16], [24, 80], [88, 80], [88, 16]]], np.float64)
    quiet = dataclasses.replace(SCENE, grain=0.0)
    part = render(LOOK, quiet, motion(1), SIZE, view=half, view_size=64)
    whole = render(LOOK, quiet, motion(1), SIZE)
    inner = slice(1, -1)  # at a picture's border a pixel lacks a neighbour, and so may lack extra rays
    np.testing.assert_allclose(
        part.frames[0, inner, inner].astype(int), whole.frames[0, 17:79, 25:87].astype(int), atol=2
    )  # the same rays, which start from other tiles: rounding only
    np.testing.assert_allclose(part.landmarks[0], whole.landmarks[0] - [24, 16], atol=1e-3)


def test_grain_has_the_strength_asked_for_and_no_memory_of_the_person() -> None:
    loud, quiet = (dataclasses.replace(SCENE, grain=g, background=7) for g in (1.5, 0.0))
    a, b = (render(LOOK, s, motion(1), SIZE, layers=True) for s in (loud, quiet))
    noise = (a.frames.astype(float) - b.frames)[0]
    assert 1.2 < noise.std() < 1.8


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        render(LOOK, SCENE, motion(1), 8)
    with pytest.raises(ValueError, match="one quad a drawn frame"):
        render(LOOK, SCENE, motion(2), SIZE, view=np.zeros((1, 4, 2)))
    with pytest.raises(ValueError, match=r"motion\.jaw"):
        render(LOOK, SCENE, motion(2, jaw=np.zeros(3)), SIZE)
