"""Linking detections into faces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from countervid.errors import FaceError
from countervid.face.detect import Detections
from countervid.face.track import TrackConfig, Tracker, fill

SIZE = 200
POINTS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])


def texture(seed: int, side: int) -> np.ndarray:
    """A person's looks: coarse random blobs."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3)).astype(np.uint8)
    return np.kron(coarse, np.ones((side // 5 + 1, side // 5 + 1, 1), np.uint8))[:side, :side]


def scene(*faces: tuple[int, int, int, int]) -> tuple[Tensor, Detections]:
    """A frame with squares (person, x, y, side) on grey, and its detections, in this order."""
    frame = np.full((SIZE, SIZE, 3), 128, np.uint8)
    boxes = []
    for person, x, y, side in faces:
        frame[y : y + side, x : x + side] = texture(person, side)
        boxes.append((x, y, x + side, y + side))
    corner = np.array(boxes, np.float32).reshape(-1, 4)
    points = corner[:, None, :2] + POINTS.astype(np.float32) * (corner[:, None, 2:] - corner[:, None, :2])
    return torch.from_numpy(frame), Detections(corner, np.full(len(boxes), 0.9, np.float32), points)


def followed(scenes: list[tuple[Tensor, Detections]], config: TrackConfig | None = None, step: int = 4) -> Tracker:
    tracker = Tracker(config)
    for i in range(0, len(scenes), step):
        part = scenes[i : i + step]
        tracker.update(torch.stack([frame for frame, _ in part]), [found for _, found in part])
    return tracker


def test_two_people_stay_two_whatever_order_they_are_found_in():
    scenes = []
    for i in range(12):
        people = [(1, 10 + 3 * i, 20, 60), (2, 120 - 2 * i, 110, 40)]
        scenes.append(scene(*(people if i % 3 else people[::-1])))
    tracker = followed(scenes)
    assert [track.frames for track in tracker.faces()] == [list(range(12))] * 2
    assert [round(float(b[2] - b[0])) for b in tracker.choose(0).boxes] == [60] * 12
    assert [round(float(b[2] - b[0])) for b in tracker.choose(1).boxes] == [40] * 12


def test_the_largest_is_the_one_with_the_largest_summed_area():
    scenes = [scene((1, 10, 10, 50), *([(2, 100, 100, 80)] if i >= 16 else [])) for i in range(20)]
    tracker = followed(scenes)
    assert len(tracker.choose(0).frames) == 20  # 20 x 2500 px against 4 x 6400
    assert len(tracker.choose(1).frames) == 4


def test_paths_that_cross_are_told_apart_by_looks():
    scenes = [scene((1, 10 + 8 * i, 60, 50), (2, 138 - 8 * i, 62, 50)) for i in range(16)]
    tracker = followed(scenes)
    assert len(tracker.faces()) == 2
    for track in tracker.faces():
        direction = np.sign(track.boxes[-1][0] - track.boxes[0][0])
        steps = np.diff([box[0] for box in track.boxes])
        assert (np.sign(steps) == direction).all()


def test_a_face_that_leaves_and_returns_elsewhere_is_the_same():
    config = TrackConfig(lost_frames=5)
    away = [scene()] * 10
    scenes = [scene((1, 10, 10, 60))] * 6 + away + [scene((1, 130, 120, 50))] * 6
    assert [len(track.frames) for track in followed(scenes, config).faces()] == [12]
    other = [scene((1, 10, 10, 60))] * 6 + away + [scene((7, 130, 120, 50))] * 6
    assert [len(track.frames) for track in followed(other, config).faces()] == [6, 6]


def test_a_flash_is_not_a_face():
    scenes = [scene((1, 20, 20, 60), *([(2, 130, 130, 60)] if i == 5 else [])) for i in range(10)]
    assert len(followed(scenes).faces()) == 1
    assert len(followed([scene((1, 20, 20, 60))]).faces()) == 1  # but one frame may be the whole clip


def test_linking_does_not_depend_on_the_windows():
    scenes = [scene((1, 10 + 3 * i, 20, 60), (2, 120 - 2 * i, 110, 40)) for i in range(11)]
    one, many = followed(scenes, step=1), followed(scenes, step=32)
    for a, b in zip(one.tracks, many.tracks, strict=True):
        assert a.frames == b.frames
        np.testing.assert_array_equal(np.stack(a.boxes), np.stack(b.boxes))


def test_short_gaps_are_bridged_and_long_ones_are_not():
    shown = [*range(0, 5), *range(8, 12), *range(30, 34)]
    scenes = [scene((1, 10 + 2 * i, 20, 60)) if i in shown else scene() for i in range(36)]
    track = followed(scenes).choose()
    boxes, points, source = fill(track, 36, longest_gap=6)
    assert [i for i in range(36) if source[i] == 1] == shown
    assert np.flatnonzero(source == 2).tolist() == [5, 6, 7]
    np.testing.assert_allclose(boxes[5:8, 0], [20, 22, 24])
    np.testing.assert_allclose(points[6] - points[4], [[4, 0]] * 5, atol=1e-5)
    assert np.isnan(boxes[12:30]).all() and np.isnan(points[34:]).all()


def test_no_face_and_no_such_face():
    with pytest.raises(FaceError, match="No face was found in any of the 3 frames"):
        followed([scene()] * 3).choose()
    with pytest.raises(FaceError, match="no face number 4.*one face, number 0"):
        followed([scene((1, 20, 20, 60))] * 5).choose(4)
