"""An edited crop put back into its frame, at the frame's own resolution.

Pixels where the mask is 0 are the source's, bit for bit: nothing but the crop's change is ever resampled.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from countervid.face.align import patch, to_square

Mode = Literal["replace", "residual", "adaptive"]
MODES: tuple[Mode, ...] = ("replace", "residual", "adaptive")

CHANGE = 0.12  # of the grey scale: where the edit changes more, `adaptive` drops the source's fine detail


def paste(
    frames: Tensor,
    edited: Tensor,
    quads: npt.ArrayLike,
    masks: Tensor,
    *,
    before: Tensor | None = None,
    mode: Mode = "adaptive",
) -> Tensor:
    """Frames with their edited crops in them.

    Modes:
        replace: the edited crop stands in for the source. Everything under the mask gets the crop's sharpness.
        residual: the difference `edited - before` is added to the source, which so keeps its sharpness where nothing
            changes. Equal crops give the source back exactly.
        adaptive: residual, but where the edit changes much, the source's detail that is finer than the crop (a beard's
            hairs, when the beard goes) is taken out. Equal crops give the source back exactly.

    Args:
        frames: Sources `(F, H, W, 3)` uint8.
        edited: Crops `(F, S, S, 3)`, 0..255, uint8 or floating point (finer).
        quads: Where they come from, `(F, 4, 2)` parallelograms in pixels.
        masks: Where to edit, `(F, S, S)` in 0..1; taken as 0 outside the crop.
        before: The same crops unedited, as the model gives them back; what `residual` and `adaptive` compare with.

    Returns:
        New frames `(F, H, W, 3)` uint8.
    """
    if mode not in MODES:
        raise ValueError(f"`mode` must be one of {', '.join(MODES)}, got {mode!r}.")
    if mode != "replace" and before is None:
        raise ValueError(f"`mode={mode!r}` pastes a difference: give the unedited crops as `before`.")
    corner = np.asarray(quads, dtype=np.float64)
    result = frames.clone()
    for i in range(len(frames)):
        _paste_one(result[i], edited[i], corner[i], masks[i], None if before is None else before[i], mode)
    return result


def _paste_one(
    frame: Tensor, edited: Tensor, quad: npt.NDArray[np.float64], mask: Tensor, before: Tensor | None, mode: Mode
) -> None:
    """Change `frame` (H, W, 3) in place, inside the bounding box of the mask's support only."""
    size = edited.shape[0]
    held = mask.to("cpu", torch.float32).numpy() > 0
    rows, columns = np.flatnonzero(held.any(1)), np.flatnonzero(held.any(0))
    if len(rows) == 0:
        return
    # The support's box in the crop, one cell wider for the interpolation, carried into the frame.
    low = np.array([columns[0] - 0.5, rows[0] - 0.5]) / size
    high = np.array([columns[-1] + 1.5, rows[-1] + 1.5]) / size
    box = torch.tensor(
        [[low[0], low[1]], [low[0], high[1]], [high[0], high[1]], [high[0], low[1]]], dtype=torch.float64
    )
    placed = patch(torch.from_numpy(quad)[None], box[:, :1, None], box[:, 1:, None]).reshape(4, 2).numpy()
    x0, y0 = np.maximum(np.floor(placed.min(0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(placed.max(0)).astype(int) + 1, (frame.shape[1], frame.shape[0]))
    if x0 >= x1 or y0 >= y1:
        return
    grid = np.stack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1)), -1).reshape(1, -1, 2)
    place = torch.from_numpy(to_square(grid, quad[None]).reshape(y1 - y0, x1 - x0, 2) * 2 - 1).to(torch.float32)
    # A small face: the crop is finer than the frame and would alias. Averaged to the frame's scale first.
    scale = float(np.hypot(*(quad[3] - quad[0]))) / size
    layers = {"mask": mask[None].to("cpu", torch.float32), "edited": _image(edited)}
    if before is not None and mode != "replace":
        layers["change"] = layers["edited"] - _image(before)
    if mode == "adaptive":
        layers["amount"] = _amount(layers["change"])
    taken = {
        name: _lift(layer, place, scale, "zeros" if name == "mask" else "border") for name, layer in layers.items()
    }
    alpha = taken["mask"].clamp(0, 1)
    region = frame[y0:y1, x0:x1]
    source = region.to(torch.float32)
    if mode == "replace":
        value = source + alpha * (taken["edited"] - source)
    else:
        change = taken["change"]
        if mode == "adaptive":
            # edited - change is the unedited crop enlarged: what it lacks is the detail finer than the crop.
            detail = source - (taken["edited"] - change)
            change = change - taken["amount"].clamp(0, 1) * detail
        value = source + alpha * change
    value = value.round_().clamp_(0, 255).to(frame.dtype)
    region.copy_(torch.where(alpha > 0, value, region))


def _image(crop: Tensor) -> Tensor:
    return crop.to("cpu", torch.float32).permute(2, 0, 1)


def _amount(change: Tensor) -> Tensor:
    """How much of the source's fine detail an edit invalidates, `(1, S, S)` in 0..1, from the change `(3, S, S)`."""
    size = change.abs().amax(0, keepdim=True) / 255
    near = torch.nn.functional.avg_pool2d(size, 5, 1, 2, count_include_pad=False)
    step = (near / CHANGE).clamp(0, 1)
    return step * step * (3 - 2 * step)


def _lift(layer: Tensor, place: Tensor, scale: float, outside: str) -> Tensor:
    """A layer `(C, S, S)` of the crop at `place` `(h, w, 2)` in -1..1 -> `(h, w, C)`."""
    source = layer[None]
    if scale < 1:
        width = max(1, int(round(layer.shape[-1] * scale)))
        source = torch.nn.functional.interpolate(source, (width, width), mode="area")
    # Bicubic keeps the crop's sharpness; a mask must stay within 0..1 and on its support.
    how = "bilinear" if layer.shape[0] == 1 else "bicubic"
    lifted = torch.nn.functional.grid_sample(source, place[None], mode=how, padding_mode=outside, align_corners=False)
    return lifted[0].permute(1, 2, 0)
