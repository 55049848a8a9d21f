"""Where things are in a Stable Diffusion's U-Net, found by structure: any number of levels and of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countervid.errors import ModelError


def self_attentions(unet: Any) -> list[str]:
    """Names of the layers in which pictures look at themselves, first to last."""
    names = [name for name, _ in unet.named_modules() if name.endswith(".attn1")]
    order = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}
    return sorted(names, key=lambda name: order[name.split(".")[0]])  # a stable sort: each part keeps its order


def decoder_levels(unet: Any) -> list[int]:
    """Numbers of the `up_blocks` that have attention, coarsest first.

    Raises:
        ModelError: There are none: what injection is about is missing.
    """
    levels = [i for i, block in enumerate(unet.up_blocks) if getattr(block, "attentions", None)]
    if not levels:
        raise ModelError("This U-Net has no attention in its decoder; it is not a Stable Diffusion's.")
    return levels


def decoder_attentions(unet: Any, level: int) -> list[str]:
    """Names of the self-attention layers of one of the `up_blocks`."""
    return [name for name in self_attentions(unet) if name.startswith(f"up_blocks.{level}.")]


def finest_attentions(unet: Any) -> list[str]:
    """Names of the self-attention layers at the finest level, down and up."""
    blocks = [(f"down_blocks.{i}.", block) for i, block in enumerate(unet.down_blocks)]
    blocks += [(f"up_blocks.{i}.", block) for i, block in reversed(list(enumerate(unet.up_blocks)))]
    ends = []
    for part in ("down", "up"):
        attending = [
            prefix for prefix, block in blocks if prefix.startswith(part) and getattr(block, "attentions", None)
        ]
        ends += attending[:1]
    return [name for name in self_attentions(unet) if name.startswith(tuple(ends))]


def set_self_attention(unet: Any, processor_of: Callable[[str], Any]) -> None:
    """Give every self-attention layer a processor of its own, called with the layer's name."""
    names = {f"{name}.processor" for name in self_attentions(unet)}
    processors: Mapping[str, Any] = unet.attn_processors
    unet.set_attn_processor(
        {key: processor_of(key.removesuffix(".processor")) if key in names else old for key, old in processors.items()}
    )


@contextmanager
def listening(unet: Any, hooks: Mapping[str, Callable[[Tensor], Tensor | None]]) -> Iterator[None]:
    """While it lasts, each function is called with the output of the module of its name, and may replace it."""
    handles = [
        unet.get_submodule(name).register_forward_hook(lambda _, __, output, call=call: call(output))
        for name, call in hooks.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def heads_apart(x: Tensor, heads: int) -> Tensor:
    """`(B, N, H d)` as `(B, H, N, d)`."""
    batch, tokens, width = x.shape
    return x.view(batch, tokens, heads, width // heads).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Softmax attention of `(B, N, C)` queries to `(B, M, C)` keys; values may be wider. Returns `(B, N, C of v)`."""
    q, k, v = (heads_apart(tensor, heads) for tensor in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def projected(attn: Any, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A layer's queries, keys and values of `hidden` `(B, N, C)`."""
    return attn.to_q(hidden), attn.to_k(hidden), attn.to_v(hidden)


def output(attn: Any, hidden: Tensor) -> Tensor:
    """A layer's last projection, and the scale that some have."""
    out: Tensor = attn.to_out[0](hidden) / attn.rescale_output_factor
    return out


class ClipNorm(nn.GroupNorm):
    """Group normalisation over a whole clip: mean and variance over frames, height and width together."""

    def __init__(self, norm: nn.GroupNorm, clip: ClipShape) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps)
        self.weight, self.bias, self.clip = norm.weight, norm.bias, clip

    def forward(self, x: Tensor) -> Tensor:
        frames = self.clip.frames
        if frames == 1:
            return super().forward(x)
        clips = x.unflatten(0, (-1, frames)).transpose(1, 2)  # (S F) c h w -> S c F h w
        return super().forward(clips).transpose(1, 2).flatten(0, 1)


class ClipShape:
    """How many frames of one clip stand together in a batch of the U-Net. Shared by all layers that look across."""

    def __init__(self) -> None:
        self.frames = 1


def inflate_norms(unet: Any, clip: ClipShape) -> None:
    """Let the U-Net's residual blocks and its last layer normalise over the clip, as inflated U-Nets do."""
    for module in list(unet.modules()):
        if type(module).__name__ == "ResnetBlock2D":
            module.norm1, module.norm2 = ClipNorm(module.norm1, clip), ClipNorm(module.norm2, clip)
    unet.conv_norm_out = ClipNorm(unet.conv_norm_out, clip)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
