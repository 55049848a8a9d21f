"""DOVER's two networks (arXiv:2211.04894), written anew, with the parameter names of its published checkpoint.

Technical: a Video Swin-T (arXiv:2106.13230) whose position biases are gated by fragments (FAST-VQA, arXiv:2207.02595).
Aesthetic: a ConvNeXt-T (arXiv:2201.03545) over time. Each ends in a small head whose map is averaged.

Names and shapes follow the published code (github.com/VQAssessment/DOVER, `dover.yml`), which loads `DOVER.pth`
strictly. The file itself could not be had: that it loads is by construction, and what each network computes is tested
against other implementations of Swin and ConvNeXt, but no number of the published weights has been reproduced.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

WINDOW = (8, 7, 7)  # tokens: time, down, across
WIDTHS = (96, 192, 384, 768)
Triple = tuple[int, int, int]
_BLOCKED = -100.0  # to a logit between tokens that the shift made neighbours


class Dover(nn.Module):
    """Prepared clips `(B, 3, T, 224, 224)` to raw scores `(B,)`, one method a branch. T is 32."""

    def __init__(self) -> None:
        super().__init__()
        self.technical_backbone = Swin()
        self.aesthetic_backbone = ConvNext()
        self.technical_head = Head()
        self.aesthetic_head = Head()

    def technical(self, fragments: Tensor) -> Tensor:
        """Of fragments."""
        score: Tensor = self.technical_head(self.technical_backbone(fragments))
        return score

    def aesthetic(self, frames: Tensor) -> Tensor:
        """Of whole frames, made small."""
        score: Tensor = self.aesthetic_head(self.aesthetic_backbone(frames))
        return score


class Head(nn.Module):
    """Features `(B, 768, t, h, w)` to the mean of a map `(B,)`."""

    def __init__(self) -> None:
        super().__init__()
        self.fc_hid = nn.Conv3d(WIDTHS[-1], 64, 1)
        self.fc_last = nn.Conv3d(64, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        scores: Tensor = self.fc_last(functional.gelu(self.fc_hid(features)))
        return scores.mean((1, 2, 3, 4))


class Swin(nn.Module):
    """`(B, 3, T, H, W)` to `(B, 768, T / 2, H / 32, W / 32)`."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding()
        depths, heads = (2, 2, 6, 2), (3, 6, 12, 24)
        self.layers = nn.ModuleList(
            Stage(width, depth, count, gated=level < 3, last=level == 3)
            for level, (width, depth, count) in enumerate(zip(WIDTHS, depths, heads, strict=True))
        )
        self.norm = nn.LayerNorm(WIDTHS[-1])

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.norm(x).permute(0, 4, 1, 2, 3)
        return out


class PatchEmbedding(nn.Module):
    """Blocks of 2 x 4 x 4 pixels to tokens `(B, t, h, w, 96)`."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv3d(3, WIDTHS[0], (2, 4, 4), (2, 4, 4))
        self.norm = nn.LayerNorm(WIDTHS[0])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.proj(x).permute(0, 2, 3, 4, 1))
        return out


class Stage(nn.Module):
    """Blocks whose windows stand still and shifted in turns, then, but for the last stage, 2 x 2 tokens become one."""

    def __init__(self, width: int, depth: int, heads: int, *, gated: bool, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, gated) for _ in range(depth))
        self.downsample = None if last else Merging(width)

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.blocks):
            x = block(x, shifted=index % 2 == 1)
        return x if self.downsample is None else self.downsample(x)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, gated: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, gated)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor, shifted: bool) -> Tensor:
        size: Triple = (x.shape[1], x.shape[2], x.shape[3])
        window, shift = fitting(size, shifted)
        h = torch.roll(self.norm1(x), [-s for s in shift], (1, 2, 3))
        h = self.attn(into_windows(h, window), size, window, shift)
        x = x + torch.roll(out_of_windows(h, size, window), shift, (1, 2, 3))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return out


class Merging(nn.Module):
    """`(B, t, h, w, C)` to `(B, t, h / 2, w / 2, 2 C)`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[:, :, down::2, across::2] for across in (0, 1) for down in (0, 1)]
        out: Tensor = self.reduction(self.norm(torch.cat(corners, dim=-1)))
        return out


class WindowAttention(nn.Module):
    """Attention inside windows `(B, n, N, C)`, with a learned bias for each offset between two tokens.

    Gated, there are two tables of biases: one for tokens of one fragment, one for tokens of different ones. As in the
    published code the gate is no switch but how many fragments lie between the two, down and across together.
    """

    relative_position_index: Tensor

    def __init__(self, width: int, heads: int, gated: bool) -> None:
        super().__init__()
        self.heads = heads
        offsets = (2 * WINDOW[0] - 1) * (2 * WINDOW[1] - 1) * (2 * WINDOW[2] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets, heads))
        self.fragment_position_bias_table = nn.Parameter(torch.zeros(offsets, heads)) if gated else None
        self.register_buffer("relative_position_index", offset_index())
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, size: Triple, window: Triple, shift: Triple) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)  # each b n heads N d
        bias = self._bias(size, window, shift)
        attend = functional.scaled_dot_product_attention
        out = torch.stack([attend(*clip, attn_mask=bias) for clip in zip(q, k, v, strict=True)])  # fused only in 4-D
        projected: Tensor = self.proj(out.transpose(2, 3).flatten(3))
        return projected

    def _bias(self, size: Triple, window: Triple, shift: Triple) -> Tensor:
        """What is added to the logits, `(n or 1, heads, N, N)`."""
        tokens = window[0] * window[1] * window[2]
        index = self.relative_position_index[:tokens, :tokens]  # a window is cut in time only, the slowest axis
        bias = self.relative_position_bias_table[index].permute(2, 0, 1).contiguous()[None]
        if self.fragment_position_bias_table is not None:
            within = self.fragment_position_bias_table[index].permute(2, 0, 1).contiguous()[None]
            gate = fragments_between(size, window, shift).to(bias)[:, None]
            bias = torch.addcmul(within, bias - within, gate)  # bias x gate + within x (1 - gate)
        if any(shift):
            bias = bias + strangers(size, window, shift).to(bias)[:, None] * _BLOCKED
        return bias


def fitting(size: Triple, shifted: bool) -> tuple[Triple, Triple]:
    """Window and shift for so many tokens: an axis that is no longer than the window is one window and never shifts.

    Raises:
        ValueError: Windows do not tile that size.

    >>> fitting((16, 56, 56), True), fitting((4, 7, 7), True)
    (((8, 7, 7), (4, 3, 3)), ((4, 7, 7), (0, 0, 0)))
    """
    window = tuple(min(w, s) for w, s in zip(WINDOW, size, strict=True))
    shift = tuple(w // 2 if shifted and s > w else 0 for w, s in zip(WINDOW, size, strict=True))
    if any(s % w for s, w in zip(size, window, strict=True)) or window[1:] != WINDOW[1:]:
        raise ValueError(
            f"Windows of {WINDOW} do not tile {size} tokens. Give pictures of 224 x 224 and 32 frames, or up to 16."
        )
    return (window[0], window[1], window[2]), (shift[0], shift[1], shift[2])


def into_windows(x: Tensor, window: Triple) -> Tensor:
    """`(B, t, h, w, C)` to `(B, windows, tokens of a window, C)`."""
    for axis, length in zip((1, 3, 5), window, strict=True):
        x = x.unflatten(axis, (-1, length))
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6).flatten(1, 3)


def out_of_windows(x: Tensor, size: Triple, window: Triple) -> Tensor:
    """The way back."""
    counts = [s // w for s, w in zip(size, window, strict=True)]
    x = x.unflatten(2, window).unflatten(1, counts).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return x.flatten(5, 6).flatten(3, 4).flatten(1, 2)


def offset_index() -> Tensor:
    """For two tokens of a window, the row of the bias table that their offset has: `(392, 392)`."""
    place = torch.stack(torch.meshgrid(*(torch.arange(w) for w in WINDOW), indexing="ij")).flatten(1)
    offset = place[:, :, None] - place[:, None, :] + torch.tensor(WINDOW)[:, None, None] - 1
    return (offset[0] * (2 * WINDOW[1] - 1) + offset[1]) * (2 * WINDOW[2] - 1) + offset[2]


@lru_cache(maxsize=16)
def fragments_between(size: Triple, window: Triple, shift: Triple) -> Tensor:
    """How many fragments lie between two tokens of a window, down plus across: `(windows, N, N)`."""
    down, across = (
        _apart((torch.arange(size[axis]) * WINDOW[axis] // size[axis]).to(torch.int8), axis, size, window, shift)
        for axis in (1, 2)
    )
    return down.abs() + across.abs()


@lru_cache(maxsize=16)
def strangers(size: Triple, window: Triple, shift: Triple) -> Tensor:
    """Pairs of a shifted window that lie at opposite ends of the clip or picture: `(windows, N, N)` bool."""
    count = into_windows(torch.zeros(1, *size, 1), window).shape[1:3]
    apart = torch.zeros(count[0], count[1], count[1], dtype=torch.bool)
    for axis, (length, w, s) in enumerate(zip(size, window, shift, strict=True)):
        if s:
            place = torch.arange(length)  # of the rolled clip: its last window holds the end, then the beginning
            part = (place >= length - w).to(torch.int8) + (place >= length - s).to(torch.int8)
            apart |= _apart(part, axis, size, window, (0, 0, 0)) != 0
    return apart


def _apart(values: Tensor, axis: int, size: Triple, window: Triple, shift: Triple) -> Tensor:
    """Differences of a value that every token has by its place on one axis: `(windows, N, N)`."""
    shape = [1, 1, 1, 1, 1]
    shape[axis + 1] = -1
    grid = torch.roll(values, -shift[axis]).view(shape).expand(1, *size, 1)
    rows = into_windows(grid, window)[0, :, :, 0]
    return rows[:, None, :] - rows[:, :, None]


class ConvNext(nn.Module):
    """`(B, 3, T, H, W)` to `(B, 768, T / 2, H / 32, W / 32)`."""

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Sequential(nn.Conv3d(3, WIDTHS[0], (2, 4, 4), (2, 4, 4)), ChannelNorm(WIDTHS[0]))
        self.downsample_layers = nn.ModuleList([stem])
        for narrow, wide in zip(WIDTHS, WIDTHS[1:], strict=False):
            self.downsample_layers.append(
                nn.Sequential(ChannelNorm(narrow), nn.Conv3d(narrow, wide, (1, 2, 2), (1, 2, 2)))
            )
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvBlock(width, depth=(1, 3, 1)[index % 3]) for index in range(count)))
            for width, count in zip(WIDTHS, (3, 3, 9, 3), strict=True)
        )
        self.norm = nn.LayerNorm(WIDTHS[-1], eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        for shrink, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(shrink(x))
        out: Tensor = self.norm(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
        return out


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of `(B, C, t, h, w)`."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)


class ConvBlock(nn.Module):
    """Every second of three looks at three frames."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv3d(width, width, (depth, 7, 7), padding=(depth // 2, 3, 3), groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.dwconv(x).permute(0, 2, 3, 4, 1))
        h = self.gamma * self.pwconv2(functional.gelu(self.pwconv1(h)))
        out: Tensor = x + h.permute(0, 4, 1, 2, 3)
        return out
