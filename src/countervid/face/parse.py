"""What is what in an aligned crop, and where an edit may change it.

Labels are those of the rendered world, so that its true masks and a parser's answers are the same thing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from countervid.face.smooth import smooth
from countervid.models.folder import load_config, load_weights

BACKGROUND, SKIN, HAIR, EYES, LIPS, CLOTHES, GLASSES, HAT, OCCLUDER = range(9)
LABELS = ("background", "skin", "hair", "eyes", "lips", "clothes", "glasses", "hat", "occluder")

NOT_FACE = (BACKGROUND, CLOTHES, HAT)  # what the published training and text edit leave free

Part = Literal["head", "face"]
PARTS: dict[Part, tuple[int, ...]] = {
    "head": (SKIN, HAIR, EYES, LIPS, GLASSES, HAT),
    "face": (SKIN, EYES, LIPS, GLASSES),
}


class FaceParser(Protocol):
    """Labels the pixels of aligned crops, each crop on its own."""

    name: str

    def __call__(self, crops: Tensor) -> Tensor:
        """Labels `(F, S, S)` uint8 of crops `(F, S, S, 3)` uint8 RGB."""
        ...


@dataclass(frozen=True, kw_only=True)
class ParserNetConfig:
    size: int = 128  # px, side of the crop it was trained on
    widths: tuple[int, ...] = (24, 48, 80, 112)  # channels at 1/2, 1/4, 1/8, 1/16 of the crop: 0.5 M parameters
    classes: int = len(LABELS)


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.GroupNorm(8, after),
            nn.SiLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.GroupNorm(8, after),
            nn.SiLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


class ParserNet(nn.Module):
    """A small U-Net (arXiv:1505.04597): crops `(B, 3, S, S)` in [-1, 1] -> logits `(B, 9, S, S)`."""

    def __init__(self, config: ParserNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ParserNetConfig()
        widths = config.widths
        # Pixels are folded by 2 first and unfolded last: full resolution costs most and needs least.
        self.down = nn.ModuleList([_Block(12, widths[0])])
        self.down += [_Block(a, b, 2) for a, b in zip(widths[:-1], widths[1:], strict=True)]
        self.lateral = nn.ModuleList([nn.Conv2d(b, a, 1) for a, b in zip(widths[:-1], widths[1:], strict=True)])
        self.up = nn.ModuleList([_Block(width, width) for width in widths[:-1]])
        self.out = nn.Conv2d(widths[0], 4 * config.classes, 3, padding=1)

    @classmethod
    def from_folder(cls, folder: Path) -> ParserNet:
        """The network saved in `folder` (`config.json`, `model.safetensors`), ready to use in float32."""
        net = cls(load_config(folder, ParserNetConfig))
        load_weights(folder, net)
        return net

    def forward(self, crops: Tensor) -> Tensor:
        x = nn.functional.pixel_unshuffle(crops, 2)
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = nn.functional.interpolate(self.lateral[level](x), scale_factor=2.0, mode="bilinear")
            x = self.up[level](x + skips[level])
        return nn.functional.pixel_shuffle(self.out(x), 2)


class NetParser:
    """`ParserNet` as a face parser."""

    def __init__(self, net: ParserNet, *, name: str = "bundled") -> None:
        self.net, self.name = net.eval(), name

    @torch.inference_mode()
    def __call__(self, crops: Tensor) -> Tensor:
        weight = next(self.net.parameters())
        images = (crops.to(weight.device, torch.float32) / 127.5 - 1).permute(0, 3, 1, 2).to(weight.dtype)
        # One crop at a time: with larger batches, other kernels round differently.
        labels = [self.net(image[None].contiguous()).argmax(1).to(torch.uint8).cpu() for image in images]
        return torch.cat(labels) if labels else torch.zeros(crops.shape[:3], dtype=torch.uint8)


class EllipseParser:
    """A head where the alignment puts it: no weights, no picture looked at, and so no occluders known."""

    name = "ellipse"

    def __call__(self, crops: Tensor) -> Tensor:
        size = crops.shape[1]
        cell = (torch.arange(size) + 0.5) / size
        y, x = cell[:, None], cell[None, :]
        head = ((x - 0.5) / 0.29) ** 2 + ((y - 0.54) / 0.40) ** 2 <= 1
        hair = ((x - 0.5) / 0.32) ** 2 + ((y - 0.46) / 0.38) ** 2 <= 1
        labels = torch.full((size, size), BACKGROUND, dtype=torch.uint8)
        labels[hair & (y < 0.4)] = HAIR
        labels[head & (y >= 0.25)] = SKIN
        return labels.expand(len(crops), size, size).clone()


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Lengths are fractions of the crop's side (the face from ear to ear is about half of it)."""

    part: Part = "head"  # what an edit may change; `face` leaves hair and hats alone
    margin: float = 0.02  # around what is seen of the part: labels are not exact to the pixel
    grow_up: float = 0.14  # room for hair that is not there yet: above the head,
    grow_side: float = 0.10  # beside it,
    grow_down: float = 0.08  # and below the chin, for a beard
    feather: float = 0.04  # width of the soft edge, inside the region
    border: float = 0.06  # width of the soft edge along the crop's own border
    sigma: float = 1.0  # frames; smooths the mask over time


def edit_mask(
    labels: Tensor,
    edited_labels: Tensor | None = None,
    config: MaskConfig | None = None,
    *,
    weight: Tensor | None = None,
    steady: bool = True,
) -> Tensor:
    """Where an edit may change the crop, `(F, S, S)` float32 in 0..1.

    Without `edited_labels` the region leaves room for hair and beard that the edit might add around the head. With the
    labels of the edited crops it is what is head before or after: tighter, and background stays untouched.
    What is in front of the face (an occluder) is exactly 0.

    Args:
        labels: `(F, S, S)` whole numbers, or logits `(F, 9, S, S)`, of one unbroken run of frames.
        edited_labels: The same for the edited crops.
        weight: How much of the edit is wanted in each place, `(F, S, S)` in 0..1; everything if None.
        steady: Smooth over time.
    """
    config = config or MaskConfig()
    region, free = _region(labels, edited_labels, config)
    if weight is not None:
        region = region * weight
    if steady:
        region = torch.from_numpy(smooth(region.numpy(), config.sigma))
    # Smoothing over time lets neighbours in; the occluder of this very frame has the last word.
    return torch.minimum(region, free)


def _region(labels: Tensor, edited: Tensor | None, config: MaskConfig) -> tuple[Tensor, Tensor]:
    """Soft region of each frame, and the soft "nothing is in front" mask, `(F, S, S)` float32."""
    before = _hard(labels)
    size = before.shape[-1]
    px = [max(1, round(length * size)) for length in (config.margin, config.feather, config.border)]
    margin, feather, border = px
    part = _among(before, PARTS[config.part])
    occluder = before == OCCLUDER
    if edited is not None:
        after = _hard(edited)
        part = part | _among(after, PARTS[config.part])
        region = _dilate(part, margin + feather, margin + feather, margin + feather)
    elif config.part == "head":
        # The face hidden behind a hand is still head: the hull spans it, and the hand is taken out below.
        up, side, down = (round(x * size) + feather for x in (config.grow_up, config.grow_side, config.grow_down))
        region = _dilate(part, up, side, down)
    else:
        region = _dilate(part, margin + feather, margin + feather, margin + feather)
    soft = _feather(region, feather)
    edge = torch.arange(size, dtype=torch.float32)
    edge = (torch.minimum(edge, size - 1 - edge) / border).clamp(0, 1)
    edge = edge * edge * (3 - 2 * edge)
    soft = soft * edge[:, None] * edge[None, :]
    return soft, _feather(~_dilate(occluder, 1, 1, 1), feather)


def _hard(labels: Tensor) -> Tensor:
    labels = labels.argmax(1) if labels.ndim == 4 else labels
    if labels.ndim != 3:
        raise ValueError(f"`labels` must be (F, S, S) or logits (F, 9, S, S), got {tuple(labels.shape)}.")
    return labels.cpu()


def _among(labels: Tensor, classes: tuple[int, ...]) -> Tensor:
    return torch.isin(labels, torch.tensor(classes, dtype=labels.dtype))


def _dilate(region: Tensor, up: int, side: int, down: int) -> Tensor:
    """A region `(F, S, S)` bool widened by so many pixels upwards, to both sides and downwards, corners rounded."""
    # Two boxes, one long and one wide, approximate the ellipse of those half-axes.
    wide = _box(region, round(up * 0.7), side, round(down * 0.7))
    return wide | _box(region, up, round(side * 0.7), down)


def _box(region: Tensor, up: int, side: int, down: int) -> Tensor:
    # A pixel at y is reached from y - down .. y + up.
    padded = nn.functional.pad(region.float()[:, None], (side, side, down, up))
    columns = nn.functional.max_pool2d(padded, (1, 2 * side + 1), 1)
    return nn.functional.max_pool2d(columns, (up + down + 1, 1), 1)[:, 0] > 0


def _feather(region: Tensor, width: int) -> Tensor:
    """1 well inside, exactly 0 outside, and a smooth slope of about `width` pixels inside the edge; `(F, S, S)`."""
    inner = max(1, width // 2)
    # Shrunk by as much as the blur then reaches: the slope never leaves the region. The crop's border is not an edge.
    outside = nn.functional.pad((~region).float()[:, None], (2 * inner,) * 4)
    shrunk = 1 - nn.functional.max_pool2d(outside, 2 * inner + 1, 1)
    offsets = torch.arange(-inner, inner + 1)
    weights = torch.tensor([1 + math.cos(math.pi * float(x) / (inner + 1)) for x in offsets])
    weights = weights / weights.sum()
    rows = nn.functional.conv2d(shrunk, weights[None, None, :, None], padding=(inner, 0))
    soft = nn.functional.conv2d(rows, weights[None, None, None, :], padding=(0, inner))
    soft = soft[:, 0, inner:-inner, inner:-inner] if soft.shape[-1] > region.shape[-1] else soft[:, 0]
    return torch.where(region, soft.clamp(0, 1), torch.zeros(()))
