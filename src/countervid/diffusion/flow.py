"""Optical flow: where each pixel of a frame is in the next. OpenCV's DIS always; RAFT where torchvision can be had."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from countervid.errors import ConfigError, MissingExtraError


class OpticalFlow(Protocol):
    """Frames uint8 `(F, H, W, 3)` -> float32 `(F - 1, H, W, 2)`: x then y, in pixels, from each frame to the next."""

    def __call__(self, frames: Tensor) -> Tensor: ...


class DIS:
    """Dense inverse search (arXiv:1603.03590), OpenCV's, on the CPU. Small frames are enlarged for it."""

    LEAST = 256  # px: its coarsest patches need so much

    def __call__(self, frames: Tensor) -> Tensor:
        _, height, width, _ = frames.shape
        scale = max(1, -(-self.LEAST // min(height, width)))
        search: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        grey = [self._grey(frame, scale) for frame in frames.numpy()]
        fields = [np.asarray(search.calc(a, b, None)) for a, b in zip(grey, grey[1:], strict=False)]
        if not fields:
            return torch.zeros(0, height, width, 2)
        found = torch.from_numpy(np.stack(fields))
        if scale == 1:
            return found
        small = F.avg_pool2d(found.permute(0, 3, 1, 2), scale) / scale
        return small.permute(0, 2, 3, 1)

    @staticmethod
    def _grey(frame: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        if scale > 1:
            grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        return np.asarray(grey, np.uint8)


class RAFT:
    """RAFT (arXiv:2003.12039), torchvision's large model with its default weights, as FLATTEN takes it.

    Raises:
        MissingExtraError: torchvision cannot be imported.
    """

    SIDE = 512  # px: what the published code feeds it

    def __init__(self, device: torch.device | None = None) -> None:
        try:
            zoo: Any = importlib.import_module("torchvision.models.optical_flow")
        except Exception as error:  # a torchvision that does not fit torch fails in many ways
            raise MissingExtraError(
                f"RAFT needs a torchvision that fits the installed torch ({type(error).__name__}). Use `flow=dis`."
            ) from None
        self.device = device or torch.device("cpu")
        self.net = zoo.raft_large(weights=zoo.Raft_Large_Weights.C_T_SKHT_V2).eval().to(self.device)

    @torch.no_grad()
    def __call__(self, frames: Tensor) -> Tensor:
        _, height, width, _ = frames.shape
        pictures = frames.permute(0, 3, 1, 2).float().to(self.device) / 127.5 - 1
        fitted = F.interpolate(pictures, (self.SIDE, self.SIDE), mode="bilinear")
        parts = [self.net(a, b)[-1] for a, b in zip(fitted[:-1].split(4), fitted[1:].split(4), strict=True)]
        flow = F.interpolate(torch.cat(parts), (height, width), mode="bilinear").cpu()
        return flow.permute(0, 2, 3, 1) * torch.tensor([width / self.SIDE, height / self.SIDE])


FLOWS: Mapping[str, type[DIS] | type[RAFT]] = {"dis": DIS, "raft": RAFT}


def optical_flow(name: str) -> OpticalFlow:
    """The estimator of a name.

    Raises:
        ConfigError: There is none.
        MissingExtraError: It needs what is not installed.
    """
    if name not in FLOWS:
        raise ConfigError(f"`flow` must be one of {', '.join(FLOWS)}, got `{name}`.")
    return FLOWS[name]()


def end_point_error(flow: Tensor, truth: Tensor, visible: Tensor | None = None) -> float:
    """Mean distance in pixels between two flows `(F, H, W, 2)`, where `visible` `(F, H, W)` if given."""
    away = (flow - truth).norm(dim=-1)
    return float((away if visible is None else away[visible.bool()]).mean())
