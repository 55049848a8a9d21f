"""Pairwise picture quality, frame by frame: PSNR, SSIM, L1.

Pictures are `(F, 3, H, W)` (any number of channels), floats in 0..1; the sums run in their dtype. Each function
returns one number a frame, so that a clip can be streamed and averaged in any order.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Border = Literal["valid", "zero"]
PSNR_CAP = 100.0  # dB, for frames that are equal: a mean over frames stays finite
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def l1(one: Tensor, two: Tensor) -> Tensor:
    """Mean absolute difference of each frame, `(F,)`, 0..1.

    >>> l1(torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)).item()
    1.0
    """
    one, two = _pair(one, two)
    return (one - two).abs().mean(dim=(1, 2, 3))


def psnr(one: Tensor, two: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each frame in dB, `(F,)`; 100 when the mean squared error is below 1e-10.

    20 log10(1 / sqrt(MSE)), MSE over the frame's channels and pixels, each frame on its own.

    >>> round(psnr(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.1)).item(), 3)
    20.0
    """
    one, two = _pair(one, two)
    error = (one - two).square().mean(dim=(1, 2, 3))
    decibels = -10 * torch.log10(error.clamp_min(1e-30))
    return torch.where(error < 1e-10, torch.full_like(decibels, PSNR_CAP), decibels)


def ssim(one: Tensor, two: Tensor, *, border: Border = "valid") -> Tensor:
    """Structural similarity of each frame, `(F,)`, -1..1 (Wang et al. 2004, eq. 13).

    11 x 11 Gaussian window of sigma 1.5, C1 = 0.01^2, C2 = 0.03^2, population covariance, mean over channels.

    Args:
        one, two: Pictures `(F, C, H, W)`, 0..1; both sides at least 11 for `border="valid"`.
        border: "valid" counts only windows that lie inside (scikit-image, CSVC); "zero" pads with zeros and
            counts all (the code of DVA).

    >>> ssim(torch.rand(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)).item() < 0.1
    True
    """
    one, two = _pair(one, two)
    if border == "valid" and min(one.shape[-2:]) < _WINDOW:
        raise ValueError(
            f"SSIM needs both sides of a picture to be at least {_WINDOW} px, got "
            f"{one.shape[-2]} x {one.shape[-1]}. Use larger frames or `border='zero'`."
        )
    mean_one, mean_two = _blur(one, border), _blur(two, border)
    variance_one = _blur(one * one, border) - mean_one.square()
    variance_two = _blur(two * two, border) - mean_two.square()
    covariance = _blur(one * two, border) - mean_one * mean_two
    likeness = (2 * mean_one * mean_two + _C1) / (mean_one.square() + mean_two.square() + _C1)
    structure = (2 * covariance + _C2) / (variance_one + variance_two + _C2)
    return (likeness * structure).mean(dim=(1, 2, 3))


def _blur(pictures: Tensor, border: Border) -> Tensor:
    """Gaussian mean over each pixel's window, one axis at a time (the window is separable)."""
    channels = pictures.shape[1]
    offsets = torch.arange(_WINDOW, dtype=pictures.dtype) - _WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    weights = weights / weights.sum()
    pad = _WINDOW // 2 if border == "zero" else 0
    down = weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    across = weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    blurred = functional.conv2d(pictures, down, padding=(pad, 0), groups=channels)
    return functional.conv2d(blurred, across, padding=(0, pad), groups=channels)


def _pair(one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    if one.ndim != 4 or one.shape != two.shape:
        raise ValueError(
            f"Both clips must be (F, C, H, W) of one shape, got {tuple(one.shape)} and {tuple(two.shape)}. "
            "Cut them to the same frames and size first."
        )
    if not one.is_floating_point() or not two.is_floating_point():
        raise ValueError(f"Pictures must be floats in 0..1, got {one.dtype} and {two.dtype}. Divide uint8 by 255.")
    return one, two
