"""Tune-A-Video: teach an image model one clip, then ask it for another (arXiv:2212.11565).

The U-Net is inflated: frames look at the first and the former, and over time at each place. A few of its weights are
trained on the clip with the source prompt; the clip's inverted latents are then sampled with another prompt.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from countervid.diffusion.blocks import seeded, set_self_attention
from countervid.diffusion.inflation import InflatedPipeline, SparseCausalAttention, add_temporal_attention
from countervid.diffusion.stable import Held, Progress, StepEnd, Tensors
from countervid.diffusion.windows import Window
from countervid.editors.base import Report, register_editor
from countervid.editors.store import Store
from countervid.editors.text_drawing import loaded, shown
from countervid.editors.text_guided import PUBLISHED, TextGuided, TextGuidedConfig
from countervid.errors import ConfigError, ModelError


@dataclass(frozen=True, kw_only=True)
class TuneAVideoConfig(TextGuidedConfig):
    guidance: float = 12.5  # how much the prompt counts
    solver: str = "ddim"  # also pndm, which the published inference takes by accident
    tuning_steps: int = 500
    learning_rate: float = 3e-5
    first_frame_only: bool = False  # as in CSVC; else the first and the former, as published
    trained: str = "all"  # blocks; or mid_up, what the published code really trains
    checkpointing: bool = False  # slower by a third, for a fraction of the memory; changes no number
    tuning_seed: int = 33

    solvers: ClassVar[tuple[str, ...]] = ("ddim", "dpm++2m", "pndm")
    least: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tuning_steps < 0:
            raise ConfigError(f"`tuning_steps` must be 0 or more, got {self.tuning_steps}.")
        if not self.learning_rate > 0:
            raise ConfigError(f"`learning_rate` must be above 0, got {self.learning_rate}.")
        if self.trained not in ("all", "mid_up"):
            raise ConfigError(f"`trained` must be all or mid_up, got `{self.trained}`.")


class TuneAVideoPipeline(InflatedPipeline):
    """Tune-A-Video on any Stable Diffusion 1.x or 2.x, inflated here, or on a published inflated one.

    `fit` teaches the clip; `prepare` inverts it; `sample` draws the edit.
    """

    Config = TuneAVideoConfig
    accepts = ("StableDiffusionPipeline", "TuneAVideoPipeline")

    def __init__(self, vae: Any, text_encoder: Any, tokenizer: Any, unet: Any, scheduler: Any) -> None:
        super().__init__(vae, text_encoder, tokenizer, unet, scheduler)
        add_temporal_attention(unet, self.clip)
        self.attend_to(first_frame_only=False)
        self._fresh: Tensors = {}  # what is tunable, before the first clip

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> TuneAVideoPipeline:
        """As everywhere in `diffusers`; a folder whose U-Net is inflated already keeps its temporal weights."""
        config = Path(name) / "unet" / "config.json"
        if not config.is_file() or "3D" not in config.read_text(encoding="utf-8"):
            pipeline: TuneAVideoPipeline = super().from_pretrained(name, **options)
            return pipeline
        unet, temporal = _inflated(config)
        pipeline = super().from_pretrained(name, unet=unet.to(options.get("dtype", torch.float32)), **options)
        pipeline.load_tuned(temporal)
        return pipeline

    def attend_to(self, *, first_frame_only: bool) -> None:
        """Which frames each looks at: the first alone, or the first and the former."""
        set_self_attention(self.unet, lambda _: SparseCausalAttention(self.clip, first_frame_only))

    def tunable(self, trained: str = "all") -> dict[str, torch.nn.Parameter]:
        """The parameters that learn the clip: queries, and attention over time without its normalisation."""
        ends = (".attn1.to_q.", ".attn2.to_q.", ".attn_temp.")
        return {
            name: parameter
            for name, parameter in self.unet.named_parameters()
            if any(end in name for end in ends) and not (trained == "mid_up" and name.startswith("down_blocks"))
        }

    @torch.no_grad()
    def load_tuned(self, tensors: Tensors) -> None:
        """Put trained parameters in place, by name."""
        own = dict(self.unet.named_parameters())
        unknown = sorted(set(tensors) - set(own))
        if unknown:
            raise ModelError(f"These are not parameters of an inflated U-Net: {', '.join(unknown[:4])}.")
        for name, tensor in tensors.items():
            own[name].copy_(tensor)

    def fit(
        self, clips: list[Tensor], prompt: str, config: TuneAVideoConfig, generator: torch.Generator,
        progress: Progress | None = None,
    ) -> list[float]:  # fmt: skip
        """Teach the clip, given as windows of latents `(F, c, h, w)`; returns the losses. Forgets earlier clips.

        Deviation: latents are the posterior's mean, encoded once, where the published code encodes and draws in every
        step; its spread is a thousandth of theirs.

        Raises:
            ModelError: The loss is no longer a number.
        """
        self.attend_to(first_frame_only=config.first_frame_only)
        words = self.words(prompt).embedding
        self._fresh = self._fresh or {name: tensor.detach().clone() for name, tensor in self.tunable().items()}
        self.load_tuned(self._fresh)
        parameters = self.tunable(config.trained)
        optimizer = torch.optim.AdamW(parameters.values(), lr=config.learning_rate, weight_decay=1e-2, eps=1e-8)
        if config.checkpointing:
            self.unet.enable_gradient_checkpointing()
            self.unet.train()  # no dropout is in it: only checkpointing asks
        losses = []
        with torch.enable_grad():
            for parameter in parameters.values():
                parameter.requires_grad_(True)
            for step in range(config.tuning_steps):
                clip = clips[int(torch.randint(len(clips), (), generator=generator)) if len(clips) > 1 else 0]
                noise = torch.randn(clip.shape, generator=generator).to(clip)
                t = int(torch.randint(self.train_steps, (), generator=generator))
                losses.append(self.learn(clip, noise, t, words, optimizer))
                if progress is not None:
                    progress(step + 1, config.tuning_steps)
            for parameter in parameters.values():
                parameter.requires_grad_(False)
        self.unet.disable_gradient_checkpointing()
        self.unet.eval()
        return losses

    def learn(self, clip: Tensor, noise: Tensor, t: int, words: Tensor, optimizer: torch.optim.Optimizer) -> float:
        """One step of training: the clip under `noise` at step `t`; returns the loss before it."""
        x = self.abar(t) ** 0.5 * clip + (1 - self.abar(t)) ** 0.5 * noise
        loss = F.mse_loss(self.predict(x, t, words).float(), self.aim(clip, noise, t).float())
        if not torch.isfinite(loss):
            raise ModelError("Tuning broke down: the loss is not a number. Use `precision=bfloat16` or float32.")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
        optimizer.step()
        return float(loss.detach())

    @torch.no_grad()
    def prepare(
        self, latents: Tensor, source_prompt: str, config: TuneAVideoConfig, *, generator: torch.Generator,
        held: Held | None = None, progress: Progress | None = None, tuned: bool = False, **_: Any,
    ) -> Tensors:  # fmt: skip
        """The way of the clip into noise, without words; before it, unless it was `tuned`, the clip is learnt."""
        if not tuned:
            self.fit([latents], source_prompt, config, generator, progress)
        self.attend_to(first_frame_only=config.first_frame_only)
        path = self.climb(latents, self.timesteps(config.steps)[::-1], self.words("").embedding, held=held)
        return {"path": path, "start": path[-1].clone()}

    @torch.no_grad()
    def sample(
        self, prepared: Tensors, prompt: str, negative_prompt: str, config: TuneAVideoConfig, *,
        held: Held | None = None, source_prompt: str = "", strength: float = 1.0,
        callback_on_step_end: StepEnd | None = None, progress: Progress | None = None,
    ) -> Tensor:  # fmt: skip
        self.attend_to(first_frame_only=config.first_frame_only)
        words = self.told(prompt, negative_prompt, source_prompt, strength)
        return self.descend(
            prepared["start"], self.timesteps(config.steps), config, held, callback_on_step_end, progress,
            lambda i, t, x: self.look(x, t, words),
        )  # fmt: skip


def _inflated(config: Path) -> tuple[Any, Tensors]:
    """A published inflated U-Net as a picture model's, and its temporal weights. Pickles are read without code."""
    from diffusers import UNet2DConditionModel

    text = config.read_text(encoding="utf-8").replace("3D", "2D")
    values = {key: value for key, value in json.loads(text).items() if not key.startswith("_")}
    unet = UNet2DConditionModel.from_config(values)
    folder = config.parent
    safe, pickled = (folder / f"diffusion_pytorch_model.{end}" for end in ("safetensors", "bin"))
    try:
        state = load_file(safe) if safe.is_file() else torch.load(pickled, weights_only=True, map_location="cpu")
    except Exception as error:
        raise ModelError(f"The U-Net in `{folder}` cannot be read: {str(error).splitlines()[0]}.") from None
    temporal = {name: tensor for name, tensor in state.items() if "_temp." in name}
    missing = set(unet.state_dict()) ^ (set(state) - set(temporal))
    if missing:
        raise ModelError(
            f"The U-Net in `{folder}` is not an inflated Stable Diffusion: {sorted(missing)[0]} does not fit."
        )
    unet.load_state_dict({name: tensor for name, tensor in state.items() if name not in temporal})
    return unet, temporal


@register_editor("tune-a-video")
class TuneAVideo(TextGuided):
    """A model tuned to the clip, asked for another."""

    Config = TuneAVideoConfig
    Pipeline = TuneAVideoPipeline
    presets = {
        "csvc": {
            **PUBLISHED, "negative_prompt": "", "guidance": 4.5, "tuning_steps": 450, "first_frame_only": True,
            "solver": "pndm", "trained": "mid_up",
        },
        "fast": {"steps": 20, "tuning_steps": 200, "solver": "dpm++2m"},
        "miniature": {"steps": 10, "tuning_steps": 40, "learning_rate": 1e-4, "guidance": 2.5},
    }  # fmt: skip

    def __init__(self, config: Any = None, **options: Any) -> None:
        super().__init__(config, **options)
        self._tuned_to = ""

    def tune(self, store: Store, parts: list[Window], prompt: str, report: Report | None) -> None:
        def learn() -> Tensors:
            like = next(self.diffusion.unet.parameters())
            clips = [loaded(store, f"latents/{part.start:08d}")["latents"].to(like) for part in parts]
            generator = seeded(self.config.tuning_seed)
            losses = self.diffusion.fit(clips, prompt, self.config, generator, shown(report, "learning the clip"))
            learnt = {name: parameter.detach().half().cpu() for name, parameter in self.diffusion.tunable().items()}
            return {**learnt, "losses": torch.tensor(losses)}

        if store.load("tuned") is None:
            store.fetch("tuned", learn)
            self._tuned_to = ""

    def made_ready(self, store: Store) -> None:
        if self._tuned_to != store.key:
            learnt = loaded(store, "tuned")
            self.diffusion.load_tuned({name: tensor for name, tensor in learnt.items() if name != "losses"})
            self._tuned_to = store.key

    def inverted(self, *arguments: Any, **options: Any) -> Tensors:
        return super().inverted(*arguments, tuned=True, **options)
