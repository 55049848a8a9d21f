"""A run's numbers frame by frame: how far pixels moved, in the face and around it, and what the examiner sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from countervid.face import align
from countervid.face.pipeline import FaceTrack
from countervid.metrics.examiner import Examiner

Curve = NDArray[np.float64]
Picture = NDArray[np.uint8]

LOOKS = 24  # frames of a clip that the examiner sees, evenly spread: enough for an interval, a second of work a clip
VISIBLE = 4  # of 255: below this a change cannot be seen (`metrics.truth.THRESHOLD`)
_CROP = 128  # px: what the bundled examiner looks at
_LUMA = np.array([0.2126, 0.7152, 0.0722])  # Rec. 709, of the coded values


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """One number a frame, `(F,)`, in levels of 255; NaN where it is not defined (no face, no truth).

    "Inside" is the square of the face's crop, "outside" the rest of the frame; both of a change are means of the
    absolute difference over pixels and channels.

    Attributes:
        inside, outside: Counterfactual against factual.
        true_inside, true_outside: Truth against factual: what should have moved.
        error: Counterfactual against truth, inside.
        light: Mean change of brightness outside, signed.
        touched: Share of the pixels outside that moved by more than `VISIBLE`, 0..1.
        looked: `(n,)` numbers of the frames that the examiner saw.
        seen: Variable -> clip -> `(n,)` probability of the value that was asked for, 0..1.
    """

    inside: Curve
    outside: Curve
    true_inside: Curve
    true_outside: Curve
    error: Curve
    light: Curve
    touched: Curve
    looked: NDArray[np.int64]
    seen: Mapping[str, Mapping[str, Curve]]

    def __len__(self) -> int:
        return len(self.outside)


@dataclass
class TimelineMeter:
    """Fed a run's windows once; `compute` gives the `Timeline`.

    Args:
        frames: Length of the clips.
        track: Where the face is; without it everything is outside, and the examiner sees nothing.
        asked: Variable -> the value the counterfactual should have.
        examiner: Who looks, or nobody.
    """

    frames: int
    track: FaceTrack | None
    asked: Mapping[str, str]
    examiner: Examiner | None
    _curves: dict[str, Curve] = field(init=False)
    _looks: list[int] = field(init=False)
    _seen: dict[str, dict[str, list[Tensor]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        names = ("inside", "outside", "true_inside", "true_outside", "error", "light", "touched")
        self._curves = {name: np.full(self.frames, np.nan) for name in names}
        there = np.arange(0) if self.track is None or self.examiner is None else self.track.frames()
        chosen = there[np.unique(np.linspace(0, len(there) - 1, min(LOOKS, len(there))).round().astype(int))]
        self._looks = chosen.tolist()

    def update(self, start: int, clips: Mapping[str, Tensor]) -> None:
        """Add a window: `factual`, `counterfactual` and perhaps `truth`, each `(n, H, W, 3)` uint8."""
        for row in range(len(clips["factual"])):
            self._frame(start + row, {name: np.asarray(frames[row]) for name, frames in clips.items()})
        index = np.array([number for number in self._looks if start <= number < start + len(clips["factual"])])
        if len(index):
            assert self.track is not None and self.examiner is not None
            self._look(
                self.track, self.examiner, index, {k: v[torch.from_numpy(index - start)] for k, v in clips.items()}
            )

    def compute(self) -> Timeline:
        """The numbers of all frames."""
        seen = {
            name: {clip: torch.cat(parts).double().numpy() for clip, parts in by.items()}
            for name, by in self._seen.items()
        }
        return Timeline(**self._curves, looked=np.array(self._looks, dtype=np.int64), seen=seen)

    def _frame(self, number: int, picture: Mapping[str, Picture]) -> None:
        factual, edited, truth = picture["factual"], picture["counterfactual"], picture.get("truth")
        face = self._face(number, factual.shape[:2])
        around = ~face
        moved = cv2.absdiff(factual, edited)
        self._put("inside", number, moved[face])
        self._put("outside", number, moved[around])
        self._put("touched", number, moved.max(-1)[around] > VISIBLE)
        if around.any():
            self._curves["light"][number] = (edited[around].mean(0) - factual[around].mean(0)) @ _LUMA
        if truth is not None:
            due = cv2.absdiff(factual, truth)
            self._put("true_inside", number, due[face])
            self._put("true_outside", number, due[around])
            self._put("error", number, cv2.absdiff(edited, truth)[face])

    def _put(self, name: str, number: int, values: NDArray[np.generic]) -> None:
        if values.size:
            self._curves[name][number] = values.mean()

    def _face(self, number: int, size: tuple[int, int]) -> NDArray[np.bool_]:
        inside = np.zeros(size, dtype=np.uint8)
        if self.track is not None and self.track.present[number]:
            cv2.fillConvexPoly(inside, np.rint(self.track.quads[number]).astype(np.int32), 1)
        return inside.astype(bool)

    @torch.inference_mode()
    def _look(
        self, track: FaceTrack, examiner: Examiner, index: NDArray[np.int64], clips: Mapping[str, Tensor]
    ) -> None:
        device = next(examiner.parameters()).device
        for clip, frames in clips.items():
            crops = align.crop(frames, track.quads[index], _CROP).permute(0, 3, 1, 2).float() / 127.5 - 1
            for name, said in examiner(crops.to(device)).items():
                if (value := self.asked.get(name)) in examiner.domains[name]:
                    chances = said[:, examiner.domains[name].index(value)].exp().cpu()
                    self._seen.setdefault(name, {}).setdefault(clip, []).append(chances)
