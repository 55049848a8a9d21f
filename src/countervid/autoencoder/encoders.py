"""The three frozen networks that the published autoencoder looks at faces with: who, in which pose, and where.

- `IdentityNetwork`: IR-SE-50 trained with ArcFace (arXiv:1801.07698), an identity vector of unit length;
- `LandmarkNetwork`: MobileNetV2 (arXiv:1801.04381) with a regression head, 51 points;
- `FaceParser`: BiSeNet (arXiv:1808.00897) on ResNet-18, 19 classes of CelebAMask-HQ.

All take aligned crops `(B, 3, 256, 256)` in [-1, 1]. Parameters bear the names of the published checkpoint below
`encoder.`; what it stores twice or never uses is left out. Weights never learn and batch norms never move.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countervid.models.folder import load_weights, read_config, save_model

IDENTITY_CHANNELS = 512
LANDMARK_CHANNELS = 102
PARSER_CLASSES = (
    "background skin left_brow right_brow left_eye right_eye glasses left_ear right_ear earring nose mouth upper_lip "
    "lower_lip neck necklace cloth hair hat"
).split()
_NOT_FACE = ("background", "cloth", "hat")  # in training
_NOT_COMPOSITED = (*_NOT_FACE, "left_ear", "right_ear", "neck", "hair")  # when pasting an edited face back
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class Frozen(nn.Module):
    """A network that stays in evaluation mode and does not learn, whatever the module around it does.

    It is kept in a folder of its own, whose config says which of the three it is.
    """

    kind: ClassVar[str]

    def freeze(self) -> Self:
        self.requires_grad_(False)
        return self.train(False)

    def train(self, mode: bool = True) -> Self:
        return super().train(False)

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype = torch.float32) -> None:
        """Write `config.json` and `model.safetensors`."""
        save_model(folder, self, {"kind": self.kind}, dtype=dtype)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The network of a folder, float32, on the CPU.

        Raises:
            ModelError: The folder is incomplete, damaged, or holds something else.
        """
        read_config(folder, cls.kind)
        network = cls()
        load_weights(folder, network)
        return network


class IdentityNetwork(Frozen):
    """Who it is: unit vectors of 512 numbers."""

    kind = "ir-se-50"

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _IRSE50()
        self.freeze()

    def forward(self, x: Tensor) -> Tensor:
        """Crops `(B, 3, H, W)` in [-1, 1], brought to 256 px if they are not -> identities `(B, 512)`."""
        if x.shape[2] != 256:
            x = F.adaptive_avg_pool2d(x, (256, 256))
        face = F.adaptive_avg_pool2d(x[:, :, 35:223, 32:220], (112, 112))
        vectors = self.backbone(face)
        unit: Tensor = vectors / vectors.norm(dim=1, keepdim=True)
        return unit


class LandmarkNetwork(Frozen):
    """In which pose: 51 points without the jaw line, as fractions of the middle 224 px, `x0, y0, x1, y1, ...`."""

    kind = "mobilenet-landmarks"

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _MobileNetPoints()
        self.freeze()

    def raw(self, x: Tensor) -> Tensor:
        """All 68 points as the network gives them, unbounded, `(B, 136)`; arguments as `forward`."""
        if x.shape[2] != 224:
            x = x[:, :, 16:240, 16:240]
        points: Tensor = self.backbone(_imagenet((x + 1) / 2))
        return points

    def forward(self, x: Tensor) -> Tensor:
        """Crops `(B, 3, 256, 256)`, or their middles of 224 px, in [-1, 1] -> points `(B, 102)` in [0, 1]."""
        return self.raw(x).clamp(0, 1)[:, 2 * 17 :]


class FaceParser(Frozen):
    """Where: the class of every pixel, and masks of what may change."""

    kind = "bisenet"

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _BiSeNet()
        self.freeze()

    def logits(self, x: Tensor) -> Tensor:
        """Crops `(B, 3, H, W)` in [-1, 1] -> logits `(B, 19, 512, 512)`."""
        x = F.interpolate(x, size=(512, 512)).clamp(-1, 1)
        logits: Tensor = self.backbone(_imagenet((x + 1) / 2))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Crops `(B, 3, H, W)` in [-1, 1] -> the class of every pixel of 256 x 256, int64 `(B, 256, 256)`."""
        return self.logits(x).argmax(dim=1)[:, ::2, ::2]  # the nearest of each four

    def mask(self, x: Tensor, *, compositing: bool) -> Tensor:
        """1 where the face is, float32 `(B, 1, 256, 256)`.

        Args:
            x: Crops, `(B, 3, H, W)` in [-1, 1].
            compositing: Leave out ears, neck and hair too, as when an edited face is pasted back; training keeps them.
        """
        excluded = [PARSER_CLASSES.index(name) for name in (_NOT_COMPOSITED if compositing else _NOT_FACE)]
        classes = self(x)
        return (~torch.isin(classes, torch.tensor(excluded, device=classes.device))).float()[:, None]


class FaceEncoders(nn.Module):
    """The three networks under the names of the published checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.idnet = IdentityNetwork()
        self.lndnet = LandmarkNetwork()
        self.bgnet = FaceParser()


# --- IR-SE-50 ---------------------------------------------------------------------------------------------------------


class _SqueezeExcite(nn.Module):
    """Channels weighed by what the whole map holds (arXiv:1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))).sigmoid()
        return x * gate


class _IRBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.shortcut_layer: nn.Sequential | None = None
        if in_channels != channels:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            _SqueezeExcite(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        skip = x[:, :, :: self.stride, :: self.stride] if self.shortcut_layer is None else self.shortcut_layer(x)
        out: Tensor = self.res_layer(x) + skip
        return out


class _IRSE50(nn.Module):
    """Faces `(B, 3, 112, 112)` in [-1, 1] -> `(B, 512)`."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        blocks: list[nn.Module] = []
        in_channels = 64
        for channels, count in ((64, 3), (128, 4), (256, 14), (512, 3)):
            for index in range(count):
                blocks.append(_IRBlock(in_channels, channels, 2 if index == 0 else 1))
                in_channels = channels
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.6),
            nn.Flatten(),
            nn.Linear(512 * 7 * 7, IDENTITY_CHANNELS),
            nn.BatchNorm1d(IDENTITY_CHANNELS),
        )

    def forward(self, x: Tensor) -> Tensor:
        vectors: Tensor = self.output_layer(self.body(self.input_layer(x)))
        return vectors


# --- MobileNetV2 ------------------------------------------------------------------------------------------------------


def _conv_norm(
    in_channels: int, channels: int, kernel: int = 1, stride: int = 1, groups: int = 1, relu: bool = True
) -> list[nn.Module]:
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels),
    ]
    return [*layers, nn.ReLU6()] if relu else layers


class _InvertedResidual(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.residual = stride == 1 and in_channels == channels
        width = in_channels * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [nn.Sequential(*_conv_norm(in_channels, width))]
        layers.append(nn.Sequential(*_conv_norm(width, width, 3, stride, groups=width)))
        self.conv = nn.Sequential(*layers, *_conv_norm(width, channels, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class _PlainConvNorm(nn.Module):
    """A convolution and its norm, nothing after them."""

    def __init__(self, in_channels: int, channels: int, kernel: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.conv(x))
        return out


class _MobileNetPoints(nn.Module):
    """Pictures `(B, 3, 224, 224)`, normalised -> 68 points, `(B, 136)`."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Sequential(*_conv_norm(3, 32, 3, 2))]
        in_channels = 32
        for expansion, channels, repeats, stride in (
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
        ):  # fmt: skip
            for index in range(repeats):
                layers.append(_InvertedResidual(in_channels, channels, stride if index == 0 else 1, expansion))
                in_channels = channels
        layers.append(nn.Sequential(*_conv_norm(in_channels, 1280)))
        self.base_net = nn.Sequential(nn.Sequential(*layers))
        self.linear7 = _PlainConvNorm(1280, 1280, 7, groups=1280)
        self.linear1 = _PlainConvNorm(1280, 136, 1)

    def forward(self, x: Tensor) -> Tensor:
        points: Tensor = self.linear1(self.linear7(self.base_net(x))).flatten(1)
        return points


# --- BiSeNet ----------------------------------------------------------------------------------------------------------


class _ConvNormRelu(nn.Module):
    def __init__(self, in_channels: int, channels: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _BasicBlock(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + skip)


class _ResNet18(nn.Module):
    """Pictures -> maps at an eighth, a sixteenth and a thirty-second of the side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(_BasicBlock(64, 64, 1), _BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(_BasicBlock(64, 128, 2), _BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(_BasicBlock(128, 256, 2), _BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(_BasicBlock(256, 512, 2), _BasicBlock(512, 512, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        eighth = self.layer2(self.layer1(x))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class _AttentionRefinement(nn.Module):
    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = _ConvNormRelu(in_channels, 128)
        self.conv_atten = nn.Conv2d(128, 128, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(128)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.conv(x)
        gate: Tensor = self.bn_atten(self.conv_atten(features.mean(dim=(2, 3), keepdim=True))).sigmoid()
        return features * gate


class _ContextPath(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.resnet = _ResNet18()
        self.arm16 = _AttentionRefinement(256)
        self.arm32 = _AttentionRefinement(512)
        self.conv_head32 = _ConvNormRelu(128, 128)
        self.conv_head16 = _ConvNormRelu(128, 128)
        self.conv_avg = _ConvNormRelu(512, 128, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures -> ResNet's map and the context's map, both at an eighth of the side."""
        eighth, sixteenth, last = self.resnet(x)
        whole = self.conv_avg(last.mean(dim=(2, 3), keepdim=True))
        context = self.conv_head32(F.interpolate(self.arm32(last) + whole, size=sixteenth.shape[2:]))
        context = self.conv_head16(F.interpolate(self.arm16(sixteenth) + context, size=eighth.shape[2:]))
        return eighth, context


class _FeatureFusion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convblk = _ConvNormRelu(256, 256, 1)
        self.conv1 = nn.Conv2d(256, 64, 1, bias=False)
        self.conv2 = nn.Conv2d(64, 256, 1, bias=False)

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        fused: Tensor = self.convblk(torch.cat([features, context], dim=1))
        gate: Tensor = self.conv2(F.relu(self.conv1(fused.mean(dim=(2, 3), keepdim=True)))).sigmoid()
        return fused * gate + fused


class _ParserHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = _ConvNormRelu(256, 256)
        self.conv_out = nn.Conv2d(256, len(PARSER_CLASSES), 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv_out(self.conv(x))
        return logits


class _BiSeNet(nn.Module):
    """Pictures `(B, 3, H, W)`, normalised -> logits `(B, 19, H, W)`."""

    def __init__(self) -> None:
        super().__init__()
        self.cp = _ContextPath()
        self.ffm = _FeatureFusion()
        self.conv_out = _ParserHead()

    def forward(self, x: Tensor) -> Tensor:
        logits = self.conv_out(self.ffm(*self.cp(x)))
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=True)


def _imagenet(x: Tensor) -> Tensor:
    """Pictures in [0, 1], less the mean and over the spread of ImageNet."""

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=x.dtype, device=x.device)[:, None, None]

    return (x - column(_IMAGENET_MEAN)) / column(_IMAGENET_STD)
