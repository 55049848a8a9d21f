"""What inversion costs and gives: evaluations against reconstruction and against the truth, sampler by sampler.

    python benchmarks/inversion.py [PEOPLE] [FIGURE]

Rendered people that no model has seen, under interventions on the published attributes. There: a crop's latents into
their code. Back: the code with the same identity
(reconstruction, in dB against the latents' own decoding, on the first dozen crops), and with the identity that the
editor moves to the counterfactual's attributes: the difference of the two drawings is laid over the crop as the editor
does, and held against the true counterfactual (skill) and before the examiner (changed attributes seen).
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from countervid.autoencoder.classifier import AttributeClassifier
from countervid.autoencoder.codec import VAE
from countervid.autoencoder.model import DiffusionAutoencoder
from countervid.diffusion.samplers import SAMPLERS, sampler
from countervid.editors.dva import DVAConfig
from countervid.editors.dva_drawing import significance
from countervid.face.parse import MaskConfig, NetParser, ParserNet, edit_mask
from countervid.metrics.examiner import Examiner
from countervid.metrics.quality import psnr
from countervid.models import bundled, bundled_folder
from countervid.phantom.dataset import ATTRIBUTES, FACE, DatasetConfig, PhantomFrames, people_of, render_dataset
from countervid.training.crops import images
from countervid.training.miniature.couple import guesses
from countervid.training.miniature.dva import codes

STEPS = {"ddim": (5, 10, 20, 50, 100, 250, 1000), "dpm++2m": (5, 10, 20, 50, 100)}
EXACT = (3, 5, 8, 10, 20, 50)  # of the exact samplers
MOST_EDITED = 50  # chains with more steps are only held against their own reconstruction
RECONSTRUCTED = 12  # crops
CEILING = 80.0  # dB; beyond it rounding is all that is left


@dataclass
class Row:
    steps: int
    evaluations: int
    decibels: float
    skill: float | None = None
    seen: float | None = None
    kept: float | None = None


class Bench:
    """Unseen crops with their true counterfactuals, and all that judges an edit of them."""

    def __init__(self, people: int) -> None:
        config = DatasetConfig(takes=2, frames=1, pairs=True)
        with tempfile.TemporaryDirectory() as folder:
            frames = PhantomFrames(render_dataset(Path(folder), people_of("validation", people), config))
            asked = frames.column("intervention")[frames.pairs[:, 1]]
            published = torch.isin(asked, torch.tensor([ATTRIBUTES.index(name) for name in FACE]))
            pairs = frames.pairs[published & (frames.column("occluded")[frames.pairs[:, 0]] == 0)]
            before, after = pairs.T
            known = codes(frames, bundled_folder())
            classifier = AttributeClassifier.from_pretrained(bundled("dva") / "classifier")
            self.moved_to = guesses(frames, known, classifier)[after]
            self.source, self.truth = images(frames, before), images(frames, after)
            self.attributes = frames.column("attributes")[before].long(), frames.column("attributes")[after].long()
        self.model = DiffusionAutoencoder.from_pretrained(bundled("dva"))
        self.vae = VAE.from_folder(bundled("vae"))
        self.parser = NetParser(ParserNet.from_folder(bundled("parser")))
        self.examiner = Examiner.from_folder(bundled("examiner"))
        self.latents, self.own = known.latents[before].float(), known.identities[before]
        self.pose = known.landmarks[before]
        self.labels = self.parser(_bytes(self.source))

    def reconstruction(self, name: str, steps: int) -> float:
        """Mean PSNR of the code drawn with its own identity, dB, at most `CEILING`."""
        some = slice(RECONSTRUCTED)
        again = self._there_and_back(name, steps, some)[1]
        plain, drawn = (self.vae.decode(x).clamp(-1, 1) for x in (self.latents[some], again))
        return float(psnr((drawn + 1) / 2, (plain + 1) / 2).clamp(max=CEILING).mean())

    def edited(self, name: str, steps: int) -> tuple[float, float, float]:
        """Mean skill, and the shares of changed attributes seen and of the others kept, in per cent."""
        code, again = self._there_and_back(name, steps, slice(None))
        moved = self.model.decode(code, self.moved_to, self.pose, steps=steps, sampler=name)
        drawn, before = self.vae.decode(moved), self.vae.decode(again)
        weight = significance(moved, again, DVAConfig().floor)
        mask = edit_mask(self.labels, self.parser(_bytes(drawn)), MaskConfig(), weight=weight, steady=False)
        result = (self.source + mask[:, None] * (drawn - before)).clamp(-1, 1)
        away, apart = ((x - self.truth).abs().flatten(1).mean(1) for x in (result, self.source))
        read = torch.stack([values.argmax(1) for values in self.examiner(result).values()], 1)
        right, changed = read == self.attributes[1], self.attributes[0] != self.attributes[1]
        shares = (100 * float(right[which].float().mean()) for which in (changed, ~changed))
        return (float((1 - away / apart.clamp_min(1e-6)).mean()), *shares)  # type: ignore[return-value]

    def _there_and_back(self, name: str, steps: int, some: slice) -> tuple[Tensor, Tensor]:
        known = (self.own[some], self.pose[some])
        code = self.model.encode(self.latents[some], *known, steps=steps, sampler=name)
        return code, self.model.decode(code, *known, steps=steps, sampler=name)


def _bytes(crops: Tensor) -> Tensor:
    return (crops.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


@torch.no_grad()
def main() -> None:
    bench = Bench(int(sys.argv[1]) if len(sys.argv) > 1 else 72)
    rows: dict[str, list[Row]] = {}
    print("| sampler | steps | evaluations there and back | reconstruction | skill | changed seen | kept |")
    print("|---|---|---|---|---|---|---|")
    for name in SAMPLERS:
        for steps in STEPS.get(name, EXACT):
            row = Row(steps, sum(sampler(name).evaluations(steps)), bench.reconstruction(name, steps))
            shown = f"{row.decibels:.1f} dB" if row.decibels < CEILING else f"> {CEILING:.0f} dB"
            figures = " | | | "
            if steps <= MOST_EDITED:
                row.skill, row.seen, row.kept = bench.edited(name, steps)
                figures = f" {row.skill:.3f} | {row.seen:.0f} % | {row.kept:.1f} % "
            rows.setdefault(name, []).append(row)
            print(f"| {name} | {steps} | {row.evaluations} | {shown} |{figures}|", flush=True)
    if len(sys.argv) > 2:
        draw(rows, Path(sys.argv[2]))


def draw(rows: dict[str, list[Row]], path: Path) -> None:
    """Reconstruction, skill and what the examiner sees, against evaluations."""
    plot, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    wanted = ("decibels", "reconstruction, dB"), ("skill", "skill against the truth"), ("seen", "changed seen, %")
    for axis, (field, label) in zip(axes, wanted, strict=True):
        for number, (name, found) in enumerate(rows.items()):
            points = [(row.evaluations, getattr(row, field)) for row in found if getattr(row, field) is not None]
            style = {"marker": "osD^"[number], "linestyle": ["-", "-", "-", "--"][number], "markersize": 5}
            axis.plot(*zip(*points, strict=True), label=name, **style)
        axis.set(xscale="log", xlabel="evaluations a frame, there and back", ylabel=label)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].axhline(CEILING, linewidth=0.8, linestyle=":", color="grey")
    axes[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    plot.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
