"""Pairwise picture quality, frame by frame: L1, MSE, PSNR, SSIM, MS-SSIM.

Pictures are `(F, 3, H, W)` (any number of channels), floats in 0..1; the sums run in their dtype. Each function
returns one number a frame, so that a clip can be streamed and averaged in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from countervid.metrics.base import About, Window
from countervid.metrics.streaming import Score, mean_over_frames

Border = Literal["valid", "zero", "reflect"]
PSNR_CAP = 100.0  # dB, for frames that are equal: a mean over frames stays finite
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003, section 3.2; finest first
MS_SSIM_LEAST = (_WINDOW - 1) * 2 ** (len(_SCALES) - 1) + 1  # px: the coarsest scale must hold a window


def l1(one: Tensor, two: Tensor) -> Tensor:
    """Mean absolute difference of each frame, `(F,)`, 0..1.

    >>> l1(torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)).item()
    1.0
    """
    one, two = _pair(one, two)
    return (one - two).abs().mean(dim=(1, 2, 3))


def mse(one: Tensor, two: Tensor) -> Tensor:
    """Mean squared difference of each frame, `(F,)`, 0..1.

    >>> mse(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.5)).item()
    0.25
    """
    one, two = _pair(one, two)
    return (one - two).square().mean(dim=(1, 2, 3))


def psnr(one: Tensor, two: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each frame in dB, `(F,)`; 100 when the mean squared error is below 1e-10.

    20 log10(1 / sqrt(MSE)), MSE over the frame's channels and pixels, each frame on its own.

    >>> round(psnr(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.1)).item(), 3)
    20.0
    """
    error = mse(one, two)
    decibels = -10 * torch.log10(error.clamp_min(1e-30))
    return torch.where(error < 1e-10, torch.full_like(decibels, PSNR_CAP), decibels)


def ssim(one: Tensor, two: Tensor, *, border: Border = "valid") -> Tensor:
    """Structural similarity of each frame, `(F,)`, -1..1 (Wang et al. 2004, eq. 13).

    11 x 11 Gaussian window of sigma 1.5, C1 = 0.01^2, C2 = 0.03^2, population covariance, mean over channels.

    Args:
        one, two: Pictures `(F, C, H, W)`, 0..1; both sides at least 11 for `border="valid"`.
        border: "valid" counts only windows that lie inside (scikit-image, CSVC); "zero" pads with zeros and
            counts all (the code of DVA); "reflect" mirrors at the edge and counts all (torchmetrics, kornia).

    >>> ssim(torch.rand(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)).item() < 0.1
    True
    """
    one, two = _pair(one, two)
    if border == "valid" and min(one.shape[-2:]) < _WINDOW:
        raise ValueError(
            f"SSIM needs both sides of a picture to be at least {_WINDOW} px, got "
            f"{one.shape[-2]} x {one.shape[-1]}. Use larger frames or `border='zero'`."
        )
    return _similarity(one, two, border)[0].mean(dim=1)


def ms_ssim(one: Tensor, two: Tensor) -> Tensor:
    """Structural similarity over five scales of each frame, `(F,)`, 0..1 (Wang et al. 2003, eq. 7).

    The product over scales of mean contrast-and-structure to the scale's weight, at the coarsest the whole SSIM; a
    negative mean counts as 0. Windows inside only, scales halved by 2 x 2 means, channels on their own and then
    averaged: pytorch-msssim's reading. torchmetrics reflects at the border and takes all channels together, which
    moves the fourth digit.

    Args:
        one, two: Pictures `(F, C, H, W)`, 0..1, both sides above 160 px.

    >>> black = torch.zeros(1, 3, 176, 176)
    >>> round(ms_ssim(black, black).item(), 6)
    1.0
    """
    one, two = _pair(one, two)
    if min(one.shape[-2:]) < MS_SSIM_LEAST:
        raise ValueError(
            f"MS-SSIM needs both sides of a picture to be at least {MS_SSIM_LEAST} px, got "
            f"{one.shape[-2]} x {one.shape[-1]}. Use larger frames, or SSIM."
        )
    product = one.new_ones(one.shape[:2])
    for scale, weight in enumerate(_SCALES):
        if scale:
            odd = [side % 2 for side in one.shape[-2:]]  # a side of odd length gets a row of zeros
            one, two = (functional.avg_pool2d(pictures, 2, padding=odd) for pictures in (one, two))
        whole, structure = _similarity(one, two, "valid")
        product = product * (whole if scale == len(_SCALES) - 1 else structure).clamp_min(0) ** weight
    return product.mean(dim=1)


def _similarity(one: Tensor, two: Tensor, border: Border) -> tuple[Tensor, Tensor]:
    """Mean SSIM, and mean contrast-and-structure alone, of each frame and channel: both `(F, C)`."""
    mean_one, mean_two = _blur(one, border), _blur(two, border)
    means = mean_one.square() + mean_two.square()
    variances = _blur(one * one + two * two, border) - means
    product = mean_one * mean_two
    covariance = _blur(one * two, border) - product
    likeness = (2 * product + _C1) / (means + _C1)
    structure = (2 * covariance + _C2) / (variances + _C2)
    return (likeness * structure).mean(dim=(2, 3)), structure.mean(dim=(2, 3))


def _blur(pictures: Tensor, border: Border) -> Tensor:
    """Gaussian mean over each pixel's window, one axis at a time (the window is separable)."""
    channels = pictures.shape[1]
    offsets = torch.arange(_WINDOW, dtype=pictures.dtype, device=pictures.device) - _WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    weights = weights / weights.sum()
    if border == "reflect":
        pictures = functional.pad(pictures, [_WINDOW // 2] * 4, mode="reflect")
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


def _frames(function: Callable[[Tensor, Tensor], Tensor]) -> Score:
    return lambda window, other: function(window.frames["counterfactual"], window.frames[other])


def _ms_ssim_or_nothing(window: Window, other: str) -> Tensor:
    one, two = window.frames["counterfactual"], window.frames[other]
    if min(one.shape[-2:]) < MS_SSIM_LEAST:  # not defined for this clip, which others need not suffer from
        return one.new_full((len(one),), torch.nan)
    return ms_ssim(one, two)


mean_over_frames(
    "l1", _frames(l1), About(
        title="L1", better="lower", low=0.0, high=1.0, source="Monteiro et al., ICLR 2023 (composition)",
        formula="mean over frames of the mean absolute difference, 0..1; doing nothing has 0 to the source",
    )
)  # fmt: skip
mean_over_frames(
    "mse", _frames(mse), About(
        title="MSE", better="lower", low=0.0, high=1.0, source="DVA (arXiv:2212.02802), table 1",
        formula="mean over frames of the mean squared difference, values 0..1",
    )
)  # fmt: skip
mean_over_frames(
    "psnr", _frames(psnr), About(
        title="PSNR", better="higher", low=0.0, high=PSNR_CAP, unit="dB", source="CSVC (common_metrics)",
        formula="mean over frames of 10 log10(1 / MSE) of each; 100 where MSE < 1e-10",
    )
)  # fmt: skip
mean_over_frames(
    "ssim", _frames(ssim), About(
        title="SSIM", better="higher", low=-1.0, high=1.0, source="Wang et al. 2004; CSVC's and scikit-image's flavour",
        formula="mean over frames; 11 x 11 Gaussian of sigma 1.5, windows inside the frame only",
    )
)  # fmt: skip
mean_over_frames(
    "ms-ssim", _ms_ssim_or_nothing, About(
        title="MS-SSIM", better="higher", low=0.0, high=1.0, source="Wang et al. 2003; DVA (arXiv:2212.02802), table 1",
        formula=f"mean over frames; five scales; not defined for sides below {MS_SSIM_LEAST} px",
    )
)  # fmt: skip
