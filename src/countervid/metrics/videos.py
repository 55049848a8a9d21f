"""A whole video as one vector: I3D's 400 logits, and what the bundled examiner sees, over time.

The distance between the vectors of two clips is a distance, and is called so; CSVC computes that of I3D's under the
name of FVD. Sets of vectors are compared in `frechet`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from countervid.errors import ModelError
from countervid.metrics.base import About, Need, Window, register
from countervid.metrics.perceptual import examined
from countervid.metrics.published import require
from countervid.models import sha256
from countervid.models.download import RELEASES

I3D_SIDE = 224  # px
I3D_LEAST = 10  # frames: the network shrinks time
I3D_FRAMES = 24  # from the clip's first, as CSVC
PER_SECOND = 25.0  # frames: makes changes as large as means (spread over rendered people: 0.6 and 0.8)

_FILE = RELEASES["i3d"].files[0]


def i3d_input(clip: Tensor, side: int = I3D_SIDE) -> Tensor:
    """A clip as I3D is fed: `(C, T, side, side)` in -1..1.

    Bilinear without antialiasing so that the short side is `side` and the long one is rounded up, then the middle
    square, rounded down, as StyleGAN-V and VideoGPT have it.

    Args:
        clip: `(T, C, H, W)`, 0..1.
        side: In pixels.

    >>> i3d_input(torch.full((2, 3, 8, 10), 0.5), side=4).shape
    torch.Size([3, 2, 4, 4])
    """
    height, width = clip.shape[-2:]
    scale = side / min(height, width)
    tall, wide = (side, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), side)
    resized = functional.interpolate(clip, size=(tall, wide), mode="bilinear", align_corners=False)
    top, left = (tall - side) // 2, (wide - side) // 2
    square = resized[:, :, top : top + side, left : left + side]
    return square.permute(1, 0, 2, 3) * 2 - 1


def i3d_features(network: nn.Module, prepared: Tensor) -> Tensor:
    """I3D's 400 logits of a clip `(3, T, 224, 224)` from `i3d_input`, `(400,)`.

    Raises:
        ValueError: It has fewer than 10 frames.
    """
    if prepared.shape[1] < I3D_LEAST:
        raise ValueError(f"I3D needs at least {I3D_LEAST} frames, got {prepared.shape[1]}. Give a longer clip.")
    logits: Tensor = network(prepared[None], rescale=False, resize=False, return_features=True)
    return logits[0]


def load_i3d(path: str | Path, pin: str = _FILE.sha256) -> nn.Module:
    """The TorchScript of I3D that the user named. TorchScript is code: it is read only if its SHA-256 is the pin.

    Args:
        path: `i3d_torchscript.pt`, or the folder that it is in.
        pin: SHA-256 of the file; the published one's by default.

    Raises:
        ModelError: It is missing, or is another file.
    """
    file = Path(path) / _FILE.name if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise ModelError(f"`{file}` is missing. Get it with `countervid models pull i3d`.")
    if sha256(file) != pin:
        raise ModelError(
            f"`{file}` is not the published I3D (its SHA-256 differs). TorchScript is code, so another is not run. "
            "Get it with `countervid models pull i3d`."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript, in which alone I3D is published
        network: nn.Module = torch.jit.load(str(file), map_location="cpu")
    return network


def over_time(vectors: Tensor) -> Tensor:
    """One vector a frame `(T, D)` to one a clip `(2 D,)`: their mean, and their mean absolute change a second.

    >>> over_time(torch.tensor([[0.0], [2.0]]))
    tensor([ 1., 50.])
    """
    running = OverTime()
    running.add(vectors)
    return running.vector.to(vectors.dtype)


class OverTime:
    """What `over_time` says, of frames that come in parts.

    >>> running = OverTime()
    >>> running.add(torch.tensor([[0.0]]))
    >>> running.add(torch.tensor([[2.0]]))
    >>> running.vector
    tensor([ 1., 50.], dtype=torch.float64)
    """

    def __init__(self) -> None:
        self._frames = 0
        self._sum = self._changes = torch.zeros(0)
        self._last: Tensor | None = None

    def add(self, vectors: Tensor) -> None:
        """Add consecutive frames' vectors `(n, D)`."""
        vectors = vectors.detach().to("cpu", torch.float64)
        joined = vectors if self._last is None else torch.cat([self._last, vectors])
        added, changed = vectors.sum(dim=0), (joined[1:] - joined[:-1]).abs().sum(dim=0)
        self._sum, self._changes = (self._sum + added, self._changes + changed) if self._frames else (added, changed)
        self._frames += len(vectors)
        self._last = vectors[-1:]

    @property
    def vector(self) -> Tensor:
        """`(2 D,)`, float64; the second half is 0 for a single frame."""
        return torch.cat([self._sum / self._frames, self._changes / max(self._frames - 1, 1) * PER_SECOND])


class ClipVector:
    """The bundled feature of one clip, `(384,)`: the examiner's last layer, averaged over space, then `over_time`."""

    def __init__(self, clip: str) -> None:
        self._clip, self._running = clip, OverTime()

    def update(self, window: Window) -> None:
        """Add a window's frames.

        Raises:
            ModelError: The examiner's weights are missing or damaged.
        """
        self._running.add(examined(window, self._clip)[-1].mean(dim=(2, 3)))

    @property
    def vector(self) -> Tensor:
        """Of all frames so far, for a distance to another clip's, or for `frechet.Moments`."""
        return self._running.vector


class I3DVector:
    """I3D's feature of one clip's first frames, `(400,)`; of fewer than ten frames NaN."""

    def __init__(self, clip: str, frames: int = I3D_FRAMES) -> None:
        self._clip, self._frames = clip, frames
        self._network: nn.Module | None = None
        self._kept: list[Tensor] = []

    def update(self, window: Window) -> None:
        """Add a window's frames, those after the first 24 not.

        Raises:
            ModelError: The weights were not named, or are not the published ones.
        """
        require(window.eyes, "i3d", "i3d-distance")
        self._network = window.eyes.get("i3d", load_i3d)
        missing = self._frames - sum(part.shape[1] for part in self._kept)
        if missing > 0:
            self._kept.append(i3d_input(window.frames[self._clip][:missing].to(window.eyes.device)))

    @property
    def vector(self) -> Tensor:
        prepared = torch.cat(self._kept, dim=1)
        if self._network is None or prepared.shape[1] < I3D_LEAST:
            return torch.full((400,), torch.nan, dtype=torch.float64)
        return i3d_features(self._network, prepared).detach().to("cpu", torch.float64)


class _PairDistance:
    """Squared distance between the vectors of the counterfactual and of another clip."""

    about: ClassVar[Mapping[str, About]]
    needs: ClassVar[frozenset[Need]] = frozenset()
    kind: ClassVar[type[ClipVector] | type[I3DVector]]
    other: ClassVar[str] = "factual"

    def __init__(self) -> None:
        self._vectors = [self.kind(clip) for clip in ("counterfactual", self.other)]

    def update(self, window: Window) -> None:
        for vector in self._vectors:
            vector.update(window)

    def compute(self) -> Mapping[str, float]:
        one, two = (vector.vector for vector in self._vectors)
        return dict.fromkeys(self.about, float((one - two).square().sum()))


_I3D = About(
    title="I3D distance", better="lower", low=0.0, source="CSVC, fvd (which calls it FVD)",
    formula="squared distance between the logits of I3D (Kinetics-400) of the first 24 frames of edit and source",
    weights=f"`i3d`: `countervid models pull i3d` ({RELEASES['i3d'].licence})",
)  # fmt: skip
_BUNDLED = About(
    title="Video distance", better="lower", low=0.0, source="countervid",
    formula="squared distance between what the examiner's last layer sees of edit and source: its mean over frames and "
    "its mean absolute change a second",
    weights="`examiner`, bundled (Apache-2.0)",
)  # fmt: skip


@register
class I3DDistance(_PairDistance):
    about = {"i3d-distance": _I3D}
    kind = I3DVector


@register
class VideoDistance(_PairDistance):
    about = {"video-distance": _BUNDLED}
    kind = ClipVector


@register
class TrueVideoDistance(_PairDistance):
    about = {
        "video-distance.truth": About(
            title="Video distance to the truth", better="lower", low=0.0, source=_BUNDLED.source,
            formula=_BUNDLED.formula.replace("source", "truth"), weights=_BUNDLED.weights,
        )
    }  # fmt: skip
    kind, other = ClipVector, "truth"
    needs = frozenset({"truth"})
