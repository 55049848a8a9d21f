"""68 facial landmarks a frame (the iBUG / 300-W order), from a network or from a detector's five points.

The network looks at an upright crop of 128 px around the face and answers with a heat map a landmark, whose mean is the
landmark (integral regression, Sun et al., arXiv:1711.08229; the spread of the maps is held by the regulariser of DSNT,
Nibali et al., arXiv:1801.07372). A second pass looks again from the first pass's answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from countervid.face import align
from countervid.face.facetrack import DETECTED
from countervid.models.folder import load_config, load_weights

Points = npt.NDArray[np.float64]


class LandmarkModel(Protocol):
    """Finds the landmarks of one face a frame, each frame on its own."""

    name: str

    def __call__(self, frames: Tensor, boxes: npt.ArrayLike, points: npt.ArrayLike) -> Points:
        """Landmarks `(F, 68, 2)` in pixels.

        Args:
            frames: `(F, H, W, 3)` uint8 RGB.
            boxes: `(F, 4)` left, top, right, bottom.
            points: `(F, 5, 2)` eyes, nose tip, mouth corners.
        """
        ...


def interocular(landmarks: npt.ArrayLike) -> Points:
    """Distance between the eyes' centres, pixels, `(F,)`: the unit that landmark errors are stated in."""
    five = align.five_points(landmarks)
    return np.asarray(np.hypot(*(five[:, 1] - five[:, 0]).T), dtype=np.float64)


def crop_transform(
    points: npt.ArrayLike,
    *,
    shift: npt.ArrayLike = (0.0, 0.0),
    scale: npt.ArrayLike = 1.0,
    turn: npt.ArrayLike = 0.0,
) -> Points:
    """The upright squares `(F, 4, 2)` that the network looks at; `align.crop` cuts them, `align.to_square` maps points.

    The square turns with the face and holds it from the brows to the chin with a margin.

    Args:
        points: Five points `(F, 5, 2)` or landmarks `(F, 68, 2)`, pixels.
        shift, scale, turn: Disturbances for training, a frame each or one for all: `(F, 2)` in sides of the square,
            `(F,)` as a ratio, `(F,)` in radians.
    """
    points = np.asarray(points, dtype=np.float64)
    five = align.five_points(points) if points.shape[-2] == 68 else points
    _, x = align.oriented_squares(five)
    eyes, mouth = (five[:, 0] + five[:, 1]) / 2, (five[:, 3] + five[:, 4]) / 2
    across, down = np.hypot(*(five[:, 1] - five[:, 0]).T), np.hypot(*(mouth - eyes).T)
    x = x / np.hypot(*x.T)[:, None] * np.maximum(1.6 * across, 1.5 * down)[:, None]
    centre = eyes + 0.55 * (mouth - eyes)
    moved = np.broadcast_to(np.asarray(shift, dtype=np.float64), centre.shape)
    centre = centre + 2 * np.hypot(*x.T)[:, None] * moved
    angle = np.broadcast_to(np.asarray(turn, dtype=np.float64), len(x))
    size = np.broadcast_to(np.asarray(scale, dtype=np.float64), len(x))[:, None]
    turned = np.stack(
        [x[:, 0] * np.cos(angle) - x[:, 1] * np.sin(angle), x[:, 0] * np.sin(angle) + x[:, 1] * np.cos(angle)]
    )
    return align.corners(centre, turned.T * size)


@dataclass(frozen=True, kw_only=True)
class LandmarkNetConfig:
    size: int = 128  # px, side of the crop it looks at
    widths: tuple[int, ...] = (32, 48, 80, 96)  # channels at 1/2, 1/4, 1/8, 1/16 of the crop: 0.9 M parameters
    head: int = 64  # channels at 1/4, from which the heat maps are drawn


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(8, channels)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            _norm(channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            _norm(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        inner: Tensor = self.body(x)
        return nn.functional.silu(x + inner)


class LandmarkNet(nn.Module):
    """Crop `(B, 3, 128, 128)` in [-1, 1] -> 68 points `(B, 68, 2)` as fractions of the crop (x, y)."""

    def __init__(self, config: LandmarkNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LandmarkNetConfig()
        half, quarter, eighth, sixteenth = config.widths
        self.stem = nn.Sequential(nn.Conv2d(3, half, 5, 2, 2, bias=False), _norm(half), nn.SiLU())
        self.quarter = self._level(half, quarter)
        self.eighth = self._level(quarter, eighth)
        self.sixteenth = self._level(eighth, sixteenth)
        self.up_eighth = nn.Conv2d(sixteenth, eighth, 1)
        self.fuse_eighth = _Residual(eighth)
        self.up_quarter = nn.Conv2d(eighth, config.head, 1)
        self.side_quarter = nn.Conv2d(quarter, config.head, 1)
        self.fuse_quarter = _Residual(config.head)
        self.maps = nn.Conv2d(config.head, 68, 1)
        # A heat map cannot point outside the crop; this correction can. It starts at zero.
        self.offset = nn.Linear(sixteenth, 136)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)

    @staticmethod
    def _level(before: int, after: int) -> nn.Sequential:
        down = nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), _norm(after), nn.SiLU())
        return nn.Sequential(down, _Residual(after), _Residual(after))

    @classmethod
    def from_folder(cls, folder: Path) -> LandmarkNet:
        """The network saved in `folder` (`config.json`, `model.safetensors`), ready to use in float32."""
        net = cls(load_config(folder, LandmarkNetConfig))
        load_weights(folder, net)
        return net

    def heat(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Heat maps `(B, 68, 32, 32)`, each summing to 1, and corrections `(B, 68, 2)` in fractions of the crop."""
        quarter = self.quarter(self.stem(crops))
        eighth = self.eighth(quarter)
        sixteenth = self.sixteenth(eighth)
        up = nn.functional.interpolate(self.up_eighth(sixteenth), scale_factor=2.0, mode="bilinear")
        eighth = self.fuse_eighth(eighth + up)
        up = nn.functional.interpolate(self.up_quarter(eighth), scale_factor=2.0, mode="bilinear")
        logits = self.maps(self.fuse_quarter(self.side_quarter(quarter) + up))
        # Single precision: a sum over 1024 cells in half precision would move a landmark by a pixel.
        heat = logits.float().flatten(2).softmax(-1).reshape(logits.shape)
        offset: Tensor = self.offset(sixteenth.mean((2, 3)))
        return heat, offset.float().reshape(-1, 68, 2)

    def forward(self, crops: Tensor) -> Tensor:
        heat, offset = self.heat(crops)
        return _mean(heat) + offset


def _mean(heat: Tensor) -> Tensor:
    """Mean of each heat map `(..., h, w)` as fractions `(..., 2)`, cells taken at their centres."""
    height, width = heat.shape[-2:]
    x = (torch.arange(width, device=heat.device) + 0.5) / width
    y = (torch.arange(height, device=heat.device) + 0.5) / height
    return torch.stack([(heat.sum(-2) * x).sum(-1), (heat.sum(-1) * y).sum(-1)], -1)


def landmark_error(found: Tensor, true: Tensor) -> Tensor:
    """Mean distance of 68 points in units of the true distance between the eyes, `(B,)`: 0.03 is 3 %."""
    eyes = torch.linalg.vector_norm(true[:, 36:42].mean(1) - true[:, 42:48].mean(1), dim=-1)
    error: Tensor = torch.linalg.vector_norm(found - true, dim=-1).mean(1) / eyes
    return error


def landmark_loss(net: LandmarkNet, crops: Tensor, true: Tensor, spread: float = 0.05) -> Tensor:
    """The training loss of one batch, a scalar: error in units of the eyes' distance, and a hold on the maps' spread.

    Args:
        net: The network.
        crops: `(B, 3, 128, 128)` in [-1, 1].
        true: `(B, 68, 2)` fractions of the crop (`align.to_square`).
        spread: Weight of the penalty on maps wider or narrower than one cell.
    """
    heat, offset = net.heat(crops)
    mean = _mean(heat)
    eyes = (true[:, 36:42].mean(1) - true[:, 42:48].mean(1)).norm(dim=-1).clamp_min(0.05)[:, None, None]
    # Linear away from the truth, quadratic within 1 % of the eyes' distance: outliers do not rule, small errors count.
    error = nn.functional.smooth_l1_loss((mean + offset) / eyes, true / eyes, beta=0.01)
    width = heat.shape[-1]
    cell = (torch.arange(width, device=heat.device) + 0.5) / width
    across = (heat.sum(-2) * (cell - mean[..., :1]) ** 2).sum(-1) * width**2
    down = (heat.sum(-1) * (cell - mean[..., 1:]) ** 2).sum(-1) * width**2
    hold = ((across.clamp_min(1e-6).sqrt() - 1).abs() + (down.clamp_min(1e-6).sqrt() - 1).abs()).mean()
    return error + spread * hold / width


class NetLandmarks:
    """`LandmarkNet` as a landmark model: crop, look, look again from the answer."""

    def __init__(self, net: LandmarkNet, *, passes: int = 2, name: str = "bundled") -> None:
        self.net, self.passes, self.name = net.eval(), passes, name

    @torch.inference_mode()
    def __call__(self, frames: Tensor, boxes: npt.ArrayLike, points: npt.ArrayLike) -> Points:
        guess = np.asarray(points, dtype=np.float64)
        weight = next(self.net.parameters())
        for _ in range(self.passes):
            squares = crop_transform(guess)
            crops = align.crop(frames, squares, self.net.config.size).to(weight.device, torch.float32)
            # One frame at a time through the network: with larger batches, other kernels round differently.
            images = (crops / 127.5 - 1).permute(0, 3, 1, 2).to(weight.dtype)
            found: list[Tensor] = [self.net(image[None].contiguous()) for image in images]
            fractions = torch.cat(found).double().cpu().numpy() if found else np.zeros((0, 68, 2))
            guess = align.from_square(fractions, squares)
        return guess


def _mean_face() -> Points:
    """A plain frontal face `(68, 2)`: eye centres at (-1, 0) and (1, 0), y down. From usual proportions."""
    angle = np.linspace(0, np.pi, 17)
    jaw = np.stack([-2.1 * np.cos(angle), -0.1 + 3.85 * np.sin(angle) ** 0.9], 1)
    brow = np.array([[-1.75, -0.6], [-1.5, -0.85], [-1.15, -0.95], [-0.8, -0.9], [-0.45, -0.75]])
    nose = np.array([[0, -0.05], [0, 0.35], [0, 0.75], [0, 1.14]])
    nostrils = np.array([[-0.5, 1.45], [-0.25, 1.52], [0, 1.57], [0.25, 1.52], [0.5, 1.45]])
    eye = np.array([[-1.45, 0.03], [-1.17, -0.16], [-0.83, -0.16], [-0.55, 0.03], [-0.83, 0.13], [-1.17, 0.13]])
    lips = np.array([[-0.83, 2.31], [-0.5, 2.1], [-0.2, 2.0], [0, 2.04], [0.2, 2.0], [0.5, 2.1], [0.83, 2.31]])
    lower = np.array([[0.5, 2.58], [0.2, 2.67], [0, 2.69], [-0.2, 2.67], [-0.5, 2.58]])
    inner = np.array(
        [[-0.68, 2.31], [-0.22, 2.24], [0, 2.25], [0.22, 2.24], [0.68, 2.31], [0.22, 2.37], [0, 2.38], [-0.22, 2.37]]
    )
    other = eye[[3, 2, 1, 0, 5, 4]] * (-1, 1)
    return np.concatenate([jaw, brow, brow[::-1] * (-1, 1), nose, nostrils, eye, other, lips, lower, inner])


MEAN_FACE = _mean_face()


class FittedLandmarks:
    """A plain face laid through the detector's five points: no expression, but eyes and mouth where they are.

    It needs no weights, and the alignment square, which knows eyes and mouth only, is as good as the detector.
    """

    name = "five-points"

    def __call__(self, frames: Tensor, boxes: npt.ArrayLike, points: npt.ArrayLike) -> Points:
        five = np.asarray(points, dtype=np.float64)
        model = np.concatenate([align.five_points(MEAN_FACE), np.ones((5, 1))], 1)  # (5, 3)
        affine = np.einsum("ij,fjk->fik", np.linalg.pinv(model), five)  # least squares, a view from the side included
        landmarks = np.concatenate([MEAN_FACE, np.ones((68, 1))], 1) @ affine
        rest = five - model @ affine  # what the affine map leaves over, given to each feature by itself
        landmarks[:, 17:22] += rest[:, None, 0]
        landmarks[:, 36:42] += rest[:, None, 0]
        landmarks[:, 22:27] += rest[:, None, 1]
        landmarks[:, 42:48] += rest[:, None, 1]
        landmarks[:, 27:36] += rest[:, None, 2]
        corner = np.clip((MEAN_FACE[48:, 0] / MEAN_FACE[54, 0] + 1) / 2, 0, 1)[None, :, None]
        landmarks[:, 48:] += (1 - corner) * rest[:, None, 3] + corner * rest[:, None, 4]
        return np.asarray(landmarks, dtype=np.float64)


def disagreement(landmarks: Points, points: Points) -> Points:
    """How far landmarks `(n, 68, 2)` are from a detector's five points `(n, 5, 2)`, in eyes' distances, `(n,)`."""
    fitted = FittedLandmarks()(torch.empty(0), np.empty((0, 4)), points)
    five, true = align.five_points(landmarks), align.five_points(fitted)
    down = np.linalg.norm((true[:, 3] + true[:, 4] - true[:, 0] - true[:, 1]) / 2, axis=-1)
    unit = np.maximum(interocular(fitted), 0.8 * down)  # a profile keeps its height
    apart = np.linalg.norm(five - true, axis=-1)[:, [0, 1, 3, 4]].mean(1) / unit
    return np.where(np.isfinite(apart), apart, np.inf)


def believed(
    landmarks: Points, points: Points, source: npt.NDArray[np.uint8], trust: float, astray: bool | None = None
) -> tuple[Points, int]:
    """Landmarks `(n, 68, 2)` with those replaced that contradict the detector's five points `(n, 5, 2)`, and how many.

    The detector has seen more kinds of face than a network trained on rendered people. A network that is astray is
    replaced in all frames: going back and forth between the two would shake the crop.

    Args:
        source: Where the points are from, `(n,)`: 1 detected, 2 interpolated between detections.
        trust: What is believed, in eyes' distances; see `FaceConfig`.
        astray: Whether the network is; by default, whether it is in the median of the detections.
    """
    apart = disagreement(landmarks, points)
    # Between detections the points are only interpolated, and less is asked.
    doubted = apart > trust * np.where(source == DETECTED, 2.0, 3.0)
    if np.median(apart[source == DETECTED]) > trust if astray is None else astray:
        doubted[:] = True
    fitted = FittedLandmarks()(torch.empty(0), np.empty((0, 4)), points)
    return np.where(doubted[:, None, None], fitted, landmarks), int(doubted.sum())
