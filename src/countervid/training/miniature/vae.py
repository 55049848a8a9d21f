"""Stage `vae`: pixels to latents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from countervid.autoencoder.codec import VAE, VAEConfig
from countervid.clip.sheets import write_rows
from countervid.metrics.quality import psnr
from countervid.models.device import device_of
from countervid.models.folder import save_model
from countervid.phantom.dataset import PhantomFrames
from countervid.training.crops import draw, images
from countervid.training.loop import LoopConfig
from countervid.training.miniature.base import Built, Figures, Stage


def build(frames: PhantomFrames, batch: int, models: Path) -> Built:
    del models
    model = VAE(VAEConfig())
    rows = torch.arange(len(frames))

    def loss(generator: torch.Generator) -> Mapping[str, Tensor]:
        pictures = images(frames, draw(batch, rows, generator)).to(device_of(model))
        made, latents = model(pictures, generator)
        error = made - pictures
        absolute, squared = error.abs().mean(), error.square().mean()
        # L1 keeps edges; the square term is what PSNR measures; the last holds the latents near unit scale.
        return {"loss": absolute + squared + 1e-4 * latents.square().mean(), "l1": absolute, "mse": squared}

    return model, loss


@torch.no_grad()
def evaluate(model: nn.Module, frames: PhantomFrames, models: Path) -> Figures:
    del models
    assert isinstance(model, VAE)
    values = []
    for rows in torch.arange(len(frames)).split(32):
        pictures = images(frames, rows)
        made = model.decode(model.encode(pictures)).clamp(-1, 1)
        values += psnr((made + 1) / 2, (pictures + 1) / 2).tolist()
    return {"PSNR (dB)": sum(values) / len(values)}


@torch.no_grad()
def with_unit_latents(model: VAE, frames: PhantomFrames) -> VAE:
    """The same autoencoder with `scale` set so that latents have a standard deviation of 1."""
    rows = torch.linspace(0, len(frames) - 1, min(256, len(frames))).long()
    spread = float(torch.cat([model.encode(images(frames, part)) for part in rows.split(32)]).std())
    scaled = VAE(replace(model.config, scale=model.config.scale * spread))
    scaled.load_state_dict(model.state_dict())
    return scaled.eval()


def save(model: nn.Module, folder: Path, frames: PhantomFrames) -> None:
    assert isinstance(model, VAE)
    scaled = with_unit_latents(model, frames)
    save_model(folder, scaled, scaled.config)


@torch.no_grad()
def sheet(model: nn.Module, frames: PhantomFrames, path: Path, models: Path) -> None:
    del models
    assert isinstance(model, VAE)
    pictures = images(frames, torch.linspace(0, len(frames) - 1, 12).long())
    write_rows(path, {"crop": pictures, "through the VAE": model.decode(model.encode(pictures))})


STAGE = Stage(
    name="vae",
    summary="autoencoder, 128 px, factor 8",
    loop=LoopConfig(steps=2400, lr=2e-3),
    batch=16,
    build=build,
    evaluate=evaluate,
    save=save,
    sheet=sheet,
)
