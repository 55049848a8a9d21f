"""One edit of one prepared clip by the diffusion autoencoder: what is drawn, what of it is meant, and what is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from countervid.editors.base import Prepared
from countervid.editors.recent import Recent
from countervid.editors.store import Store, Tensors
from countervid.errors import ModelError
from countervid.face.pipeline import Edit, FaceTrack, Index
from countervid.models.finite import check_result

if TYPE_CHECKING:
    from countervid.editors.dva import DVA

_STRONGEST = 0.97  # quantile of a frame's changes that counts as its strongest: 8 of 256 cells are beyond it
HELD_WINDOWS = 3  # in memory at a time: masks are smoothed over time and reach into the neighbours
_CELL = 8  # px: changes are judged by their mean over so much of a crop, a cell of the miniature's latents


class Drawing:
    """One edit of one prepared clip: computes what is pasted, for any frames, and keeps what was dear."""

    def __init__(self, editor: DVA, prepared: Prepared, track: FaceTrack, identity: Tensor) -> None:
        self._editor, self._store, self._track, self._identity = editor, prepared.store, track, identity
        self._mark = hashlib.sha256(identity.numpy().tobytes()).hexdigest()[:20]
        self._recent = Recent[int, dict[str, Tensor]](HELD_WINDOWS)

    @torch.inference_mode()
    def edits(self, index: Index) -> Edit:
        window = self._rows(index, ("edited", "again"))
        masks = self._editor.pipeline.masks(
            self._track,
            index,
            lambda rows: self._rows(rows, ("labels",))["labels"],
            lambda rows: self._rows(rows, ("edited_labels",))["edited_labels"],
            lambda rows: significance(
                **self._rows(rows, ("edited", "again")),
                floor=self._editor.config.floor * self._editor.faces.codec.deviation,
                cell=_CELL // self._editor.faces.codec.factor,
            ),
        )
        pixels = self._editor.pixels
        return Edit(crops=pixels(window["edited"]), masks=masks, before=pixels(window["again"]))

    def _rows(self, index: Index, names: tuple[str, ...]) -> dict[str, Tensor]:
        """Columns of the frames `index`, ascending."""
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        for start, rows in self._windows(index):
            window = self._window(start)
            for name in names:
                parts[name].append(window[name][torch.from_numpy(rows)])
        return {name: torch.cat(tensors) for name, tensors in parts.items()}

    def _windows(self, index: Index) -> Iterator[tuple[int, Index]]:
        """Stored windows that hold the frames, with the rows of the frames in them."""
        size = self._editor.config.window
        for start in np.unique(index // size) * size:
            present = self._track.frames(start, min(start + size, len(self._track)))
            yield int(start), np.searchsorted(present, index[(index >= start) & (index < start + size)])

    def _window(self, start: int) -> dict[str, Tensor]:
        return self._recent.get(start, lambda: self._drawn(start))

    def _drawn(self, start: int) -> dict[str, Tensor]:
        looks, codes = load(self._store, "looks", start), load(self._store, "codes", start)

        def draw() -> Tensors:
            edited = self._editor.draw(codes["noise"], looks["pose"], self._identity)
            check_result(edited, f"What `dva` drew of the frames from {start} on")
            crops = self._editor.pixels(edited).round().clamp(0, 255).to(torch.uint8)
            return {"edited": edited, "edited_labels": self._editor.pipeline.parser(crops)}

        drawn = self._store.fetch(name_of(f"edits/{self._mark}", start), draw)
        return {**drawn, "again": codes["again"], "labels": looks["labels"]}


def significance(edited: Tensor, again: Tensor, floor: float, cell: int = 1) -> Tensor:
    """How surely an edit is meant in each place, `(F, S, S)` in 0..1: 0 below half the floor, 1 above it.

    The floor is lowered to half of a frame's strongest changes where those are below twice the floor.

    Args:
        edited, again: What was drawn with the moved and with the unmoved identity, `(F, c, h, w)`.
        floor: See `DVAConfig`; in units of what was drawn.
        cell: Side of what is judged as one, in places of what was drawn; `S` is 8 / cell times `h`.
    """
    change = F.avg_pool2d((edited - again).abs().mean(1, keepdim=True), cell)
    near = F.avg_pool2d(change, 3, stride=1, padding=1, count_include_pad=False)
    strongest = near.flatten(1).quantile(_STRONGEST, dim=1).view(-1, 1, 1, 1)
    step = (2 * near / (strongest / 2).clamp(1e-9, max(floor, 1e-9)) - 1).clamp(0, 1)
    smooth = step * step * (3 - 2 * step)
    return F.interpolate(smooth, scale_factor=float(_CELL), mode="bilinear", align_corners=False)[:, 0]


def load(store: Store, kind: str, start: int) -> Mapping[str, Tensor]:
    tensors = store.load(name_of(kind, start))
    if tensors is None:
        raise ModelError(f"A prepared clip in `{store.folder}` was damaged while in use. Run the same command again.")
    return tensors


def name_of(kind: str, start: int) -> str:
    return f"{kind}/{start:08d}"
