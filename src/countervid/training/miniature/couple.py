"""Stages `couple` and `recouple`: the autoencoder learns which noise belongs to a picture and to its counterfactual.

A denoiser alone decides by its own taste what of a picture lies in the noise code and what in the
identity. Here it is told: the code of a factual frame, with the identity of the counterfactual, must
give the true counterfactual frame. It is trained on those triples with the code in place of random
noise, which is the second round of rectified flow (Liu et al., arXiv:2209.03003, section 2.2) with
couplings that cross an intervention; the same round straightens the chains, so that twenty steps there
and back lose less. Only a world that knows its counterfactuals has such triples.

Most counterfactuals are drawn with the identity that an editor would guess from the factual one:
strength 1 then means the counterfactual, as far as it can be known from the source.

A mean of likely faces has fewer wrinkles than any of them, and looks young. So some of the drawings are decoded and
looked at as well, by the identity encoder, layer by layer: they are to look like the true counterfactual, not only to
lie near it (a perceptual loss, Johnson et al., arXiv:1603.08155).

The codes of the first round come from a network that was free to scramble them, and are hard to read. Those of
the second, `recouple`, come from the network of the first: they say plainly what the picture was.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from countervid.autoencoder.classifier import AttributeClassifier
from countervid.autoencoder.codec import VAE
from countervid.autoencoder.config import LossConfig
from countervid.autoencoder.directions import move
from countervid.autoencoder.identity import IdentityBlock, IdentityNet
from countervid.autoencoder.model import DiffusionAutoencoder
from countervid.files.whole import replacing
from countervid.models.device import device_of
from countervid.models.folder import WEIGHTS
from countervid.phantom.dataset import ATTRIBUTES, PhantomFrames, decode
from countervid.training.crops import draw
from countervid.training.loop import LoopConfig
from countervid.training.miniature import dva
from countervid.training.miniature.base import Built, Stage

RANDOM_SHARE = 0.1  # of a batch keeps random noise, so that codes of pictures never seen stay meaningful
CROSS_SHARE = 0.7  # learns the counterfactual from the factual's code; the rest, the factual from its own
GUESSED_SHARE = 0.7  # of the counterfactuals are drawn with a guessed identity
SEEN = 8  # drawings a batch that are looked at
SEEN_WEIGHT = 0.2
CODE_STEPS = 10  # of the inversion that finds the codes: any code near the noise will do, the chains are straightened
IDENTITY_NOISE = 0.015  # of a unit vector's numbers: an identity of people never seen is not as sharp as a known one's


def noise_codes(model: DiffusionAutoencoder, frames: PhantomFrames, known: dva.Codes, models: Path) -> Tensor:
    """The noise code of every factual row, kept beside the data; rows of counterfactuals hold their factual's."""
    mark = hashlib.sha256((models / "dva" / WEIGHTS).read_bytes()).hexdigest()[:16]
    path = frames.folder / f"noise-{mark}-{len(frames)}.safetensors"
    if not path.exists():
        factual = frames.factual
        found = []
        for rows in factual.split(64):
            latents = known.latents[rows].float()
            found.append(
                model.encode(latents, known.identities[rows], known.landmarks[rows], steps=CODE_STEPS, batch=64)
            )
        with replacing(path) as partial:
            save_file({"noise": torch.cat(found).half().contiguous()}, partial)
    noise = load_file(path)["noise"]
    place = torch.full((len(frames),), -1)
    place[frames.factual] = torch.arange(len(frames.factual))
    return noise[place[frames.column("source")]]


def guesses(frames: PhantomFrames, known: dva.Codes, classifier: AttributeClassifier) -> Tensor:
    """Identities of all rows, but of a counterfactual's the one that `move` makes of its factual's."""
    groups: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = defaultdict(list)
    attributes, source = frames.column("attributes"), frames.column("source")
    for row in frames.pairs[:, 1].tolist():
        groups[tuple(attributes[source[row]].tolist()), tuple(attributes[row].tolist())].append(row)
    result = known.identities.clone()
    for (before, after), members in groups.items():
        factual, counterfactual = decode(before), decode(after)
        changes = {name: value for name, value in counterfactual.items() if factual[name] != value}
        rows = torch.tensor(members)
        kept = [name for name in ATTRIBUTES if name not in changes]
        result[rows] = move(known.identities[source[rows]], classifier, changes, kept, length="unit")
    return result


class Look(nn.Module):
    """How differently two sets of latents look, once decoded, to the identity encoder."""

    def __init__(self, models: Path) -> None:
        super().__init__()
        self.vae = VAE.from_folder(models / "vae")
        self.identity = IdentityNet.from_folder(models / "identity")

    def features(self, latents: Tensor) -> list[Tensor]:
        """Maps of every level of the encoder, and the identity vector."""
        h, found = self.vae.decode(latents), []
        for layer in self.identity.trunk:
            h = layer(h)
            if isinstance(layer, IdentityBlock):
                found.append(h)
        pooled = torch.cat([h.mean((2, 3)), h.amax((2, 3))], dim=1)
        return [*found, F.normalize(self.identity.project(pooled), dim=1)]

    def forward(self, drawn: Tensor, true: Tensor) -> Tensor:
        """Mean squared distance of the features of latents `(n, c, h, w)`, in units of the true ones' variance."""
        with torch.no_grad():
            wanted = self.features(true)
        pairs = zip(self.features(drawn), wanted, strict=True)
        return torch.stack([F.mse_loss(f, w) / w.var() for f, w in pairs]).mean()


def build(frames: PhantomFrames, batch: int, models: Path) -> Built:
    known = dva.codes(frames, models)
    guessed = guesses(frames, known, AttributeClassifier.from_pretrained(models / "dva" / "classifier"))
    model = DiffusionAutoencoder.from_pretrained(models / "dva")
    noise = noise_codes(model, frames, known, models)
    model.requires_grad_(True)
    # Squared: what changes is a small part of the picture and far off, and must not be outvoted by the rest.
    config = LossConfig(distance="mse", noise_terms=1, regulariser_weight=0)
    everything, factual, counterfactual = torch.arange(len(frames)), frames.factual, frames.pairs[:, 1]
    crossing = round(CROSS_SHARE * batch)
    straight = batch - crossing - round(RANDOM_SHARE * batch)
    guesses_made = round(GUESSED_SHARE * crossing)
    seen = min(SEEN, guesses_made)
    look = Look(models)

    def loss(generator: torch.Generator) -> Mapping[str, Tensor]:
        coupled = torch.cat([draw(crossing, counterfactual, generator), draw(straight, factual, generator)])
        rows = torch.cat([coupled, draw(batch - len(coupled), everything, generator)])
        first = torch.randn(known.latents[rows].shape, generator=generator)
        first[: len(coupled)] = noise[coupled].float()
        identities = known.identities[rows]
        identities[:guesses_made] = guessed[rows[:guesses_made]]
        identities += IDENTITY_NOISE * torch.randn(identities.shape, generator=generator)
        landmarks = known.landmarks[frames.column("source")[rows]]
        landmarks = landmarks + dva.LANDMARK_NOISE * torch.randn(landmarks.shape, generator=generator)
        moment = torch.rand(batch, generator=generator)
        moment[:crossing].sqrt_()  # late steps more often: what changes is decided while there is mostly noise
        t = (model.config.train_steps * moment).long()
        device = device_of(model)
        x, z_id, z_lnd, first, t = (
            v.to(device) for v in (known.latents[rows].float(), identities, landmarks, first, t)
        )
        found = model.loss(x, z_id, z_lnd, config=config, t=t, noises=(first, first))
        apart = look.to(device)(found.clean[0][:seen], x[:seen])
        return {
            "loss": found.total + SEEN_WEIGHT * apart,
            "coupled": found.noise[: len(coupled)].mean(),
            "looks": apart,
        }

    return model, loss


STAGE = Stage(
    name="couple",
    after=("dva",),
    summary="latent diffusion video autoencoder",
    loop=LoopConfig(steps=3600, lr=8e-4, warmup=100, decay_from=0.3),
    batch=32,
    build=build,
    evaluate=dva.evaluate,
    save=dva.save,
    sheet=dva.sheet,
    needs=("vae", "identity", "dva", "dva/classifier"),
)
AGAIN = replace(
    STAGE,
    name="recouple",
    after=("dva", "couple"),
    loop=LoopConfig(steps=4800, lr=8e-4, warmup=100, decay_from=0.3, seed=1),
)
