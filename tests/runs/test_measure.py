"""Clips as windows, and what a run says of itself, against the same computed at once."""

import json

import numpy as np
import pytest
import torch

from countervid.causal.questions import questions
from countervid.clip import Clip
from countervid.critics.bundled import BundledCritic
from countervid.critics.replay import ReplayCritic
from countervid.errors import ClipError, FaceError
from countervid.face.align import PORTRAIT, crop, quads
from countervid.face.pipeline import DETECTED, FaceTrack
from countervid.metrics.base import Asked, Eyes
from countervid.metrics.examiner import Examiner
from countervid.metrics.identity import likeness, tg_id, tl_id
from countervid.metrics.judged import Item, accuracy_matrix, answers_of
from countervid.metrics.quality import psnr
from countervid.metrics.truth import Truth
from countervid.phantom.world import phantom_graph, render_clip, sample_person
from countervid.runs import measure as measuring
from countervid.runs.judging import CriticJudge
from countervid.runs.measure import measure, needs_met, windows_of
from countervid.runs.touched import inside_squares, rest_of

FRAMES, SIZE = 7, 128


@pytest.fixture(scope="module")
def scene():
    """A young woman, the same grown old, where her face is (but for one frame), and what was asked."""
    person = sample_person(2_000_003)
    outcome = person.counterfactual({"age": "old"})
    young, old = (
        render_clip(person, frames=FRAMES, size=SIZE, attributes=state)
        for state in (person.attributes, outcome.attributes)
    )
    track = track_of(young.landmarks - 0.5, absent=2)
    asked = Asked(factual=outcome.factual, do={"age": "old"}, counterfactual=outcome.attributes, prompt="She is old.")
    return *(Clip.from_frames(torch.from_numpy(one.frames)) for one in (young, old)), track, asked


def track_of(landmarks, absent):
    squares = quads(landmarks, framing=PORTRAIT)
    source = np.full(len(squares), DETECTED, np.uint8)
    source[absent], squares[absent] = 0, np.nan
    return FaceTrack(
        source=source, boxes=np.zeros((len(squares), 4), np.float32), landmarks=landmarks.astype(np.float32),
        quads=squares, height=SIZE, width=SIZE, face=0, cuts=np.zeros(0, np.int64),
        persons=[], distrusted=0, settings={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def bundled():
    return Eyes()


def test_windows_hold_every_frame_once_and_the_crops_of_those_with_a_face(scene, bundled, monkeypatch):
    young, old, track, asked = scene
    monkeypatch.setattr(measuring, "LONGEST_WINDOW", 3)
    windows = list(windows_of(young, old, old, track, asked, bundled))
    assert [(window.start, len(window)) for window in windows] == [(0, 3), (3, 3), (6, 1)]
    assert windows[0].rows.tolist() == [0, 1] and windows[1].rows.tolist() == [0, 1, 2]
    frames = torch.cat([window.frames["counterfactual"] for window in windows])
    assert torch.equal((frames * 255).round().to(torch.uint8).permute(0, 2, 3, 1), old.frames)
    index = track.frames()
    crops = crop(old.frames[torch.from_numpy(index)], track.quads[index], 128).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(torch.cat([window.faces["truth"] for window in windows]), crops)
    assert not windows[0].square[2].any() and windows[0].square[:2].any((1, 2)).all()


def test_a_window_without_a_face_has_crops_of_no_rows(scene, bundled):
    young, old, track, _ = scene
    gone = track_of(track.landmarks.astype(float), absent=slice(None))
    (window,) = windows_of(young, old, None, gone, None, bundled)
    assert window.faces["factual"].shape == (0, 3, 128, 128) and not window.square.any()
    assert window.every(torch.zeros(0, 5)).isnan().all()
    (window,) = windows_of(young, old, None, None, None, bundled)
    assert not window.faces and window.rows is None and window.square is None


def test_large_frames_come_in_short_windows():
    large = Clip.from_frames(torch.zeros(6, 2048, 2048, 3, dtype=torch.uint8))
    parts = list(windows_of(large, large, None, None, None, Eyes()))
    assert [len(part) for part in parts] == [2, 2, 2]


def test_clips_that_do_not_fit_are_refused(scene, bundled):
    young, old, track, asked = scene
    with pytest.raises(ClipError, match="The counterfactual clip has 3 frames of 128 x 128, the factual 7"):
        next(windows_of(young, old.first(3), None, track, asked, bundled))
    small = Clip.from_frames(old.frames[:, :64])
    with pytest.raises(ClipError, match="The truth clip has 7 frames of 128 x 64"):
        next(windows_of(young, old, small, track, asked, bundled))
    with pytest.raises(FaceError, match="face track is of 7 frames"):
        next(windows_of(young.first(3), old.first(3), None, track, asked, bundled))


def test_what_there_is_to_look_at(scene):
    young, _, track, asked = scene
    assert needs_met(truth=None, track=None, asked=None) == frozenset()
    assert needs_met(truth=young, track=track, asked=asked) == {"truth", "face", "attributes", "prompt"}
    told = Asked(factual={}, do={}, counterfactual={}, prompt="She is old.")
    assert needs_met(truth=None, track=None, asked=told) == {"prompt"}


def test_a_run_says_what_the_same_computed_at_once_says(scene, bundled, monkeypatch):
    young, old, track, asked = scene
    edited = Clip.from_frames(((young.frames.int() + old.frames.int()) // 2).to(torch.uint8))
    monkeypatch.setattr(measuring, "LONGEST_WINDOW", 3)
    found = measure(young, edited, old, track, asked, bundled)
    json.dumps(found, allow_nan=False)
    x, y, z = (clip.frames.permute(0, 3, 1, 2).float() / 255 for clip in (young, edited, old))
    assert found["frames"] == FRAMES
    assert found["psnr_to_factual"] == pytest.approx(float(psnr(x, y).mean()), rel=1e-6)
    assert found["changed_share"] == pytest.approx(float((x != y).any(1).float().mean()), rel=1e-6)
    frame = Truth()
    frame.update(x, y, z)
    assert found["truth"]["frame"]["skill"] == pytest.approx(frame.compute().skill, rel=1e-9)
    assert set(found["truth"]["face"]) == set(found["truth"]["frame"]) == {
        "skill", "edited_error", "factual_error", "strength", "direction", "spill", "hole",
    }  # fmt: skip
    index = track.frames()
    crops = [
        crop(clip.frames[torch.from_numpy(index)], track.quads[index], 128).permute(0, 3, 1, 2).float() / 127.5 - 1
        for clip in (young, edited, old)
    ]
    examiner = bundled.get("examiner", Examiner.from_folder)
    said = {name: one["value"] for name, one in found["examiner"]["counterfactual"].items()}
    assert said == examiner.read(crops[1])
    assert set(found["examiner"]) == {
        "factual", "counterfactual", "truth", "changed_seen", "changed_as_published", "kept_kept",
    }  # fmt: skip
    before = {name: one["value"] for name, one in found["examiner"]["factual"].items()}
    assert before == examiner.read(crops[0])
    changed = [said[name] == value for name, value in asked.changed.items()]
    gained = [said[name] == value != before[name] for name, value in asked.changed.items()]
    assert found["examiner"]["changed_as_published"] == sum(changed) / len(changed)
    assert found["examiner"]["changed_seen"] == sum(gained) / len(gained)
    network = bundled.get("identity", lambda folder: None)
    rows = [torch.full((FRAMES, 128), torch.nan).index_copy(0, torch.from_numpy(index), network(c)) for c in crops]
    assert found["identity"]["tl_id"] == pytest.approx(tl_id(rows[0], rows[1]), abs=1e-4)
    assert found["identity"]["tg_id"] == pytest.approx(tg_id(rows[0], rows[1]), abs=1e-4)
    assert found["identity"]["likeness_to_truth"] == pytest.approx(likeness(rows[2], rows[1]), abs=1e-4)
    assert found["scores"]["effectiveness.gained"] == found["examiner"]["changed_seen"]
    assert found["scores"]["effectiveness.changed"] == found["examiner"]["changed_as_published"]
    assert found["scores"]["truth.skill"] == found["truth"]["face"]["skill"]
    assert {name.partition(".")[0] for name in found["scores"]} == {
        "effectiveness", "identity", "minimality", "psnr", "truth",
    }  # fmt: skip


def test_without_face_truth_or_weights_the_rest_is_measured(scene, tmp_path):
    young, old, track, asked = scene
    found = measure(young, old, None, None, asked, Eyes())
    assert found["identity"] is None and found["examiner"] is None and found["truth"] is None
    assert set(found["scores"]) == {"psnr"}
    blind = Eyes(folders={"identity": str(tmp_path)})
    found = measure(young, old, None, track, asked, blind)
    assert found["identity"] is None and found["examiner"] is not None
    assert found["scores"]["effectiveness.target"] in (0.0, 1.0)


def test_squares_are_filled_where_the_face_is():
    square = np.array([[[2, 2], [2, 5], [5, 5], [5, 2]]], float)
    inside = inside_squares(square, [1], (2, 8, 8))
    assert inside.shape == (2, 8, 8) and not inside[0].any()
    assert inside[1].sum() == 16 and inside[1, 2:6, 2:6].all()


def test_a_critic_can_judge(scene):
    young, _, track, _ = scene
    index = track.frames()
    squares = crop(young.frames[torch.from_numpy(index)], track.quads[index], 128)
    factual = sample_person(2_000_003).attributes
    items = []
    for question in questions(phantom_graph()):
        key = question.options[question.letter(factual[question.variable])]
        items.append(Item(clip="her", intervention="age", question=question, published=key, corrected=key))
    answers = answers_of(CriticJudge(BundledCritic.load()), items, lambda clip, intervention: squares)
    matrix = accuracy_matrix(items, answers, reading="published")
    assert np.mean([row["age"] for row in matrix.values()]) >= 0.8


def test_a_critic_that_fails_gives_no_answers(tmp_path):
    verdict = {"critic": "somebody", "frames": [0], "answers": {}}
    line = {"request": "another", "size": 128, "verdict": verdict}
    (tmp_path / "verdicts.jsonl").write_text(json.dumps(line) + "\n")
    judge = CriticJudge(ReplayCritic(tmp_path / "verdicts.jsonl"))
    assert judge.answer(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), questions(phantom_graph())) == [None] * 10


def test_pixels_outside_the_square_are_counted_and_said(scene, bundled):
    young, _, track, asked = scene
    inside, frames = young.frames.clone(), young.frames
    for number in track.frames():
        x, y = track.quads[number].mean(0).round().astype(int)
        inside[number, y - 2 : y + 2, x - 2 : x + 2] = 255 - inside[number, y - 2 : y + 2, x - 2 : x + 2]
    found = measure(young, Clip.from_frames(inside), None, track, asked, bundled)
    assert found["touched"]["touched"] == int((inside != frames).any(-1).sum()) > 0
    assert found["touched"]["outside"] == 0 and found["touched"]["largest"] == 0
    assert rest_of(found).startswith("all within the face's square; every pixel outside it is the source's bit for bit")
    assert "as it was read (see the notes)" in rest_of(found, ["It was deinterlaced."])
    corner = inside.clone()
    corner[1, 0, :3, 1] = (corner[1, 0, :3, 1].int() + 128).remainder(256).to(torch.uint8)
    found = measure(young, Clip.from_frames(corner), None, track, asked, bundled)
    assert found["touched"]["outside"] == 3 and found["touched"]["largest"] == 128
    assert rest_of(found).startswith("3 of them outside the face's square") and "bit for bit" not in rest_of(found)


def test_what_is_said_where_nothing_or_everything_was_edited(scene, bundled):
    young, old, track, asked = scene
    same = measure(young, young, None, track, asked, bundled)
    assert same["touched"]["touched"] == 0 and rest_of(same).startswith("every pixel is the source's bit for bit")
    whole = measure(young, old, None, None, asked, bundled)
    assert "outside" not in whole["touched"] and rest_of(whole) == "whole frames were edited"
    assert "bit for bit" not in rest_of({"changed_share": 0.5})  # numbers of an older version
