"""The miniature's identity encoder: a face crop becomes one unit vector.

It plays the part of ArcFace in the published system. There the vector knows who somebody is and, as
a by-product, how they look; here both are asked for in training, because the editor moves faces by
moving this vector: takes of one person in one state must agree (InfoNCE, arXiv:1807.03748), and
attributes, age and bones must be linear in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countervid.models.folder import load_config, load_weights


@dataclass(frozen=True, kw_only=True)
class IdentityConfig:
    dimensions: int = 128
    widths: tuple[int, ...] = (48, 96, 160, 192)  # at 1/4, 1/8, 1/16 and 1/32 of the crop
    blocks: tuple[int, ...] = (0, 1, 2, 1)


class IdentityBlock(nn.Module):
    """A pre-activated residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        out: Tensor = x + h
        return out


class IdentityNet(nn.Module):
    """Crops `(B, 3, 128, 128)` in [-1, 1] to identity vectors `(B, 128)` of length 1."""

    def __init__(self, config: IdentityConfig = IdentityConfig()) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = [nn.PixelUnshuffle(4), nn.Conv2d(48, config.widths[0], 3, padding=1)]
        for level, (width, blocks) in enumerate(zip(config.widths, config.blocks, strict=True)):
            if level:
                layers.append(nn.Conv2d(config.widths[level - 1], width, 2, stride=2))
            layers += [IdentityBlock(width) for _ in range(blocks)]
        self.trunk = nn.Sequential(*layers, nn.GroupNorm(8, config.widths[-1]), nn.SiLU())
        self.project = nn.Linear(2 * config.widths[-1], config.dimensions)

    def forward(self, crops: Tensor) -> Tensor:
        h = self.trunk(crops.to(memory_format=torch.channels_last))
        pooled = torch.cat([h.mean((2, 3)), h.amax((2, 3))], dim=1)
        return F.normalize(self.project(pooled), dim=1)

    @classmethod
    def from_folder(cls, folder: Path) -> IdentityNet:
        model = cls(load_config(folder, IdentityConfig))
        load_weights(folder, model)
        return model
