"""What the text-guided editors share: where they work, their prompts, windows, and what is kept.

They work on the aligned face or on the whole frame, at the size that their model was trained on. What is laid back is
the difference between the edited and the unedited latents as the VAE draws both: what the VAE cannot draw cancels, and
where nothing was edited the source stays, bit for bit. Long clips go through in windows that share frames.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from countervid import models
from countervid.autoencoder import celeba
from countervid.autoencoder.classifier import AttributeClassifier
from countervid.autoencoder.identity import IdentityNet
from countervid.autoencoder.recognizer import bundled_recognizer
from countervid.clip import Clip
from countervid.diffusion.blocks import seeded
from countervid.diffusion.stable import FramesPipeline, Held, load_pipeline
from countervid.diffusion.windows import Window, windows
from countervid.editors.base import Attributes, Guide, Prepared, Report, Seen, Target
from countervid.editors.cache import Cache, as_cache
from countervid.editors.store import Store, Tensors
from countervid.editors.taken import TakenCrops, TakenFrames, crops_by_window
from countervid.editors.text_drawing import Drawing, Payload, Region, loaded, shown
from countervid.editors.work import Work, text_probe, text_work
from countervid.errors import ClipError, ConfigError, InterventionError
from countervid.face.parse import MaskConfig, Part
from countervid.face.paste import MODES, Mode
from countervid.face.pipeline import FaceConfig, FacePipeline, FaceTrack
from countervid.models.device import choose_device
from countervid.models.finite import check_result

FORMAT = 2  # of what is stored
TRACK = "track.safetensors"
REGIONS = ("face", "frame")
AGAINST = ("drawn", "encoded")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
READ_SIZE = 128  # px: the crops that the bundled identity encoder reads
PUBLISHED = {  # what CSVC has in common for its editors
    "steps": 50, "region": "frame", "against": "encoded", "floor": 0.0, "window": 24,
    "negative_prompt": "ugly, blurry, low res, unrealistic, unaesthetic",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TextGuidedConfig:
    steps: int = 50  # of sampling
    guidance: float = 4.5  # how much the prompt counts; 1 is not at all more than none
    negative_prompt: str = ""  # what it should not show
    source_prompt: str = ""  # what the clip shows; said from its attributes unless given
    solver: str = "ddim"  # or dpm++2m: the same in fewer steps
    region: str = "face"  # what is edited: the aligned face, or the whole frame
    face: int = 0  # which one, counted from the largest
    part: Part = "head"  # what may change of the face
    paste: Mode = "adaptive"  # how the difference meets the source's detail, see `face/paste.py`
    # What an edit is held against: the clip drawn with its own prompt and the same guidance, so that what drawing does
    # to any picture cancels; or encoded, the clip's latents, as published.
    against: str = "drawn"
    floor: float = 0.3  # changes of latents below this many deviations are left out; 0 lays back every one
    window: int = 24  # frames that are edited together
    overlap: int = 4  # of them shared with the window before
    batch: int = 8  # frames at a time, where frames stand alone
    precision: str = "float32"  # or bfloat16, float16
    device: str = "auto"  # a GPU where there is one

    solvers: ClassVar[tuple[str, ...]] = ("ddim", "dpm++2m")
    least: ClassVar[int] = 1  # frames that the method needs

    def __post_init__(self) -> None:
        for name, known in (
            ("region", REGIONS),
            ("against", AGAINST),
            ("paste", MODES),
            ("solver", self.solvers),
            ("precision", tuple(PRECISIONS)),
        ):
            if getattr(self, name) not in known:
                raise ConfigError(f"`{name}` must be one of {', '.join(known)}, got `{getattr(self, name)}`.")
        if self.part not in ("head", "face"):
            raise ConfigError(f"`part` must be head or face, got `{self.part}`.")
        for name in ("steps", "batch", "window"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.overlap < self.window:
            raise ConfigError(f"`overlap` must lie in 0..{self.window - 1}, below `window`, got {self.overlap}.")
        if not math.isfinite(self.guidance):
            raise ConfigError(f"`guidance` must be a number, got {self.guidance}.")
        if self.floor < 0 or self.face < 0:
            raise ConfigError("`floor` and `face` must be 0 or more.")


class TextGuided:
    """An editor that is told by a prompt; a method brings its pipeline and its settings."""

    name: ClassVar[str]
    knobs: ClassVar[frozenset[str]] = frozenset({"prompt", "negative_prompt", "guidance", "strength"})
    Config: ClassVar[type[TextGuidedConfig]]
    Pipeline: ClassVar[type[FramesPipeline]]
    presets: ClassVar[dict[str, dict[str, object]]] = {}
    needs_pixels: ClassVar[bool] = False  # whether preparing looks at the frames too, not at latents alone

    def __init__(
        self, config: Any = None, *, model: str | Path | None = None, cache: Path | Cache | None = None
    ) -> None:
        """
        Args:
            config: Settings.
            model: A folder of any Stable Diffusion 1.x or 2.x, a hub's name, or None for the bundled miniature.
            cache: Where prepared clips are kept; None is `default_cache()`.

        Raises:
            ModelError: There is no such model, or it is of another kind.
        """
        self.config: Any = config or self.Config()
        self.cache = as_cache(cache)
        self.miniature = model is None
        self.device = choose_device(self.config.device)
        self.diffusion = load_pipeline(
            self.Pipeline, model, device=self.device, dtype=PRECISIONS[self.config.precision]
        )
        self._model = model
        self.diffusion.timesteps(self.config.steps)  # refuses a number of steps that cannot be had
        # Side of the crops that are taken while a clip is analysed, pixels: those that are edited, where faces are.
        self._read_at = self.diffusion.size if self.config.region == "face" else READ_SIZE
        self._taken: dict[str, TakenCrops | TakenFrames] = {}  # by the key of the clip's store, until it is prepared
        self.faces = FacePipeline(
            recognizer=bundled_recognizer(), config=FaceConfig(window=32, mask=MaskConfig(part=self.config.part))
        )

    def weights(self) -> dict[str, str]:
        """Checksums of the weights in use; of a hub's model, its name and revision."""
        if self._model is not None and not Path(self._model).exists():
            return {"hub": f"{self._model}@{getattr(self.diffusion.unet.config, '_commit_hash', None)}"}
        root = models.bundled("text-to-image") if self._model is None else Path(self._model)
        folders = [root, *([models.bundled(name) for name in ("vae", "clip")] if self._model is None else [])]
        return {
            f"{folder.name}/{file.relative_to(folder).as_posix()}": models.sha256(file)
            for folder in folders
            for file in sorted(folder.rglob("*.safetensors"))
        }

    def costs(self) -> dict[str, int]:
        """What this editor has computed so far: evaluations of the U-Net (frames and streams), loads of its weights."""
        return {"unet_evaluations": self.diffusion.evaluations, "model_loads": 1}

    def work(self, clip: Clip, edits: int = 1) -> Work:
        """What preparing a clip and so many edits compute and keep."""
        return text_work(self, clip, edits)

    def probe(self, clip: Clip) -> float:
        """Seconds that an evaluation takes, a frame: one window is evaluated twice, and the second time is measured."""
        text_probe(self, clip)
        started = time.perf_counter()
        text_probe(self, clip)
        return (time.perf_counter() - started) / min(len(clip), int(self.config.window))

    def check(self, do: Attributes, guide: Guide | None = None) -> None:
        """Refuse at once what `edit` would refuse after the clip is prepared."""
        if guide is not None:
            raise InterventionError(
                f"`{self.name}` is told by the graph's prompt: `--attribute` and `--target-text` are of `dva`."
            )

    # --- once a clip -------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def look(self, clip: Clip, *, report: Report | None = None) -> Prepared:
        """The part of `prepare` that `read` needs.

        Raises:
            FaceError: The clip shows no face, or not so many.
        """
        origin = {
            "format": FORMAT, "clip": clip.digest(), "face": self.config.face, "faces": self.faces.names(),
            "size": self._read_at,
        }  # fmt: skip
        store = Store(self.cache, self.name, origin, clip)
        track = self._track(clip, store, report)
        identity = store.fetch("identity", lambda: {"mean": self._identity(clip, track)})["mean"]
        counts = track.counts()
        facts = {
            "faces": track.describe(), "frames": len(clip), "frames_without_face": counts["absent"], "track": counts,
        }  # fmt: skip
        return Prepared(
            editor=self.name, key=store.key, clip=clip, factual={}, store=store, facts=facts, track=track,
            payload=identity,
        )  # fmt: skip

    def read(self, prepared: Prepared) -> dict[str, Seen]:
        """The attributes that the face shows, with their probabilities, as the bundled classifier sees them."""
        classifier = AttributeClassifier.from_pretrained(models.bundled("dva") / "classifier")
        probabilities = {
            name: dict(zip(classifier.variables[name], values[0].tolist(), strict=True))
            for name, values in classifier.probabilities(prepared.payload[None]).items()
        }
        readings = celeba.reading(probabilities).items()
        best = {name: max(chances, key=chances.__getitem__) for name, chances in readings}
        return {name: Seen(value=best[name], confidence=chances[best[name]]) for name, chances in readings}

    @torch.no_grad()
    def prepare(self, clip: Clip, factual: Attributes, *, prompt: str = "", report: Report | None = None) -> Prepared:
        """Encode, invert and whatever the method does once a clip; found again by content, taken up where it stopped.

        Args:
            prompt: What the clip shows, unless the settings say it.

        Raises:
            FaceError: The clip shows no face, or not so many.
            ClipError: Fewer frames than the method needs.
        """
        started = self.look(clip, report=report)
        assert started.track is not None
        said = self.config.source_prompt or prompt
        settings = asdict(self.config)
        for name in ("guidance", "negative_prompt", "against", "floor", "paste", "part", "device"):
            settings.pop(name)  # what is prepared does not depend on them
        settings.pop("keep_mb", None)  # what is kept of it is found again, whatever may be kept now
        origin = {
            "format": FORMAT, "clip": clip.digest(), "settings": settings, "weights": self.weights(), "prompt": said,
            "faces": started.track.settings,
        }  # fmt: skip
        place = Region(self.config.region, clip, started.track, self.diffusion.size, self.diffusion.factor)
        taken = self._taken.pop(started.key, None)
        place.taken = taken if taken is not None and taken.complete else None
        if len(place.frames) < self.config.least:
            raise ClipError(
                f"`{self.name}` needs at least {self.config.least} frames to edit, this clip has {len(place.frames)}."
            )
        store = Store(self.cache, self.name, origin, clip)
        parts = windows(len(place.frames), self.config.window, self.config.overlap)
        tell = shown(report, "encoding")
        for i, part in enumerate(parts):
            store.fetch(f"latents/{part.start:08d}", lambda p=part: self._encoded(place, p))  # type: ignore[misc]
            if tell:
                tell(i + 1, len(parts))
        self.tune(store, parts, said, report)
        before: Tensors | None = None
        for i, part in enumerate(parts):
            before = store.fetch(
                f"prepared/{part.start:08d}",
                lambda b=before, i=i: self._prepared(store, place, parts, i, b, said, report),  # type: ignore[misc]
            )
        place.taken = None
        if taken is not None:
            taken.close()
        facts = {**started.facts, "region": self.config.region, "windows": len(parts), "source_prompt": said}
        cut = self.diffusion.words(said).cut
        if cut:
            facts["source_prompt_cut"] = cut
        return replace(
            started, key=store.key, store=store, factual=dict(factual), facts=facts, payload=Payload(place, parts)
        )

    def pixels(self, latents: Tensor) -> Tensor:
        """Pictures of latents, `(n, H, W, 3)`, 0..255 and a little beyond."""
        drawn = self.diffusion.decode(latents.to(self.diffusion.unet.dtype), self.config.batch).float().cpu()
        check_result(drawn, f"What `{self.name}` drew")
        return (drawn.permute(0, 2, 3, 1) + 1) * 127.5

    def tune(self, store: Store, parts: list[Window], prompt: str, report: Report | None) -> None:
        """What a method trains on the clip, before anything is inverted. Nothing unless it says otherwise."""

    def made_ready(self, store: Store) -> None:
        """What a method must have at hand before it samples this clip. Nothing unless it says otherwise."""

    def _prepared(
        self, store: Store, place: Region, parts: list[Window], index: int, before: Tensors | None, prompt: str,
        report: Report | None,
    ) -> Tensors:  # fmt: skip
        part, count, config = parts[index], len(parts), self.config
        latents = loaded(store, f"latents/{part.start:08d}")["latents"].to(self.device, self.diffusion.unet.dtype)
        held = None
        if before is not None and part.held and "tail" in before:
            held = Held(before["tail"])
        tell = shown(report, f"preparing window {index + 1} of {count}" if count > 1 else "preparing")
        self.made_ready(store)
        more: dict[str, Any] = {"frames": place.pixels(part)[1]} if self.needs_pixels else {}
        if hasattr(config, "keep_mb"):  # a window's share of what may be kept of the clip
            config = replace(config, keep_mb=config.keep_mb * len(part.own) / len(place.frames))
        made = self.inverted(latents, prompt, config, generator=seeded(part.start), held=held, progress=tell, **more)
        path = made.pop("path", None)
        if path is not None and index + 1 < count and parts[index + 1].held:
            made["tail"] = path[:, -parts[index + 1].held :].clone()
        return {name: tensor.cpu() for name, tensor in made.items()}

    def inverted(self, *arguments: Any, **options: Any) -> Tensors:
        """What the method's pipeline prepares of one window."""
        return self.diffusion.prepare(*arguments, **options)

    def _latents(self, pixels: Tensor) -> Tensor:
        return self.diffusion.encode(pixels * 2 - 1, batch=self.config.batch).float().cpu()

    def _encoded(self, place: Region, part: Window) -> Tensors:
        if isinstance(place.taken, TakenFrames):
            return {"latents": place.taken.latents(part)}
        _, pixels = place.pixels(part)
        result = {"latents": self._latents(pixels)}
        if self.config.region == "face":
            crops = (pixels * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
            result["labels"] = self.faces.parser(crops)
        return result

    def _track(self, clip: Clip, store: Store, report: Report | None) -> FaceTrack:
        def analyze(path: Path) -> None:
            for left in self._taken.values():  # of a clip that was looked at and never prepared
                left.close()
            self._taken.clear()
            crops, frames = TakenCrops(self._read_at, store.folder), None
            if self.config.region == "frame":
                frames = self._tap(clip, store)
            tell = shown(report, "finding the face")
            self.faces.analyze(clip if frames is None else frames.tapped(clip), self.config.face, tell, crops).save(
                path
            )
            track = FaceTrack.load(path)
            store.fetch("identity", lambda: {"mean": self._identity(clip, track, crops)})
            if frames is not None:
                crops.close()
            self._taken[store.key] = frames or crops

        return store.fetch_file(TRACK, analyze, FaceTrack.load)

    def _tap(self, clip: Clip, store: Store) -> TakenFrames:
        place = Region("frame", clip, None, self.diffusion.size, self.diffusion.factor)
        parts = windows(len(clip), self.config.window, self.config.overlap)
        return TakenFrames(store.folder, parts, place.fit, self._latents, self.needs_pixels)

    @torch.no_grad()
    def _identity(self, clip: Clip, track: FaceTrack, taken: TakenCrops | None = None) -> Tensor:
        net = IdentityNet.from_folder(models.bundled("identity"))
        total = torch.zeros(net.config.dimensions, dtype=torch.float64)
        window, size = self.faces.config.window, self._read_at
        starts = [start for start in range(0, len(track), window) if len(track.frames(start, start + window))]
        for _, _, crops in crops_by_window(clip, track, starts, window, size, taken):
            images = crops.permute(0, 3, 1, 2).float() / 127.5 - 1
            if size != READ_SIZE:
                images = F.interpolate(images, (READ_SIZE, READ_SIZE), mode="bilinear", antialias=True)
            total += net(images).double().sum(0)
        return F.normalize(total, dim=0).float()

    # --- once a target -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def edit(self, prepared: Prepared, target: Target, *, report: Report | None = None) -> Clip:
        """The edited clip, lazily; each window's latents are kept once they are drawn.

        Raises:
            InterventionError: The prompt is empty.
        """
        if target.asks_for_nothing:
            return prepared.clip
        if not target.prompt.strip():
            raise InterventionError(f"`{self.name}` needs a prompt: say in words what the clip should show.")
        if len({target.amount(name) for name in target.changed}) > 1:
            raise ConfigError(f"`{self.name}` moves all attributes together: `--amount` is of `dva`. Use `--strength`.")
        drawing = Drawing(self, prepared, target, report)
        payload: Payload = prepared.payload
        if payload.place.region == "frame":
            return prepared.clip.mapped(drawing.whole, self.config.window)
        assert prepared.track is not None
        return self.faces.pasted(prepared.clip, prepared.track, drawing.edits, self.config.paste)
