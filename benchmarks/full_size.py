"""The text-guided editors at the size of Stable Diffusion 2.1, on a GPU: seconds and memory of each stage.

    python benchmarks/full_size.py [--frames 24] [--side 512] [--steps 50] [--tuning 10] [--editor tokenflow]

Weights are random, shapes are the published ones (U-Net of 866 M parameters, 77 tokens of 1024): what is computed costs
the same whatever it says. Half precision, the preset `csvc` with `--steps` steps of sampling and of inversion (FLATTEN:
twice as many). Tuning, `--tuning` steps, is told as seconds a step. Evaluations are of the U-Net, in frames.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from countervid import models
from countervid.diffusion.blocks import seeded
from countervid.editors.base import editor_class, make_config, presets

EDITORS = ("tokenflow", "flatten", "tune-a-video")
PARTS = ("encode", "prepare", "edit", "decode")


def pipeline(kind: Any, device: str, dtype: torch.dtype) -> Any:
    """A pipeline of the shapes of `stable-diffusion-2-1-base`, random weights."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    with torch.device(device):
        unet = UNet2DConditionModel(
            sample_size=64, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
        )
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=768,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip
        text = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=1024,
                intermediate_size=4096,
                num_hidden_layers=23,
                num_attention_heads=16,
                projection_dim=512,
                hidden_act="gelu",
                vocab_size=49408,
            )  # fmt: skip
        )
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1,
    )  # fmt: skip
    tokenizer = CLIPTokenizer.from_pretrained(models.bundled("text-to-image") / "tokenizer")
    made = kind(vae.to(dtype), text.to(dtype), tokenizer, unet.to(dtype), scheduler)
    for part in (made.unet, made.vae, made.text_encoder):
        part.requires_grad_(False).eval()
    made.to(device)
    made.set_progress_bar_config(disable=True)
    return made


def measured(name: str, frames: int, side: int, steps: int, tuning: int, device: str, dtype: torch.dtype) -> None:
    kind = editor_class(name)
    more: dict[str, object] = {"steps": steps}
    if name != "tune-a-video":
        more["inversion_steps"] = steps * (2 if name == "flatten" else 1)
    if name == "flatten":
        more |= {"flow": "dis", "inject_steps": int(0.8 * steps)}  # as published: 40 of 50
    config = make_config(kind.Config, {**presets(name)["csvc"], **more, "tuning_steps": 0} if name == "tune-a-video"
                         else {**presets(name)["csvc"], **more}, name)  # fmt: skip
    made = pipeline(kind.Pipeline, device, dtype)
    clip = torch.rand(frames, 3, side // 8, side // 8, generator=seeded(0))
    clip = torch.nn.functional.interpolate(clip, (side, side), mode="bicubic").clamp(0, 1)
    told: dict[str, Any] = {}

    def stage(what: str, run: Callable[[], Any]) -> Any:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        began, before = time.perf_counter(), made.evaluations
        result = run()
        torch.cuda.synchronize()
        told[what] = (
            time.perf_counter() - began, torch.cuda.max_memory_allocated() / 2**30, made.evaluations - before,
        )  # fmt: skip
        return result

    made.encode(clip[:1] * 2 - 1)  # the first kernels of a process are not what is timed
    latents = stage("encode", lambda: made.encode(clip * 2 - 1))
    if name == "tune-a-video":
        tuned = make_config(
            kind.Config, {**presets(name)["csvc"], **more, "tuning_steps": tuning, "checkpointing": True}, name
        )
        made.unet.float()  # as published, weights that learn are single precision
        stage("tune", lambda: made.fit([latents.float()], "a man", tuned, seeded(0)))
        made.unet.to(dtype)
    options = {"tuned": True} if name == "tune-a-video" else {"frames": clip}
    prepared = stage("prepare", lambda: made.prepare(latents, "a man", config, generator=seeded(0), **options))
    edited = stage("edit", lambda: made.sample(prepared, "an old man", "blurry", config))
    stage("decode", lambda: made.decode(edited[-1]))
    kept = sum(t.numel() * t.element_size() for t in prepared.values()) / 2**30
    for what, (seconds, memory, evaluations) in told.items():
        each = f"{seconds / tuning:.2f} s a step" if what == "tune" else f"{seconds:.1f} s"
        rate = f"{evaluations / seconds:.0f}" if evaluations else ""
        print(f"| `{name}` | {what} | {each} | {evaluations or ''} | {rate} | {memory:.1f} |", flush=True)
    print(f"| `{name}` | kept of the clip | | | | {kept:.1f} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--tuning", type=int, default=10)
    parser.add_argument("--editor", action="append", choices=EDITORS)
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        print("The full size is measured on a GPU, and there is none here.")
        return 0
    print(f"{torch.cuda.get_device_name()}, {asked.frames} frames of {asked.side} px, {asked.steps} steps, float16\n")
    print("| editor | stage | time | evaluations | a second | GiB at most |\n|---|---|---|---|---|---|")
    for name in asked.editor or EDITORS:
        measured(name, asked.frames, asked.side, asked.steps, asked.tuning, "cuda", torch.float16)
        gc.collect()
        torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    sys.exit(main())
