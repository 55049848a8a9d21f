"""How much an editor computes and keeps, counted before it begins."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from countervid.clip import Clip
from countervid.diffusion.blocks import self_attentions
from countervid.diffusion.windows import windows

if TYPE_CHECKING:
    from countervid.editors.dva import DVA
    from countervid.editors.text_guided import TextGuided


@dataclass(frozen=True, kw_only=True)
class Work:
    """Of preparing a clip, and of its edits."""

    evaluations: int  # of the network, one a frame and stream
    disk: int  # bytes in the cache


def dva_work(editor: DVA, clip: Clip, edits: int) -> Work:
    """Each frame is walked into its noise and drawn again, and drawn once for every edit. Every frame has the face."""
    frames, steps = len(clip), editor.config.steps
    unet = editor.autoencoder.config.unet
    latents, labels = 4 * unet.in_channels * unet.size**2, editor.faces.size**2
    return Work(
        evaluations=frames * steps * (2 + edits),
        disk=frames * ((3 + edits) * latents + (1 + edits) * labels + 2048),  # identity, pose and track
    )


def text_work(editor: TextGuided, clip: Clip, edits: int) -> Work:
    """Windows share frames, which are computed twice; what an edit is held against is sampled once, too."""
    config, model = editor.config, editor.diffusion
    parts = windows(len(clip), config.window, config.overlap)
    frames = sum(part.stop - part.start for part in parts)
    area = (model.size // model.factor) ** 2
    item = next(model.unet.parameters()).element_size()
    channels = int(model.unet.config.in_channels)
    features = feature_bytes(model, config, area, item) * frames
    kept = 0 < features <= getattr(config, "keep_mb", 0) * 1e6
    prepared, drawn, levels = counts(editor.name, config, frames, kept)
    samplings = edits + (1 if edits and config.against == "drawn" else 0)
    latent, labels = channels * area, (model.size**2 if config.region == "face" else 0)
    tails = sum(part.held for part in parts) * config.steps * latent
    disk = frames * (latent * (4 + item * (1 + (0 if kept else levels))) + labels) + (features if kept else 0)
    disk += samplings * (frames * (4 * latent + labels) + 4 * tails)
    if hasattr(model, "tunable"):
        disk += sum(2 * parameter.numel() for parameter in model.tunable().values())
    return Work(evaluations=prepared + samplings * drawn, disk=int(disk))


def counts(name: str, config: Any, frames: int, kept: bool) -> tuple[int, int, int]:
    """Evaluations of preparing and of one sampling, and the levels of latents that are kept where features are not."""
    steps = config.steps
    if name == "flatten":
        injected = min(config.inject_steps, steps)
        return (config.inversion_steps - 1) * frames, frames * (2 * steps + (0 if kept else injected)), injected
    if name == "tokenflow":
        both = frames + math.ceil(frames / config.batch)  # keyframes have a pass of their own
        known = steps * both if kept else 0
        return config.inversion_steps * frames + known, steps * both * 2 + (0 if kept else steps * both), steps
    tuning = 3 * config.tuning_steps * min(frames, config.window)  # a step back costs twice a step forward
    return tuning + steps * frames, 2 * steps * frames, 0


def feature_bytes(model: Any, config: Any, area: int, item: int) -> float:
    """Bytes a frame of the source's features that FLATTEN and TokenFlow may keep; 0 for others.

    Args:
        area: Places of the latents.
        item: Bytes of a number in the computing precision.
    """
    modules, ups = dict(model.unet.named_modules()), len(model.unet.up_blocks)

    def places(name: str) -> int:
        first, _, rest = name.partition(".")
        level = int(rest.split(".")[0]) if first != "mid_block" else 0
        halved = {"down_blocks": level, "mid_block": ups - 1, "up_blocks": ups - 1 - level}[first]
        return area >> 2 * halved

    injected = getattr(model, "injected", ())
    attention = sum(2 * places(name) * modules[f"{name}.to_q"].out_features for name in injected)
    if hasattr(config, "inject_steps"):
        residuals = sum(places(name) * modules[f"{name}.conv2"].out_channels for name in model.residuals)
        return float(item * (attention + residuals) * min(config.inject_steps, config.steps))
    if hasattr(config, "conv_share"):
        conv = places(model.conv) * modules[model.conv].out_channels * (1 + 1 / config.batch)
        tokens = sum(places(name) for name in self_attentions(model.unet))
        by_step = config.steps * tokens * 2 * 2  # two correspondences, of 16 bits
        steps = config.steps
        return float(
            by_step
            + item * conv * int(steps * config.conv_share)
            + item * attention / config.batch * int(steps * config.attention_share)
        )
    return 0.0


@torch.no_grad()
def text_probe(editor: TextGuided, clip: Clip) -> None:
    """One evaluation of a window's frames, which is not counted."""
    model, frames = editor.diffusion, min(len(clip), editor.config.window)
    before, like = model.evaluations, next(model.unet.parameters())
    side = model.size // model.factor
    x = torch.zeros(frames, int(model.unet.config.in_channels), side, side, dtype=like.dtype, device=like.device)
    model.noise(x, model.timesteps(editor.config.steps)[0], model.words("").embedding)
    model.evaluations = before
