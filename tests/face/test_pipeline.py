"""From a clip to crops and back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from countervid.errors import FaceError
from countervid.face import align
from countervid.face.landmarks import FittedLandmarks
from countervid.face.parse import EllipseParser, edit_mask
from countervid.face.pipeline import Crops, Edit, FaceConfig, FacePipeline, FaceTrack
from face.support import clip_of, moving

FRAMES = 26
HIDDEN = (8, 9, 10)  # something is before the face
AWAY = range(16, 22)  # the face is out of the picture


@pytest.fixture(scope="module")
def pipeline() -> FacePipeline:
    config = FaceConfig(window=8, longest_gap=4)
    return FacePipeline(landmarker=FittedLandmarks(), parser=EllipseParser(), config=config)


@pytest.fixture(scope="module")
def frames() -> Tensor:
    shots = moving(FRAMES)
    for i in HIDDEN:
        cv2.ellipse(shots[i].numpy(), (120, 88), (26, 36), 0, 0, 360, (90, 110, 90), -1)
    shots[list(AWAY)] = 60
    return shots


@pytest.fixture(scope="module")
def track(pipeline, frames) -> FaceTrack:
    return pipeline.analyze(clip_of(frames))


def test_the_track_knows_where_the_face_is_and_is_not(track):
    assert track.counts() == {
        "frames": FRAMES, "detected": 17, "filled": 3, "absent": 6, "distrusted": 0, "runs": 2, "shots": 1, "faces": 1,
    }  # fmt: skip
    assert track.runs() == [(0, 16), (22, 26)]
    assert np.isnan(track.quads[list(AWAY)]).all() and np.isfinite(track.quads[track.present]).all()
    assert "6 frames without it pass through unchanged" in track.describe()


def test_crops_hold_the_face_still(pipeline, frames, track):
    windows = list(pipeline.crops(clip_of(frames), track, size=64))
    assert np.concatenate([w.index for w in windows]).tolist() == track.frames().tolist()
    landmarks = np.concatenate([w.landmarks for w in windows])
    eyes = align.five_points(landmarks)[:, :2].mean(1)
    # The camera moves the face by 24 px of a crop this size; in the crop the eyes stay within a few.
    assert np.ptp(eyes, axis=0).max() < 5
    assert np.abs(eyes.mean(0) - (31.5, 32.0)).max() < 3
    for window in windows:
        torch.testing.assert_close(window.frames, align.crop(frames[window.index], window.quads, 64), atol=0, rtol=0)


def test_the_window_does_not_matter(pipeline, frames, track):
    for window in (5, 64):
        config = FaceConfig(window=window, longest_gap=4)
        other = FacePipeline(landmarker=FittedLandmarks(), parser=EllipseParser(), config=config)
        again = other.analyze(clip_of(frames))
        for name in ("source", "boxes", "landmarks", "quads"):
            np.testing.assert_array_equal(getattr(again, name), getattr(track, name))


def test_a_track_is_stored_whole_and_the_same_each_time(track, tmp_path):
    track.save(tmp_path / "a" / "face.safetensors")
    track.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a" / "face.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["face.safetensors"]
    loaded = FaceTrack.load(tmp_path / "b.safetensors")
    for name in ("source", "boxes", "landmarks", "quads"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(track, name))
    assert loaded.counts() == track.counts() and loaded.settings == track.settings
    (tmp_path / "bad").write_bytes(b"no")
    with pytest.raises(FaceError, match="not a stored face track"):
        FaceTrack.load(tmp_path / "bad")


def edits_of(pipeline: FacePipeline, clip, track: FaceTrack, strength: float):
    """An edit that reddens the head."""
    crops: dict[int, Tensor] = {}
    for window in pipeline.crops(clip, track, size=64):
        crops.update(zip(window.index.tolist(), window.frames.float(), strict=True))

    def labels(index) -> Tensor:
        return pipeline.parser(torch.stack([crops[int(i)] for i in index]))

    def edits(index) -> Edit:
        before = torch.stack([crops[int(i)] for i in index])
        edited = before + strength * torch.tensor([60.0, -20.0, -20.0])
        return Edit(edited, pipeline.masks(track, index, labels), before)

    return edits


def test_doing_nothing_changes_nothing(pipeline, frames, track):
    clip = clip_of(frames)
    edits = edits_of(pipeline, clip, track, 0.0)
    for mode in ("residual", "adaptive"):
        assert torch.equal(pipeline.pasted(clip, track, edits, mode).frames, frames)


def test_the_edit_reaches_the_face_and_nothing_else(pipeline, frames, track):
    clip = clip_of(frames)
    result = pipeline.pasted(clip, track, edits_of(pipeline, clip, track, 1.0)).frames
    assert torch.equal(result[list(AWAY)], frames[list(AWAY)])  # passed through
    grid = np.stack(np.meshgrid(np.arange(240), np.arange(180)), -1).reshape(1, -1, 2)
    for i in track.frames():
        inside = align.to_square(grid, track.quads[[i]])[0].reshape(180, 240, 2)
        outside = torch.from_numpy(((inside < 0) | (inside > 1)).any(-1))
        assert torch.equal(result[i][outside], frames[i][outside])
        eyes = align.five_points(track.landmarks[[i]])[0, 2].round().astype(int)
        red = result[i, eyes[1], eyes[0]].float() - frames[i, eyes[1], eyes[0]].float()
        assert red[0] > 20 or frames[i, eyes[1], eyes[0], 0] > 230


def test_masks_of_windows_are_those_of_the_whole(pipeline, frames, track):
    generator = torch.Generator().manual_seed(0)
    stored = torch.randint(0, 9, (FRAMES, 32, 32), dtype=torch.uint8, generator=generator)

    def labels(index) -> Tensor:
        return stored[torch.from_numpy(np.asarray(index))]

    whole = {}
    for start, stop in track.runs():
        whole.update(zip(range(start, stop), edit_mask(stored[start:stop], stored[start:stop]), strict=True))
    for index in ([0, 1, 2], [5, 6, 7, 8], [12, 15, 22, 23], [25]):
        got = pipeline.masks(track, np.array(index), labels, labels)
        assert torch.equal(got, torch.stack([whole[i] for i in index]))


class Astray:
    """A landmark model that is wrong by `pixels` in the frames `where` of a window."""

    name = "astray"

    def __init__(self, where: slice, pixels: float) -> None:
        self.where, self.pixels = where, pixels

    def __call__(self, frames, boxes, points):
        found = FittedLandmarks()(frames, boxes, points) + 1.0
        found[self.where] += self.pixels
        return found


@pytest.mark.parametrize(
    ("where", "pixels", "distrusted"),
    [
        (slice(3, 4), 60.0, 1),  # one frame far off is replaced
        (slice(None), 20.0, 8),  # all frames off: none is believed
        (slice(None), 2.0, 0),
    ],
)
def test_landmarks_that_contradict_the_detector_are_replaced(frames, where, pixels, distrusted):
    clip, config = clip_of(frames[:8]), FaceConfig(window=8)
    fitted = FacePipeline(landmarker=FittedLandmarks(), parser=EllipseParser(), config=config).analyze(clip).landmarks
    got = FacePipeline(landmarker=Astray(where, pixels), parser=EllipseParser(), config=config).analyze(clip)
    assert got.distrusted == distrusted
    replaced = np.abs(got.landmarks - fitted).max((1, 2)) < 1e-4
    assert replaced.sum() == distrusted and (replaced[where].all() or not distrusted)


def test_no_face_is_one_line(pipeline):
    with pytest.raises(FaceError) as caught:
        pipeline.analyze(clip_of(torch.full((3, 60, 80, 3), 50, dtype=torch.uint8)))
    assert "\n" not in str(caught.value) and "No face" in str(caught.value)


def test_a_track_of_another_clip_is_refused(pipeline, frames, track):
    with pytest.raises(FaceError, match="Analyze this clip"):
        next(pipeline.crops(clip_of(frames[:5]), track))


def test_progress_ends_at_the_total(pipeline, frames):
    seen: list[tuple[int, int]] = []
    pipeline.analyze(clip_of(frames[:10]), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (10, 10) and seen == sorted(seen)


def test_crops_type_is_exported():
    from countervid import face

    assert face.Crops is Crops and face.FacePipeline is FacePipeline
