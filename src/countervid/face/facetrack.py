"""Where one person's face is in a clip, frame by frame: kept as a small file beside the run.

The same track gives the same crops anywhere. It takes about 1 KB a frame.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from countervid.errors import FaceError

Points = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

ABSENT, DETECTED, FILLED = range(3)
FORMAT = 1  # of the stored track


@dataclass(frozen=True)
class FaceTrack:
    """One face through a clip of F frames; rows of frames without it are NaN."""

    source: npt.NDArray[np.uint8]  # (F,) 0 absent, 1 detected, 2 filled in between detections
    boxes: npt.NDArray[np.float32]  # (F, 4) left, top, right, bottom; pixels
    landmarks: npt.NDArray[np.float32]  # (F, 68, 2) pixels
    quads: Points  # (F, 4, 2) the crop's square: upper left, lower left, lower right, upper right; pixels
    height: int  # of the frames, pixels
    width: int
    face: int  # its number, from the largest
    faces: int  # faces seen in the clip
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
        """Unbroken runs of frames with the face, as (start, stop)."""
        edges = np.flatnonzero(np.diff(np.concatenate([[0], self.present.astype(np.int8), [0]])))
        return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]

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
            "faces": self.faces,
        }

    def describe(self) -> str:
        """What a reader of the run should know, in one or two sentences."""
        count = self.counts()
        text = f"Face {self.face} of {self.faces} found in {count['detected']} of {len(self)} frames"
        if count["filled"]:
            text += f", filled in between them in {count['filled']}"
        if count["absent"]:
            text += f"; {count['absent']} frames without it pass through unchanged"
        return text + "."

    def save(self, path: Path) -> None:
        """Write the track as safetensors, whole or not at all; the same track gives the same bytes."""
        # One metadata key: with several, their order in the file would be left to chance.
        head = {
            "format": FORMAT,
            "counts": self.counts(),
            **{name: getattr(self, name) for name in ("height", "width", "face", "faces", "distrusted", "settings")},
        }
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in ("source", "boxes", "landmarks", "quads")}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_bytes(save(arrays, {"face_track": json.dumps(head, sort_keys=True)}))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> FaceTrack:
        """The track saved at `path`."""
        try:
            with safe_open(str(path), "numpy") as file:
                head = json.loads(file.metadata()["face_track"])
                arrays = {name: file.get_tensor(name) for name in ("source", "boxes", "landmarks", "quads")}
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise FaceError(f"{path} is not a stored face track ({error}). Run the analysis again.") from None
        if head.pop("format") != FORMAT:
            raise FaceError(f"{path} was written by another version. Run the analysis again.")
        head.pop("counts")
        return cls(**arrays, **head)
