"""The diffusion video autoencoder as an editor: move the identity once, and every frame follows (arXiv:2212.02802).

Prepare: find the face, encode its crops, take one identity for the clip, and walk each frame into its noise code by
deterministic inversion. Edit: move the identity towards the wanted attributes, the others held; draw every frame again
from its own noise code; paste the difference into the source.

What is pasted is the difference between two drawings from the same code, with the moved and with the unmoved identity:
what the autoencoder cannot draw cancels, and no edit is no change. Frames are computed in batches of a fixed size, so a
frame's result does not depend on its neighbours; only the identity and the smoothed mask look beyond it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from countervid import models
from countervid.autoencoder import celeba
from countervid.autoencoder.classifier import AttributeClassifier
from countervid.autoencoder.clip_guidance import TextGuidance, optimise
from countervid.autoencoder.directions import Direction, along, move
from countervid.autoencoder.faces import load_networks
from countervid.autoencoder.model import DiffusionAutoencoder
from countervid.autoencoder.recognizer import recognizer_of
from countervid.clip import Clip
from countervid.clip.sheets import write_rows
from countervid.diffusion.samplers import sampler
from countervid.editors.base import Attributes, Guide, Prepared, Report, Seen, Target, register_editor
from countervid.editors.cache import Cache, as_cache
from countervid.editors.dva_drawing import Drawing, load, name_of
from countervid.editors.store import Store, Tensors
from countervid.editors.taken import TakenCrops, crops_by_window
from countervid.editors.work import Work, dva_work
from countervid.embeddings.contrastive import Contrastive
from countervid.errors import ConfigError, InterventionError, ModelError
from countervid.face import align
from countervid.face.parse import NOT_FACE, MaskConfig, Part
from countervid.face.paste import MODES, Mode
from countervid.face.pipeline import FaceConfig, FacePipeline, FaceTrack
from countervid.files.whole import write_whole
from countervid.models.device import choose_device

FORMAT = 1  # of what is stored
TRACK = "track.safetensors"
_PREVIEW_EVERY = 25  # iterations of a search by text
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class DVAConfig:
    steps: int = 10  # of the chains; the identity's effect is settled by then (docs/autoencoder.md)
    sampler: str = "belm"  # how the chains are walked, see `diffusion/samplers.py`
    face: int = 0  # which one, counted from the largest
    part: Part = "head"  # what may change; `face` leaves hair and hats alone
    paste: Mode = "adaptive"  # how the difference meets the source's detail, see `face/paste.py`
    # Where the identity moves what is drawn by less than this many of its deviations, the source stays as it is:
    # drawing with another identity never leaves the rest quite alone. Never more than half of a frame's own strongest
    # changes, so that a faint edit is not lost. 0 pastes every difference.
    floor: float = 0.3
    text_model: str = "clip"  # a CLIP for edits by text: a bundled one's name, a folder, or a hub's name
    batch: int = 8  # frames at a time; bounds the memory
    window: int = 32  # frames that are stored together, and lost together when a run is stopped
    precision: str = "float32"  # that the diffusion network computes in; or bfloat16, float16
    compile: bool = False  # by torch.compile: minutes for the first clip, less for each after it
    device: str = "auto"  # a GPU where there is one; the same bytes each time are promised for the CPU

    def __post_init__(self) -> None:
        if self.paste not in MODES:
            raise ConfigError(f"`paste` must be one of {', '.join(MODES)}, got `{self.paste}`.")
        if self.part not in ("head", "face"):
            raise ConfigError(f"`part` must be head or face, got `{self.part}`.")
        sampler(self.sampler)
        if self.precision not in PRECISIONS:
            raise ConfigError(f"`precision` must be one of {', '.join(PRECISIONS)}, got `{self.precision}`.")
        if not 2 <= self.steps <= 1000:
            raise ConfigError(f"`steps` must lie in 2..1000, got {self.steps}.")
        if self.steps < 3 and sampler(self.sampler).exact:
            raise ConfigError(f"`{self.sampler}` needs at least 3 `steps`, got {self.steps}.")
        for name in ("batch", "window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if not self.floor >= 0:
            raise ConfigError(f"`floor` must be 0 or more, got {self.floor:g}.")
        if self.face < 0:
            raise ConfigError(f"`face` must be 0 (the largest face) or more, got {self.face}.")


@register_editor("dva")
class DVA:
    """Faces, by one identity vector a clip. Strength 0 is the source; more strength is more of the same."""

    name: ClassVar[str] = "dva"
    knobs: ClassVar[frozenset[str]] = frozenset({"strength", "strengths"})
    Config = DVAConfig

    def __init__(
        self, config: DVAConfig | None = None, *, model: str | Path | None = None, cache: Path | Cache | None = None
    ) -> None:
        """
        Args:
            config: Settings.
            model: A folder with the folders `identity` and `dva` (with `classifier` in it), `vae` where latents are
                diffused, and `landmarks` and `parser` where they are not the bundled ones, as
                `countervid train miniature` and `countervid models import` write them; None: the bundled miniature.
            cache: Where prepared clips are kept; None is `default_cache()`.

        Raises:
            ModelError: Weights are missing or damaged.
        """
        self.config = config or DVAConfig()
        self.cache = as_cache(cache)
        self.miniature = model is None
        folders = _folders(None if model is None else Path(model))
        self._checksums = {
            f"{role}/{file.relative_to(folder).as_posix()}": models.sha256(file)
            for role, folder in folders.items()
            for file in sorted(folder.rglob("*.safetensors"))
        }
        self.device = choose_device(self.config.device)
        self.faces = load_networks(folders, self.device)
        self.autoencoder = DiffusionAutoencoder.from_pretrained(folders["dva"]).to(self.device)
        self.autoencoder.precision = PRECISIONS[self.config.precision]
        if self.config.compile:
            self.autoencoder.unet.compile()
        reader = folders["dva"] / "classifier"
        self.classifier = AttributeClassifier.from_pretrained(reader) if reader.is_dir() else None
        self.autoencoder.schedule.respaced(self.config.steps)  # refuses a number of steps that cannot be had
        self.pipeline = FacePipeline(
            landmarker=self.faces.landmarker,
            parser=self.faces.parser,
            recognizer=recognizer_of(self.faces, self.device),
            config=FaceConfig(
                window=self.config.window, framing=self.faces.framing, mask=MaskConfig(part=self.config.part)
            ),
        )

    def weights(self) -> dict[str, str]:
        """SHA-256 of every file of weights, by role."""
        return dict(self._checksums)

    def costs(self) -> dict[str, int]:
        """What this editor has computed so far: evaluations of its network, one a frame, and loads of its weights."""
        return {"unet_evaluations": self.autoencoder.evaluations, "model_loads": 1}

    def work(self, clip: Clip, edits: int = 1) -> Work:
        """What preparing a clip and so many edits compute and keep."""
        return dva_work(self, clip, edits)

    @torch.inference_mode()
    def prepare(self, clip: Clip, factual: Attributes, *, prompt: str = "", report: Report | None = None) -> Prepared:
        """Track, codes and identity of a clip; found again by content, and taken up where it was stopped.

        Raises:
            FaceError: The clip shows no face, or not so many.
        """
        seen = self.look(clip, report=report)
        assert seen.track is not None
        decibels = self._invert(seen.payload, self._starts(seen.track), seen.store, report)
        # Of the latents drawn again from their codes, against the latents.
        facts = {**seen.facts, "reconstruction_db": round(decibels, 2)}
        return replace(seen, factual=dict(factual), facts=facts)

    @torch.inference_mode()
    def look(self, clip: Clip, *, report: Report | None = None) -> Prepared:
        """The part of `prepare` that `read` needs: it costs a fraction of the whole.

        Raises:
            FaceError: The clip shows no face, or not so many.
        """
        config = self.config
        origin = {
            "format": FORMAT,
            "clip": clip.digest(),
            "settings": {
                "steps": config.steps,
                "sampler": config.sampler,
                "precision": config.precision,
                "face": config.face,
                "window": config.window,
                "batch": config.batch,
            },
            "weights": self.weights(),
            "faces": self.pipeline.names(),
        }
        store = Store(self.cache, self.name, origin, clip)
        with closing(TakenCrops(self.faces.size, store.folder)) as taken:
            track = self._track(clip, store, report, taken)
            starts = self._starts(track)
            self._look(clip, track, starts, store, report, taken)
        total = sum(load(store, "looks", start)["identity"].double().sum(0) for start in starts)
        # Deviation: the mean is brought back to unit length, as edited identities are; the published code does not, and
        # so changes the picture at strength 0.
        identity = F.normalize(torch.as_tensor(total), dim=0).float()
        counts = track.counts()
        facts: dict[str, object] = {
            "faces": track.describe(),
            "frames": len(clip),
            "frames_without_face": counts["absent"],
            "track": counts,
        }
        return Prepared(
            editor=self.name, key=store.key, clip=clip, factual={}, store=store, facts=facts, track=track,
            payload=identity,
        )  # fmt: skip

    def read(self, prepared: Prepared) -> dict[str, Seen]:
        """The attributes that the clip's identity shows, with their probabilities."""
        if self.classifier is None:
            return {}
        probabilities = {
            name: dict(zip(self.classifier.variables[name], values[0].tolist(), strict=True))
            for name, values in self.classifier.probabilities(prepared.payload[None]).items()
        }
        found = {}
        for name, chances in celeba.reading(probabilities).items():
            value = max(chances, key=chances.__getitem__)
            found[name] = Seen(value=value, confidence=chances[value])
        return found

    def check(self, do: Attributes, guide: Guide | None = None) -> None:
        """Refuse at once what `edit` would refuse after the clip is prepared.

        Raises:
            InterventionError: The weights do not know an attribute.
        """
        if isinstance(guide, Direction):
            along(self._classifier().mean, self._classifier(), guide)
        elif guide is None:
            for name, value in do.items():
                _in_words_of(self._classifier(), name, value)

    def _classifier(self) -> AttributeClassifier:
        if self.classifier is None:
            raise InterventionError(
                "These weights came without a classifier, so no attribute can be changed by name. Import them with "
                "one: `countervid models import dva --classifier FILE`."
            )
        return self.classifier

    def moved(self, prepared: Prepared, target: Target, report: Report | None = None) -> Tensor:
        """The identity `(D,)` that shows the target's attributes, or goes the way of its guide.

        Raises:
            InterventionError: The weights do not know an attribute that must change.
        """
        if isinstance(target.guide, TextGuidance):
            away = target.strength * target.guide.scale * self._by_text(prepared, target.guide, report)
            return F.normalize(prepared.payload + away, dim=0)
        classifier = self._classifier()
        if isinstance(target.guide, Direction):
            return along(prepared.payload, classifier, target.guide, target.strength)
        changes: dict[str, str] = {}
        strengths: dict[str, float] = {}
        for name, value in target.changed.items():
            said = _in_words_of(classifier, name, value)
            changes |= said
            strengths |= dict.fromkeys(said, target.amount(name))
        known = classifier.variables
        kept = [word for name, value in target.kept.items() for word in celeba.meaning(name, value, known) or ()]
        identity: Tensor = prepared.payload
        return move(identity, classifier, changes, kept, strength=strengths, length="unit")

    def _by_text(self, prepared: Prepared, guidance: TextGuidance, report: Report | None) -> Tensor:
        """What the text adds to the identity `(D,)`, found on the first frame with the face, and kept.

        Beside it stand, brought up to date as it goes, `losses.csv` and `preview.png`: the frame, and what CLIP saw of
        it at the best iteration.
        """
        store = prepared.store
        search = asdict(replace(guidance, scale=1.0))  # what is found does not depend on how far it is followed
        mark = hashlib.sha256(json.dumps([search, self.config.text_model]).encode()).hexdigest()[:20]
        track = prepared.track
        assert track is not None
        looks = load(store, "looks", self._starts(track)[0])
        x, pose = looks["latents"][:1].to(self.device), looks["pose"][:1].to(self.device)
        z_id = F.normalize(looks["identity"][0], dim=0).to(self.device)
        labels = looks["labels"][:1].to(self.device)
        face = (~torch.isin(labels, torch.tensor(NOT_FACE, device=self.device))).float()[:, None]

        def follow() -> Tensors:
            clip = self._text_model()
            losses, best, lowest, seen = ["iteration,total,clip,identity,l1"], z_id, float("inf"), None
            codec, model = self.faces.codec, self.autoencoder
            folder = store.folder / "text" / mark

            def show() -> None:
                write_whole(folder / "losses.csv", "\n".join(losses) + "\n")
                if seen is not None:
                    frame = codec.decode(x).expand(len(seen), -1, -1, -1)
                    write_rows(folder / "preview.png", {"the frame": frame.cpu(), "as CLIP saw it": seen.cpu()})

            for found in optimise(model, clip, codec, x, z_id, pose, face, guidance):
                losses.append(f"{found.index},{found.total:.6f},{found.clip:.6f},{found.identity:.6f},{found.l1:.6f}")
                if found.total < lowest:
                    lowest, best, seen = found.total, found.best, found.pictures
                if report is not None:
                    report("following the text", found.index + 1, guidance.iterations)
                if found.index % _PREVIEW_EVERY == 0:
                    show()
            show()
            return {"away": (best - z_id).cpu()}

        with torch.inference_mode(False), torch.enable_grad():
            x, pose, z_id, face = (tensor.clone() for tensor in (x, pose, z_id, face))  # made without gradients
            return store.fetch(f"text/{mark}/away", follow)["away"]

    def _text_model(self) -> Contrastive:
        name = self.config.text_model
        folder = models.bundled(name) if name in models.available() else name
        return Contrastive.from_pretrained(folder, device=self.device)

    @torch.inference_mode()
    def edit(self, prepared: Prepared, target: Target, *, report: Report | None = None) -> Clip:
        """The edited clip, lazily; each window's codes are kept once they are drawn."""
        if target.asks_for_nothing:
            return prepared.clip
        track = prepared.track
        assert track is not None
        drawing = Drawing(self, prepared, track, self.moved(prepared, target, report))
        return self.pipeline.pasted(prepared.clip, track, drawing.edits, self.config.paste)

    def _starts(self, track: FaceTrack) -> list[int]:
        """First frames of the windows that show the face."""
        size = self.config.window
        return [start for start in range(0, len(track), size) if len(track.frames(start, start + size))]

    def _track(self, clip: Clip, store: Store, report: Report | None, taken: TakenCrops) -> FaceTrack:
        shown = _shown(report, "finding the face")
        return store.fetch_file(
            TRACK, lambda path: self.pipeline.analyze(clip, self.config.face, shown, taken).save(path), FaceTrack.load
        )

    def _look(
        self, clip: Clip, track: FaceTrack, starts: list[int], store: Store, report: Report | None, taken: TakenCrops
    ) -> None:
        """Latents, identities, poses and labels of every frame with the face."""
        shown, window = _shown(report, "encoding"), self.config.window
        missing = [start for start in starts if store.load(name_of("looks", start)) is None]
        for start, index, crops in crops_by_window(clip, track, missing, window, self.faces.size, taken):
            landmarks = align.to_square(track.landmarks[index], track.quads[index])
            store.fetch(name_of("looks", start), lambda c=crops, p=landmarks: self._looks(c, p))  # type: ignore[misc]
            if shown:
                shown(min(start + window, len(clip)), len(clip))

    def _looks(self, crops: Tensor, landmarks: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Tensors:
        images = crops.permute(0, 3, 1, 2).float() / 127.5 - 1
        return {
            "latents": self._batched(self.faces.codec.encode, images),
            "identity": self._batched(self.faces.identity, images),
            "pose": self._batched(self.faces.pose, images, torch.from_numpy(landmarks).float()),
            "labels": self.pipeline.parser(crops),
        }

    def _invert(self, identity: Tensor, starts: list[int], store: Store, report: Report | None) -> float:
        """Noise codes of every window, and what they are drawn into again. Returns the mean PSNR of that, in dB."""
        config, shown = self.config, _shown(report, "inverting")
        squared = count = 0.0
        for done, start in enumerate(starts, start=1):
            looks = load(store, "looks", start)
            latents, pose = looks["latents"], looks["pose"]

            def compute(latents: Tensor = latents, pose: Tensor = pose) -> Tensors:
                def encode(x: Tensor, p: Tensor) -> Tensor:
                    return self.autoencoder.encode(
                        x, identity.to(x), p, steps=config.steps, sampler=config.sampler, batch=len(x)
                    )

                noise = self._batched(encode, latents, pose)
                return {"noise": noise, "again": self.draw(noise, pose, identity)}

            codes = store.fetch(name_of("codes", start), compute)
            squared += float((codes["again"] - latents).square().sum())
            count += latents.numel()
            if shown:
                shown(done, len(starts))
        # Latents have unit variance; +-3 deviations are taken for their range.
        return float(10 * np.log10(36 / max(squared / count, 1e-12)))

    def draw(self, noise: Tensor, pose: Tensor, identity: Tensor) -> Tensor:
        """Latents `(F, c, h, w)` that noise codes are drawn into, for poses `(F, 102)` and one identity `(D,)`."""

        steps, way = self.config.steps, self.config.sampler

        def decode(x: Tensor, p: Tensor) -> Tensor:
            return self.autoencoder.decode(x, identity.to(x), p, steps=steps, sampler=way, batch=len(x))

        return self._batched(decode, noise, pose)

    def pixels(self, latents: Tensor) -> Tensor:
        """Crops `(F, S, S, 3)` of latents, float, 0..255 and a little beyond."""
        return (self._batched(self.faces.codec.decode, latents).permute(0, 2, 3, 1) + 1) * 127.5

    def _batched(self, function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """`function` over batches of one size, on the device: the last is filled up, so that no kernel sees another
        shape. Takes and gives tensors on the CPU."""
        size, count = self.config.batch, len(rows[0])
        results = []
        for start in range(0, count, size):
            parts = [_filled(tensor[start : start + size], size).to(self.device) for tensor in rows]
            results.append(function(*parts)[: count - start].cpu())
        return torch.cat(results).contiguous()


def _folders(root: Path | None) -> dict[str, Path]:
    """Role -> folder of its weights; roles that may be missing are left out."""
    needed, common = ("identity", "dva"), ("landmarks", "parser")
    there = models.available()
    bundled = {name: models.bundled(name) for name in common if name in there}
    if root is None:
        return {name: models.bundled(name) for name in (*needed, "vae")} | bundled
    missing = [name for name in needed if not (root / name).is_dir()]
    if missing:
        raise ModelError(
            f"`{root}` is not a folder of weights for `dva`: it lacks {', '.join(missing)}. It needs the folders "
            f"{', '.join(needed)}, as `countervid train miniature` or `countervid models import` writes them."
        )
    return bundled | {name: root / name for name in (*needed, "vae", *common) if (root / name).is_dir()}


def _in_words_of(classifier: AttributeClassifier, name: str, value: str) -> Attributes:
    """What the classifier calls `name = value`: its own variables and values."""
    said = celeba.meaning(name, value, classifier.variables)
    if said is None:
        names = ", ".join(f"{n} ({' / '.join(values)})" for n, values in classifier.variables.items())
        raise InterventionError(f"These weights cannot make `{name} = {value}`. They know: {names}.")
    return said


def _filled(rows: Tensor, size: int) -> Tensor:
    """Rows filled up to `size` with copies of the last."""
    return rows if len(rows) == size else torch.cat([rows, rows[-1:].expand(size - len(rows), *rows.shape[1:])])


def _shown(report: Report | None, what: str) -> Callable[[int, int], None] | None:
    return None if report is None else lambda done, total: report(what, done, total)
