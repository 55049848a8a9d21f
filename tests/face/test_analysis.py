"""One pass over a clip gives what a plain analysis with all frames in memory gives, and hands out the same crops."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from countervid.clip import Clip
from countervid.face import align
from countervid.face.analysis import Analysis
from countervid.face.landmarks import FittedLandmarks, believed
from countervid.face.parse import EllipseParser
from countervid.face.pipeline import Crops, FaceConfig, FacePipeline, FaceTrack
from face.support import clip_of, moving

SIZE = 48


class Sink:
    """Keeps what it is given; says how often a clip was decoded."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self.taken: dict[int, dict[int, tuple[Tensor, np.ndarray, np.ndarray]]] = {}
        self.face: FaceTrack | None = None

    def take(self, track: int, crops: Crops) -> None:
        assert self.face is None
        rows = zip(crops.frames, crops.quads, crops.landmarks, strict=True)
        self.taken.setdefault(track, {}).update(zip(crops.index.tolist(), rows, strict=True))

    def finish(self, face: FaceTrack, tracks) -> None:
        self.face = face
        self.final = {number: row for track in tracks for number, row in self.taken[track].items()}


class Counting:
    """A clip that counts the frames it gives out."""

    def __init__(self, clip: Clip) -> None:
        self.clip, self.given = clip, 0

    def __getattr__(self, name):
        return getattr(self.clip, name)

    def __len__(self) -> int:
        return len(self.clip)

    def windows(self, size: int = 32, start: int = 0):
        for first, frames in self.clip.windows(size, start):
            self.given += len(frames)
            yield first, frames


def pipeline_of(window: int = 8, landmarker=None, **settings) -> FacePipeline:
    return FacePipeline(
        landmarker=landmarker or FittedLandmarks(),
        parser=EllipseParser(),
        config=FaceConfig(window=window, longest_gap=4, **settings),
    )


def covered(frames: Tensor, where) -> Tensor:
    for i in where:
        cv2.ellipse(frames[i].numpy(), (120, 88), (26, 36), 0, 0, 360, (90, 110, 90), -1)
    return frames


def plain(pipeline: FacePipeline, frames: Tensor, filled, runs) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks and squares of a clip with one face in known runs, all frames at once; `filled` frames have no find."""
    found = pipeline.detector(frames)
    boxes, points = np.full((len(frames), 4), np.nan), np.full((len(frames), 5, 2), np.nan)
    source = np.zeros(len(frames), np.uint8)
    for i, detections in enumerate(found):
        if len(detections) and i not in filled:
            boxes[i], points[i], source[i] = detections.boxes[0], detections.points[0], 1
    for i in filled:
        a, b = min(filled) - 1, max(filled) + 1
        share = (i - a) / (b - a)
        boxes[i] = (1 - share) * boxes[a] + share * boxes[b]
        points[i], source[i] = (1 - share) * points[a] + share * points[b], 2
    marks, quads = np.full((len(frames), 68, 2), np.nan), np.full((len(frames), 4, 2), np.nan)
    seen = source > 0
    marks[seen] = pipeline.landmarker(frames[torch.from_numpy(np.flatnonzero(seen))], boxes[seen], points[seen])
    marks[seen] = believed(marks[seen], points[seen], source[seen], pipeline.config.trust)[0]
    marks = marks.astype(np.float32)
    for start, stop in runs:
        quads[start:stop] = align.quads(marks[start:stop], True, pipeline.config.framing)
    return marks, quads


@pytest.mark.parametrize(("window", "size", "zoom"), [(8, 48, 0.75), (5, 20, 2.0), (64, 300, 0.75)])
def test_one_pass_hands_out_what_the_plain_way_cuts(window, size, zoom):
    frames = moving(44, zoom=zoom)
    filled: tuple[int, ...] = ()
    if zoom < 1:
        filled = (20, 21, 22)
        covered(frames, filled)
    pipeline, sink, clip = pipeline_of(window), Sink(size), Counting(clip_of(frames))
    analysis = Analysis(pipeline, clip, 0, sink)
    track = analysis.run()
    marks, quads = plain(pipeline, frames, filled, [(0, 44)])
    np.testing.assert_array_equal(track.landmarks, marks)
    np.testing.assert_array_equal(track.quads, quads)
    assert analysis.again == 0 and clip.given == 44  # every frame was decoded once
    (whole,) = pipeline_of(64).crops(clip_of(frames), track, size)
    assert list(sink.final) == list(range(44))
    for i in range(44):
        picture, quad, landmarks = sink.final[i]
        assert torch.equal(picture, whole.frames[i])
        np.testing.assert_array_equal(quad, quads[i])
        np.testing.assert_array_equal(landmarks, whole.landmarks[i])


class Astray:
    """Landmarks that are right up to a frame, and wrong in all after it."""

    name = "astray"

    def __init__(self, after: int) -> None:
        self.after, self.seen = after, 0

    def __call__(self, frames, boxes, points):
        found = FittedLandmarks()(frames, boxes, points)
        number = self.seen + np.arange(len(found))
        self.seen += len(found)
        found[number >= self.after] += 25.0
        return found


def test_what_the_end_decides_otherwise_is_cut_again():
    frames = moving(60)
    sink, clip = Sink(), Counting(clip_of(frames))
    analysis = Analysis(pipeline_of(landmarker=Astray(24)), clip, 0, sink)
    track = analysis.run()
    assert track.distrusted == 60  # wrong in most frames, so replaced in all
    assert 0 < analysis.again < 60 and clip.given < 120
    (whole,) = pipeline_of(64).crops(clip_of(frames), track, SIZE)
    for i in range(60):
        assert torch.equal(sink.final[i][0], whole.frames[i])
        np.testing.assert_array_equal(sink.final[i][1], track.quads[i])


def test_little_is_held_however_long_the_clip():
    held = []
    for count in (60, 120):
        analysis = Analysis(pipeline_of(), clip_of(moving(count)), 0, Sink())
        most = 0
        original = analysis._hand_out

        def watched(analysis=analysis, original=original):
            nonlocal most
            original()
            pieces = [f.piece for t in analysis._followed.values() for f in t.faces.values()]
            waiting = [f.piece for frame in analysis._waiting.values() for f in frame.faces.values()]
            most = max(most, sum(piece is not None for piece in pieces + waiting) + len(analysis._whole))

        analysis._hand_out = watched  # type: ignore[method-assign]
        analysis.run()
        held.append(most)
    assert held[0] == held[1] <= 40


def test_a_piece_of_a_frame_is_enough_to_crop_from_it():
    frames = moving(1, zoom=0.9)
    rng = np.random.default_rng(5)
    for size in (16, 40, 300):
        for _ in range(6):
            centre, half = rng.uniform((0, 0), (240, 180)), rng.normal(0, 60, 2)
            quad = align.corners(centre[None], half[None])
            part = align.footprint(quad[0], size, 180, 240)
            piece = frames[:, part.top : part.bottom, part.left : part.right].clone()
            assert torch.equal(align.crop(piece, quad, size, part), align.crop(frames, quad, size))
