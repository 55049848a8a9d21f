"""Phantom people as files: clips, their truths, and the layers beside them.

Everything streams in windows of frames, and every file is written whole.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from countervid.clip import Clip
from countervid.clip.sources import MadeSource
from countervid.errors import OutputError
from countervid.files.whole import replacing, scratch_folder, write_whole
from countervid.phantom.render import Rendering
from countervid.phantom.world import Person, iter_clip

WINDOW = 32  # frames rendered at once


@dataclass(frozen=True, eq=False)
class PhantomSource(MadeSource):
    """A `Clip`'s source that renders its frames when they are asked for.

    `watch` sees every rendered window, so that a pass that writes the video can keep the layers too.
    """

    person: Person
    take: int
    count: int
    fps: float
    size: int
    attributes: Mapping[str, str]
    layers: bool = False
    watch: Callable[[Rendering], None] | None = None

    @property
    def height(self) -> int:
        return self.size

    @property
    def width(self) -> int:
        return self.size

    def windows(self, size: int, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        for part in iter_clip(
            self.person, self.take, self.count, self.fps, self.size, self.attributes, self.layers, size, start
        ):
            if self.watch is not None:
                self.watch(part)
            yield start, torch.as_tensor(part.frames)
            start += len(part.frames)


def person_clip(
    person: Person,
    take: int = 0,
    frames: int = 48,
    fps: float = 25.0,
    size: int = 256,
    attributes: Mapping[str, str] | None = None,
) -> Clip:
    """A person's clip, rendered lazily; arguments as for `world.render_clip`.

    The truth of an intervention: `attributes=person.counterfactual(do).attributes`.
    """
    return Clip(PhantomSource(person, take, frames, fps, size, dict(attributes or person.attributes)))


def write_person(
    folder: Path,
    person: Person,
    interventions: Sequence[Mapping[str, str]] = (),
    take: int = 0,
    frames: int = 48,
    fps: float = 25.0,
    size: int = 256,
) -> Path:
    """Write one person's clip, the truth for each intervention, and what the world knows of them.

    `factual.mp4`; `truth-<name>-<value>.mp4` for each intervention; `attributes.json`; and of the
    factual clip `landmarks.npz` (landmarks float32 `(F, 68, 2)` pixels, whole
    numbers at pixel centres), `masks.npz` (masks uint8
    `(F, S, S)`), `flow.npz` (flow float16 `(F-1, S, S, 2)` pixels, visible uint8 `(F-1, S, S)`).

    Raises:
        InterventionError: An attribute or value is unknown.
        OutputError: The folder cannot be made.
    """
    truths = {truth_name(do): person.counterfactual(do) for do in interventions}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"`{folder}` cannot be made ({error.strerror}). Choose a folder that you may write to."
        ) from error

    shapes: dict[str, dict[str, tuple[tuple[int, ...], type]]] = {
        "landmarks": {"landmarks": ((frames, 68, 2), np.float32)},
        "masks": {"masks": ((frames, size, size), np.uint8)},
        "flow": {"flow": ((frames - 1, size, size, 2), np.float16), "visible": ((frames - 1, size, size), np.uint8)},
    }
    with StreamedArrays(folder, shapes) as arrays:

        def keep(part: Rendering) -> None:
            assert part.masks is not None and part.flow is not None and part.visible is not None
            arrays.append("landmarks", "landmarks", part.landmarks - np.float32(0.5))
            arrays.append("masks", "masks", part.masks)
            arrays.append("flow", "flow", part.flow)
            arrays.append("flow", "visible", part.visible)

        source = PhantomSource(person, take, frames, fps, size, person.attributes, layers=True, watch=keep)
        Clip(source).write(folder / "factual.mp4", metadata={"comment": "synthetic: countervid phantom world"})
    for name, truth in truths.items():
        done = ", ".join(f"{k} = {v}" for k, v in truth.do.items())
        clip = person_clip(person, take, frames, fps, size, truth.attributes)
        clip.write(folder / name, metadata={"comment": f"synthetic: countervid phantom world, do({done})"})

    about = {
        "person": person.seed,
        "take": take,
        "frames": frames,
        "fps": fps,
        "size": size,
        "years": round(person.years, 2),
        "attributes": person.attributes,
        "counterfactuals": {
            name: {
                "do": truth.do,
                "attributes": truth.attributes,
                "changes": [
                    {"variable": c.variable, "before": c.before, "after": c.after, "reason": c.reason}
                    for c in truth.changes
                ],
            }
            for name, truth in truths.items()
        },
    }
    write_whole(folder / "attributes.json", json.dumps(about, indent=2) + "\n")
    return folder


def truth_name(do: Mapping[str, str]) -> str:
    """File name of the truth of an intervention: `truth-age-old.mp4`."""
    return "truth-" + "-".join(f"{name}-{value}" for name, value in do.items()) + ".mp4"


class StreamedArrays:
    """`.npz` files whose arrays arrive in pieces: spooled to `.npy` files, then zipped and renamed.

    Nothing but the final names is left, and those only if the block ends well.
    """

    def __init__(self, folder: Path, files: Mapping[str, Mapping[str, tuple[tuple[int, ...], type]]]) -> None:
        """`files[file][array]` is the array's whole shape and its type."""
        self.folder = folder
        self.files = files
        self._open: dict[tuple[str, str], np.memmap[tuple[int, ...], np.dtype[np.generic]]] = {}
        self._filled: dict[tuple[str, str], int] = {}
        self._stack = ExitStack()

    def __enter__(self) -> StreamedArrays:
        self._spools = self._stack.enter_context(scratch_folder(self.folder / "arrays"))
        for file, arrays in self.files.items():
            for array, (shape, kind) in arrays.items():
                self._filled[file, array] = 0
                if 0 not in shape:  # an empty array cannot be mapped
                    self._open[file, array] = np.lib.format.open_memmap(self._spool(file, array), "w+", kind, shape)
        return self

    def append(self, file: str, array: str, piece: NDArray[np.generic]) -> None:
        """The next rows of an array; converted to its type."""
        start = self._filled[file, array]
        if len(piece):
            self._open[file, array][start : start + len(piece)] = piece
        self._filled[file, array] = start + len(piece)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                for file, arrays in self.files.items():
                    self._pack(file, arrays)
        finally:
            self._open.clear()
            self._stack.close()

    def _pack(self, file: str, arrays: Mapping[str, tuple[tuple[int, ...], type]]) -> None:
        with (
            replacing(self.folder / f"{file}.npz") as partial,
            zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            for array, (shape, number) in arrays.items():
                if self._filled[file, array] != shape[0]:
                    raise ValueError(f"`{array}` has {self._filled[file, array]} rows, not {shape[0]}.")
                if (file, array) in self._open:
                    self._open[file, array].flush()
                else:
                    np.save(self._spool(file, array), np.zeros(shape, number))
                entry = zipfile.ZipInfo(f"{array}.npy", date_time=(1980, 1, 1, 0, 0, 0))  # the same bytes every time
                entry.compress_type = zipfile.ZIP_DEFLATED
                with self._spool(file, array).open("rb") as spool, archive.open(entry, "w", force_zip64=True) as to:
                    while block := spool.read(1 << 20):
                        to.write(block)

    def _spool(self, file: str, array: str) -> Path:
        return self._spools / f"{file}.{array}.npy"
