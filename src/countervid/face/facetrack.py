"""Where one person's face is in a clip, frame by frame: kept as a small file beside the run.

The same track gives the same crops anywhere. It takes about 1 KB a frame.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from countervid.errors import FaceError
from countervid.files.names import utf8_path
from countervid.files.whole import write_whole

Points = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

ABSENT, DETECTED, FILLED = range(3)
FORMAT = 2  # of the stored track
_ARRAYS = ("source", "boxes", "landmarks", "quads", "cuts")
_MOST_NAMED = 8  # shots that a sentence names one by one


@dataclass(frozen=True)
class FaceTrack:
    """One face through a clip of F frames; rows of frames without it are NaN."""

    source: npt.NDArray[np.uint8]  # (F,) 0 absent, 1 detected, 2 filled in between detections
    boxes: npt.NDArray[np.float32]  # (F, 4) left, top, right, bottom; pixels
    landmarks: npt.NDArray[np.float32]  # (F, 68, 2) pixels
    quads: Points  # (F, 4, 2) the crop's square: upper left, lower left, lower right, upper right; pixels
    height: int  # of the frames, pixels
    width: int
    face: int  # number of the person, from the largest, 0
    cuts: Index  # first frames of the shots after the first, ascending
    persons: list[
        dict[str, Any]
    ]  # the people of the clip by number: frames, shots (from 0), width and height of the box
    distrusted: int  # frames whose landmarks were replaced by a plain face through the detector's five points
    settings: dict[str, Any]  # detector, landmark model, configuration

    def __len__(self) -> int:
        return len(self.source)

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """`(F,)`: frames that have the face, and so a crop."""
        return np.asarray(self.source != ABSENT)

    def frames(self, start: int = 0, stop: int | None = None) -> Index:
        """Numbers of the frames in `start..stop` that have the face."""
        stop = len(self) if stop is None else stop
        return np.flatnonzero(self.present[start:stop]) + start

    def runs(self) -> list[tuple[int, int]]:
        """Unbroken runs of frames with the face, as (start, stop); a cut breaks a run."""
        present = self.present
        broken = np.diff(present.astype(np.int8), prepend=0) != 0
        broken[self.cuts] = True
        starts = np.flatnonzero(broken & present)
        stops = np.flatnonzero(np.concatenate([broken, [True]]))
        return [(int(start), int(stops[stops > start][0])) for start in starts]

    @property
    def shots(self) -> list[tuple[int, int]]:
        """The shots of the clip, as (start, stop)."""
        bounds = [0, *self.cuts.tolist(), len(self)]
        return list(zip(bounds[:-1], bounds[1:], strict=True))

    @property
    def faces(self) -> int:
        """People seen in the clip."""
        return len(self.persons)

    def counts(self) -> dict[str, int]:
        """Frames by what was found in them, for the run's record."""
        by = np.bincount(self.source, minlength=3)
        return {
            "frames": len(self),
            "detected": int(by[DETECTED]),
            "filled": int(by[FILLED]),
            "absent": int(by[ABSENT]),
            "distrusted": self.distrusted,
            "runs": len(self.runs()),
            "shots": len(self.shots),
            "faces": self.faces,
        }

    def describe(self) -> str:
        """What a reader of the run should know, in a few sentences."""
        count = self.counts()
        text = f"Face {self.face} of {self.faces} found in {count['detected']} of {len(self)} frames"
        if count["filled"]:
            text += f", covered or blurred in {count['filled']} between them"
        if count["absent"]:
            text += f"; {count['absent']} frames without it pass through unchanged"
        text += "."
        if count["shots"] > 1:
            text = f"{count['shots']} shots: {self.who()}. {text}"
        if self.faces > 1 and self.face == 0:
            text += " Person 0 is the largest; `--person N` takes another."
        if self.settings.get("recognizer") is None and (count["shots"] > 1 or self.faces > 1):
            text += " Persons are told apart by small grey pictures of their faces: no recognizer was given."
        return text

    def who(self) -> str:
        """Who is in which shot: `shots 1 and 3 show person 0; shot 2 shows nobody`."""
        count = len(self.shots)
        there = [tuple(i for i, person in enumerate(self.persons) if shot in person["shots"]) for shot in range(count)]
        if len(set(there)) == 1 and len(there[0]) == 1:
            return "all show the same person"
        said = []
        for people in dict.fromkeys(there):
            shots = [shot for shot, some in enumerate(there) if some == people]
            names = f"person{'s' * (len(people) > 1)} {joined([str(i) for i in people])}" if people else "nobody"
            said.append(f"{shots_said(shots)} show{'s' * (len(shots) == 1)} {names}")
        return "; ".join(said)

    def save(self, path: Path) -> None:
        """Write the track as safetensors, whole or not at all; the same track gives the same bytes."""
        # One metadata key: with several, their order in the file would be left to chance.
        head = {
            "format": FORMAT,
            "counts": self.counts(),
            **{name: getattr(self, name) for name in ("height", "width", "face", "persons", "distrusted", "settings")},
        }
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        write_whole(path, save(arrays, {"face_track": json.dumps(head, sort_keys=True)}))

    @classmethod
    def load(cls, path: Path) -> FaceTrack:
        """The track saved at `path`."""
        try:
            with utf8_path(path) as name, safe_open(name, "numpy") as file:
                head = json.loads(file.metadata()["face_track"])
                arrays = {name: file.get_tensor(name) for name in _ARRAYS}
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise FaceError(f"{path} is not a stored face track ({error}). Run the analysis again.") from None
        if head.pop("format") != FORMAT:
            raise FaceError(f"{path} was written by another version. Run the analysis again.")
        head.pop("counts")
        return cls(**arrays, **head)


def share_said(frames: int, length: int) -> str:
    """`in 12 of 48 frames (25%)`."""
    return f"in {frames} of {length} frames ({frames / length:.0%})"


def shots_said(shots: Sequence[int]) -> str:
    """`shot 2`, `shots 1 and 3`, `shots 1, 3 and 4`: shots from 0, counted from 1 as people do."""
    named = [str(shot + 1) for shot in shots[:_MOST_NAMED]]
    named += [f"{len(shots) - _MOST_NAMED} more"] if len(shots) > _MOST_NAMED else []
    return f"shot{'s' * (len(shots) > 1)} {joined(named)}"


def joined(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
