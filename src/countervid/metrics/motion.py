"""How an edit moves: flow against the source's, what is left after warping, and the jump from frame to frame.

Flows are `(F - 1, H, W, 2)`, x then y, in pixels, from each frame to the next; frames `(F, 3, H, W)`, 0..1. Functions
return one number a step, `(F - 1,)`, so that a clip can be streamed: the classes keep the last frame of a window, and
any cut into windows gives the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from countervid.diffusion.flow import DIS
from countervid.metrics.base import About, Need, Window, register
from countervid.metrics.streaming import Mean

_FLOW = DIS()  # has no state and no weights
_SLACK, _SLACK_PX = 0.01, 0.5  # Sundaram et al. 2010, eq. 5


def end_point_errors(one: Tensor, two: Tensor, visible: Tensor | None = None) -> Tensor:
    """Mean distance between two flows in pixels at each step, `(F - 1,)`; NaN where nothing is visible.

    Args:
        one, two: `(F - 1, H, W, 2)`.
        visible: Which pixels count, `(F - 1, H, W)` bool; all by default.

    >>> end_point_errors(torch.zeros(1, 4, 4, 2), torch.tensor([3.0, 4.0]).expand(1, 4, 4, 2))
    tensor([5.])
    """
    _same(one, two, "flows")
    return _mean_where((one - two).norm(dim=-1), visible)


def alignment(edited: Tensor, source: Tensor) -> float:
    """Motion alignment of V2VBench: minus the mean end-point error between the flows of edit and source, at most 0.

    Args:
        edited, source: Flows `(F - 1, H, W, 2)`. V2VBench takes GMFlow's of 512 x 512 frames.

    >>> alignment(torch.zeros(2, 4, 4, 2), torch.ones(2, 4, 4, 2)) == -(2**0.5)
    True
    """
    return -float(end_point_errors(edited.double(), source.double()).mean())


def warped(frames: Tensor, flow: Tensor) -> Tensor:
    """The frames `(n, C, H, W)` read at where `flow` `(n, H, W, 2)` leads: bilinear, the border's value beyond it.

    >>> row = torch.tensor([[[[0.0, 1.0, 2.0]]]])
    >>> warped(row, torch.tensor([1.0, 0.0]).expand(1, 1, 3, 2))
    tensor([[[[1., 2., 2.]]]])
    """
    height, width = frames.shape[-2:]
    x, y = _targets(flow)
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    return functional.grid_sample(frames, grid.to(frames), mode="bilinear", padding_mode="border", align_corners=False)


def seen_in_both(flow: Tensor, back: Tensor) -> Tensor:
    """Where a flow stays inside the frame and the flow back undoes it: `(F - 1, H, W)` bool.

    |w + w'|^2 < 0.01 (|w|^2 + |w'|^2) + 0.5, w' read at the end of w (Sundaram et al., ECCV 2010, eq. 5).

    Args:
        flow: From each frame to the next, `(F - 1, H, W, 2)`.
        back: From each next frame to the one before, same shape.

    >>> still = torch.zeros(1, 3, 3, 2)
    >>> bool(seen_in_both(still, still).all()), bool(seen_in_both(still, still + 1).any())
    (True, False)
    """
    _same(flow, back, "flows")
    height, width = flow.shape[1:3]
    x, y = _targets(flow)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    returned = warped(back.permute(0, 3, 1, 2), flow).permute(0, 2, 3, 1)
    apart = (flow + returned).square().sum(-1)
    length = flow.square().sum(-1) + returned.square().sum(-1)
    return inside & (apart < _SLACK * length + _SLACK_PX)


def warp_errors(frames: Tensor, flow: Tensor, visible: Tensor) -> Tensor:
    """Mean |f_t - f_t+1 read along the flow| over visible pixels at each step, `(F - 1,)`; NaN where none is visible.

    Args:
        frames: `(F, C, H, W)`, 0..1.
        flow: `(F - 1, H, W, 2)`.
        visible: Which pixels of frame t are seen in both, `(F - 1, H, W)` bool.

    >>> clip = torch.zeros(2, 3, 4, 4)
    >>> clip[1] = 0.5
    >>> warp_errors(clip, torch.zeros(1, 4, 4, 2), torch.ones(1, 4, 4, dtype=torch.bool))
    tensor([0.5000])
    """
    if len(flow) != len(frames) - 1 or flow.shape[1:3] != frames.shape[-2:]:
        raise ValueError(
            f"`flow` must be ({len(frames) - 1}, {frames.shape[-2]}, {frames.shape[-1]}, 2) for frames "
            f"{tuple(frames.shape)}, got {tuple(flow.shape)}. Take both of the same frames at the same size."
        )
    difference = (frames[:-1] - warped(frames[1:], flow)).abs().mean(dim=1)
    return _mean_where(difference, visible)


def jump(edited: Tensor, source: Tensor) -> float:
    """Mean change from frame to frame of the edit over the source's: 1 is as lively, above 1 flickers.

    Args:
        edited, source: `(F, C, H, W)`, 0..1.

    Returns:
        The ratio; NaN where the source stands still.

    >>> clip = torch.rand(3, 3, 8, 8)
    >>> jump(clip, clip)
    1.0
    """
    _same(edited, source, "clips")
    before, after = (float((clip[1:] - clip[:-1]).abs().double().sum()) for clip in (source, edited))
    return after / before if before > 0 else math.nan


def _targets(flow: Tensor) -> tuple[Tensor, Tensor]:
    """The x and the y that each pixel goes to, `(n, H, W)` each."""
    height, width = flow.shape[1:3]
    rows = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None]
    columns = torch.arange(width, dtype=flow.dtype, device=flow.device)
    return columns + flow[..., 0], rows + flow[..., 1]


def _mean_where(values: Tensor, visible: Tensor | None) -> Tensor:
    if visible is None:
        return values.mean(dim=(1, 2))
    seen = visible.to(values)
    return (values * seen).sum(dim=(1, 2)) / seen.sum(dim=(1, 2))


def _same(one: Tensor, two: Tensor, what: str) -> None:
    if one.ndim != 4 or one.shape != two.shape:
        raise ValueError(f"Both {what} must have one shape of four axes, got {tuple(one.shape)}, {tuple(two.shape)}.")


class _Steps:
    """Sees to it that a subclass is shown every step from frame to frame once, however the clip is cut."""

    about: ClassVar[Mapping[str, About]]
    needs: ClassVar[frozenset[Need]] = frozenset()

    def __init__(self) -> None:
        self._mean = Mean()
        self._last: dict[str, Tensor] = {}

    def update(self, window: Window) -> None:
        joined = {}
        for name in ("factual", "counterfactual"):
            frames = window.frames[name]
            joined[name] = torch.cat([self._last[name], frames]) if name in self._last else frames
            self._last[name] = frames[-1:].clone()  # a copy: the window's memory is not held
        self.steps(window, joined)

    def steps(self, window: Window, frames: Mapping[str, Tensor]) -> None:
        """Look at some consecutive frames of each clip, the first of which may have been shown before."""
        raise NotImplementedError

    def compute(self) -> Mapping[str, float]:
        return dict.fromkeys(self.about, self._mean.value)

    def count(self, values: Tensor) -> None:
        """Take steps into the mean but those where nothing was visible."""
        self._mean.add(values[values.isfinite()])


def _flow(window: Window, name: str, frames: Mapping[str, Tensor], *, back: bool = False) -> Tensor:
    """DIS on the CPU, once a window and clip for all metrics; `back`: from each next frame to the one before."""

    def estimate() -> Tensor:
        pictures = (frames[name].permute(0, 2, 3, 1) * 255).round().clamp(0, 255).to("cpu", torch.uint8)
        return (_FLOW(pictures.flip(0)).flip(0) if back else _FLOW(pictures)).to(frames[name].device)

    return window.once("DIS flow back" if back else "DIS flow", name, estimate)  # type: ignore[no-any-return]


@register
class Alignment(_Steps):
    about = {
        "motion.alignment": About(
            title="Motion alignment", better="higher", high=0.0, unit="px", source="V2VBench, motion_alignment",
            formula="minus the mean end-point error between the DIS flows of edit and source, at the clip's own size",
        )
    }  # fmt: skip

    def steps(self, window: Window, frames: Mapping[str, Tensor]) -> None:
        edited, source = (_flow(window, name, frames) for name in ("counterfactual", "factual"))
        self.count(-end_point_errors(edited, source))


@register
class Warp(_Steps):
    about = {
        "motion.warp": About(
            title="Warping error", better="lower", low=0.0, high=1.0, source="Lai et al., ECCV 2018, eq. 10",
            formula="mean over steps of mean |f_t - f_t+1 along the source's DIS flow|, where that flow is undone by "
            "the flow back",
        )
    }  # fmt: skip

    def steps(self, window: Window, frames: Mapping[str, Tensor]) -> None:
        flow = _flow(window, "factual", frames)
        visible = seen_in_both(flow, _flow(window, "factual", frames, back=True))
        self.count(warp_errors(frames["counterfactual"], flow, visible))


@register
class Jump(_Steps):
    about = {
        "motion.jump": About(
            title="Jump", better="one", low=0.0, source="countervid",
            formula="mean |f_t+1 - f_t| of the edit over the source's",
        )
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self._source = Mean()

    def steps(self, window: Window, frames: Mapping[str, Tensor]) -> None:
        for mean, name in ((self._mean, "counterfactual"), (self._source, "factual")):
            mean.add((frames[name][1:] - frames[name][:-1]).abs())

    def compute(self) -> Mapping[str, float]:
        before = self._source.value
        return {"motion.jump": self._mean.value / before if before > 0 else math.nan}


class _TrueSteps(_Steps):
    """Steps with the world's true flow, whose row of a window's last frame belongs to the next window's first step."""

    needs = frozenset({"world"})

    def __init__(self) -> None:
        super().__init__()
        self._waiting: tuple[Tensor, Tensor] | None = None

    def steps(self, window: Window, frames: Mapping[str, Tensor]) -> None:
        world, edited = window.world, frames["counterfactual"]
        if world is None or world.flow is None or world.visible is None:
            return
        flow, visible = world.flow.to(edited), world.visible.to(edited.device).bool()
        if self._waiting is not None:
            flow, visible = torch.cat([self._waiting[0], flow]), torch.cat([self._waiting[1], visible])
        inner = len(edited) - 1
        self._waiting = (flow[inner:].clone(), visible[inner:].clone())
        self.true_steps(window, frames, flow[:inner], visible[:inner])

    def true_steps(self, window: Window, frames: Mapping[str, Tensor], flow: Tensor, visible: Tensor) -> None:
        raise NotImplementedError


@register
class TrueWarp(_TrueSteps):
    about = {
        "motion.warp_true": About(
            title="Warping error, true flow", better="lower", low=0.0, high=1.0, source="countervid, known truth",
            formula="mean over steps of mean |f_t - f_t+1 along the truth's own flow|, where both frames show "
            "the point",
        )
    }  # fmt: skip

    def true_steps(self, window: Window, frames: Mapping[str, Tensor], flow: Tensor, visible: Tensor) -> None:
        self.count(warp_errors(frames["counterfactual"], flow, visible))


@register
class TrueFlow(_TrueSteps):
    about = {
        "motion.epe_true": About(
            title="Flow error", better="lower", low=0.0, unit="px", source="countervid, known truth",
            formula="mean over steps of the mean end-point error between the edit's DIS flow and the truth's own, "
            "where both frames show the point",
        )
    }  # fmt: skip

    def true_steps(self, window: Window, frames: Mapping[str, Tensor], flow: Tensor, visible: Tensor) -> None:
        self.count(end_point_errors(_flow(window, "counterfactual", frames), flow, visible))
