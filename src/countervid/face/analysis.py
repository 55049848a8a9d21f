"""One pass over a clip: cuts, tracks, landmarks, persons, and each track's aligned crops as they become final.

Frames are decoded once and in order. What needs to look ahead waits, and holds no more pixels than it needs:

- a frame's detections wait until it is known whether a cut lies there (`CutDetector.lookahead`);
- a gap in a track waits for the detection that ends it (`longest_gap`), with a reduced picture of each frame and, where
  fewer faces were found than just before, the frame itself;
- a square waits for the landmarks that it is smoothed with (`smooth.reach`), with the piece of the frame around it.

What only the end of a clip can decide (who is the largest, whether the landmark network is astray) is guessed from what
was seen so far. At the end the track is put together as if nothing had been guessed, and crops that were handed out
with another square or other landmarks are cut again from the clip. `tests/face/test_analysis.py` holds the plain way,
with all frames in memory, against it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from countervid.clip import Clip
from countervid.face import align
from countervid.face.crops import CropSink, crops_of
from countervid.face.detect import Detections
from countervid.face.facetrack import ABSENT, DETECTED, FILLED, FaceTrack, Index, Points
from countervid.face.landmarks import believed, disagreement
from countervid.face.persons import Person, choose, persons
from countervid.face.presence import Picture, reduced, still_there
from countervid.face.shots import CutDetector
from countervid.face.smooth import reach
from countervid.face.track import Array, Track, Tracker, between, fill, looks

if TYPE_CHECKING:
    from countervid.face.pipeline import FacePipeline

_BYTES = 64 << 20  # of decoded frames at once
_ROOM = 0.2  # sides: how far a square may be from the unsmoothed one and still be cut without decoding again
_RECOGNISED = 6  # frames at a track's begin that say who it is, and later every
_EVERY = 10  # frames


@dataclass
class _Face:
    """What is kept of a detection that is followed."""

    landmarks: Points  # (68, 2) pixels of the frame
    piece: Tensor | None = None  # (h, w, 3) of the frame, around the square
    part: align.Part | None = None  # where the piece lies
    crop: Tensor | None = None  # (S, S, 3) for the recognizer


@dataclass
class _Frame:
    """A frame that was detected in and not linked yet."""

    found: Detections
    pictures: Array
    faces: dict[int, _Face]


@dataclass
class _Followed:
    """What is known of a track's frames beside its detections, and what was handed out."""

    landmarks: dict[int, Points] = field(default_factory=dict)
    points: dict[int, Points] = field(default_factory=dict)  # the detector's five, or between them
    apart: dict[int, float] = field(default_factory=dict)  # how far the two disagree, where there is a detection
    faces: dict[int, _Face] = field(default_factory=dict)  # of frames that are not handed out yet
    quads: dict[int, Points] = field(default_factory=dict)  # handed out
    marks: dict[int, npt.NDArray[np.float32]] = field(default_factory=dict)  # handed out, (68, 2) pixels of the frame
    settled: int = -1  # frames up to this one are handed out, or are not of the track


class Analysis:
    """One pass of one pipeline over one clip; see above. Used once."""

    def __init__(self, pipeline: FacePipeline, clip: Clip, face: int, sink: CropSink | None) -> None:
        self._pipeline, self._config, self._clip = pipeline, pipeline.config, clip
        self._face, self._sink = face, sink
        self._cuts = CutDetector(self._config.cuts)
        self._starts: list[int] = []  # first frames of the shots after the first
        self._tracker = Tracker(self._config.track)
        if pipeline.recognizer is not None:
            same, other = pipeline.recognizer.same, pipeline.recognizer.other
            self._tracker = Tracker(self._config.track, self._alike, same, other)
        self._waiting: dict[int, _Frame] = {}
        self._small: dict[int, Picture] = {}
        self._whole: dict[int, Tensor] = {}
        self._counts: list[int] = []  # faces found in each frame
        self._followed: dict[int, _Followed] = {}
        self._open: list[Track] = []  # tracks whose crops are not all handed out
        self.again = 0  # crops that were cut from the clip a second time

    def run(self, progress: Callable[[int, int], None] | None = None) -> FaceTrack:
        """The track of the person asked for.

        Raises:
            FaceError: No face at all, or not so many.
        """
        clip = self._clip
        window = max(1, min(self._config.window, _BYTES // (3 * clip.height * clip.width)))
        for start, frames in clip.windows(window):
            self._look(start, frames)
            self._link(self._cuts.update(frames), self._cuts.decided)
            self._hand_out()
            if progress:
                progress(start + len(frames), len(clip))
        self._link(self._cuts.finish(), self._cuts.length)
        self._tracker.live = []
        self._hand_out()
        track, chosen = self._put_together()
        if self._sink is not None:
            self._cut_again(track, chosen)
            self._sink.finish(track, [part.number for part in chosen.tracks])
        return track

    # --- as frames come ----------------------------------------------------------------------------------------------

    def _look(self, start: int, frames: Tensor) -> None:
        """Detect, and take from the frames what is needed later."""
        pipeline, config = self._pipeline, self._config
        detections = pipeline.detector(frames)
        followed = [_largest(found, max(3, self._face + 2)) for found in detections]
        rows = np.array([row for row, some in enumerate(followed) for _ in some], dtype=np.int64)
        faces: list[_Face] = []
        if len(rows):
            pictures = frames[torch.from_numpy(rows)]
            boxes = np.stack([detections[r].boxes[i] for r, some in enumerate(followed) for i in some])
            points = np.stack([detections[r].points[i] for r, some in enumerate(followed) for i in some])
            landmarks = pipeline.landmarker(pictures, boxes, points)
            faces = [_Face(marks) for marks in landmarks]
            if self._sink is not None:
                quads = align.quads(landmarks, smooth=False, framing=config.framing)
                for face, row, quad in zip(faces, rows, quads, strict=True):
                    self._keep_piece(face, frames[row], quad)
            if pipeline.recognizer is not None:
                quads = align.quads(landmarks, smooth=False, framing=pipeline.recognizer.framing)
                for face, crop in zip(faces, align.crop(pictures, quads, pipeline.recognizer.size), strict=True):
                    face.crop = crop
        each = iter(faces)
        for row, found in enumerate(detections):
            number = start + row
            seen = looks(frames[row].expand(len(found), *frames.shape[1:]), found.points) if len(found) else np.empty(0)
            self._waiting[number] = _Frame(found, seen, {i: next(each) for i in followed[row]})
            self._small[number] = reduced(frames[row])
            if len(found) < max(self._counts[-config.longest_gap - 1 :], default=0):
                self._whole[number] = frames[row].clone()
            self._counts.append(len(found))

    def _keep_piece(self, face: _Face, frame: Tensor, quad: Points) -> None:
        assert self._sink is not None
        face.part = part = align.footprint(quad, self._sink.size, frame.shape[0], frame.shape[1], _ROOM)
        face.piece = frame[part.top : part.bottom, part.left : part.right].clone()

    def _link(self, cuts: Sequence[int], stop: int) -> None:
        """Link the frames before `stop`, of which all cuts are known."""
        self._starts += cuts
        starts = set(cuts)
        for number in range(self._tracker.length, stop):
            frame = self._waiting[number]
            known = len(self._tracker.tracks)
            self._tracker.link(frame.found, frame.pictures, number in starts)
            self._open += self._tracker.tracks[known:]
            for track in self._tracker.live:
                if track.frames[-1] == number:
                    self._follow(track, frame)
            del self._waiting[number]
        oldest = stop - self._config.longest_gap - 2
        self._small = {number: picture for number, picture in self._small.items() if number >= oldest}
        self._whole = {number: frame for number, frame in self._whole.items() if number >= oldest}

    def _follow(self, track: Track, frame: _Frame) -> None:
        """Take what is known of a track's newest detection, and bridge the gap before it, if there is one."""
        followed, number = self._followed.setdefault(track.number, _Followed()), track.frames[-1]
        face = frame.faces.get(track.which[-1])
        if face is not None:
            followed.landmarks[number], followed.faces[number] = face.landmarks, face
            followed.points[number] = track.points[-1].astype(np.float64)
            if track.vectors < _RECOGNISED or len(track.frames) % _EVERY == 0:
                self._recognise(track, face)
            face.crop = None
        if len(track.frames) > 1 and 1 < number - track.frames[-2] <= self._config.longest_gap + 1:
            self._bridge(track, followed)

    def _recognise(self, track: Track, face: _Face) -> None:
        if self._pipeline.recognizer is not None and face.crop is not None:
            track.recognise(self._vector(face))

    def _vector(self, face: _Face) -> Array:
        assert self._pipeline.recognizer is not None and face.crop is not None
        with torch.inference_mode():
            image = face.crop.permute(2, 0, 1)[None].float() / 127.5 - 1
            return np.asarray(self._pipeline.recognizer(image)[0].double().cpu().numpy())

    def _alike(self, track: Track, number: int, row: int) -> float | None:
        face = self._waiting[number].faces.get(row)
        if face is None or track.vector is None:
            return None
        return float(self._vector(face) @ track.vector) / max(float(np.linalg.norm(track.vector)), 1e-9)

    def _bridge(self, track: Track, followed: _Followed) -> None:
        """Look whether the face is there in the gap that the newest detection ended."""
        before, after = track.frames[-2:]
        boxes, points = between(track, len(track.frames) - 2)
        around = np.concatenate([track.boxes[-2][None], boxes, track.boxes[-1][None]])
        pictures = [self._small[number] for number in range(before, after + 1)]
        there = still_there(pictures, around, self._clip.height, self._clip.width)
        frames = np.arange(before + 1, after)[there]
        track.there.update(frames.tolist())
        if not all(number in self._whole for number in frames.tolist()) or not len(frames):
            return  # cut from the clip at the end
        whole = torch.stack([self._whole[number] for number in frames.tolist()])
        landmarks = self._pipeline.landmarker(whole, boxes[there], points[there])
        quads = align.quads(landmarks, smooth=False, framing=self._config.framing)
        for row, number in enumerate(frames.tolist()):
            followed.landmarks[number], followed.points[number] = landmarks[row], points[there][row]
            if self._sink is not None:
                followed.faces[number] = _Face(landmarks[row])
                self._keep_piece(followed.faces[number], whole[row], quads[row])

    def _hand_out(self) -> None:
        """Give the sink what is final, and forget what is over."""
        live = {track.number for track in self._tracker.live}
        going = []
        for track in self._open:
            followed = self._followed[track.number]
            pause = self._tracker.length - track.frames[-1]
            over = track.number not in live or pause > self._config.longest_gap + 1
            if self._sink is not None and len(track.frames) >= min(self._config.track.least_frames, len(self._clip)):
                self._hand_out_of(track, followed, over, self._sink)
            if track.number in live:
                going.append(track)
            else:
                followed.faces = {}
        self._open = going

    def _hand_out_of(self, track: Track, followed: _Followed, over: bool, sink: CropSink) -> None:
        config = self._config
        halo = max(reach(align.SIGMA_CENTRE), reach(align.SIGMA_AXES)) if config.smooth else 0
        last, first = track.frames[-1], followed.settled - 2 * halo
        numbers = np.array([n for n in range(max(first, track.frames[0]), last + 1) if n in followed.landmarks])
        if not len(numbers) or numbers[-1] <= followed.settled:
            return
        marks, points = (np.stack([rows[n] for n in numbers]) for rows in (followed.landmarks, followed.points))
        source = np.array([FILLED if n in track.there else DETECTED for n in numbers], np.uint8)
        apart = disagreement(marks, points)
        followed.apart |= {n: far for n, far, kind in zip(numbers, apart, source, strict=True) if kind == DETECTED}
        astray = float(np.median(list(followed.apart.values()))) > config.trust
        trusted = believed(marks, points, source, config.trust, astray)[0].astype(np.float32)
        ready = np.zeros(len(numbers), bool)
        quads = np.empty((len(numbers), 4, 2))
        for rows in np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(numbers) > 1) + 1):
            run = numbers[rows]
            quads[rows] = align.quads(trusted[rows], config.smooth, config.framing)
            closed = over or run[-1] < last
            ready[rows] = (run > followed.settled) & (closed | (run + halo <= run[-1]))
        if not ready.any():
            return
        followed.settled = int(numbers[ready][-1])
        held = [row for row in np.flatnonzero(ready) if self._holds(followed.faces.get(int(numbers[row])), quads[row])]
        if held:
            index = numbers[held]
            pieces = [followed.faces[number] for number in index.tolist()]
            cut = [
                align.crop(face.piece[None], quad[None], sink.size, face.part)
                for face, quad in zip(pieces, quads[held], strict=True)
                if face.piece is not None
            ]
            sink.take(track.number, crops_of(index, torch.cat(cut), quads[held], trusted[held]))
            followed.quads |= dict(zip(index.tolist(), quads[held], strict=True))
            followed.marks |= dict(zip(index.tolist(), trusted[held], strict=True))
        followed.faces = {number: face for number, face in followed.faces.items() if number > followed.settled}

    def _holds(self, face: _Face | None, quad: Points) -> bool:
        if face is None or face.part is None or self._sink is None:
            return False
        return face.part.holds(align.footprint(quad, self._sink.size, face.part.height, face.part.width))

    # --- at the end --------------------------------------------------------------------------------------------------

    def _put_together(self) -> tuple[FaceTrack, Person]:
        """The track of the person asked for, from all that was found."""
        config, clip, pipeline = self._config, self._clip, self._pipeline
        length = self._tracker.length
        people = persons(self._tracker.tracks, length, pipeline.recognizer, config.track.least_frames)
        chosen = choose(people, self._face, length)
        boxes, points, source = fill(chosen.tracks, length, config.longest_gap)
        landmarks = np.full((length, 68, 2), np.nan)
        for filled in (True, False):  # as `fill` does: detections go before what was interpolated
            for track in chosen.tracks:
                known = self._followed[track.number].landmarks
                for number in sorted(track.there) if filled else track.frames:
                    landmarks[number] = known.get(number, np.nan)
        missing = np.flatnonzero((source != ABSENT) & np.isnan(landmarks[:, 0, 0]))
        for index, frames in frames_of(clip, missing, config.window):
            landmarks[index] = pipeline.landmarker(frames, boxes[index], points[index])
        seen = source != ABSENT
        landmarks[seen], distrusted = believed(landmarks[seen], points[seen], source[seen], config.trust)
        result = FaceTrack(
            source=source,
            boxes=boxes.astype(np.float32),
            landmarks=landmarks.astype(np.float32),
            quads=np.full((length, 4, 2), np.nan),
            cuts=np.array(self._starts, dtype=np.int64),
            height=clip.height,
            width=clip.width,
            face=self._face,
            persons=[person.to_json() for person in people],
            distrusted=distrusted,
            settings={
                "detector": pipeline.detector.name,
                "landmarks": pipeline.landmarker.name,
                "parser": pipeline.parser.name,
                "recognizer": None if pipeline.recognizer is None else pipeline.recognizer.name,
                "config": json.loads(json.dumps(asdict(config))),  # as it is read again
            },
        )
        for start, stop in result.runs():
            result.quads[start:stop] = align.quads(result.landmarks[start:stop], config.smooth, config.framing)
        return result, chosen

    def _cut_again(self, track: FaceTrack, chosen: Person) -> None:
        """Cut what was not handed out as the track has it."""
        assert self._sink is not None
        holders: dict[int, list[int]] = {}  # frame -> tracks that handed it out
        for part in chosen.tracks:
            for number in self._followed[part.number].quads:
                holders.setdefault(number, []).append(part.number)
        wrong = []
        for number in track.frames().tolist():
            given = [self._followed[part] for part in holders.get(number, [])]
            right = [
                np.array_equal(known.quads[number], track.quads[number])
                and np.array_equal(known.marks[number], track.landmarks[number])
                for known in given
            ]
            if not right or not all(right):
                wrong.append(number)
        self.again = len(wrong)
        for index, frames in frames_of(self._clip, np.array(wrong, dtype=np.int64), self._config.window):
            quads = track.quads[index]
            cut = align.crop(frames, quads, self._sink.size)
            for row, number in enumerate(index.tolist()):
                one = slice(row, row + 1)
                crops = crops_of(index[one], cut[one], quads[one], track.landmarks[index[one]])
                for key in holders.get(number, [chosen.tracks[0].number]):
                    self._sink.take(key, crops)


def frames_of(clip: Clip, index: Index, window: int) -> Iterator[tuple[Index, Tensor]]:
    """The frames `index` (ascending) of a clip, in batches: their numbers, and `(n, H, W, 3)`."""
    while len(index):
        for start, frames in clip.windows(window, int(index[0])):
            rows = index[index < start + len(frames)]
            if len(rows):
                yield rows, frames[torch.from_numpy(rows - start)]
            index = index[len(rows) :]
            if not len(index) or index[0] >= start + 4 * window:
                break  # begin again where the next one is


def _largest(found: Detections, most: int) -> list[int]:
    """Rows of the `most` largest faces of a frame."""
    areas = np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1)
    return sorted(np.argsort(-areas, kind="stable")[:most].tolist())
