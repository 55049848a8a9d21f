"""Stage `critic`: a small head that reads attributes off what the bundled CLIP sees.

Edits come out of the VAE, so every picture is learnt as it is, through the VAE, mirrored, and in bad weather. The CLIP
stays as it is: critics and text edits share its eyes, and it is loaded once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from countervid.autoencoder.codec import VAE
from countervid.critics.bundled import AttributeHead, HeadConfig, eyes
from countervid.embeddings.contrastive import Contrastive
from countervid.files.whole import replacing
from countervid.models.device import device_of
from countervid.models.folder import WEIGHTS
from countervid.phantom.dataset import ATTRIBUTES, PhantomFrames
from countervid.phantom.scm import DOMAINS
from countervid.training.crops import draw, images, weather
from countervid.training.loop import LoopConfig
from countervid.training.miniature.base import Built, Figures, Stage, balanced

VIEWS = ("plain", "mirrored", "drawn", "drawn and mirrored", "weather")
BLUR = 0.1  # of labels: nobody is surer than this


@torch.no_grad()
def seen(frames: PhantomFrames, models: Path) -> tuple[Tensor, Tensor]:
    """What the CLIP sees of every crop in every view, kept beside the data: `(views, N, P, W)`, `(views, N, D)`."""
    marks = "".join(hashlib.sha256((models / n / WEIGHTS).read_bytes()).hexdigest() for n in ("vae", "clip"))
    marks += f"{len(frames)} {int(frames.column('person')[0])}"
    path = frames.folder / f"critic-{hashlib.sha256(marks.encode()).hexdigest()[:16]}.safetensors"
    if not path.exists():
        vae, clip = VAE.from_folder(models / "vae"), Contrastive.from_pretrained(models / "clip")
        found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in VIEWS]
        generator = torch.Generator().manual_seed(0)
        for rows in torch.arange(len(frames)).split(64):
            plain = images(frames, rows)
            drawn = vae.decode(vae.encode(plain)).clamp(-1, 1)
            views = (plain, plain.flip(3), drawn, drawn.flip(3), weather(drawn, generator))
            for kept, view in zip(found, views, strict=True):
                patches, whole = eyes(clip, view)
                kept.append((patches.half(), whole.half()))
        parts = [[torch.cat([one[i] for one in view]) for view in found] for i in range(2)]
        with replacing(path) as partial:
            save_file({"patches": torch.stack(parts[0]), "whole": torch.stack(parts[1])}, partial)
    stored = load_file(path)
    return stored["patches"], stored["whole"]


def build(frames: PhantomFrames, batch: int, models: Path) -> Built:
    patches, whole = seen(frames, models)
    head = AttributeHead(
        HeadConfig(
            variables=tuple(f"{name}={' '.join(DOMAINS[name])}" for name in ATTRIBUTES),
            patch=patches.shape[-1], pooled=whole.shape[-1], patches=patches.shape[-2],
        )
    )  # fmt: skip
    clear = torch.nonzero(frames.column("occluded") == 0).flatten()
    labels = {name: frames.attribute(name).long() for name in ATTRIBUTES}

    def loss(generator: torch.Generator) -> Mapping[str, Tensor]:
        rows = draw(batch, clear, generator)
        views = torch.randint(len(VIEWS), (batch,), generator=generator)
        device = device_of(head)
        told = head(patches[views, rows].float().to(device), whole[views, rows].float().to(device))
        terms = [
            F.nll_loss(said, labels[name][rows].to(device)) * (1 - BLUR) - BLUR * said.mean(1).mean()
            for name, said in told.items()
        ]
        return {"loss": torch.stack(terms).mean()}

    return head, loss


@torch.no_grad()
def evaluate(model: nn.Module, frames: PhantomFrames, models: Path) -> Figures:
    """Balanced accuracy of each attribute, on unoccluded crops as they are and through the VAE."""
    assert isinstance(model, AttributeHead)
    patches, whole = seen(frames, models)
    clear = torch.nonzero(frames.column("occluded") == 0).flatten()
    figures: Figures = {}
    for view in ("plain", "drawn"):
        v = VIEWS.index(view)
        told = model(patches[v, clear].float(), whole[v, clear].float())
        for name, said in told.items():
            truth = frames.attribute(name)[clear]
            figures[f"{name}, {view} (%)"] = balanced(said.argmax(1) == truth, truth)
    return figures


STAGE = Stage(
    name="critic",
    summary="reads attributes off what the bundled CLIP sees, for steering",
    loop=LoopConfig(steps=3000, lr=1e-3, warmup=100, ema=0.998, weight_decay=0.05),
    batch=128,
    build=build,
    evaluate=evaluate,
    needs=("vae", "clip"),
)
