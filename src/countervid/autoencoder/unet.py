"""The noise estimator of the Diffusion Video Autoencoder: a U-Net that is told the time and the face.

Architecture of arXiv:2212.02802 as its published code builds it, with that code's parameter names: the layout descends
from ADM (arXiv:2105.05233), the two modulations from Diffusion Autoencoders (arXiv:2111.15640), with one more
convolution between them. Maps are `(B, C, H, W)`; the module keeps them channels-last in memory, where CPU and GPU
kernels are fastest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countervid.autoencoder.config import UNetConfig

_CACHED = 4096  # places of a map whose squares stay in the processor's cache until they are summed

Resample = Literal["none", "down", "up"]


class Modulation(NamedTuple):
    """`h * gain + shift`, both `(B, C, 1, 1)`, or `(1, C, 1, 1)` for all items alike."""

    gain: Tensor
    shift: Tensor


class Condition(NamedTuple):
    """A face's condition vector, projected for every residual block; made once, used at every step of a chain."""

    modulations: tuple[Modulation, ...]


def timestep_embedding(t: Tensor, width: int) -> Tensor:
    """Sinusoids of the training step: `(B,)` -> float32 `(B, width)`, cosines first.

    Frequencies fall from 1 to 1/10000 in geometric steps (arXiv:1706.03762, section 3.5); an odd width ends in a zero.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * frequencies[None]
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, width % 2))


class GroupNorm(nn.GroupNorm):
    """Group norm that computes in float32 whatever the input's type, casts back, and modulates in the same pass.

    On the CPU PyTorch's kernel for channels-last maps takes the variance as `E[x^2] - E[x]^2`, which costs four digits
    where the mean is large (7e-4 in the published network's output). Here it is taken of the centred values.
    """

    def forward(self, x: Tensor, modulation: Modulation | None = None, *, overwrite: bool = False) -> Tensor:
        """Map `(B, C, H, W)`, normalised, then modulated; `overwrite`: in the memory of `x`, where no gradient is."""
        values = x.float()
        if x.device.type != "cpu":
            h = F.group_norm(values, self.num_groups, self.weight, self.bias, self.eps)
            return (h if modulation is None else _modulate(h, modulation)).to(x.dtype)
        count, channels, height, width = values.shape
        rows = values.permute(0, 2, 3, 1).reshape(count, height * width, channels)
        mean = rows.mean(1).view(count, self.num_groups, -1).mean(2, keepdim=True)
        mean = mean.expand(-1, -1, channels // self.num_groups).reshape(count, 1, channels)
        lasting = torch.is_grad_enabled()
        centred = torch.sub(rows, mean, out=rows if overwrite and not lasting else None)
        squares = sum(part.square().sum(1) for part in centred.split(_CACHED, dim=1))
        variance = torch.as_tensor(squares).view(count, self.num_groups, -1).mean(2, keepdim=True) / (height * width)
        gain = self.weight.view(1, self.num_groups, -1) * (variance + self.eps).rsqrt()
        gain, shift = gain.view(count, 1, channels), self.bias.view(1, 1, channels)
        if modulation is not None:
            more, moved = (part.float().reshape(-1, 1, channels) for part in modulation)
            gain, shift = gain * more, torch.addcmul(moved, shift, more)
        h = torch.addcmul(shift, centred, gain, out=None if lasting else centred)
        return h.view(count, height, width, channels).permute(0, 3, 1, 2).to(x.dtype)


def silu(h: Tensor) -> Tensor:
    """In place where nobody will ask for gradients: a map that was just made is not needed as it was."""
    return F.silu(h, inplace=not torch.is_grad_enabled())


class TimeEmbedding(nn.Module):
    """Sinusoids through two linear layers."""

    def __init__(self, width: int, embed_channels: int) -> None:
        super().__init__()
        self.width = width
        self.time_embed = nn.Sequential(
            nn.Linear(width, embed_channels), nn.SiLU(), nn.Linear(embed_channels, embed_channels)
        )

    def forward(self, t: Tensor) -> Tensor:
        """`(B,)` training steps -> `(B, embed_channels)`."""
        embedding: Tensor = self.time_embed(timestep_embedding(t, self.width))
        return embedding


class ResidualBlock(nn.Module):
    """Three convolutions; the time modulates after the first, the face after the second.

    With `resample` the map is halved (mean of 2 x 2) or doubled (nearest) before the first convolution and on the skip.
    """

    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int, resample: Resample = "none") -> None:
        super().__init__()
        self.resample = resample
        self.in_layers = nn.Sequential(
            _norm(config, in_channels), nn.SiLU(), nn.Conv2d(in_channels, out_channels, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(config.embed_channels, 2 * out_channels))
        self.cond_emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(config.condition_channels, 2 * out_channels))
        self.out_layers = nn.Sequential(
            _norm(config, out_channels),
            nn.SiLU(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            _norm(config, out_channels),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            _zero(nn.Conv2d(out_channels, out_channels, 3, padding=1)),
        )
        same = in_channels == out_channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Modulation, condition: Modulation) -> Tensor:
        """Map `(B, C, H, W)` -> `(B, C', H', W')`."""
        norm, _, convolution = self.in_layers
        h = silu(norm(x))
        if self.resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif self.resample == "up":
            h, x = F.interpolate(h, scale_factor=2.0), F.interpolate(x, scale_factor=2.0)
        h = convolution(h)
        first_norm, _, convolution, second_norm, _, dropout, last = self.out_layers
        h = convolution(silu(first_norm(h, time, overwrite=True)))
        h = last(dropout(silu(second_norm(h, condition, overwrite=True))))
        skipped: Tensor = self.skip_connection(x)
        out: Tensor = skipped + h if torch.is_grad_enabled() else h.add_(skipped)
        return out


class Attention(nn.Module):
    """Self-attention over all positions of a map, added to it."""

    def __init__(self, config: UNetConfig, channels: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm = _norm(config, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = _zero(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` -> the same shape. The width-1 convolutions act as linear layers on channels-last memory."""
        batch, channels, height, width = x.shape
        rows = self.norm(x).permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        qkv = F.linear(rows, self.qkv.weight[:, :, 0], self.qkv.bias)
        q, k, v = qkv.reshape(batch, height * width, self.heads, 3, -1).permute(3, 0, 2, 1, 4)  # each b heads hw d
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, height * width, channels)
        h = F.linear(h, self.proj_out.weight[:, :, 0], self.proj_out.bias)
        return x + h.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


class UNet(nn.Module):
    """Predicts the noise in a noisy picture or latent, given the time and the face.

    Encoder maps wait in one stack per level; each decoder block takes its own level's last one. Where the encoder has
    fewer blocks the remaining decoder blocks do without, where it has more the surplus is unused.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.time_embed = TimeEmbedding(config.model_channels, config.embed_channels)
        widths = [multiplier * config.model_channels for multiplier in config.channel_multipliers]
        last_level = len(widths) - 1

        channels = widths[0]
        first = nn.Conv2d(config.in_channels, channels, 3, padding=1)
        self.input_blocks = nn.ModuleList([nn.ModuleList([first])])
        self._down_levels = [0]  # the level of each encoder map
        stacks: list[list[int]] = [[] for _ in widths]  # widths of the waiting maps
        stacks[0].append(channels)
        for level, width in enumerate(widths):
            attend = config.size // 2**level in config.attention_resolutions
            for _ in range(config.blocks_down):
                self.input_blocks.append(self._entry(channels, width, attend))
                channels = width
                self._down_levels.append(level)
                stacks[level].append(channels)
            if level != last_level:
                self.input_blocks.append(nn.ModuleList([ResidualBlock(config, channels, channels, "down")]))
                self._down_levels.append(level + 1)
                stacks[level + 1].append(channels)

        self.middle_block = nn.ModuleList(
            [
                ResidualBlock(config, channels, channels),
                Attention(config, channels),
                ResidualBlock(config, channels, channels),
            ]
        )

        self.output_blocks = nn.ModuleList()
        self._up_laterals: list[int | None] = []  # the level whose stack each decoder block takes from
        for level, width in reversed(list(enumerate(widths))):
            attend = config.size // 2**level in config.attention_resolutions
            for index in range(config.residual_blocks + 1):
                lateral = stacks[level].pop() if stacks[level] else None
                entry = self._entry(channels + (lateral or 0), width, attend)
                channels = width
                if level and index == config.residual_blocks:
                    entry.append(ResidualBlock(config, channels, channels, "up"))
                self.output_blocks.append(entry)
                self._up_laterals.append(None if lateral is None else level)

        self.out = nn.Sequential(
            _norm(config, channels), nn.SiLU(), _zero(nn.Conv2d(channels, config.in_channels, 3, padding=1))
        )
        for parameter in self.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def _entry(self, in_channels: int, out_channels: int, attend: bool) -> nn.ModuleList:
        blocks: list[nn.Module] = [ResidualBlock(self.config, in_channels, out_channels)]
        if attend:
            blocks.append(Attention(self.config, out_channels))
        return nn.ModuleList(blocks)

    def _residual_blocks(self) -> Iterator[ResidualBlock]:
        """All residual blocks in the order in which `forward` meets them."""
        for entry in (*self.input_blocks, self.middle_block, *self.output_blocks):
            assert isinstance(entry, nn.ModuleList)
            yield from (module for module in entry if isinstance(module, ResidualBlock))

    def condition(self, vector: Tensor) -> Condition:
        """Project face vectors `(B, condition_channels)`, or one for all items, for every block: once a chain."""
        activated = F.silu(vector)
        return Condition(tuple(_modulation(block.cond_emb_layers[1](activated)) for block in self._residual_blocks()))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | Condition) -> Tensor:
        """The noise in `x`.

        Args:
            x: Noisy pictures or latents, `(B, in_channels, size, size)`; other sides work if the levels can halve them.
            t: Training steps of the process, int64 `(B,)`, or a scalar for all items: then the time is embedded once.
            condition: Face vectors `(B, condition_channels)`, or what `condition` made of them.

        Returns:
            Predicted noise, shape of `x`.
        """
        if not isinstance(condition, Condition):
            condition = self.condition(condition)
        time = F.silu(self.time_embed(t.reshape(-1)))
        faces = iter(condition.modulations)

        def run(entry: nn.Module, h: Tensor) -> Tensor:
            assert isinstance(entry, nn.ModuleList)
            for module in entry:
                if isinstance(module, ResidualBlock):
                    h = module(h, _modulation(module.emb_layers[1](time)), next(faces))
                else:
                    h = module(h)
            return h

        h = x.contiguous(memory_format=torch.channels_last)
        stacks: list[list[Tensor]] = [[] for _ in self.config.channel_multipliers]
        for entry, level in zip(self.input_blocks, self._down_levels, strict=True):
            h = run(entry, h)
            stacks[level].append(h)
        h = run(self.middle_block, h)
        for entry, lateral in zip(self.output_blocks, self._up_laterals, strict=True):
            h = run(entry, h if lateral is None else torch.cat([h, stacks[lateral].pop()], dim=1))
        eps: Tensor = self.out(h)
        return eps


def _norm(config: UNetConfig, channels: int) -> GroupNorm:
    return GroupNorm(min(config.norm_groups, channels), channels)


def _zero(layer: nn.Conv1d | nn.Conv2d) -> nn.Conv1d | nn.Conv2d:
    """The layer with weights and bias zero, so that its branch starts out silent."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _modulation(projected: Tensor) -> Modulation:
    """`(B, 2C)`, scales before shifts, as a gain and a shift on maps."""
    scale, shift = projected[:, :, None, None].chunk(2, dim=1)
    return Modulation(1 + scale, shift)


def _modulate(h: Tensor, modulation: Modulation) -> Tensor:
    return torch.addcmul(modulation.shift, h, modulation.gain)  # one pass over the map
