"""Stage `dva`: the latent diffusion autoencoder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from countervid.autoencoder.codec import VAE
from countervid.autoencoder.config import LossConfig, miniature
from countervid.autoencoder.identity import IdentityNet
from countervid.autoencoder.model import DiffusionAutoencoder
from countervid.clip.sheets import write_rows
from countervid.files.whole import replacing
from countervid.metrics.quality import psnr
from countervid.models.device import device_of
from countervid.models.folder import WEIGHTS
from countervid.phantom.dataset import PhantomFrames
from countervid.training.crops import draw, images, states
from countervid.training.loop import LoopConfig
from countervid.training.miniature.base import Built, Figures, Stage

STEPS = 20  # of a chain, each way, in all that is measured here
LANDMARK_NOISE = 0.004  # of the crop's side: as far off as the landmark network is


@dataclass(frozen=True)
class Codes:
    """Everything the diffusion autoencoder learns from, computed once: one row a crop."""

    latents: Tensor  # (N, c, 16, 16) float16
    identities: Tensor  # (N, 128): of the take, unit length
    landmarks: Tensor  # (N, 102): 51 points as fractions of the crop


@torch.no_grad()
def codes(frames: PhantomFrames, models: Path) -> Codes:
    """The codes of a data set, kept beside it under a name that tells which weights made them."""
    marks = "".join(hashlib.sha256((models / n / WEIGHTS).read_bytes()).hexdigest() for n in ("vae", "identity"))
    people = frames.column("person")
    marks += f"{len(frames)} {int(people[0])} {int(people[-1])}"
    path = frames.folder / f"codes-{hashlib.sha256(marks.encode()).hexdigest()[:16]}.safetensors"
    if not path.exists():
        vae, net = VAE.from_folder(models / "vae"), IdentityNet.from_folder(models / "identity")
        latents, vectors = [], []
        for rows in torch.arange(len(frames)).split(64):
            pictures = images(frames, rows)
            latents.append(vae.encode(pictures).half().contiguous(memory_format=torch.contiguous_format))
            vectors.append(net(pictures))
        with replacing(path) as partial:
            save_file({"latents": torch.cat(latents), "vectors": torch.cat(vectors)}, partial)
    stored = load_file(path)
    table = states(frames)
    means = F.normalize(stored["vectors"][table].mean(2, keepdim=True), dim=-1).expand(*table.shape, -1)
    identities = torch.empty_like(stored["vectors"])
    identities[table.flatten()] = means.flatten(0, 2)
    points = (frames.column("landmarks")[:, 17:] + 0.5) / frames.size
    return Codes(stored["latents"], identities, points.flatten(1))


def build(frames: PhantomFrames, batch: int, models: Path) -> Built:
    known = codes(frames, models)
    model = DiffusionAutoencoder(miniature(known.latents.shape[1]))
    config = LossConfig(distance="mse", noise_terms=1, regulariser_weight=0)
    rows = torch.arange(len(frames))

    def loss(generator: torch.Generator) -> Mapping[str, Tensor]:
        chosen = draw(batch, rows, generator)
        landmarks = known.landmarks[chosen]
        landmarks = landmarks + LANDMARK_NOISE * torch.randn(landmarks.shape, generator=generator)
        latents = known.latents[chosen].float()
        noise = torch.randn(latents.shape, generator=generator)
        t = torch.randint(model.config.train_steps, (batch,), generator=generator)
        device = device_of(model)
        x, z_id, z_lnd, first, t = (v.to(device) for v in (latents, known.identities[chosen], landmarks, noise, t))
        return {"loss": model.loss(x, z_id, z_lnd, config=config, t=t, noises=(first, first)).total}

    return model, loss


@torch.no_grad()
def evaluate(model: nn.Module, frames: PhantomFrames, models: Path) -> Figures:
    """Reconstruction through the noise codes; how near the true identity brings a frame to its counterfactual.

    What is judged is the source with the difference of two drawings added: from the same code, with the
    counterfactual's and with the factual identity. Editing keeps only what exceeds its floor and lies within its mask,
    and so does better.
    """
    assert isinstance(model, DiffusionAutoencoder)
    known = codes(frames, models)
    vae = VAE.from_folder(models / "vae")
    pairs = frames.pairs[:: max(1, len(frames.pairs) // 96)]
    before, after = pairs.T
    latents = known.latents[before].float()
    noise = model.encode(latents, known.identities[before], known.landmarks[before], steps=STEPS)
    again = model.decode(noise, known.identities[before], known.landmarks[before], steps=STEPS)
    moved = model.decode(noise, known.identities[after], known.landmarks[before], steps=STEPS)
    pixels, same, other = (vae.decode(z) for z in (latents, again, moved))
    source, truth = images(frames, before), images(frames, after)
    decibels = psnr(*((crops.clamp(-1, 1) + 1) / 2 for crops in (same, pixels)))
    edited = (source + other - same).clamp(-1, 1)
    distance = (edited - truth).abs().flatten(1).mean(1)
    skill = 1 - distance / (source - truth).abs().flatten(1).mean(1).clamp_min(1e-6)
    return {
        "clip -> codes -> clip against the VAE (dB PSNR)": float(decibels.mean()),
        "skill with the true identity, mean": float(skill.mean()),
        "skill with the true identity, median": float(skill.median()),
        "noise code, standard deviation": float(noise.std()),
    }


@torch.no_grad()
def sheet(model: nn.Module, frames: PhantomFrames, path: Path, models: Path) -> None:
    assert isinstance(model, DiffusionAutoencoder)
    known, vae = codes(frames, models), VAE.from_folder(models / "vae")
    before, after = frames.pairs[torch.linspace(0, len(frames.pairs) - 1, 10).long()].T
    noise = model.encode(known.latents[before].float(), known.identities[before], known.landmarks[before], steps=STEPS)
    again = model.decode(noise, known.identities[before], known.landmarks[before], steps=STEPS)
    moved = model.decode(noise, known.identities[after], known.landmarks[before], steps=STEPS)
    write_rows(
        path,
        {
            "factual": images(frames, before),
            "codes and back": vae.decode(again),
            "with the true counterfactual's identity": vae.decode(moved),
            "true counterfactual": images(frames, after),
        },
    )


def save(model: nn.Module, folder: Path, frames: PhantomFrames) -> None:
    del frames
    assert isinstance(model, DiffusionAutoencoder)
    model.save_pretrained(folder)


STAGE = Stage(
    name="dva",
    summary="latent diffusion video autoencoder",
    loop=LoopConfig(steps=6000, lr=1e-3, warmup=200, ema=0.9995),
    batch=32,
    build=build,
    evaluate=evaluate,
    save=save,
    sheet=sheet,
    needs=("vae", "identity"),
)
