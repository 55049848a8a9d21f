"""A Stable Diffusion's U-Net on whole clips: frames stay in the batch, some layers look across them."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from countervid.diffusion.blocks import ClipShape, attend, inflate_norms, output, projected, seeded
from countervid.diffusion.stable import FramesPipeline


class InflatedPipeline(FramesPipeline):
    """A pipeline that takes over a U-Net and lets its normalisations see the whole clip.

    Its batches are clips of `clip.frames` frames. With one frame it computes what the picture model does.
    """

    def __init__(self, vae: Any, text_encoder: Any, tokenizer: Any, unet: Any, scheduler: Any) -> None:
        super().__init__(vae, text_encoder, tokenizer, unet, scheduler)
        self.clip = ClipShape()
        inflate_norms(unet, self.clip)

    def predict(self, x: Tensor, t: int, words: Tensor) -> Tensor:
        """As of frames; `x` `(S F, c, h, w)` are `S` clips, with words `(S, 77, D)` or one for all."""
        clips = len(words)
        self.clip.frames = len(x) // clips
        prediction: Tensor = super().predict(x, t, words.repeat_interleave(self.clip.frames, 0))
        return prediction

    def look(self, x: Tensor, t: int, words: Tensor) -> Tensor:
        """The noise in one clip `x` `(F, c, h, w)` with each of the words `(S, 77, D)`: `(S, F, c, h, w)`."""
        seen: Tensor = self.noise(x.repeat(len(words), 1, 1, 1), t, words).unflatten(0, (len(words), -1))
        return seen


class SparseCausalAttention:
    """Each frame looks at the first and at the one before it, or at the first alone (arXiv:2212.11565, eq. 3)."""

    def __init__(self, clip: ClipShape, first_only: bool = False) -> None:
        self.clip, self.first_only = clip, first_only

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        frames = self.clip.frames
        q, k, v = projected(attn, hidden_states)

        def seen(x: Tensor) -> Tensor:
            clips: Tensor = x.unflatten(0, (-1, frames))  # S F N C
            first = clips[:, :1].expand_as(clips)
            if self.first_only:
                return first.flatten(0, 1)
            former = clips[:, [max(i - 1, 0) for i in range(frames)]]
            return torch.cat([first, former], dim=2).flatten(0, 1)

        return output(attn, attend(q, seen(k), seen(v), attn.heads))


def add_temporal_attention(unet: Any, clip: ClipShape) -> list[str]:
    """Let every transformer block end with attention over time, one sequence a place; returns the blocks' names.

    The parameters are named as Tune-A-Video names them. Deviation: a fresh one changes nothing, for its last layer is
    zero; in the published code the bias is not, and each block adds a random constant.
    """
    generator = seeded(0)  # the same weights each time
    names = [name for name, module in unet.named_modules() if type(module).__name__ == "BasicTransformerBlock"]
    for name in names:
        block = unet.get_submodule(name)
        width, heads = block.attn1.to_q.in_features, block.attn1.heads
        block.attn_temp = Attention(query_dim=width, heads=heads, dim_head=width // heads)
        for layer in (block.attn_temp.to_q, block.attn_temp.to_k, block.attn_temp.to_v):
            nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=generator)  # as torch begins every layer
        nn.init.zeros_(block.attn_temp.to_out[0].weight)
        nn.init.zeros_(block.attn_temp.to_out[0].bias)
        block.norm_temp = nn.LayerNorm(width)
        block.attn_temp.to(block.attn1.to_q.weight)
        block.norm_temp.to(block.attn1.to_q.weight)

        def over_time(module: Any, _: Any, hidden: Tensor) -> Tensor:
            frames = clip.frames
            series = hidden.unflatten(0, (-1, frames)).transpose(1, 2)  # S N F C
            spread = series.flatten(0, 1)
            moved = spread + module.attn_temp(module.norm_temp(spread))
            again: Tensor = moved.view_as(series).transpose(1, 2).flatten(0, 1)
            return again

        block.register_forward_hook(over_time)
    return names
