"""From a clip to aligned crops of one face, and back: detect, track, landmarks, square, crop; paste.

What was found is kept as a `FaceTrack`, a small file beside the run: the same track gives the same crops anywhere.
Everything streams; a track itself takes about 1 KB a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from countervid import models
from countervid.clip import Clip
from countervid.errors import FaceError
from countervid.face import align, detect
from countervid.face.align import PORTRAIT, Framing
from countervid.face.analysis import Analysis
from countervid.face.crops import Crops, CropSink, crops_of
from countervid.face.detect import Detector
from countervid.face.facetrack import ABSENT, DETECTED, FILLED, FORMAT, FaceTrack, Index, Points
from countervid.face.landmarks import FittedLandmarks, LandmarkModel, LandmarkNet, NetLandmarks
from countervid.face.parse import EllipseParser, FaceParser, MaskConfig, NetParser, ParserNet, edit_mask
from countervid.face.paste import Mode, paste
from countervid.face.persons import Recognizer
from countervid.face.shots import CutConfig
from countervid.face.smooth import reach
from countervid.face.track import TrackConfig

__all__ = [
    "ABSENT",
    "DETECTED",
    "FILLED",
    "CropSink",
    "Crops",
    "Edit",
    "FaceConfig",
    "FacePipeline",
    "FaceTrack",
    "Index",
    "Points",
    "check",
]


@dataclass(frozen=True, kw_only=True)
class FaceConfig:
    window: int = 32  # frames in memory at once
    longest_gap: int = 12  # frames; a shorter pause in the detections is bridged, a longer one is a face that left
    # In eyes' distances: the network is not believed where it is further from the detector's points in the median
    # frame (all frames are then replaced), or twice as far in one (that one is). On 94 rendered frames the detector is
    # off the true eyes and mouth by 0.11 in the median and 0.36 in one of twenty; on photographs by less.
    trust: float = 0.4
    smooth: bool = True  # steady the square over time
    framing: Framing = PORTRAIT  # how much of the head the square holds
    cuts: CutConfig = field(default_factory=CutConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)


@dataclass(frozen=True)
class Edit:
    """What goes back into the frames: rows as asked for."""

    crops: Tensor  # (n, S, S, 3) edited, 0..255, uint8 or floating point
    masks: Tensor  # (n, S, S) 0..1
    before: Tensor | None = None  # (n, S, S, 3) the same crops unedited, as the model gives them back


class FacePipeline:
    """Detector, landmark model and parser with one configuration. Deterministic: the same clip gives the same track."""

    def __init__(
        self,
        detector: Detector | None = None,
        landmarker: LandmarkModel | None = None,
        parser: FaceParser | None = None,
        recognizer: Recognizer | None = None,
        config: FaceConfig | None = None,
    ) -> None:
        """What is left out is the bundled one: YuNet, the landmark network, the parser.

        Without bundled weights for the last two, a plain face through the detector's five points and a fixed ellipse
        serve; `name` says so, and the track keeps it. Without a recognizer, small grey pictures say who is the same
        person, and the track says that.
        """
        self.config = config or FaceConfig()
        self.detector = detector or detect.load()
        self.landmarker = landmarker or bundled_landmarks()
        self.parser = parser or bundled_parser()
        self.recognizer = recognizer

    def names(self) -> list[str]:
        """What a track depends on beside the clip and the configuration: the models, and the form of what is stored."""
        recognizer = "no recognizer" if self.recognizer is None else self.recognizer.name
        return [f"track {FORMAT}", self.detector.name, self.landmarker.name, self.parser.name, recognizer]

    def analyze(
        self,
        clip: Clip,
        face: int = 0,
        progress: Callable[[int, int], None] | None = None,
        sink: CropSink | None = None,
    ) -> FaceTrack:
        """Find the face and follow it.

        Args:
            clip: The clip; it is read once, in windows (a second time where the end contradicts the beginning).
            face: Which person, counted from the largest (summed area), who is 0.
            progress: Called with (done, total).
            sink: Takes the aligned crops as they become final.

        Raises:
            FaceError: no face at all, or not so many.
        """
        return Analysis(self, clip, face, sink).run(progress)

    def crops(self, clip: Clip, track: FaceTrack, size: int = 128) -> Iterator[Crops]:
        """Aligned crops, window by window; frames without the face are left out."""
        check(clip, track)
        for start, frames in clip.windows(self.config.window):
            index = track.frames(start, start + len(frames))
            if len(index) == 0:
                continue
            quads = track.quads[index]
            cut = align.crop(frames[torch.from_numpy(index - start)], quads, size)
            yield crops_of(index, cut, quads, track.landmarks[index])

    def masks(
        self,
        track: FaceTrack,
        index: Index,
        labels: Callable[[Index], Tensor],
        edited: Callable[[Index], Tensor] | None = None,
        weight: Callable[[Index], Tensor] | None = None,
    ) -> Tensor:
        """Edit masks `(n, S, S)` of the frames `index` (ascending), equal to those of the whole run bit for bit.

        Args:
            labels: Gives the crops' labels `(m, S, S)` for frame numbers; asked for a few neighbours too, because the
                masks are smoothed over time.
            edited: The same for the edited crops.
            weight: How much of the edit is wanted in each place, `(m, S, S)` in 0..1.
        """
        halo, parts = reach(self.config.mask.sigma), []
        for start, stop in track.runs():
            wanted = index[(index >= start) & (index < stop)]
            if len(wanted) == 0:
                continue
            first, last = max(start, int(wanted[0]) - halo), min(stop, int(wanted[-1]) + 1 + halo)
            rows = np.arange(first, last)
            mask = edit_mask(
                labels(rows),
                edited(rows) if edited else None,
                self.config.mask,
                weight=weight(rows) if weight else None,
            )
            parts.append(mask[torch.from_numpy(wanted - first)])
        if not parts:
            raise ValueError("`index` names no frame that has the face; ask `track.frames()`.")
        return torch.cat(parts)

    def pasted(self, clip: Clip, track: FaceTrack, edits: Callable[[Index], Edit], mode: Mode = "adaptive") -> Clip:
        """The clip with its edited crops in it, lazily; frames without the face are passed through.

        Args:
            edits: Gives the edit for frame numbers `(n,)`, ascending, all with the face.
        """
        check(clip, track)

        def composite(start: int, frames: Tensor) -> Tensor:
            index = track.frames(start, start + len(frames))
            if len(index) == 0:
                return frames
            edit, rows = edits(index), torch.from_numpy(index - start)
            result = frames.clone()
            result[rows] = paste(
                frames[rows], edit.crops, track.quads[index], edit.masks, before=edit.before, mode=mode
            )
            return result

        return clip.mapped(composite, self.config.window)


def check(clip: Clip, track: FaceTrack) -> None:
    """A track belongs to its clip, or `FaceError`."""
    if (len(clip), clip.height, clip.width) != (len(track), track.height, track.width):
        raise FaceError(
            f"The face track is of {len(track)} frames of {track.width} x {track.height}, the clip has {len(clip)} of "
            f"{clip.width} x {clip.height}. Analyze this clip."
        )


def bundled_landmarks() -> LandmarkModel:
    """The bundled landmark network, or the plain face through five points if there are no weights."""
    if "landmarks" in models.available():
        return NetLandmarks(LandmarkNet.from_folder(models.bundled("landmarks")))
    return FittedLandmarks()


def bundled_parser() -> FaceParser:
    """The bundled parser, or the fixed ellipse if there are no weights."""
    if "parser" in models.available():
        return NetParser(ParserNet.from_folder(models.bundled("parser")))
    return EllipseParser()
