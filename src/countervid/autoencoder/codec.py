"""Pixels to latents and back: what the diffusion autoencoder works on.

The published model diffuses pixels; the miniature diffuses the latents of a small convolutional
autoencoder. Both stand behind the same two methods, so nothing above this file knows which it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countervid.models.folder import load_config, load_weights


class Codec(Protocol):
    """Maps crops `(B, 3, H, W)` in [-1, 1] to what a diffusion model works on, and back."""

    factor: int  # pixels of a crop to a place of what is diffused, along a side
    channels: int
    deviation: float  # about, of what is diffused

    def encode(self, images: Tensor) -> Tensor: ...
    def decode(self, latents: Tensor) -> Tensor: ...


class PixelCodec:
    """The identity: the published model works on pixels."""

    factor = 1
    channels = 3
    deviation = 0.5

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor) -> Tensor:
        return latents


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    channels: int = 8  # latent channels; 4 blurs irises and teeth, 16 buys little for twice the diffusion
    widths: tuple[int, ...] = (24, 64, 128)  # at 1/2, 1/4 and 1/8 of the picture
    encoder_blocks: tuple[int, ...] = (1, 1, 1)  # residual blocks a level; looking is easier than drawing
    decoder_blocks: tuple[int, ...] = (1, 2, 2)
    noise: float = 0.05  # of the latents' standard deviation, added in training: smooths the latent space
    scale: float = 1.0  # divides raw latents so that their standard deviation is 1; measured after training


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; no normalisation of the stream, so flat backgrounds cost nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))
        return out


class VAE(nn.Module):
    """A factor-8 autoencoder that begins with pixel-unshuffle and ends with pixel-shuffle.

    The full-resolution layers of a usual autoencoder cost most of its time and learn least; here the
    first convolution already sees 2x2 blocks. Latents are deterministic, of unit standard deviation,
    and made smooth by noise in training (a fixed-variance posterior, as in sigma-VAEs, arXiv:2006.13202).
    """

    def __init__(self, config: VAEConfig = VAEConfig()) -> None:
        super().__init__()
        self.config = config
        self.factor = 2 ** len(config.widths)
        self.deviation = 1.0
        self.channels = config.channels
        down: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(12, config.widths[0], 3, padding=1)]
        for level, width in enumerate(config.widths):
            if level:
                down.append(nn.Conv2d(config.widths[level - 1], width, 4, stride=2, padding=1))
            down += [ResidualBlock(width) for _ in range(config.encoder_blocks[level])]
        down.append(nn.Conv2d(config.widths[-1], config.channels, 3, padding=1))
        up: list[nn.Module] = [nn.Conv2d(config.channels, config.widths[-1], 3, padding=1)]
        for level in reversed(range(len(config.widths))):
            up += [ResidualBlock(config.widths[level]) for _ in range(config.decoder_blocks[level])]
            if level:
                up += [nn.Conv2d(config.widths[level], 4 * config.widths[level - 1], 1), nn.PixelShuffle(2)]
        up += [nn.Conv2d(config.widths[0], 12, 3, padding=1), nn.PixelShuffle(2)]
        self.encoder = nn.Sequential(*down)
        self.decoder = nn.Sequential(*up)

    def encode(self, images: Tensor) -> Tensor:
        """Latents `(B, c, H/8, W/8)` of unit standard deviation, from images `(B, 3, H, W)` in [-1, 1]."""
        latents: Tensor = self.encoder(images.to(memory_format=torch.channels_last)) / self.config.scale
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` in about [-1, 1] (not clamped: a difference of two decodings stays linear)."""
        images: Tensor = self.decoder((latents * self.config.scale).to(memory_format=torch.channels_last))
        return images

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Reconstruction through noisy latents, and the clean latents: what training needs."""
        latents = self.encode(images)
        noise = torch.randn(latents.shape, generator=generator, device="cpu").to(latents)
        spread = latents.detach().std() * self.config.noise
        return self.decode(latents + spread * noise), latents

    @classmethod
    def from_folder(cls, folder: Path) -> VAE:
        model = cls(load_config(folder, VAEConfig))
        load_weights(folder, model)
        return model
