"""The windows that a job is measured by: exact frames, faces through known squares, and the renderer's knowledge."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from countervid.benchmark.clips import Footage
from countervid.errors import ClipError
from countervid.face import align
from countervid.metrics.base import Asked, Eyes, Need, Window, World
from countervid.metrics.effectiveness import Votes
from countervid.runs.touched import inside_squares

CROP = 128  # px: what the bundled networks look at
WINDOW = 32  # frames


@dataclass
class Looks:
    """What models saw of the factual clip at hand and of one truth: it is the same in every job on them."""

    _clip: str = ""
    _truth: str = ""
    _kept: dict[int, dict[tuple[str, str], Any]] = field(default_factory=dict)  # first frame -> as `Window` keeps it

    def turn_to(self, clip: str, truth: str) -> None:
        """Forget what is of other clips."""
        stale = {"factual", "truth"} if clip != self._clip else {"truth"} if truth != self._truth else set()
        for kept in self._kept.values():
            for key in [key for key in kept if key[1] in stale]:
                del kept[key]
        self._clip, self._truth = clip, truth

    def lend(self, windows: list[Window]) -> None:
        """Give windows what was seen of their factual and true frames."""
        for window in windows:
            window._kept.update(self._kept.get(window.start, {}))

    def keep(self, windows: list[Window]) -> None:
        """Remember what was seen in windows, but for the edit's frames."""
        for window in windows:
            seen = {key: value for key, value in window._kept.items() if key[1] != "counterfactual"}
            self._kept.setdefault(window.start, {}).update(seen)


def windows_of(factual: Footage, edited: Footage, truth: Footage | None, asked: Asked, eyes: Eyes) -> list[Window]:
    """A job's triple, `WINDOW` frames at a time, on the device of the eyes.

    Raises:
        ClipError: The clips differ in length or size.
    """
    clips = {"factual": factual, "counterfactual": edited} | ({} if truth is None else {"truth": truth})
    for name, footage in clips.items():
        if footage.frames.shape != factual.frames.shape:
            got, needed = (tuple(shown.frames.shape[:3]) for shown in (footage, factual))
            raise ClipError(f"The {name} is {got} (frames, height, width), the factual clip {needed}.")
    world, windows = None if truth is None else truth.world, []
    for start in range(0, len(factual.frames), WINDOW):
        part = slice(start, min(start + WINDOW, len(factual.frames)))
        inside = (factual.rows >= part.start) & (factual.rows < part.stop)
        faces = {name: crops_of(footage, part, eyes.device) for name, footage in clips.items()} if inside.any() else {}
        windows.append(
            Window(
                start=start, eyes=eyes, asked=asked, faces=faces,
                frames={name: unit(footage.frames[part], eyes.device) for name, footage in clips.items()},
                rows=torch.from_numpy(factual.rows[inside] - start) if inside.any() else None,
                square=_square(factual, part, inside).to(eyes.device),
                world=None if world is None else _placed(world.part(part), eyes.device),
            )
        )  # fmt: skip
    return windows


def _square(factual: Footage, part: slice, inside: npt.NDArray[np.bool_]) -> Tensor:
    """Where the face squares of those frames are, `(n, H, W)` bool."""
    shape = (part.stop - part.start, *factual.frames.shape[1:3])
    return inside_squares(factual.squares[inside], factual.rows[inside] - part.start, shape)


def comes_with(factual: Footage, truth: Footage | None) -> frozenset[Need]:
    """What a job's clips come with, of all that metrics may need."""
    has: set[Need] = {"attributes", "prompt"}
    has |= {"face"} if len(factual.rows) else set()
    has |= set() if truth is None else {"truth"}
    has |= set() if truth is None or truth.world is None else {"world"}
    return frozenset(has)


def _placed(world: World, device: torch.device) -> World:
    values = {field.name: getattr(world, field.name) for field in fields(world)}
    return World(**{name: None if value is None else value.to(device) for name, value in values.items()})


def unit(frames: Tensor, device: torch.device) -> Tensor:
    """Frames `(n, H, W, 3)` uint8 as `(n, 3, H, W)` in 0..1, on a device."""
    return frames.to(device).permute(0, 3, 1, 2).float() / 255


def crops_of(footage: Footage, part: slice, device: torch.device) -> Tensor:
    """The faces in a part of a clip, `(n, 3, CROP, CROP)` in 0..1, on a device."""
    chosen = np.arange(len(footage.frames))[part]
    inside = np.isin(footage.rows, chosen)
    frames = footage.frames[torch.from_numpy(footage.rows[inside])].to(device)
    return unit(align.crop(frames, footage.squares[inside], CROP), device)


def seen_as_asked(windows: list[Window], asked: Asked) -> bool | None:
    """Whether the examiner sees all that must change; None where no face is known."""
    votes = Votes()
    with torch.inference_mode():
        for window in windows:
            votes.update(window, "counterfactual")
    read = votes.values()
    wanted = {name: value for name, value in asked.changed.items() if name in read}
    return all(read[name] == value for name, value in wanted.items()) if wanted else None
