"""From clips to numbers: windows that metrics look at, and what a run says of itself.

The command line and runs measure through `windows_of`; the benchmark, which has exact frames and known faces, does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from countervid.causal.graph import CausalGraph
from countervid.clip import Clip
from countervid.clip.clip import zip_clips
from countervid.editors.base import Target
from countervid.errors import ClipError
from countervid.face import align
from countervid.face.pipeline import FaceTrack, check
from countervid.metrics.base import Asked, Eyes, Meters, Need, Window, World
from countervid.metrics.effectiveness import Votes, share_gained, share_right
from countervid.metrics.truth import TruthScores
from countervid.runs.touched import TouchMeter, inside_squares

CROP = 128  # px: what the bundled networks look at
LONGEST_WINDOW = 32  # frames
WINDOW_PIXELS = 2**23  # of one clip at once, 100 MB as floats: a window of large frames is shorter

OF_A_RUN = ("effectiveness", "identity", "minimality.outside", "psnr", "truth")
"""What every run is measured by: cheap, and in need of nothing but what is bundled."""


def windows_of(
    factual: Clip,
    counterfactual: Clip,
    truth: Clip | None,
    track: FaceTrack | None,
    asked: Asked | None,
    eyes: Eyes,
    world: World | None = None,
) -> Iterator[Window]:
    """The clips side by side, window by window, on the device of the eyes, with the face crops of each.

    Args:
        factual, counterfactual: Clips of one length and size.
        truth: The true counterfactual, where it is known; likewise.
        track: Where the face is; without it there are no crops.
        asked: What the edit was asked for.
        eyes: The models that metrics look with.
        world: What only a renderer knows, of all frames.

    Raises:
        ClipError: The clips are not of one length and size.
        FaceError: The track is of another clip.
    """
    clips = clips_of(factual, counterfactual, truth)
    if track is not None:
        check(factual, track)
    for start, parts in zip_clips(list(clips.values()), window_of(factual)):
        yield looked_at(start, dict(zip(clips, parts, strict=True)), track, asked, eyes, world)


def window_of(clip: Clip) -> int:
    """Frames that are measured at once."""
    return max(1, min(LONGEST_WINDOW, WINDOW_PIXELS // (clip.height * clip.width)))


def looked_at(
    start: int, frames: Mapping[str, Tensor], track: FaceTrack | None, asked: Asked | None, eyes: Eyes,
    world: World | None = None,
) -> Window:  # fmt: skip
    """A window for metrics, of frames `(n, H, W, 3)` uint8 by the names of `clips_of`; else as `windows_of`."""
    frames = {name: part.to(eyes.device) for name, part in frames.items()}
    stop = start + len(frames["factual"])
    window = Window(
        start=start,
        frames={name: _unit(part) for name, part in frames.items()},
        eyes=eyes,
        asked=asked,
        world=None if world is None else world.part(slice(start, stop)),
    )
    if track is not None:
        index = track.frames(start, stop)
        window.rows = torch.from_numpy(index - start)
        window.faces = {
            name: _unit(align.crop(part[window.rows], track.quads[index], CROP)) for name, part in frames.items()
        }
        shape = (stop - start, track.height, track.width)
        window.square = inside_squares(track.quads[index], (index - start).tolist(), shape).to(eyes.device)
    return window


def clips_of(factual: Clip, counterfactual: Clip, truth: Clip | None) -> dict[str, Clip]:
    """The clips by the names that metrics know them under.

    Raises:
        ClipError: They are not of one length and size.
    """
    clips = {"factual": factual, "counterfactual": counterfactual} | ({} if truth is None else {"truth": truth})
    for name, clip in clips.items():
        if (len(clip), clip.height, clip.width) != (len(factual), factual.height, factual.width):
            raise ClipError(
                f"The {name} clip has {len(clip)} frames of {clip.width} x {clip.height}, the factual {len(factual)} "
                f"of {factual.width} x {factual.height}. They must be of one length and size."
            )
    return clips


def asked_of(target: Target, graph: CausalGraph | None = None, factual_prompt: str = "") -> Asked:
    """What a target asks for, as metrics see it.

    Args:
        target: What an editor was given.
        graph: Says what may follow from the intervention.
        factual_prompt: The clip as it is, in words.
    """
    return Asked(
        factual=target.factual,
        do=target.do,
        counterfactual=target.counterfactual,
        prompt=target.prompt,
        factual_prompt=factual_prompt,
        graph=graph,
    )


def needs_met(
    *, truth: Clip | bool | None, track: FaceTrack | None, asked: Asked | None, world: World | None = None
) -> frozenset[Need]:
    """What there is for metrics to look at, for `metrics.base.measured`."""
    there: dict[Need, bool] = {
        "truth": truth not in (None, False),
        "face": track is not None,
        "attributes": asked is not None and bool(asked.do),
        "prompt": asked is not None and bool(asked.prompt),
        "world": world is not None,
    }
    return frozenset(need for need, met in there.items() if met)


def measure(
    factual: Clip, edited: Clip, truth: Clip | None, track: FaceTrack | None, asked: Asked, eyes: Eyes
) -> dict[str, Any]:
    """All numbers of a run in one pass, ready for JSON (a number that is not defined is None).

    Args:
        factual, edited, truth: Clips of one length and size, read window by window side by side.
        track: Where the face is; without it only numbers of the whole frame.
        asked: What was asked for: what the examiner's answers are held against.
        eyes: The models that look. What needs a model that is missing is left out.
    """
    meter = RunMeter(truth is not None, track, asked, eyes)
    for window in windows_of(factual, edited, truth, track, asked, eyes):
        meter.update(window)
    return meter.compute()


class RunMeter:
    """All numbers of a run, fed its windows; see `measure`."""

    def __init__(
        self, truth: bool, track: FaceTrack | None, asked: Asked, eyes: Eyes, edited: Sequence[FaceTrack] | None = None
    ) -> None:
        """`truth`: whether the windows hold it. `edited`: all faces that were, where there are more than `track`'s."""
        self._touched = TouchMeter(([] if track is None else [track]) if edited is None else edited)
        self._asked = asked
        self._votes = {name: Votes() for name in ("factual", "counterfactual", *(["truth"] if truth else []))}
        self._examining = eyes.has("examiner")
        self._meters = Meters(OF_A_RUN, needs_met(truth=truth, track=track, asked=asked), missing={})
        self._frames = 0

    @torch.inference_mode()
    def update(self, window: Window) -> None:
        """Look at the next window, as `looked_at` makes it."""
        self._frames += len(window)
        self._touched.update(window.start, window.frames["factual"], window.frames["counterfactual"])
        if self._examining:
            for name, vote in self._votes.items():
                vote.update(window, name)
        self._meters.update(window)

    def compute(self) -> dict[str, Any]:
        """The numbers."""
        scores, touched = self._meters.compute(), self._touched.compute()
        identity = ("tl_id", "tg_id", "likeness", "likeness_to_truth", "likeness_of_truth")
        found = {
            "frames": self._frames,
            "changed_share": touched["touched"] / touched["pixels"],
            "touched": touched,
            "psnr_to_factual": scores["psnr"],
            "identity": {name: scores[f"identity.{name}"] for name in identity if f"identity.{name}" in scores} or None,
            "examiner": _examined(self._votes, self._asked),
            "truth": _against_truth(scores) if "truth" in self._votes else None,
            "scores": dict(sorted(scores.items())),
        }
        return {name: _plain(value) for name, value in found.items()}


def _against_truth(scores: Mapping[str, float]) -> dict[str, dict[str, float]]:
    names = [field.name for field in fields(TruthScores)]
    return {
        part: {name: scores.get(prefix + name, math.nan) for name in names}
        for part, prefix in (("face", "truth."), ("frame", "truth.frame."))
    }


def _examined(votes: Mapping[str, Votes], asked: Asked) -> dict[str, Any] | None:
    """What the examiner reads off each clip, and how much of what was asked for it sees.

    `changed_seen` counts what was not read so before and is afterwards; `changed_as_published` what is read so
    afterwards, whatever it was.
    """
    readings = {name: vote.reading() for name, vote in votes.items()}
    before, said = votes["factual"].values(), votes["counterfactual"].values()
    if not said:
        return None
    return {
        **readings,
        "changed_seen": share_gained(before, said, asked.changed),
        "changed_as_published": share_right(said, asked.changed),
        "kept_kept": share_right(said, asked.kept),
    }


def _unit(frames: Tensor) -> Tensor:
    """`(n, H, W, 3)` uint8 as `(n, 3, H, W)` in 0..1."""
    return frames.permute(0, 3, 1, 2).float().div_(255)


def _plain(value: Any) -> Any:
    """The same with NaN as None: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
