"""Stable Diffusion for the frames of a clip: what the text-guided editors share.

A pipeline of `diffusers`, so `from_pretrained`, devices, dtypes, slicing and offloading are as its users know them.
Frames stand in the batch; latents are scaled by the VAE's own factor; the noise schedule is read from the model's
scheduler. A method adds two steps of its own: `prepare`, once a clip, and `sample`, once a prompt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, PNDMScheduler
from diffusers.utils import BaseOutput
from torch import Tensor

from countervid import models
from countervid.diffusion.blocks import seeded
from countervid.diffusion.ddim import ddim_step
from countervid.errors import ConfigError, CountervidError, ModelError
from countervid.models.finite import check_parts
from countervid.models.quiet import quiet_libraries

BUNDLED = "text-to-image"
SUPPORTED = "Stable Diffusion 1.x and 2.x (StableDiffusionPipeline)"
P = TypeVar("P", bound="FramesPipeline")
StepEnd = Callable[[Any, int, int, dict[str, Tensor]], dict[str, Tensor] | None]
Progress = Callable[[int, int], None]
Tensors = dict[str, Tensor]


@dataclass
class FramesOutput(BaseOutput):  # type: ignore[misc]
    """`frames`: `(F, 3, H, W)` in 0..1, or latents if those were asked for. `evaluations`: of the U-Net, in frames."""

    frames: Tensor
    evaluations: int


@dataclass(frozen=True)
class Words:
    """Prompts as the U-Net reads them, `(1, 77, D)` each; `cut` is what the text encoder could not read."""

    embedding: Tensor
    cut: str = ""


class FramesPipeline(DiffusionPipeline):  # type: ignore[misc]
    """VAE, text encoder, U-Net and noise schedule of a Stable Diffusion, for batches of frames."""

    model_cpu_offload_seq = "text_encoder->unet->vae"
    Config: ClassVar[Any]
    accepts: ClassVar[tuple[str, ...]] = ("StableDiffusionPipeline",)  # what a folder's index may say that it is

    def __init__(self, vae: Any, text_encoder: Any, tokenizer: Any, unet: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)
        self.evaluations = 0  # of the U-Net since the pipeline was made: one a frame and stream
        if unet.config.in_channels != vae.config.latent_channels:
            raise ModelError(
                f"This U-Net takes {unet.config.in_channels} channels, the VAE gives {vae.config.latent_channels}: an "
                f"inpainting or depth model. Supported are {SUPPORTED}."
            )
        self._ddim = DDIMScheduler.from_config(scheduler.config)
        kind = self._ddim.config.prediction_type
        if kind not in ("epsilon", "v_prediction", "sample"):
            raise ModelError(
                f"The scheduler's prediction type `{kind}` is not known. Give a model that predicts noise."
            )

    @property
    def factor(self) -> int:
        """Pixels to a place of the latents, along a side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def size(self) -> int:
        """The side of the square that the U-Net was trained on, in pixels."""
        return int(self.unet.config.sample_size) * self.factor

    @property
    def train_steps(self) -> int:
        """Steps of the diffusion that the U-Net was trained on."""
        return int(self._ddim.config.num_train_timesteps)

    def abar(self, t: int) -> float:
        """Signal left at training step `t`; below the first step, what the scheduler says is the end."""
        return float(self._ddim.alphas_cumprod[t] if t >= 0 else self._ddim.final_alpha_cumprod)

    def timesteps(self, steps: int) -> list[int]:
        """The training steps that a chain of so many steps visits, noisiest first.

        Raises:
            ConfigError: No such chain.
        """
        train = self.train_steps
        if not 1 <= steps < train:
            raise ConfigError(f"A chain has 1 to {train - 1} steps, got {steps}.")
        self._ddim.set_timesteps(steps)
        visited = [int(t) for t in self._ddim.timesteps]
        if visited[0] >= train:
            raise ConfigError(f"A chain of {steps} steps would begin beyond the last of {train}. Use fewer.")
        return visited

    @torch.no_grad()
    def noise(self, x: Tensor, t: int, words: Tensor) -> Tensor:
        """The noise that the U-Net sees in `x` `(N, c, h, w)` at step `t`, with words `(N or 1, 77, D)`."""
        return self.noise_of(self.predict(x, t, words), x, t)

    def predict(self, x: Tensor, t: int, words: Tensor) -> Tensor:
        """What the U-Net says of `x`: noise, velocity or picture, as it was trained; gradients pass."""
        self.evaluations += len(x)
        result: Tensor = self.unet(
            x, torch.full((len(x),), t, device=x.device), encoder_hidden_states=words.expand(len(x), -1, -1)
        ).sample
        return result

    def noise_of(self, prediction: Tensor, x: Tensor, t: int) -> Tensor:
        """What was predicted, as noise."""
        signal, noise = float(self.abar(t) ** 0.5), float((1 - self.abar(t)) ** 0.5)
        kind = str(self._ddim.config.prediction_type)
        if kind == "v_prediction":  # arXiv:2202.00512, appendix D
            return signal * prediction + noise * x
        return prediction if kind == "epsilon" else (x - signal * prediction) / noise

    def aim(self, clean: Tensor, noise: Tensor, t: int) -> Tensor:
        """What the U-Net should say of `clean` under `noise` at step `t`: what training compares with."""
        kind = self._ddim.config.prediction_type
        if kind == "v_prediction":
            return float(self.abar(t) ** 0.5) * noise - float((1 - self.abar(t)) ** 0.5) * clean
        return noise if kind == "epsilon" else clean

    def words(self, prompt: str) -> Words:
        """A prompt as the U-Net reads it: padded, the text encoder's last hidden states."""
        longest = int(self.tokenizer.model_max_length)
        tokens = self.tokenizer(prompt, padding="max_length", truncation=True, max_length=longest, return_tensors="pt")
        cut = ""
        whole = self.tokenizer(prompt)["input_ids"]
        if len(whole) > longest:
            cut = self.tokenizer.decode(whole[longest - 1 : -1]).strip()
        with torch.no_grad():
            embedding = self.text_encoder(tokens.input_ids.to(self._execution_device))[0]
        return Words(embedding.to(self.unet.dtype), cut)

    @torch.no_grad()
    def encode(self, pixels: Tensor, generator: torch.Generator | None = None, batch: int = 8) -> Tensor:
        """Scaled latents `(F, c, h, w)` of pictures `(F, 3, H, W)` in [-1, 1]: the posterior's mean, or a draw from it.

        Raises:
            ConfigError: A side is not a multiple of what the VAE divides it by.
        """
        height, width = pixels.shape[-2:]
        if height < self.factor or width < self.factor or height % self.factor or width % self.factor:
            raise ConfigError(
                f"Pictures of {width} x {height} cannot be encoded: both sides must be multiples of {self.factor}."
            )
        parts = []
        for part in pixels.split(batch):
            posterior = self.vae.encode(part.to(self._execution_device, self.vae.dtype)).latent_dist
            parts.append(posterior.mode() if generator is None else posterior.sample(generator))
        return torch.cat(parts).to(self.unet.dtype) * float(self.vae.config.scaling_factor)

    @torch.no_grad()
    def decode(self, latents: Tensor, batch: int = 8) -> Tensor:
        """Pictures `(F, 3, H, W)` in about [-1, 1] of scaled latents; not clamped."""
        scaled = (latents / float(self.vae.config.scaling_factor)).to(self._execution_device, self.vae.dtype)
        return torch.cat([self.vae.decode(part).sample for part in scaled.split(batch)])

    def climb(
        self,
        x: Tensor,
        levels: Sequence[int],
        words: Tensor,
        *,
        ahead: bool = True,
        held: Held | None = None,
        model: Callable[[Tensor, int, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """DDIM inversion: clean latents into noise, up through the training steps `levels`, ascending.

        Args:
            x: Clean latents `(F, c, h, w)`.
            levels: The training steps that are reached, ascending.
            words: `(1, 77, D)`.
            ahead: Ask the U-Net at the level that is gone to (TokenFlow, Tune-A-Video); else at the one where `x`
                stands (FLATTEN), which takes the clean latents for the first level.
            held: Frames whose way up is known, along the same levels.
            model: `noise` unless given.

        Returns:
            `(len(levels), F, c, h, w)`: `x` at every level.
        """
        model, path = model or self.noise, []
        for i, t in enumerate(levels):
            below = levels[i - 1] if i else None
            if ahead:
                here = self.abar(-1) if below is None else self.abar(below)
                x, _ = ddim_step(x, model(x, t, words), here, self.abar(t), clip=False)
            elif below is not None:
                x, _ = ddim_step(x, model(x, below, words), self.abar(below), self.abar(t), clip=False)
            x = x if held is None else held.put(i, x)
            path.append(x)
        return torch.stack(path)

    def prepare(
        self, latents: Tensor, source_prompt: str, config: Any, *, generator: torch.Generator,
        held: Held | None = None, progress: Progress | None = None, **more: Any,
    ) -> Tensors:  # fmt: skip
        """All that depends on the clip alone, by name: what `sample` needs.

        Args:
            latents: Of the clip, `(F, c, h, w)`.
            source_prompt: What it shows.
            config: The method's settings.
            generator: Draws what the method draws.
            held: Frames whose way into noise is known.
            more: In the method's own words: `frames`, for those that look at pixels.
        """
        raise NotImplementedError

    def sample(
        self, prepared: Tensors, prompt: str, negative_prompt: str, config: Any, *, held: Held | None = None,
        source_prompt: str = "", strength: float = 1.0, callback_on_step_end: StepEnd | None = None,
        progress: Progress | None = None,
    ) -> Tensor:  # fmt: skip
        """Latents of the edit after every step, `(steps, F, c, h, w)`.

        `strength` other than 1 goes so far from the source prompt's words towards the prompt's, or beyond.
        """
        raise NotImplementedError

    def descend(
        self, x: Tensor, levels: Sequence[int], config: Any, held: Held | None, on_step_end: StepEnd | None,
        progress: Progress | None, look: Callable[[int, int, Tensor], Tensor],
    ) -> Tensor:  # fmt: skip
        """The guided way down from noise `x` `(F, c, h, w)`: `x` after every step, `(steps, F, c, h, w)`.

        Args:
            levels: The training steps that are visited, descending.
            config: Knows `solver` and `guidance`.
            held: Frames whose way down is known.
            on_step_end: See `StepEnd`.
            look: Step's number, its level and `x` -> the noise without and with the prompt, `(2, F, c, h, w)`.
        """
        way, path = Descent(self, levels, config.solver), []
        for i, t in enumerate(way.levels):
            without, towards = look(i, t, x)
            x = way.step(i, x, guided(without, towards, config.guidance))
            x = x if held is None else held.put(i, x)
            if on_step_end is not None:
                x = (on_step_end(self, i, t, {"latents": x}) or {}).get("latents", x)
            if progress is not None:
                progress(i + 1, len(way.levels))
            path.append(x)
        return torch.stack(path)

    def told(self, prompt: str, negative_prompt: str, source_prompt: str = "", strength: float = 1.0) -> Tensor:
        """Negative prompt and prompt, `(2, 77, D)`; see `sample` for the strength."""
        words = self.words(prompt).embedding
        if strength != 1:
            source = self.words(source_prompt).embedding
            words = source + strength * (words - source)
        return torch.cat([self.words(negative_prompt).embedding, words])

    @torch.no_grad()
    def __call__(
        self,
        prompt: str,
        frames: Tensor,
        *,
        negative_prompt: str | None = None,
        source_prompt: str = "",
        generator: torch.Generator | None = None,
        callback_on_step_end: StepEnd | None = None,
        output_type: str = "pt",
        config: Any = None,
        **settings: Any,
    ) -> FramesOutput:
        """Edit a clip that fits into memory; `cv.load_editor` edits clips of any length, and faces within them.

        Args:
            prompt: What the clip should show.
            frames: The clip, `(F, 3, H, W)` in 0..1; sides are multiples of `factor`.
            negative_prompt: What it should not show; the method's own by default.
            source_prompt: What the clip shows now.
            generator: Draws what the method draws; one seeded with 0 by default.
            callback_on_step_end: As everywhere in `diffusers`: (pipeline, step, timestep, {"latents": ...}).
            output_type: `pt` for pictures, `latent` for latents.
            config: The method's settings; `settings` change single ones.
        """
        before = self.evaluations
        chosen = replace(config or self.Config(), **settings)
        latents = self.encode(frames * 2 - 1)
        prepared = self.prepare(latents, source_prompt, chosen, frames=frames, generator=generator or seeded(0))
        path = self.sample(
            prepared, prompt, chosen.negative_prompt if negative_prompt is None else negative_prompt, chosen,
            callback_on_step_end=callback_on_step_end,
        )  # fmt: skip
        edited = path[-1]
        if output_type != "latent":
            edited = (self.decode(edited) / 2 + 0.5).clamp(0, 1)
        self.maybe_free_model_hooks()
        return FramesOutput(frames=edited, evaluations=self.evaluations - before)


@dataclass(frozen=True)
class Held:
    """Frames at the head of a window whose course is known from the window before: they are walked along with.

    `path` is `(levels, n, c, h, w)`, in the order in which the levels are visited.
    """

    path: Tensor

    def put(self, index: int, x: Tensor) -> Tensor:
        """`x` `(F, ...)` with the frames that are held in their place at the level `index`."""
        known = self.path[index].to(x)
        return torch.cat([known, x[len(known) :]])


class Descent:
    """The way down from noise, step by step.

    Args:
        pipeline: Knows the noise schedule.
        levels: Training steps, descending.
        solver: `ddim`; `dpm++2m`, of second order (DPM-Solver++, arXiv:2211.01095); or `pndm` (arXiv:2202.09778), which
            looks twice at one of the first levels and does not undo DDIM's inversion.
    """

    def __init__(self, pipeline: FramesPipeline, levels: Sequence[int], solver: str = "ddim") -> None:
        self.levels, self.solver = list(levels), solver
        self._clean: Tensor | None = None
        if solver == "pndm":
            self._pndm = PNDMScheduler.from_config(
                pipeline.scheduler.config, skip_prk_steps=True, prediction_type="epsilon"
            )
            self._pndm.set_timesteps(len(levels))
            self.levels = [int(t) for t in self._pndm.timesteps]
        self._abar = [pipeline.abar(t) for t in self.levels] + [pipeline.abar(-1)]

    def step(self, index: int, x: Tensor, eps: Tensor) -> Tensor:
        """`x` at the level after `levels[index]`, with the noise `eps` seen in it; steps are taken in order."""
        if self.solver == "pndm":
            result: Tensor = self._pndm.step(eps, self.levels[index], x).prev_sample
            return result
        here, there = self._abar[index], self._abar[index + 1]
        moved, clean = ddim_step(x, eps, here, there, clip=False)
        if self.solver == "dpm++2m":
            if self._clean is not None and index + 1 < len(self.levels):
                rise = _half_log_snr(there) - _half_log_snr(here)
                last = _half_log_snr(here) - _half_log_snr(self._abar[index - 1])
                ahead = clean + (clean - self._clean) * (rise / (2 * last))
                ratio = ((1 - there) / (1 - here)) ** 0.5
                moved = ratio * x + (there**0.5 - ratio * here**0.5) * ahead
            self._clean = clean
        return moved


def _half_log_snr(abar: float) -> float:
    return float(0.5 * np.log(abar / (1 - abar)))


def guided(uncond: Tensor, cond: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (arXiv:2207.12598): `uncond + scale (cond - uncond)`."""
    return uncond + scale * (cond - uncond)


def load_pipeline(
    kind: type[P],
    model: str | Path | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> P:
    """A pipeline of `kind` from a folder, a hub's name, or the bundled miniature.

    Raises:
        ModelError: There is no such model, it cannot be fetched, or it is not a Stable Diffusion.
    """
    name = str(models.bundled(BUNDLED)) if model is None else str(Path(model).expanduser())
    local = Path(name).exists() or str(model).startswith((".", "/", "~"))
    if local:
        check_folder(Path(name), kind.accepts)
    try:
        with quiet_libraries():
            pipeline: P = kind.from_pretrained(name, dtype=dtype)
            pipeline.to(device)
    except Exception as error:  # whatever the libraries raise for files and addresses of strangers
        if isinstance(error, CountervidError):
            raise
        if local:
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise ModelError(f"`{model}` cannot be loaded as {SUPPORTED}: {reason}.") from None
        raise ModelError(
            f"`{model}` is no folder here, and it could not be had from the hub ({type(error).__name__}): is the name "
            f"right, and is there a network? Without one, `{BUNDLED}` is bundled: leave the model out."
        ) from None
    check_parts(name, unet=pipeline.unet, vae=pipeline.vae, text_encoder=pipeline.text_encoder)
    pipeline.set_progress_bar_config(disable=True)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False)
    return pipeline


def check_folder(folder: Path, accepts: Sequence[str]) -> None:
    """Refuse a folder that is not a Stable Diffusion, by what its index says."""
    if not folder.is_dir():
        raise ModelError(f"There is no folder `{folder}`. Give a Stable Diffusion's folder, or a hub's name.")
    index = folder / "model_index.json"
    if not index.is_file():
        raise ModelError(
            f"`{folder}` is not a folder of {SUPPORTED}: it has no model_index.json. `save_pretrained` of diffusers "
            "writes one."
        )
    try:
        kind = json.loads(index.read_text(encoding="utf-8")).get("_class_name", "")
    except (ValueError, AttributeError):
        raise ModelError(f"`{index}` is damaged: it is not JSON. Get the model again.") from None
    if kind not in accepts:
        raise ModelError(
            f"`{folder}` is a {kind or 'model without a name'}, which is not supported yet. Supported: {SUPPORTED}."
        )
