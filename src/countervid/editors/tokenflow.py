"""TokenFlow: edit a few keyframes together, carry their features to all frames (arXiv:2307.10373).

At every step some keyframes go through the U-Net, each looking at all of them. The other frames do no self-attention:
each token takes what attention gave its likest token in two keyframes, as the source's features tell. What the source
does, its features, likenesses, queries and keys, depends on the clip and the keyframes alone: it is recorded once a
clip and played back for every prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from countervid.diffusion.blocks import (
    attend,
    decoder_attentions,
    decoder_levels,
    listening,
    output,
    projected,
    self_attentions,
    set_self_attention,
)
from countervid.diffusion.stable import FramesPipeline, Held, Progress, StepEnd, Tensors
from countervid.editors.base import register_editor
from countervid.editors.text_guided import PUBLISHED, TextGuided, TextGuidedConfig
from countervid.errors import ConfigError

Record = dict[str, Tensor]
"""What the source does in one step: `LAYER.first` and `.second` are likest tokens, `.q` and `.k`, and features."""

MATCHED = 1 << 25  # likenesses compared at a time: bounds the memory


@dataclass(frozen=True)
class Carriers:
    """The keyframes that each of F frames takes its features from, and how much of the first: `(F,)` each."""

    first: Tensor  # int64, numbers among the keyframes
    second: Tensor
    weight: Tensor  # float32; 1 where only the first counts


def previous_and_own(frames: int, batch: int) -> Carriers:
    """As published: the keyframe of a frame's own batch and of the one before, by the distance to the batch's middle.

    Deviation from the paper: TokenFlow's code never looks at the next keyframe, and its weight runs through a sigmoid,
    so that the own keyframe never counts more than 0.731.
    """
    first, second, weight = [], [], []
    for start in range(0, frames, batch):
        count, i = min(batch, frames - start), start // batch
        j = torch.arange(count)
        own, before = (j - count // 2).abs(), (j - count // 2 + count).abs()
        share = torch.sigmoid(before / (own + before)) if i else torch.ones(count)
        first.append(torch.full((count,), i))
        second.append(torch.full((count,), max(i - 1, 0)))
        weight.append(share)
    return Carriers(torch.cat(first), torch.cat(second), torch.cat(weight))


def nearest_two(frames: int, keyframes: Tensor) -> Carriers:
    """As the paper words it: the keyframes before and after, the nearer counting more; a keyframe takes its own."""
    place = torch.arange(frames, device=keyframes.device)
    after = torch.searchsorted(keyframes.contiguous(), place).clamp(max=len(keyframes) - 1)
    before = (torch.searchsorted(keyframes.contiguous(), place, right=True) - 1).clamp(min=0)
    to_before, to_after = (place - keyframes[before]).abs(), (keyframes[after] - place).abs()
    total = to_before + to_after
    weight = torch.where((total == 0) | (before == after), 1.0, to_after / total.clamp(min=1))
    return Carriers(before, after, weight.float())


def likest(queries: Tensor, keys: Tensor) -> Tensor:
    """For tokens `(n, N, C)`, the likest by cosine among `(n, M, C)`: int64 `(n, N)`, the first where several are.

    In single precision always: near 1, half precision cannot tell tokens apart.
    """
    # The length of a query does not change which key is likest to it.
    queries, keys = queries.float(), F.normalize(keys.float(), dim=-1)
    size = max(1, MATCHED // (queries.shape[0] * keys.shape[1]))
    return torch.cat([(part @ keys.transpose(1, 2)).argmax(-1) for part in queries.split(size, dim=1)], dim=1)


def carried(outputs: Tensor, who: Tensor, which: Tensor) -> Tensor:
    """Tokens `which` `(n, N)` of the keyframes `who` `(n,)` of `outputs` `(S, K, N, C)`: `(S, n, N, C)`."""
    return outputs[:, who[:, None], which]


def draw(frames: int, batch: int, generator: torch.Generator) -> Tensor:
    """One keyframe of each batch, drawn uniformly: int64 `(K,)`, ascending."""
    starts = torch.arange(0, frames, batch)
    return starts + torch.randint(batch, (len(starts),), generator=generator) % (frames - starts).clamp(max=batch)


@dataclass
class _State:
    """What the attention layers share: which pass this is, and what the source does in it."""

    phase: str = "plain"  # plain, keyframes, or frames
    recording: bool = False  # the source's own stream is running
    inject: bool = False  # of queries and keys
    streams: int = 1
    record: Record = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)  # of the keyframes' source, by layer
    outputs: dict[str, Tensor] = field(default_factory=dict)  # of the keyframes' attention, (S, K, N, C)
    carriers: Carriers | None = None  # of the frames in this pass
    rows: slice = field(default_factory=lambda: slice(None))  # of this pass among all frames


class _Propagation:
    """A self-attention layer of TokenFlow; what it does is in the shared state."""

    def __init__(self, state: _State, name: str, injected: bool) -> None:
        self.state, self.name, self.injected = state, name, injected

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        state = self.state
        if state.phase == "frames":
            return self._carry(hidden_states)
        q, k, v = projected(attn, hidden_states)
        if state.phase == "plain":
            return output(attn, attend(q, k, v, attn.heads))
        if state.recording:
            state.features[self.name] = hidden_states
            if self.injected:
                state.record |= {f"{self.name}.q": q, f"{self.name}.k": k}
            out = output(attn, attend(q, k, v, attn.heads))
        else:
            out = self._together(attn, q, k, v)
        state.outputs[self.name] = out.unflatten(0, (state.streams, -1))
        return out

    def _together(self, attn: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Every keyframe looks at the tokens of all keyframes of its stream."""
        count = len(q) // self.state.streams
        q, k, v = (x.unflatten(0, (-1, count)).flatten(1, 2) for x in (q, k, v))  # (S K) N C -> S (K N) C
        if self.state.inject and self.injected:
            # All streams take the source's queries and keys: one softmax serves them, values side by side.
            q, k = (self.state.record[f"{self.name}.{part}"].to(v.dtype).flatten(0, 1)[None] for part in "qk")
            wide = torch.cat([part.unflatten(-1, (attn.heads, -1)) for part in v], dim=-1).flatten(1)[
                None
            ]  # K N, (H, S d)
            parts = attend(q, k, wide, attn.heads)[0].unflatten(-1, (attn.heads, len(v), -1))
            mixed = parts.permute(2, 0, 1, 3).flatten(2)
        else:
            mixed = attend(q, k, v, attn.heads)
        return output(attn, mixed.unflatten(1, (count, -1)).flatten(0, 1))

    def _carry(self, hidden: Tensor) -> Tensor:
        state, outputs = self.state, self.state.outputs[self.name]
        assert state.carriers is not None
        first, second, weight = (x[state.rows].to(hidden.device) for x in (
            state.carriers.first, state.carriers.second, state.carriers.weight,
        ))  # fmt: skip
        if state.recording:
            features = state.features[self.name]
            found = [likest(hidden, features[who]) for who in (first, second)]
            for part, indices in zip(("first", "second"), found, strict=True):
                state.record.setdefault(f"{self.name}.{part}", _empty(state, indices))[state.rows] = indices
        else:
            found = [state.record[f"{self.name}.{part}"][state.rows].long() for part in ("first", "second")]
        share = weight[:, None, None].to(hidden.dtype)
        out = share * carried(outputs, first, found[0]) + (1 - share) * carried(outputs, second, found[1])
        return out.flatten(0, 1)


def _empty(state: _State, indices: Tensor) -> Tensor:
    assert state.carriers is not None
    tokens = indices.shape[1]
    kind = torch.int16 if tokens <= 1 << 15 else torch.int32
    return torch.empty(len(state.carriers.first), tokens, dtype=kind, device=indices.device)


@dataclass(frozen=True, kw_only=True)
class TokenFlowConfig(TextGuidedConfig):
    inversion_steps: int = 50  # 500 as published; a multiple of `steps`
    attention_share: float = 0.5  # of the steps take the source's queries and keys
    conv_share: float = 0.8  # of the steps take the source's features
    begin: float = 1.0  # below 1: leave out the noisiest steps, as SDEdit does (published: 0.9, both shares 0)
    propagation: str = "reference"  # from the batch's own and previous keyframe; or nearest: the two around a frame
    # MB of what the source does that may be kept of a clip; where it takes more, it is computed again for every prompt,
    # to the same bytes: an evaluation a step, frame and keyframe. 0 keeps nothing.
    keep_mb: float = 1000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.propagation not in ("reference", "nearest"):
            raise ConfigError(f"`propagation` must be reference or nearest, got `{self.propagation}`.")
        if not self.keep_mb >= 0:
            raise ConfigError(f"`keep_mb` must be 0 or more, got {self.keep_mb}.")
        if not 0 < self.begin <= 1:
            raise ConfigError(f"`begin` must lie in 0..1, above 0, got {self.begin}.")
        if self.inversion_steps < self.steps:
            raise ConfigError(f"`inversion_steps` must be at least `steps`, {self.steps}, got {self.inversion_steps}.")


def _taken(name: str, step: int, config: TokenFlowConfig) -> bool:
    """Whether an edit takes this part of the record of this step."""
    if name.startswith("conv."):
        return step < int(config.steps * config.conv_share)
    return not name.endswith((".q", ".k")) or step < int(config.steps * config.attention_share)


def _size(record: Record, step: int, config: TokenFlowConfig) -> int:
    """Bytes that a record takes at a step; every step's tensors have the same shapes."""
    return sum(tensor.nbytes for name, tensor in record.items() if _taken(name, step, config))


class TokenFlowPipeline(FramesPipeline):
    """TokenFlow with plug-and-play injection on any Stable Diffusion 1.x or 2.x.

    `invert` and `record` depend on the clip, `sample` on the prompt; calling the pipeline does all three.
    """

    Config = TokenFlowConfig

    def __init__(self, vae: Any, text_encoder: Any, tokenizer: Any, unet: Any, scheduler: Any) -> None:
        super().__init__(vae, text_encoder, tokenizer, unet, scheduler)
        levels = decoder_levels(unet)
        injected = [name for level in levels for name in decoder_attentions(unet, level)][1:]
        self._state, self.injected = _State(), injected
        # The second residual block of the coarsest decoder level with attention: `up_blocks[1].resnets[1]` of SD.
        block = min(1, len(unet.up_blocks[levels[0]].resnets) - 1)
        self.conv = f"up_blocks.{levels[0]}.resnets.{block}.conv2"
        self.layers = self_attentions(unet)
        set_self_attention(unet, lambda name: _Propagation(self._state, name, name in injected))

    def invert(
        self, latents: Tensor, words: Tensor, steps: int, batch: int = 8, progress: Progress | None = None
    ) -> Tensor:
        """Latents `(F, c, h, w)` on their way into noise: `(steps, F, c, h, w)`, every frame on its own."""
        levels = self.timesteps(steps)[::-1]
        parts = []
        for part in latents.split(batch):
            parts.append(self.climb(part, levels, words))
            if progress:
                progress(sum(p.shape[1] for p in parts), len(latents))
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def prepare(
        self, latents: Tensor, source_prompt: str, config: TokenFlowConfig, *, generator: torch.Generator,
        held: Held | None = None, progress: Progress | None = None, **_: Any,
    ) -> Tensors:  # fmt: skip
        """Invert the clip, draw its keyframes, record what the source does at every step.

        Frames are inverted each on its own, so those that are held need nothing more.
        """
        times, words = self.visited(config), self.words(source_prompt).embedding
        visited = self.timesteps(config.inversion_steps)
        if not set(times) <= set(visited):
            raise ConfigError(
                f"Inversion in {config.inversion_steps} steps does not pass the {config.steps} steps of sampling. "
                f"Take a multiple of {config.steps} that divides 1000."
            )
        path = self.invert(latents, words, config.inversion_steps, config.batch, progress)
        source = path[[visited[::-1].index(t) for t in times]]
        eps = (path[-1] - self.abar(visited[0]) ** 0.5 * latents) / (1 - self.abar(visited[0])) ** 0.5
        # As published: not the inverted latent of the first step, but the clean one under the last step's noise.
        start = self.abar(times[0]) ** 0.5 * latents + (1 - self.abar(times[0])) ** 0.5 * eps
        keyframes = torch.stack([draw(len(latents), config.batch, generator) for _ in times])
        prepared = {"start": start, "keyframes": keyframes, "words": words}
        kept: Tensors = {}
        for i, t in enumerate(times if config.keep_mb else ()):
            carriers = self.carriers(len(latents), keyframes[i], config)
            record = self.record(source[i], t, words, keyframes[i], carriers, config.batch)
            if i == 0 and sum(_size(record, j, config) for j in range(len(times))) > config.keep_mb * 1e6:
                break
            kept |= {f"{i}/{name}": tensor for name, tensor in record.items() if _taken(name, i, config)}
            if progress:
                progress(i + 1, len(times))
        return prepared | (kept or {"source": source})

    @torch.no_grad()
    def sample(
        self, prepared: Tensors, prompt: str, negative_prompt: str, config: TokenFlowConfig, *,
        held: Held | None = None, source_prompt: str = "", strength: float = 1.0,
        callback_on_step_end: StepEnd | None = None, progress: Progress | None = None,
    ) -> Tensor:  # fmt: skip
        words = self.told(prompt, negative_prompt, source_prompt, strength)

        def look(i: int, t: int, x: Tensor) -> Tensor:
            keyframes = prepared["keyframes"][i]
            carriers = self.carriers(len(x), keyframes, config)
            record = {
                name.partition("/")[2]: tensor for name, tensor in prepared.items() if name.startswith(f"{i}/")
            } or self.record(prepared["source"][i], t, prepared["words"], keyframes, carriers, config.batch)
            return self.look(
                x, t, words, keyframes, carriers, record, batch=config.batch,
                conv=i < int(config.steps * config.conv_share),
                attention=i < int(config.steps * config.attention_share),
            )  # fmt: skip

        start, times = prepared["start"], self.visited(config)
        return self.descend(start, times, config, held, callback_on_step_end, progress, look)

    def visited(self, config: TokenFlowConfig) -> list[int]:
        """The training steps of sampling, noisiest first. Deviation: `begin` 1 is all steps; published, all but one."""
        times = self.timesteps(config.steps)
        return times if config.begin == 1 else times[int(1 - config.begin * config.steps) :]

    @staticmethod
    def carriers(frames: int, keyframes: Tensor, config: TokenFlowConfig) -> Carriers:
        by_batch = config.propagation == "reference"
        return previous_and_own(frames, config.batch) if by_batch else nearest_two(frames, keyframes)

    @torch.no_grad()
    def record(
        self, source: Tensor, t: int, words: Tensor, keyframes: Tensor, carriers: Carriers, batch: int = 8
    ) -> Record:
        """What the source does at step `t`: everything a prompt's own sampling takes from it.

        Args:
            source: Latents of all frames at this step, `(F, c, h, w)`.
            words: The source prompt, `(1, 77, D)`.
            keyframes: int64 `(K,)`.
            batch: Frames at a time; changes nothing but the memory.
        """
        state = self._state
        state.record, state.recording, state.streams, state.carriers = {}, True, 1, carriers
        kept: dict[str, list[Tensor]] = {"keyframes": [], "frames": []}
        with listening(self.unet, {self.conv: lambda out: kept[state.phase].append(out)}):
            for _ in self._passes(keyframes, len(source), batch, lambda rows: self.predict(source[rows], t, words)):
                pass
        record = state.record | {f"conv.{name}": torch.cat(parts) for name, parts in kept.items()}
        self._clear()
        return record

    @torch.no_grad()
    def look(
        self, x: Tensor, t: int, words: Tensor, keyframes: Tensor, carriers: Carriers, record: Record, *,
        conv: bool, attention: bool, batch: int = 8,
    ) -> Tensor:  # fmt: skip
        """The noise in `x` `(F, c, h, w)` at step `t`, without and with the prompt: `(2, F, c, h, w)`.

        Args:
            words: Negative prompt and prompt, `(2, 77, D)`.
            record: Of the same step and keyframes.
            conv, attention: Whether to put in the source's features, and its queries and keys.
        """
        state = self._state
        state.record, state.recording, state.inject, state.streams, state.carriers = (
            record,
            False,
            attention,
            2,
            carriers,
        )

        def put(out: Tensor) -> Tensor | None:
            if not conv:
                return None
            rows = slice(None) if state.phase == "keyframes" else state.rows
            return record[f"conv.{state.phase}"][rows].to(out.dtype).repeat(2, 1, 1, 1)

        def predict(rows: Any) -> Tensor:
            part = x[rows]
            told = words.repeat_interleave(len(part), 0)
            return self.noise(part.repeat(2, 1, 1, 1), t, told)

        with listening(self.unet, {self.conv: put}):
            parts = [part.unflatten(0, (2, -1)) for part in self._passes(keyframes, len(x), batch, predict)]
        self._clear()
        return torch.cat(parts, dim=1)

    def _passes(self, keyframes: Tensor, count: int, batch: int, predict: Any) -> Any:
        """The keyframe pass, then the frames' in batches: yields what these predict."""
        self._state.phase = "keyframes"
        predict(keyframes)
        self._state.phase = "frames"
        for start in range(0, count, batch):
            self._state.rows = slice(start, min(start + batch, count))
            yield predict(self._state.rows)

    def _clear(self) -> None:
        state = self._state
        state.phase, state.record, state.carriers = "plain", {}, None
        state.features.clear()
        state.outputs.clear()


@register_editor("tokenflow")
class TokenFlow(TextGuided):
    """Keyframes edited together, their features carried to all frames."""

    Config = TokenFlowConfig
    Pipeline = TokenFlowPipeline
    presets = {
        "csvc": {**PUBLISHED, "inversion_steps": 500, "guidance": 4.5},
        "fast": {"steps": 20, "inversion_steps": 20, "solver": "dpm++2m"},
        "miniature": {
            "steps": 10,
            "inversion_steps": 10,
            "guidance": 2.5,
            "batch": 4,
            "conv_share": 0.3,
            "attention_share": 0.1,
        },
    }
