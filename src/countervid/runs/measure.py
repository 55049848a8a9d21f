"""What a run is measured by, in one pass: the examiner's reading, identity, the distance to the truth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from countervid import models
from countervid.autoencoder.identity import IdentityNet
from countervid.clip import Clip
from countervid.editors.base import Target
from countervid.errors import ModelError
from countervid.face import align
from countervid.face.pipeline import FaceTrack
from countervid.metrics.examiner import Examiner
from countervid.metrics.identity import likeness, tg_id, tl_id
from countervid.metrics.quality import psnr
from countervid.metrics.truth import Truth

_CROP = 128  # px: what the bundled networks look at
_WINDOW = 32


@dataclass(frozen=True, kw_only=True)
class Judges:
    """Who measures; each may be missing, and then its numbers are. The examiner never takes part in editing."""

    examiner: Examiner | None = None
    identity: IdentityNet | None = None

    @classmethod
    def bundled(cls) -> Judges:
        """Those whose weights are installed."""
        found: dict[str, Any] = {}
        for name, kind in (("examiner", Examiner), ("identity", IdentityNet)):
            try:
                found[name] = kind.from_folder(models.bundled(name))
            except ModelError:
                continue
        return cls(**found)


@torch.inference_mode()
def measure(
    factual: Clip, edited: Clip, truth: Clip | None, track: FaceTrack | None, target: Target, judges: Judges
) -> dict[str, Any]:
    """All numbers of a run, ready for JSON (a number that is not defined is None).

    Args:
        factual, edited, truth: Clips of one length and size, read window by window side by side.
        track: Where the face is; without it only numbers of the whole frame.
        target: What was asked for: what the examiner's answers are held against.
        judges: Who looks.
    """
    clips = {"factual": factual, "counterfactual": edited} | ({} if truth is None else {"truth": truth})
    faces = {name: _Reader(judges) for name in clips}
    against = {"face": Truth(), "frame": Truth()}
    changed = pixels = 0
    decibels: list[Tensor] = []
    for windows in zip(*(clip.windows(_WINDOW) for clip in clips.values()), strict=True):
        start = windows[0][0]
        frames = {name: window for name, (_, window) in zip(clips, windows, strict=True)}
        moved = (frames["factual"] != frames["counterfactual"]).any(-1)
        changed += int(moved.sum())
        pixels += moved.numel()
        unit = {name: window.permute(0, 3, 1, 2).float() / 255 for name, window in frames.items()}
        decibels.append(psnr(unit["factual"], unit["counterfactual"]))
        if truth is not None:
            against["frame"].update(unit["factual"], unit["counterfactual"], unit["truth"])
        index = None if track is None else track.frames(start, start + len(moved))
        if track is None or index is None or len(index) == 0:
            continue
        rows = torch.from_numpy(index - start)
        crops = {name: align.crop(window[rows], track.quads[index], _CROP) for name, window in frames.items()}
        crops = {name: crop.permute(0, 3, 1, 2).float() / 255 for name, crop in crops.items()}
        for name, crop in crops.items():
            faces[name].look(crop, rows + start)
        if truth is not None:
            against["face"].update(crops["factual"], crops["counterfactual"], crops["truth"])
    found = {
        "frames": len(factual),
        "changed_share": changed / pixels,
        "psnr_to_factual": float(torch.cat(decibels).mean()),
        "identity": _identity(faces, len(factual)),
        "examiner": _examined(faces, target),
        "truth": None if truth is None else {part: asdict(sums.compute()) for part, sums in against.items()},
    }
    return {name: _plain(value) for name, value in found.items()}


class _Reader:
    """What the judges saw of one clip's faces so far."""

    def __init__(self, judges: Judges) -> None:
        self._judges = judges
        self._votes: dict[str, Tensor] = {}
        self._frames = 0
        self._vectors: list[Tensor] = []
        self._numbers: list[Tensor] = []

    def look(self, crops: Tensor, numbers: Tensor) -> None:
        """Crops `(n, 3, S, S)`, 0..1, of the frames with these numbers."""
        signed = crops * 2 - 1
        if self._judges.examiner is not None:
            for name, said in self._judges.examiner(signed).items():
                self._votes[name] = self._votes.get(name, torch.zeros(said.shape[1])) + said.sum(0)
            self._frames += len(crops)
        if self._judges.identity is not None:
            self._vectors.append(self._judges.identity(signed))
            self._numbers.append(numbers)

    def vectors(self, frames: int) -> Tensor | None:
        """One identity vector a frame, `(frames, D)`; NaN where there is no face."""
        if not self._vectors:
            return None
        found = torch.cat(self._vectors)
        every = torch.full((frames, found.shape[1]), torch.nan)
        every[torch.cat(self._numbers)] = found
        return every

    def reading(self) -> dict[str, dict[str, Any]]:
        """Variable -> likeliest value and its probability: frames vote with the mean of their log-probabilities."""
        found = {}
        for name, votes in self._votes.items():
            assert self._judges.examiner is not None
            share = (votes / self._frames).softmax(0)
            best = int(share.argmax())
            found[name] = {"value": self._judges.examiner.domains[name][best], "confidence": float(share[best])}
        return found


def _identity(faces: Mapping[str, _Reader], frames: int) -> dict[str, float] | None:
    before, after = (faces[name].vectors(frames) for name in ("factual", "counterfactual"))
    if before is None or after is None:
        return None
    found = {"tl_id": tl_id(before, after), "tg_id": tg_id(before, after), "likeness": likeness(before, after)}
    if "truth" in faces and (true := faces["truth"].vectors(frames)) is not None:
        found["likeness_to_truth"] = likeness(true, after)
        found["likeness_of_truth"] = likeness(true, before)  # how far the intervention itself moves identity
    return found


def _examined(faces: Mapping[str, _Reader], target: Target) -> dict[str, Any] | None:
    readings = {name: reader.reading() for name, reader in faces.items()}
    after = readings["counterfactual"]
    if not after:
        return None

    def share(asked: Mapping[str, str]) -> float:
        right = [after[name]["value"] == value for name, value in asked.items() if name in after]
        return sum(right) / len(right) if right else math.nan

    return {**readings, "changed_seen": share(target.changed), "kept_kept": share(target.kept)}


def _plain(value: Any) -> Any:
    """The same with NaN as None: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
