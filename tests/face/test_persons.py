"""Rendered people who are covered, leave, are cut away from, and come back; and other people in their place."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from countervid.autoencoder.recognizer import bundled_recognizer
from countervid.errors import FaceError
from countervid.face.landmarks import FittedLandmarks
from countervid.face.parse import EllipseParser
from countervid.face.pipeline import ABSENT, FILLED, Edit, FacePipeline, FaceTrack
from countervid.phantom.render import render
from countervid.phantom.world import render_clip, sample_person
from face.support import clip_of

SIZE, FRAMES = 128, 22
COVERED = slice(8, 15)


@pytest.fixture(scope="module")
def pipeline() -> FacePipeline:
    recognizer = bundled_recognizer()
    assert recognizer is not None
    return FacePipeline(landmarker=FittedLandmarks(), parser=EllipseParser(), recognizer=recognizer)


@pytest.fixture(scope="module")
def takes() -> dict[str, Tensor]:
    """A talk, the same with a glove before the face, the empty room, the talker elsewhere, and others in this room."""
    person, other = sample_person(4006), sample_person(4004)
    motion = person.motion(0, FRAMES)
    hidden = motion.occluder.copy()
    phase = np.clip((np.arange(FRAMES) - 5) / 12, 0, 1)
    sweep = 2 * phase - 1
    hidden[:, 0], hidden[:, 1], hidden[:, 2] = 1.6 * sweep**3 + 0.25 * sweep, -0.1 - 1.3 * sweep**2, 0.3 * sweep
    hidden[:, 3] = (phase > 0) & (phase < 1)
    hand = render(person.look(), person.scene(0), dataclasses.replace(motion, occluder=hidden, occluder_kind=0), SIZE)
    away = motion.occluder * 0 + (0, -3, 0, 0)
    talk = render(person.look(), person.scene(0), dataclasses.replace(motion, occluder=away), SIZE, layers=True)
    assert talk.masks is not None
    mask = cv2.dilate((talk.masks[8] > 0).astype(np.uint8), np.ones((5, 5)))
    room = cv2.inpaint(talk.frames[8], mask, 3, cv2.INPAINT_TELEA)
    swapped = render(other.look(), person.scene(0), dataclasses.replace(motion, occluder=away), SIZE).frames[:12]
    again = render_clip(person, take=1, frames=12, size=SIZE).frames
    frames = {"talk": talk.frames, "hand": hand.frames, "room": room[None], "swapped": swapped, "again": again}
    return {name: torch.from_numpy(np.ascontiguousarray(picture)) for name, picture in frames.items()}


def edited(pipeline: FacePipeline, frames: Tensor, track: FaceTrack) -> Tensor:
    """The frames with every crop of the track made darker."""
    clip = clip_of(frames)
    crops: dict[int, Tensor] = {}
    for window in pipeline.crops(clip, track, size=64):
        crops.update(zip(window.index.tolist(), window.frames.float(), strict=True))

    def edits(index) -> Edit:
        before = torch.stack([crops[int(i)] for i in index])
        return Edit(before - 40, torch.ones(len(index), 64, 64), before)

    return pipeline.pasted(clip, track, edits).frames


def touched(frames: Tensor, result: Tensor) -> list[int]:
    return [i for i in range(len(frames)) if not torch.equal(frames[i], result[i])]


def test_a_hand_before_the_face_is_bridged(pipeline, takes):
    frames = takes["hand"]
    track = pipeline.analyze(clip_of(frames))
    missed = [i for i, found in enumerate(pipeline.detector(frames)) if not len(found)]
    assert len(missed) >= 3 and len(track.cuts) == 0 and track.faces == 1
    assert [i for i in range(FRAMES) if track.source[i] == FILLED] == missed
    assert track.runs() == [(0, FRAMES)]
    assert "covered or blurred" in track.describe()


def test_who_leaves_and_returns_is_not_edited_in_the_empty_room(pipeline, takes):
    frames = takes["talk"].clone()
    frames[7:15] = takes["room"]
    track = pipeline.analyze(clip_of(frames))
    assert np.flatnonzero(track.source == ABSENT).tolist() == list(range(7, 15))
    assert track.faces == 1  # who returns is who left
    assert touched(frames, edited(pipeline, frames, track)) == [*range(7), *range(15, FRAMES)]


@pytest.mark.parametrize("count", [3, 8])
def test_a_cutaway_is_not_edited_however_short(pipeline, takes, count):
    frames = takes["talk"].clone()
    frames[7 : 7 + count] = torch.flip(takes["again"][:count], [2]) // 2  # the room elsewhere, dark and turned round
    frames[7 : 7 + count, 20:110] = 60  # and nobody in it
    track = pipeline.analyze(clip_of(frames))
    assert np.flatnonzero(track.source == ABSENT).tolist() == list(range(7, 7 + count))
    assert touched(frames, edited(pipeline, frames, track)) == [*range(7), *range(7 + count, FRAMES)]


def test_a_person_is_carried_over_cuts_and_another_is_not_edited(pipeline, takes):
    frames = torch.cat([takes["talk"][:8], takes["swapped"][:6], takes["again"][:8]])
    track = pipeline.analyze(clip_of(frames))
    assert track.cuts.tolist() == [8, 14] and track.faces == 2
    assert track.who() == "shots 1 and 3 show person 0; shot 2 shows person 1"
    assert track.runs() == [(0, 8), (14, 22)]
    assert touched(frames, edited(pipeline, frames, track)) == [*range(8), *range(14, 22)]
    second = pipeline.analyze(clip_of(frames), face=1)
    assert second.frames().tolist() == list(range(8, 14))
    with pytest.raises(FaceError, match="no person 2.* 2 people .*0: in 16 of 22 frames .*shots 1 and 3; 1: in 6 of"):
        pipeline.analyze(clip_of(frames), face=2)


def test_the_same_person_in_every_shot_is_said_so(pipeline, takes):
    frames = torch.cat([takes["talk"][:10], takes["again"][:10]])
    track = pipeline.analyze(clip_of(frames))
    assert track.present.all() and track.runs() == [(0, 10), (10, 20)]
    assert "2 shots: all show the same person." in track.describe()


def test_squares_are_not_smoothed_across_a_cut(pipeline, takes):
    frames = torch.cat([takes["talk"][:10], takes["again"][:10]])
    both, alone = pipeline.analyze(clip_of(frames)), pipeline.analyze(clip_of(frames[:10]))
    np.testing.assert_array_equal(both.quads[:10], alone.quads)


def test_two_people_in_one_place_are_two_without_any_cut(pipeline, takes):
    a, b = takes["talk"][:12].float(), takes["swapped"].float()
    share = torch.linspace(0, 1, 4)[:, None, None, None]
    frames = torch.cat([a[:8], a[8:12] * (1 - share) + b[8:12] * share, b[4:12]]).round().to(torch.uint8)
    track = pipeline.analyze(clip_of(frames))
    other = pipeline.analyze(clip_of(frames), face=1)
    assert track.faces == 2 and not (track.present & other.present).any()
    for one in (track, other):
        assert one.frames().max() < 12 or one.frames().min() >= 8


def test_without_a_recognizer_the_track_says_so(takes):
    frames = torch.cat([takes["talk"][:8], takes["swapped"][:6]])
    track = FacePipeline(landmarker=FittedLandmarks(), parser=EllipseParser()).analyze(clip_of(frames))
    assert "small grey pictures" in track.describe() and track.settings["recognizer"] is None
