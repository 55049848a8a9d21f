"""What inversion costs and gives: evaluations against reconstruction and against the truth, sampler by sampler.

    python benchmarks/inversion.py [CROPS] [FIGURE]

Rendered people that no model has seen. There: the crop's latents into their code. Back: the code with the same identity
(reconstruction, in dB against the latents' own decoding) and with the true counterfactual's (skill against the truth).
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from countervid.autoencoder.codec import VAE
from countervid.autoencoder.model import DiffusionAutoencoder
from countervid.diffusion.samplers import SAMPLERS, sampler
from countervid.metrics.quality import psnr
from countervid.models import bundled, bundled_folder
from countervid.phantom.dataset import DatasetConfig, PhantomFrames, people_of, render_dataset
from countervid.training.crops import images
from countervid.training.miniature.dva import codes

STEPS = {
    "ddim": (5, 10, 20, 50, 100, 250, 1000),
    "dpm++2m": (5, 10, 20, 50, 100),
    "bdia": (5, 10, 20, 50),
    "belm": (5, 10, 20, 50),
}
CEILING = 80.0  # dB; beyond it rounding is all that is left


@torch.no_grad()
def main() -> None:
    crops = int(sys.argv[1]) if len(sys.argv) > 1 else 24
    figure = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    people = people_of("validation", max(2, crops // 2))
    with tempfile.TemporaryDirectory() as folder:
        frames = PhantomFrames(render_dataset(Path(folder), people, DatasetConfig(takes=2, frames=1, pairs=True)))
        before, after = frames.pairs[:crops].T
        known = codes(frames, bundled_folder())
        source, truth = images(frames, before), images(frames, after)
    model = DiffusionAutoencoder.from_pretrained(bundled("dva"))
    vae = VAE.from_folder(bundled("vae"))
    latents, own, other = known.latents[before].float(), known.identities[before], known.identities[after]
    pose, plain = known.landmarks[before], vae.decode(known.latents[before].float()).clamp(-1, 1)
    apart = (source - truth).abs().flatten(1).mean(1).clamp_min(1e-6)
    rows: dict[str, list[tuple[int, int, float, float, float]]] = {}
    for name in SAMPLERS:
        for steps in STEPS[name]:
            began = time.perf_counter()
            code = model.encode(latents, own, pose, steps=steps, sampler=name)
            again = model.decode(code, own, pose, steps=steps, sampler=name)
            seconds = time.perf_counter() - began
            moved = model.decode(code, other, pose, steps=steps, sampler=name)
            drawn = vae.decode(again)
            decibels = float(psnr((drawn.clamp(-1, 1) + 1) / 2, (plain + 1) / 2).clamp(max=CEILING).mean())
            edited = (source + vae.decode(moved) - drawn).clamp(-1, 1)
            skill = float((1 - (edited - truth).abs().flatten(1).mean(1) / apart).median())
            cost = sum(sampler(name).evaluations(steps))
            rows.setdefault(name, []).append((steps, cost, decibels, skill, seconds / crops))
            print(f"{name:8} {steps:5} steps {cost:5} evaluations {decibels:6.1f} dB  skill {skill:6.3f}", flush=True)
    print("\n| sampler | steps | evaluations there and back | reconstruction | median skill, true identity |")
    print("|---|---|---|---|---|")
    for name, found in rows.items():
        for steps, cost, decibels, skill, _ in found:
            shown = f"{decibels:.1f} dB" if decibels < CEILING else f"> {CEILING:.0f} dB"
            print(f"| {name} | {steps} | {cost} | {shown} | {skill:.3f} |")
    if figure is not None:
        draw(rows, figure)


def draw(rows: dict[str, list[tuple[int, int, float, float, float]]], path: Path) -> None:
    """Reconstruction and skill against evaluations."""
    plot, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, found in rows.items():
        cost = [row[1] for row in found]
        left.plot(cost, [row[2] for row in found], marker="o", label=name)
        right.plot(cost, [row[3] for row in found], marker="o", label=name)
    left.set(xscale="log", xlabel="evaluations a frame, there and back", ylabel="reconstruction, dB")
    left.axhline(CEILING, linewidth=0.8, linestyle=":", color="grey")
    right.set(xscale="log", xlabel="evaluations a frame, there and back", ylabel="median skill against the truth")
    left.legend(frameon=False)
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    plot.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
