"""DOVER: how good a video looks, technically and aesthetically, without a reference (arXiv:2211.04894).

What of a clip is looked at, and how two raw scores become one number. The networks are in `dover_networks.py`.
Patches are drawn at random, in the published code without a seed: here a generator draws, and draws are averaged.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from countervid.errors import ModelError
from countervid.metrics.base import About, Need, Window, register
from countervid.metrics.dover_networks import Dover
from countervid.metrics.published import PUBLISHED, require
from countervid.metrics.vision import IMAGENET_MEAN, IMAGENET_STD

Branch = Literal["technical", "aesthetic"]

CELLS, PATCH = 7, 32  # a grid of 7 x 7 cells, one patch of 32 px from each
SIDE = CELLS * PATCH  # px: 224
CLIPS, CLIP_FRAMES = 3, 32  # technical: 3 clips of 32 frames; aesthetic: 32 single frames
INTERVAL = 2
DRAWS = 4
_FUSION = {"technical": (0.6104, 0.1107, 0.07355), "aesthetic": (0.3896, -0.08285, 0.03774)}  # weight, mean, deviation


def fuse(technical: float, aesthetic: float) -> float:
    """One number of the two raw scores, 0..1: 1 / (1 + exp(-z)), z the weighted sum of their standard scores.

    Means and deviations are those on KoNViD-1k: of generated video the number saturates.

    >>> fuse(0.1107, -0.08285)
    0.5
    """
    z = 0.0
    for name, raw in (("technical", technical), ("aesthetic", aesthetic)):
        weight, mean, deviation = _FUSION[name]
        z += weight * (raw - mean) / deviation
    return 1 / (1 + math.exp(-z))


def frame_indices(count: int, branch: Branch, generator: torch.Generator | None = None) -> Tensor:
    """Which frames of a clip a branch sees: `(96,)` for technical, three clips of 32; `(32,)` for aesthetic.

    The clip is cut into as many equal segments as are sampled; every second frame from a segment's start, modulo the
    length. Only where a segment is longer than that a random offset is added (from 195 and 96 frames on). Below 32
    frames the aesthetic branch sees frame 0, 32 times.

    Args:
        count: Frames of the clip, at least 1.
        branch: Which.
        generator: Draws the offsets; without it they are 0.

    >>> frame_indices(8, "technical")[:6].tolist(), frame_indices(64, "aesthetic")[:4].tolist()
    ([0, 2, 4, 6, 0, 2], [0, 2, 4, 6])
    """
    if count < 1:
        raise ValueError(f"A clip has at least one frame, got {count}.")
    segments, each = (CLIPS, CLIP_FRAMES) if branch == "technical" else (CLIP_FRAMES, 1)
    length = count // segments
    spare = length - each * INTERVAL
    offset = torch.zeros(segments, dtype=torch.long)
    if spare > 0 and generator is not None:
        offset = torch.randint(spare, (segments,), generator=generator)
    start = torch.arange(segments) * length + offset
    return ((start[:, None] + torch.arange(each) * INTERVAL) % count).flatten()


def fragments(frames: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One 32 px patch of each of 7 x 7 cells at full resolution, tiled to 224 x 224; the same places in all frames.

    Where in its cell a patch lies is drawn; a cell of 32 px leaves no choice, so 224 x 224 is given back as it is.
    Smaller frames are enlarged first.

    Deviation: the published code goes on with the grid of the small frame after enlarging it, and so never looks at its
    lower right. Here the grid is the enlarged frame's (`test_a_small_frame_is_seen_whole`).

    Args:
        frames: `(F, 3, H, W)`.
        generator: Draws the places; without it they are the cells' upper left corners.

    >>> frames = torch.rand(2, 3, 224, 224)
    >>> torch.equal(fragments(frames), frames)
    True
    """
    short = min(frames.shape[2:])
    if short < SIDE:
        size = [max(SIDE, int(length * SIDE / short)) for length in frames.shape[2:]]
        frames = functional.interpolate(frames, size=size, mode="bilinear", align_corners=False)
    rows, columns = (_starts(length, generator) for length in frames.shape[2:])
    columns = columns.T  # drawn a cell across at a time
    tiles = [
        torch.cat([frames[:, :, y : y + PATCH, x : x + PATCH] for y, x in zip(ys, xs, strict=True)], dim=3)
        for ys, xs in zip(rows.tolist(), columns.tolist(), strict=True)
    ]
    return torch.cat(tiles, dim=2)


def _starts(length: int, generator: torch.Generator | None) -> Tensor:
    """Where patches begin on one axis, `(7, 7)`: by the cell on that axis, then by the cell on the other."""
    cell = length // CELLS
    base = (torch.arange(CELLS) * cell).clamp_max(length - PATCH)[:, None].expand(CELLS, CELLS)
    if cell <= PATCH or generator is None:
        return base
    return base + torch.randint(cell - PATCH, (CELLS, CELLS), generator=generator)


def normalised(frames: Tensor) -> Tensor:
    """Frames `(F, 3, H, W)`, 0..1, as a clip `(1, 3, F, H, W)` that the networks take."""
    mean, std = (frames.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    clip: Tensor = ((frames - mean) / std).transpose(0, 1)[None]
    return clip


def raw_scores(
    read: Callable[[Tensor], Tensor], count: int, model: Dover, generator: torch.Generator | None = None
) -> tuple[float, float]:
    """The technical and the aesthetic raw score of one draw.

    Args:
        read: Frame numbers -> those frames, `(n, 3, H, W)`, 0..1, on the model's device.
        count: Frames of the clip.
        model: Both branches.
        generator: Draws frames and patches.
    """
    technical = 0.0
    for numbers in frame_indices(count, "technical", generator).split(CLIP_FRAMES):
        technical += float(model.technical(normalised(fragments(read(numbers), generator)))) / CLIPS
    frames = read(frame_indices(count, "aesthetic", generator))
    small = functional.interpolate(frames, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
    return technical, float(model.aesthetic(normalised(small)))


def is_random(count: int, height: int, width: int) -> bool:
    """Whether draws of a clip can differ at all.

    >>> is_random(24, 224, 224), is_random(24, 512, 512), is_random(128, 224, 224)
    (False, True, True)
    """
    scale = max(1.0, SIDE / min(height, width))
    cell = max(int(height * scale), int(width * scale)) // CELLS
    spare = (cell - PATCH, count // CLIPS - CLIP_FRAMES * INTERVAL, count // CLIP_FRAMES - INTERVAL)
    return max(spare) > 1  # one place more leaves no choice: the upper end is never drawn


def load_dover(folder: str | Path) -> Dover:
    """Both branches with the published weights, `DOVER.pth` in that folder.

    Raises:
        ModelError: There is no such file, it is damaged, or it holds another network.
    """
    path = Path(folder) / "DOVER.pth"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        model = Dover()
        model.load_state_dict(state)
    except FileNotFoundError:
        raise ModelError(f"There is no `{path}`. {PUBLISHED['dover'].terms('dover')}.") from None
    except Exception as error:  # whatever a damaged pickle makes the reader do
        lines = str(error).splitlines() or [type(error).__name__]
        reason = " ".join(line.strip() for line in lines[:2])[:200]
        raise ModelError(f"`{path}` is not DOVER's published checkpoint ({reason}). Download it again.") from None
    return model.eval().requires_grad_(False)


@register
class DoverScore:
    """Of whole frames. They wait in a temporary file until the clip's length is known: memory stays bounded."""

    needs: ClassVar[frozenset[Need]] = frozenset()
    about: ClassVar[Mapping[str, About]] = {
        "dover": About(
            title="DOVER", better="higher", low=0, high=1,
            formula="1 / (1 + exp(-0.6104 (t - 0.1107) / 0.07355 - 0.3896 (a + 0.08285) / 0.03774))",
            source=f"arXiv:2211.04894; V2VBench, CSVC; mean of {DRAWS} seeded draws",
            weights=PUBLISHED["dover"].terms("dover"),
        )
    }  # fmt: skip

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._shape = (0, 0, 0)
        self._count = 0
        self._model: Dover | None = None
        self._device = torch.device("cpu")

    def update(self, window: Window) -> None:
        require(window.eyes, "dover", "dover")
        self._model, self._device = window.eyes.get("dover", load_dover), window.eyes.device
        frames = (window.frames["counterfactual"] * 255).round().to("cpu", torch.uint8)
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - `compute` closes it
        self._file.write(frames.numpy().tobytes())
        self._shape = (frames.shape[1], frames.shape[2], frames.shape[3])
        self._count += len(frames)

    def compute(self) -> Mapping[str, float]:
        if self._file is None or self._model is None:
            return {"dover": math.nan}
        generator = torch.Generator().manual_seed(0)
        draws = DRAWS if is_random(self._count, *self._shape[1:]) else 1
        with self._file, torch.inference_mode():
            scores = [fuse(*raw_scores(self._read, self._count, self._model, generator)) for _ in range(draws)]
        return {"dover": sum(scores) / draws}

    def _read(self, numbers: Tensor) -> Tensor:
        assert self._file is not None
        size = math.prod(self._shape)
        found = []
        for number in numbers.tolist():
            self._file.seek(number * size)
            found.append(torch.frombuffer(bytearray(self._file.read(size)), dtype=torch.uint8).view(self._shape))
        return torch.stack(found).to(self._device).float() / 255
