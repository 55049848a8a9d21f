"""Linking detections into faces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from countervid.errors import FaceError
from countervid.face.detect import Detections
from countervid.face.persons import Person, choose, persons
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


def faces(tracker: Tracker) -> list[Person]:
    return persons(tracker.tracks, tracker.length)


def test_two_people_stay_two_whatever_order_they_are_found_in():
    scenes = []
    for i in range(12):
        people = [(1, 10 + 3 * i, 20, 60), (2, 120 - 2 * i, 110, 40)]
        scenes.append(scene(*(people if i % 3 else people[::-1])))
    tracker = followed(scenes)
    assert [person.frames for person in faces(tracker)] == [list(range(12))] * 2
    assert [person.box for person in faces(tracker)] == [(60, 60), (40, 40)]


def test_the_largest_is_the_one_with_the_largest_summed_area():
    scenes = [scene((1, 10, 10, 50), *([(2, 100, 100, 80)] if i >= 16 else [])) for i in range(20)]
    tracker = followed(scenes)
    assert [len(person.frames) for person in faces(tracker)] == [20, 4]  # 20 x 2500 px against 4 x 6400


def test_paths_that_cross_are_told_apart_by_looks():
    scenes = [scene((1, 10 + 8 * i, 60, 50), (2, 138 - 8 * i, 62, 50)) for i in range(16)]
    tracker = followed(scenes)
    people = faces(tracker)
    assert len(people) == 2  # where one covers the other, neither looks like itself
    for (track,) in (person.tracks for person in people):
        assert len(track.frames) >= 14
        direction = np.sign(track.boxes[-1][0] - track.boxes[0][0])
        steps = np.diff([box[0] for box in track.boxes])
        assert (np.sign(steps) == direction).all()


def test_a_face_that_leaves_and_returns_elsewhere_is_the_same():
    config = TrackConfig(lost_frames=5)
    away = [scene()] * 10
    scenes = [scene((1, 10, 10, 60))] * 6 + away + [scene((1, 130, 120, 50))] * 6
    assert [len(person.frames) for person in faces(followed(scenes, config))] == [12]
    other = [scene((1, 10, 10, 60))] * 6 + away + [scene((7, 130, 120, 50))] * 6
    assert [len(person.frames) for person in faces(followed(other, config))] == [6, 6]


def test_a_flash_is_not_a_face():
    scenes = [scene((1, 20, 20, 60), *([(2, 130, 130, 60)] if i == 5 else [])) for i in range(10)]
    assert len(faces(followed(scenes))) == 1
    assert len(faces(followed([scene((1, 20, 20, 60))]))) == 1  # but one frame may be the whole clip


def test_linking_does_not_depend_on_the_windows():
    scenes = [scene((1, 10 + 3 * i, 20, 60), (2, 120 - 2 * i, 110, 40)) for i in range(11)]
    one, many = followed(scenes, step=1), followed(scenes, step=32)
    for a, b in zip(one.tracks, many.tracks, strict=True):
        assert a.frames == b.frames
        np.testing.assert_array_equal(np.stack(a.boxes), np.stack(b.boxes))


def test_short_gaps_are_bridged_where_the_face_is_there_and_long_ones_are_not():
    shown = [*range(0, 5), *range(8, 12), *range(30, 34)]
    scenes = [scene((1, 10 + 2 * i, 20, 60)) if i in shown else scene() for i in range(36)]
    (track,) = followed(scenes, TrackConfig(lost_frames=40)).tracks
    track.there.update(range(36))
    boxes, points, source = fill([track], 36, longest_gap=6)
    assert [i for i in range(36) if source[i] == 1] == shown
    assert np.flatnonzero(source == 2).tolist() == [5, 6, 7]
    np.testing.assert_allclose(boxes[5:8, 0], [20, 22, 24])
    np.testing.assert_allclose(points[6] - points[4], [[4, 0]] * 5, atol=1e-5)
    assert np.isnan(boxes[12:30]).all() and np.isnan(points[34:]).all()
    track.there -= {6}
    assert np.flatnonzero(fill([track], 36, longest_gap=6)[2] == 2).tolist() == [5, 7]


def test_nothing_is_linked_across_a_cut():
    scenes = [scene((1, 20 + 2 * i, 20, 60)) for i in range(12)]
    tracker = Tracker()
    tracker.update(torch.stack([frame for frame, _ in scenes]), [found for _, found in scenes], cuts={5})
    assert [track.frames for track in tracker.tracks] == [list(range(5)), list(range(5, 12))]
    assert [track.shot for track in tracker.tracks] == [0, 1]
    (person,) = faces(tracker)
    assert person.shots == [0, 1]


def test_somebody_else_in_the_same_place_is_another_track():
    scenes = [scene((1 if i < 6 else 9, 20, 20, 60)) for i in range(12)]
    assert [track.frames for track in followed(scenes).tracks] == [list(range(6)), list(range(6, 12))]
    assert len(faces(followed(scenes))) == 2


def test_who_is_sure_that_it_is_the_same_is_asked_before_looks_veto():
    scenes = [scene((1 if i < 6 else 9, 20, 20, 60)) for i in range(12)]
    for cosine, tracks in ((0.9, 1), (0.7, 2)):
        tracker = Tracker(alike=lambda track, number, row, c=cosine: c, same=0.8, other=0.5)
        tracker.update(torch.stack([frame for frame, _ in scenes]), [found for _, found in scenes])
        assert len(tracker.tracks) == tracks


class Named:
    """A recognizer whose vectors were given to the tracks already."""

    name, size, same, other = "named", 8, 0.8, 0.5


def test_vectors_say_who_is_one_person_and_nobody_is_in_two_places():
    scenes = [scene((i, 20, 20, 60)) for i in (1, 2, 3) for _ in range(4)]
    tracker = Tracker()
    tracker.update(torch.stack([frame for frame, _ in scenes]), [found for _, found in scenes], cuts={4, 8})
    for track, vector in zip(tracker.tracks, ([1.0, 0.0], [0.0, 1.0], [0.95, 0.31]), strict=True):
        track.recognise(np.array(vector))
    found = persons(tracker.tracks, 12, Named())
    assert [person.shots for person in found] == [[0, 2], [1]]
    for track in tracker.tracks:
        track.frames = [0, 1, 2, 3]
    assert len(persons(tracker.tracks, 12, Named())) == 3


def test_no_face_and_no_such_face():
    with pytest.raises(FaceError, match="No face was found in any of the 3 frames"):
        choose(faces(followed([scene()] * 3)), 0, 3)
    with pytest.raises(
        FaceError, match="no person 4: .* one person.*in 5 of 5 frames .100%., about 60 x 60 px, shot 1"
    ):
        choose(faces(followed([scene((1, 20, 20, 60))] * 5)), 4, 5)
