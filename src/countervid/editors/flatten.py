"""FLATTEN: attention over the whole clip, then along the ways that optical flow shows (arXiv:2310.05922).

Nothing is trained. While a prompt is sampled, features, queries and keys of the clip's inversion are put back into the
decoder; they depend on the clip alone and are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from countervid.diffusion.blocks import (
    attend,
    decoder_attentions,
    decoder_levels,
    finest_attentions,
    listening,
    output,
    projected,
    set_self_attention,
)
from countervid.diffusion.flow import FLOWS, optical_flow
from countervid.diffusion.inflation import InflatedPipeline
from countervid.diffusion.stable import Held, Progress, StepEnd, Tensors
from countervid.diffusion.trajectories import attend_along, follow, groups
from countervid.editors.base import register_editor
from countervid.editors.text_guided import PUBLISHED, TextGuided, TextGuidedConfig
from countervid.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FlattenConfig(TextGuidedConfig):
    guidance: float = 7.5  # how much the prompt counts
    inversion_steps: int = 100  # a multiple of `steps`
    inject_steps: int = 40  # of sampling take the inversion's features, queries and keys
    own_queries: bool = False  # along the flow: the layer's queries and keys, else what attention made (`old_qk`)
    flow: str = "dis"  # or raft, as published, which needs torchvision
    # MB of the inversion's features that may be kept of a clip; where they take more, they are computed again for every
    # prompt, to the same bytes: `inject_steps` evaluations a frame. 0 keeps none.
    keep_mb: float = 1000.0

    least: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.flow not in FLOWS:
            raise ConfigError(f"`flow` must be one of {', '.join(FLOWS)}, got `{self.flow}`.")
        if not self.keep_mb >= 0:
            raise ConfigError(f"`keep_mb` must be 0 or more, got {self.keep_mb}.")
        if not 0 <= self.inject_steps:
            raise ConfigError(f"`inject_steps` must be 0 or more, got {self.inject_steps}.")
        if self.inversion_steps < self.steps:
            raise ConfigError(f"`inversion_steps` must be at least `steps`, {self.steps}, got {self.inversion_steps}.")


@dataclass
class _State:
    """What the layers share."""

    along: list[Tensor] = field(default_factory=list)  # trajectories; empty: no attention along the flow
    own_queries: bool = False
    saving: Tensors | None = None  # where the source's features go
    given: Tensors | None = None  # the source's features, to be put in


class _FlowGuided:
    """Dense attention over the clip; in the finest layers, attention along the flow after it."""

    def __init__(self, state: _State, clip: Any, name: str, finest: bool, injected: bool) -> None:
        self.state, self.clip, self.name, self.finest, self.injected = state, clip, name, finest, injected

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        state, frames = self.state, self.clip.frames
        q, k, v = (x.unflatten(0, (-1, frames)).flatten(1, 2) for x in projected(attn, hidden_states))  # S (F N) C
        if self.injected and state.saving is not None:
            state.saving |= {f"{self.name}.q": q[:1], f"{self.name}.k": k[:1]}
        if self.injected and state.given is not None:
            q, k = (state.given[f"{self.name}.{part}"].to(v).expand_as(v) for part in "qk")
        out = attend(q, k, v, attn.heads)
        if self.finest and state.along:
            q, k = (q, k) if state.own_queries else (out, out)
            out = attend_along(q, k, out, state.along, attn.heads)
        return output(attn, out.unflatten(1, (frames, -1)).flatten(0, 1))


class FlattenPipeline(InflatedPipeline):
    """FLATTEN on any Stable Diffusion 1.x or 2.x, for any size that the VAE divides."""

    Config = FlattenConfig

    def __init__(self, vae: Any, text_encoder: Any, tokenizer: Any, unet: Any, scheduler: Any) -> None:
        super().__init__(vae, text_encoder, tokenizer, unet, scheduler)
        levels, finest = decoder_levels(unet), finest_attentions(unet)
        # As published for SD's three levels: all but the first layer of the coarsest, all of the middle ones, and the
        # first of the finest.
        injected = decoder_attentions(unet, levels[0])[1:]
        for level in levels[1:]:
            names = decoder_attentions(unet, level)
            injected += names[:1] if level == levels[-1] else names
        self._state, self.injected = _State(), injected
        self.residuals = [
            f"up_blocks.{levels[0]}.resnets.{i}" for i in range(min(2, len(unet.up_blocks[levels[0]].resnets)))
        ]
        self.residuals += [f"up_blocks.{level}.resnets.0" for level in levels[1:2]]
        set_self_attention(
            unet, lambda name: _FlowGuided(self._state, self.clip, name, name in finest, name in injected)
        )

    def follow(self, ids: Tensor, own_queries: bool = False) -> None:
        """Attend along these trajectories, `(F, cells)`, from now on; none if empty."""
        self._state.along = [cells.to(self.unet.device) for cells in groups(ids)] if ids.numel() else []
        self._state.own_queries = own_queries

    @torch.no_grad()
    def features(self, x: Tensor, t: int, words: Tensor) -> tuple[Tensor, Tensors]:
        """The noise in a clip `x` `(F, c, h, w)` at step `t`, and the features that an edit takes from it there."""
        saved: Tensors = {}

        def save(name: str) -> Any:
            return lambda out: saved.update({name: out}) or None

        self._state.saving = saved
        try:
            with listening(self.unet, {f"{name}.conv2": save(name) for name in self.residuals}):
                noise = self.noise(x, t, words)
        finally:
            self._state.saving = None
        return noise, saved

    @torch.no_grad()
    def look_with(self, x: Tensor, t: int, words: Tensor, given: Tensors | None) -> Tensor:
        """The noise in one clip `x` with each of the words: `(S, F, c, h, w)`, with the source's features put in."""
        if not given:
            return self.look(x, t, words)

        def put(name: str) -> Any:
            return lambda out: given[name].to(out).repeat(len(words), 1, 1, 1)

        self._state.given = given
        try:
            with listening(self.unet, {f"{name}.conv2": put(name) for name in self.residuals}):
                return self.look(x, t, words)
        finally:
            self._state.given = None

    @torch.no_grad()
    def prepare(
        self, latents: Tensor, source_prompt: str, config: FlattenConfig, *, generator: torch.Generator | None = None,
        held: Held | None = None, progress: Progress | None = None, frames: Tensor | None = None,
        trajectories: Tensor | None = None, **_: Any,
    ) -> Tensors:  # fmt: skip
        """Follow the flow, invert the clip without words, keep the features that edits take, where there is room.

        `path` is every level's latents, for a window that goes on from this one; `sample` needs `start`, and either the
        features or, in `source`, the latents that they come from.

        Args:
            frames: `(F, 3, H, W)` in 0..1, for the flow.
            trajectories: Instead of it, `(F, cells)` of the latents' grid.
        """
        times, levels = self.timesteps(config.steps), self.timesteps(config.inversion_steps)[::-1]
        if not set(times) <= set(levels[:-1]):
            raise ConfigError(
                f"Inversion in {config.inversion_steps} steps does not pass the {config.steps} steps of sampling. "
                f"Take a multiple of {config.steps}, twice or more, that divides 1000."
            )
        if trajectories is None:
            assert frames is not None
            levels_of = (frames.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).cpu()
            trajectories = follow(optical_flow(config.flow)(levels_of), *latents.shape[-2:])
        self.follow(trajectories, config.own_queries)
        wanted = {t: i for i, t in enumerate(times[: config.inject_steps])}
        words, kept, done = self.words("").embedding, dict[str, Tensor](), [0]
        room = config.keep_mb * 1e6 / max(len(wanted), 1)  # for those of one step

        def model(x: Tensor, t: int, told: Tensor) -> Tensor:
            done[0] += 1
            if progress is not None:
                progress(done[0], len(levels) - 1)
            if not room or t not in wanted:
                return self.noise(x, t, told)
            noise, saved = self.features(x, t, told)
            if sum(tensor.nbytes for tensor in saved.values()) > room:  # every step's take the same
                return noise
            kept.update({f"{wanted[t]}/{name}": tensor for name, tensor in saved.items()})
            return noise

        path = self.climb(latents, levels, words, ahead=False, held=held, model=model)
        prepared = {"path": path, "start": path[-1].clone(), "trajectories": trajectories, "words": words, **kept}
        return prepared if kept else prepared | {"source": path[[levels.index(t) for t in wanted]]}

    @torch.no_grad()
    def sample(
        self, prepared: Tensors, prompt: str, negative_prompt: str, config: FlattenConfig, *,
        held: Held | None = None, source_prompt: str = "", strength: float = 1.0,
        callback_on_step_end: StepEnd | None = None, progress: Progress | None = None,
    ) -> Tensor:  # fmt: skip
        words = self.told(prompt, negative_prompt, source_prompt, strength)
        times = self.timesteps(config.steps)
        self.follow(prepared["trajectories"], config.own_queries)

        def look(i: int, t: int, x: Tensor) -> Tensor:
            if i >= config.inject_steps:
                return self.look(x, t, words)
            given = {n.partition("/")[2]: tensor for n, tensor in prepared.items() if n.startswith(f"{i}/")}
            if not given:
                _, given = self.features(prepared["source"][i], t, prepared["words"])
            return self.look_with(x, t, words, given)

        # As published: the last level's latent, taken to stand at the first level of sampling.
        return self.descend(prepared["start"], times, config, held, callback_on_step_end, progress, look)


@register_editor("flatten")
class Flatten(TextGuided):
    """The whole clip at once, held together along its optical flow."""

    Config = FlattenConfig
    Pipeline = FlattenPipeline
    presets = {
        "csvc": {**PUBLISHED, "guidance": 7.5, "flow": "raft"},
        "fast": {"steps": 20, "inversion_steps": 40, "inject_steps": 16, "solver": "dpm++2m"},
        "miniature": {"steps": 10, "inversion_steps": 20, "inject_steps": 2, "guidance": 2.5},
    }
    needs_pixels = True
