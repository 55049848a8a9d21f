"""Which pixels an edit touched, counted as the clips go by, and the one sentence that a run may say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from countervid.face.pipeline import FaceTrack, Points


class TouchMeter:
    """Counts pixels that differ between two clips, those outside all face squares apart.

    Args:
        tracks: Where the faces are that were edited; none: whole frames were.
    """

    def __init__(self, tracks: Sequence[FaceTrack]) -> None:
        self._tracks = tracks
        self._pixels = self._touched = self._around = self._outside = 0
        self._largest = 0.0

    def update(self, start: int, factual: Tensor, counterfactual: Tensor) -> None:
        """Add frames from number `start` on, `(n, 3, H, W)` each in 0..1."""
        moved = (factual != counterfactual).any(1)
        self._pixels, self._touched = self._pixels + moved.numel(), self._touched + int(moved.sum())
        if not self._tracks:
            return
        inside = torch.zeros_like(moved)
        for track in self._tracks:
            index = track.frames(start, start + len(moved))
            shape = (len(moved), moved.shape[1], moved.shape[2])
            inside |= inside_squares(track.quads[index], (index - start).tolist(), shape).to(moved.device)
        outside = moved & ~inside
        self._around += int((~inside).sum())
        if count := int(outside.sum()):
            self._outside += count
            apart = (factual - counterfactual).abs().amax(1)[outside].max()
            self._largest = max(self._largest, round(float(apart) * 255, 1))

    def compute(self) -> dict[str, Any]:
        """For `metrics.json`: `pixels` in all, those `touched`, and, where faces were edited, pixels `around` the
        squares, those of them that are touched (`outside`), and by how much at most (`largest`, of 255)."""
        found: dict[str, Any] = {"pixels": self._pixels, "touched": self._touched}
        if self._tracks:
            found |= {"around": self._around, "outside": self._outside, "largest": self._largest}
        return found


def inside_squares(quads: Points, rows: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """Where face squares are, for `Window.square`: `(n, H, W)` bool, nowhere in frames without one.

    Args:
        quads: Their corners, `(k, 4, 2)`, pixels.
        rows: Which of the n frames each is in, `(k,)`.
        shape: (n, H, W).
    """
    inside = np.zeros(shape, np.uint8)
    for row, corners in zip(rows, quads, strict=True):
        cv2.fillConvexPoly(inside[row], np.round(corners).astype(np.int32), 1)
    return torch.from_numpy(inside).bool()


def rest_of(metrics: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """What is so of the pixels that an edit should have left alone, by what was counted.

    Args:
        metrics: Of a run; of an older version they do not say.
        notes: What the run says of how its source was read.
    """
    counted = metrics.get("touched")
    if not isinstance(counted, Mapping):
        return "where was not counted"
    as_read = " as it was read (see the notes)" if notes else ""
    unchanged = f"the source's{as_read} bit for bit, before the video is compressed"
    if not counted["touched"]:
        return f"every pixel is {unchanged}"
    if "outside" not in counted:
        return "whole frames were edited"
    if not counted["outside"]:
        return f"all within the face's square; every pixel outside it is {unchanged}"
    share = counted["outside"] / max(counted["around"], 1)
    return (
        f"{counted['outside']:,} of them outside the face's square ({share:.2%} of the pixels there), by up to "
        f"{counted['largest']:g} of 255"
    )
