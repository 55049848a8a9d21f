"""Where a text-guided editor works, and what of its drawing is laid back into the frames."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from countervid.clip import Clip
from countervid.diffusion.stable import Held
from countervid.diffusion.windows import Window
from countervid.editors.base import Prepared, Report, Target
from countervid.editors.dva_drawing import HELD_WINDOWS, significance
from countervid.editors.recent import Recent
from countervid.editors.store import Store, Tensors
from countervid.editors.taken import TakenCrops, TakenFrames
from countervid.errors import ModelError
from countervid.face import align
from countervid.face.pipeline import Edit, FaceTrack, Index

if TYPE_CHECKING:
    from countervid.editors.text_guided import TextGuided


_SKIPPED = 64  # frames: a longer gap is not decoded but jumped over
FADE = 6  # frames over which a window takes over from the one before


@dataclass(frozen=True)
class Payload:
    """Where a prepared clip is edited, and in which windows."""

    place: Region
    windows: list[Window]


class Region:
    """The pictures that an editor works on: the aligned face, or the frame, at the size of the model."""

    def __init__(self, region: str, clip: Clip, track: FaceTrack | None, size: int, factor: int) -> None:
        """`track` may be missing where the frame is worked on."""
        self.region, self.clip, self.track = region, clip, track
        self.frames: Index = np.arange(len(clip)) if region == "frame" or track is None else track.frames()
        self.taken: TakenCrops | TakenFrames | None = None  # what was kept while the clip was analysed
        self._last: tuple[Index, Tensor] = np.arange(0), torch.empty(0)  # the window read last
        self._running: Iterator[tuple[int, Tensor]] = iter(())
        self._following: int | None = None  # number of the frame that it gives next
        scale = size / math.sqrt(clip.height * clip.width)
        fitted = [max(factor, round(side * scale / factor) * factor) for side in (clip.height, clip.width)]
        self.height, self.width = (size, size) if region == "face" else fitted

    def pixels(self, part: Window) -> tuple[Index, Tensor]:
        """Frame numbers of a window, and its pictures `(n, 3, H, W)` in 0..1."""
        index = self.frames[part.start : part.stop]
        if isinstance(self.taken, TakenCrops):
            return index, self.taken.read(index).permute(0, 3, 1, 2).float() / 255
        if self.taken is not None:
            return index, self.taken.read(index).float() / 255
        known = np.isin(index, self._last[0])  # windows share frames: none is decoded twice
        before = self._last[1][torch.from_numpy(np.isin(self._last[0], index))]
        pixels = torch.cat([*([before] if known.any() else []), *self._read(index[~known])])
        self._last = index, pixels
        return index, pixels

    def _read(self, index: Index) -> Iterator[Tensor]:
        for number in index.tolist():
            if self._following is None or not 0 <= number - self._following < _SKIPPED:
                self._running, self._following = self.clip.windows(1, number), number
            _, frame = next(islice(self._running, number - self._following, None))
            self._following = number + 1
            if self.region == "face":
                assert self.track is not None
                frame = align.crop(frame, self.track.quads[[number]], self.height)
            yield self.fit(frame.permute(0, 3, 1, 2).float() / 255)

    def fit(self, pixels: Tensor) -> Tensor:
        """Pictures at the size that is worked on."""
        if pixels.shape[-2:] == (self.height, self.width):
            return pixels
        return F.interpolate(pixels, (self.height, self.width), mode="bilinear", antialias=True)


class Sampled:
    """One prompt sampled over the windows of a prepared clip, in order; what is drawn is kept.

    `words` are prompt, negative prompt, source prompt, and how far to go from the one to the other; `guidance` is how
    much they count.
    """

    def __init__(
        self, editor: TextGuided, prepared: Prepared, words: tuple[str, str, str, float], guidance: float,
        report: Report | None,
    ) -> None:  # fmt: skip
        self._editor, self._store, self._words, self._report = editor, prepared.store, words, report
        self._config = replace(editor.config, guidance=guidance)
        self._place: Region = prepared.payload.place
        self._windows: list[Window] = prepared.payload.windows
        told = json.dumps([*words, guidance])
        self._mark = hashlib.sha256(told.encode()).hexdigest()[:20]
        self._recent = Recent[int, Tensors](HELD_WINDOWS)

    def rows(self, index: Index) -> Tensors:
        """What is known of the frames `index`, ascending: `sampled` and `latents`, `(n, c, h, w)`; labels of faces."""
        places = np.searchsorted(self._place.frames, index)
        parts: list[Tensors] = []
        for number, part in enumerate(self._windows):
            own = places[(places >= part.own.start) & (places < part.own.stop)]
            if len(own):
                at = torch.from_numpy(own - part.own.start)
                parts.append({name: tensor[at] for name, tensor in self._window(number).items() if name != "tail"})
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _window(self, number: int) -> Tensors:
        return self._recent.get(number, lambda: self._load(number))

    def _load(self, number: int) -> Tensors:
        part = self._windows[number]
        name = f"edits/{self._mark}/{part.start:08d}"
        drawn = self._store.load(name)
        if drawn is None:  # asked first: the window before is wanted only where this one is missing
            drawn = self._store.fetch(name, lambda: self._sample(number))
        known = loaded(self._store, f"latents/{part.start:08d}")
        return {**drawn, **{key: tensor[part.held :] for key, tensor in known.items()}}

    def _sample(self, number: int) -> Tensors:
        editor, part = self._editor, self._windows[number]
        held = Held(self._window(number - 1)["tail"]) if number and part.held else None
        tensors = loaded(self._store, f"prepared/{part.start:08d}")
        prepared = {name: tensor.to(editor.device) for name, tensor in tensors.items()}
        editor.made_ready(self._store)
        prompt, negative, source, strength = self._words
        what = "drawing" if prompt != source else "drawing the source"
        path = editor.diffusion.sample(
            prepared, prompt, negative, self._config, held=held, source_prompt=source, strength=strength,
            progress=shown(self._report, what if len(self._windows) == 1 else f"{what}, window {number + 1}"),
        ).float().cpu()  # fmt: skip
        result = {"sampled": path[-1][part.held :].clone()}
        if number + 1 < len(self._windows):
            result["tail"] = path[:, -self._windows[number + 1].held :].clone()
        if editor.config.region == "face":
            crops = editor.pixels(result["sampled"]).round().clamp(0, 255).to(torch.uint8)
            result["sampled_labels"] = editor.faces.parser(crops)
        return result


class Drawing:
    """One edit of one prepared clip: what is laid back into its frames."""

    def __init__(self, editor: TextGuided, prepared: Prepared, target: Target, report: Report | None) -> None:
        self._editor, self._track = editor, prepared.track
        payload: Payload = prepared.payload
        self._frames = payload.place.frames
        self._borders = [part.own.start for part in payload.windows[1:]]  # of a window's own frames, the first
        source, own = str(prepared.facts["source_prompt"]), editor.config.negative_prompt
        negative = own if target.negative_prompt is None else target.negative_prompt
        guidance = float(editor.config.guidance if target.guidance is None else target.guidance)
        amount = target.amount(next(iter(target.changed)))
        self._edited = Sampled(editor, prepared, (target.prompt, negative, source, amount), guidance, report)
        drawn = editor.config.against == "drawn"
        self._again = Sampled(editor, prepared, (source, own, source, 1.0), guidance, report) if drawn else None

    @torch.no_grad()
    def edits(self, index: Index) -> Edit:
        assert self._track is not None
        faces, (after, before) = self._editor.faces, self._pair(index)
        masks = faces.masks(
            self._track, index, lambda r: self._edited.rows(r)["labels"],
            lambda r: self._edited.rows(r)["sampled_labels"], lambda r: self._meant(*self._pair(r)),
        )  # fmt: skip
        return Edit(crops=self._editor.pixels(after), masks=masks, before=self._editor.pixels(before))

    @torch.no_grad()
    def whole(self, start: int, frames: Tensor) -> Tensor:
        """Frames `(n, H, W, 3)` with the edit in them: what is added is the difference, at the frames' own size."""
        after, before = self._pair(np.arange(start, start + len(frames)))
        change = (self._editor.pixels(after) - self._editor.pixels(before)) * self._meant(after, before)[..., None]
        change = F.interpolate(change.permute(0, 3, 1, 2), frames.shape[1:3], mode="bicubic").permute(0, 2, 3, 1)
        return (frames + change).round().clamp(0, 255).to(torch.uint8)

    def _pair(self, index: Index) -> tuple[Tensor, Tensor]:
        """Latents of the edit, and those that it is held against; windows pass into one another.

        Where a window begins, its edit may differ a little from the one before: that step is taken back there, and
        comes in over the next frames.
        """
        after, before = self._drawn(index)
        places = np.searchsorted(self._frames, index)
        for border in self._borders:
            since = places - border
            near = (since >= 0) & (since < FADE)
            if near.any():
                both, against = self._drawn(self._frames[[border - 1, border]])
                change = both - against
                share = torch.from_numpy(1 - (since[near] + 1) / (FADE + 1)).to(after)[:, None, None, None]
                after[torch.from_numpy(near)] -= share * (change[1] - change[0])
        return after, before

    def _drawn(self, index: Index) -> tuple[Tensor, Tensor]:
        rows = self._edited.rows(index)
        return rows["sampled"], rows["latents"] if self._again is None else self._again.rows(index)["sampled"]

    def _meant(self, after: Tensor, before: Tensor) -> Tensor:
        return significance(after, before, floor=self._editor.config.floor)


def loaded(store: Store, name: str) -> Tensors:
    tensors = store.load(name)
    if tensors is None:
        raise ModelError(f"A prepared clip in `{store.folder}` was damaged while in use. Run the same command again.")
    return tensors


def shown(report: Report | None, what: str) -> Callable[[int, int], None] | None:
    return None if report is None else lambda done, total: report(what, done, total)
