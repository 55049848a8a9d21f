"""Training the diffusion video autoencoder on anybody's videos, from one CPU to many GPUs.

The recipe of the published code (arXiv:2212.02802): frames of a few videos a step, two draws of noise, Adam, a slow
average of the weights. What does not learn is asked once a step, not once a draw. Randomness comes from the seed, the
step and the process alone: a run that was stopped and resumed takes the very steps of one that was not.
"""

from __future__ import annotations

import json
import resource
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.tracking import LoggerType, get_available_trackers
from accelerate.utils import ProjectConfiguration
from torch import Tensor, nn

from countervid.autoencoder.config import AutoencoderConfig, LossConfig, miniature, published
from countervid.autoencoder.faces import FaceNetworks
from countervid.autoencoder.model import DiffusionAutoencoder
from countervid.clip.sheets import write_rows
from countervid.errors import ConfigError, ModelError
from countervid.face.parse import NOT_FACE
from countervid.files.stopping import after_this_step
from countervid.files.whole import write_whole
from countervid.phantom.dataset import PhantomFrames
from countervid.training.crops import draw, images
from countervid.training.loop import average_into, read_state, save_whole
from countervid.training.videos import VideoFolders

Report = Callable[[int, Mapping[str, float]], None]

STATE = "state.pt"
_VALIDATION_BATCHES = 4


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How training goes; the defaults are the published numbers."""

    model: AutoencoderConfig = field(default_factory=published)
    loss: LossConfig = field(default_factory=LossConfig)
    steps: int = 1_000_000
    videos: int = 4  # a step, over all processes
    frames: int = 4  # of each video
    lr: float = 1e-4
    warmup: int = 0  # steps
    clip: float = 1.0  # gradient norm
    ema: float = 0.9999  # reached after some thousand steps, (1 + step) / (10 + step) before
    accumulate: int = 1  # batches a step
    precision: str = "fp16"  # "no", "bf16" or "fp16"
    seed: int = 0
    save_every: int = 2500  # steps
    save_seconds: float = 1800.0  # and after so long at the latest
    sample_every: int = 2500
    validate_every: int = 2500
    log_every: int = 20
    sample_steps: int = 20

    def __post_init__(self) -> None:
        for name in ("steps", "videos", "frames", "accumulate", "save_every", "sample_every", "log_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.precision not in ("no", "bf16", "fp16"):
            raise ConfigError(f'`precision` is "no", "bf16" or "fp16", got "{self.precision}".')


PRESETS: Mapping[str, Callable[[FaceNetworks], TrainConfig]] = {
    "paper-256": lambda networks: TrainConfig(),
    "miniature": lambda networks: TrainConfig(
        model=miniature(networks.codec.channels),
        loss=LossConfig(distance="mse", noise_terms=1, regulariser_weight=0.0),
        steps=6000, videos=8, frames=4, lr=1e-3, warmup=200, ema=0.9995, precision="no",
        save_every=200, save_seconds=60.0, sample_every=500, validate_every=200, log_every=5,
    ),
}  # fmt: skip
"""Named beginnings: the published system, and the one that learns on a laptop."""


class Source(Protocol):
    """Where frames come from."""

    def batch(self, generator: torch.Generator, step: int, videos: int, frames: int) -> tuple[Tensor, Tensor]:
        """Crops `(videos * frames, 3, S, S)` in [-1, 1], and landmarks `(..., 68, 2)` as fractions (or empty)."""
        ...


@dataclass(frozen=True)
class FolderSource:
    """Aligned frames on disk."""

    folders: VideoFolders
    size: int
    seed: int

    def batch(self, generator: torch.Generator, step: int, videos: int, frames: int) -> tuple[Tensor, Tensor]:
        count = len(self.folders.videos)
        first = step * videos
        chosen = [self.folders.epoch(n // count, self.seed)[n % count] for n in range(first, first + videos)]
        return self.folders.draw(generator, chosen, frames, self.size), torch.empty(0)


@dataclass(frozen=True)
class PhantomSource:
    """Rendered people: no files are needed, and the landmarks are the true ones."""

    people: PhantomFrames

    def batch(self, generator: torch.Generator, step: int, videos: int, frames: int) -> tuple[Tensor, Tensor]:
        rows = draw(videos * frames, torch.arange(len(self.people)), generator)
        points = (self.people.column("landmarks")[rows] + 0.5) / self.people.size
        return images(self.people, rows), points.float()


class _Step(nn.Module):
    """The loss as a module's call, which is what data-parallel training wraps."""

    def __init__(self, model: DiffusionAutoencoder, loss: LossConfig) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, x: Tensor, z_id: Tensor, z_lnd: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.model.loss(x, z_id, z_lnd, mask=mask, config=self.loss)
        return found.total, found.noise.mean(), found.regulariser.sum() / max(1, len(found.regulariser))


def train(
    train_source: Source,
    test_source: Source,
    networks: FaceNetworks,
    out: Path,
    config: TrainConfig,
    *,
    keep: Mapping[str, Path] | None = None,
    trackers: tuple[str, ...] = (),
    cpu: bool = False,
    report: Report | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> dict[str, float]:
    """Train until `config.steps`, from `out/state.pt` where there is one.

    Args:
        train_source, test_source: Where frames come from; nobody is in both.
        networks: What describes faces; they do not learn.
        out: Gets `state.pt`, `log.jsonl`, `samples/`, and `dva/`, the averaged weights. With the folders in `keep` it
            is what `countervid edit --model` takes.
        config: How.
        keep: Role -> folder of the networks, copied beside the result.
        trackers: Of accelerate's, by name: `tensorboard`, `wandb` ...
        cpu: Leave GPUs alone.
        report: Called every `log_every` steps with the step and its means.
        note: Told of samples and validations.

    Returns:
        The last validation's figures.

    Raises:
        ModelError: The loss is no longer a number; the last good state stays in `out`. Or `out` holds another training.
    """
    _check_trackers(trackers)
    accelerator = Accelerator(
        mixed_precision=config.precision,
        gradient_accumulation_steps=config.accumulate,
        log_with=list(trackers) or None,
        project_config=ProjectConfiguration(project_dir=str(out), logging_dir=str(out / "tracked")),
        cpu=cpu,
    )
    out.mkdir(parents=True, exist_ok=True)
    processes, rank, main = accelerator.num_processes, accelerator.process_index, accelerator.is_main_process
    if config.videos % processes:
        raise ConfigError(
            f"{config.videos} videos a step do not divide among {processes} processes. Choose another number."
        )
    torch.manual_seed(config.seed)
    model = DiffusionAutoencoder(config.model)
    average = DiffusionAutoencoder(config.model).requires_grad_(False).eval()
    average.load_state_dict(model.state_dict())
    average.to(accelerator.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    step = 0
    figures: dict[str, float] = {}
    state = _resumed(out, config)
    if state is not None:
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
    wrapped, optimizer = accelerator.prepare(_Step(model, config.loss), optimizer)
    if state is not None:
        optimizer.load_state_dict(state["optimizer"])
        if accelerator.scaler is not None and state["scaler"]:
            accelerator.scaler.load_state_dict(state["scaler"])
        step = int(state["step"])
        if main:
            _forget_after(out, step)
    if trackers:
        accelerator.init_trackers("countervid", config={"steps": config.steps, "lr": config.lr})

    sums: dict[str, float] = {}
    counted, began, seen = 0, time.monotonic(), config.videos * config.frames * config.accumulate
    saved = began
    speed: dict[str, float] = {}
    with after_this_step() as stop:  # a step is taken whole, and nothing of it is lost
        while step < config.steps:
            for group in optimizer.param_groups:
                group["lr"] = config.lr * min(1.0, (step + 1) / max(1, config.warmup))
            losses: list[Tensor] = []
            for part in range(config.accumulate):
                number = (step * config.accumulate + part) * processes + rank
                torch.manual_seed(config.seed * 1_000_003 + number)  # dropout, noise and steps
                batch = _described(
                    train_source, networks, config, torch.Generator().manual_seed(config.seed * 15_485_863 + number),
                    number, config.videos // processes, accelerator.device,
                )  # fmt: skip
                with accelerator.accumulate(wrapped):
                    total, noise, regulariser = wrapped(*batch)
                    accelerator.backward(total)
                    losses.append(torch.stack([total.detach(), noise, regulariser]))
                    if accelerator.sync_gradients:
                        means = accelerator.gather(torch.stack(losses).mean(0)[None]).mean(0)
                        if not torch.isfinite(means).all():
                            raise ModelError(
                                f"Training in {out} stopped at step {step}: the loss is not a number. The last good "
                                "state is kept; lower the learning rate or the precision and run the same command."
                            )
                        accelerator.clip_grad_norm_(wrapped.parameters(), config.clip)
                    optimizer.step()
                    optimizer.zero_grad()
            step += 1
            average_into(average, accelerator.unwrap_model(wrapped).model, min(config.ema, (1 + step) / (10 + step)))
            for name, value in zip(("loss", "noise", "regulariser"), means.tolist(), strict=True):
                sums[name] = sums.get(name, 0.0) + value
            counted += 1
            last = step == config.steps
            if main and (step % config.log_every == 0 or last):
                seconds = time.monotonic() - began
                values = {name: value / counted for name, value in sums.items()}
                speed = {
                    "images_per_second": seen * counted / max(seconds, 1e-9),
                    "memory_gb": _memory(accelerator.device),
                }
                values |= speed
                _log(out, {"step": step, **values})
                accelerator.log(values, step=step)
                if report is not None:
                    report(step, values)
                sums, counted, began = {}, 0, time.monotonic()
            if main and (step % config.validate_every == 0 or last):
                figures = validate(average, test_source, networks, config, accelerator.device)
                _log(out, {"step": step, **figures})
                accelerator.log(figures, step=step)
                pace = [f"{value:.1f} {name.replace('_', ' ')}" for name, value in speed.items()]
                note(", ".join([f"step {step}: validation loss {figures['validation_loss']:.4f}", *pace]))
            if main and (step % config.sample_every == 0 or last):
                path = out / "samples" / f"{step:08d}.png"
                _samples(average, test_source, networks, config, accelerator.device, path)
                note(f"step {step}: samples in {path}")
            overdue = bool(stop.asked) or time.monotonic() - saved > config.save_seconds
            if main and (step % config.save_every == 0 or overdue or last):
                scaler = accelerator.scaler
                save_whole(
                    out / STATE,
                    {
                        "config": json.dumps(asdict(config)),
                        "step": step,
                        "model": accelerator.unwrap_model(wrapped).model.state_dict(),
                        "average": average.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "scaler": scaler.state_dict() if scaler is not None else {},
                    },
                )
                average.save_pretrained(out / "dva", dtype=torch.float32)
                saved = time.monotonic()
                began = saved if counted == 0 else began
            stop.raise_asked()
    if main:
        for role, folder in (keep or {}).items():
            target = out / role
            if folder.is_dir() and not target.exists():
                shutil.copytree(folder, target)
    if trackers:
        accelerator.end_training()
    return figures


@torch.no_grad()
def validate(
    model: DiffusionAutoencoder, source: Source, networks: FaceNetworks, config: TrainConfig, device: torch.device
) -> dict[str, float]:
    """The loss on a few fixed batches of unseen people: the same frames, steps and noise every time."""
    losses = []
    for number in range(_VALIDATION_BATCHES):
        x, z_id, z_lnd, mask = _described(
            source, networks, config, torch.Generator().manual_seed(number), number, config.videos, device
        )
        generator = torch.Generator().manual_seed(number)
        t = torch.randint(config.model.train_steps, (len(x),), generator=generator).to(device)
        first, second = (torch.randn(x.shape, generator=generator).to(device) for _ in range(2))
        found = model.loss(x, z_id, z_lnd, mask=mask, config=config.loss, t=t, noises=(first, second))
        losses.append(float(found.total))
    return {"validation_loss": sum(losses) / len(losses)}


@torch.no_grad()
def _described(
    source: Source,
    networks: FaceNetworks,
    config: TrainConfig,
    generator: torch.Generator,
    step: int,
    videos: int,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A batch as the loss takes it: what is diffused, identities, poses, and the mask of the face."""
    pictures, landmarks = source.batch(generator, step, videos, config.frames)
    pictures, landmarks = pictures.to(device), landmarks.to(device)
    x = networks.codec.encode(pictures)
    z_id, z_lnd = networks.identity(pictures), networks.pose(pictures, landmarks)
    if config.loss.regulariser_weight == 0 or networks.parser is None:
        return x, z_id, z_lnd, x.new_ones(len(x), 1, *x.shape[2:])
    crops = ((pictures + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
    labels = networks.parser(crops).to(device)
    face = (~torch.isin(labels, torch.tensor(NOT_FACE, device=device))).float()[:, None]
    return x, z_id, z_lnd, F.interpolate(face, size=x.shape[2:])


@torch.no_grad()
def _samples(
    model: DiffusionAutoencoder,
    source: Source,
    networks: FaceNetworks,
    config: TrainConfig,
    device: torch.device,
    path: Path,
) -> None:
    """A sheet: frames, their codes and back, drawn from random noise, and with the next frame's identity."""
    x, z_id, z_lnd, _ = _described(source, networks, config, torch.Generator().manual_seed(0), 0, config.videos, device)
    x, z_id, z_lnd = x[:8], z_id[:8], z_lnd[:8]
    steps = config.sample_steps
    noise = model.encode(x, z_id, z_lnd, steps=steps)
    fresh = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(device)
    rows = {
        "frames": x,
        "codes and back": model.decode(noise, z_id, z_lnd, steps=steps),
        "from random noise": model.decode(fresh, z_id, z_lnd, steps=steps),
        "with the next one's identity": model.decode(noise, z_id.roll(-1, 0), z_lnd, steps=steps),
    }
    write_rows(path, {caption: networks.codec.decode(pictures).cpu() for caption, pictures in rows.items()})


def _resumed(out: Path, config: TrainConfig) -> dict[str, Any] | None:
    path = out / STATE
    if not path.exists():
        return None
    state = read_state(path)
    before, now = (json.loads(text) for text in (state["config"], json.dumps(asdict(config))))
    free = (
        "steps",
        "save_every",
        "save_seconds",
        "sample_every",
        "validate_every",
        "log_every",
        "sample_steps",
    )  # may change on the way
    changed = [name for name in now if name not in free and before.get(name) != now[name]]
    if changed:
        raise ModelError(
            f"{out} holds a training with another {', '.join(changed)}. "
            "Use the settings it began with, or another folder."
        )
    return state


def _check_trackers(names: tuple[str, ...]) -> None:
    known, there = [str(kind) for kind in LoggerType], {str(kind) for kind in get_available_trackers()}
    for name in names:
        if name not in known:
            raise ConfigError(f"There is no tracker `{name}`. There are: {', '.join(known)}.")
        if name not in (*there, "all"):
            raise ConfigError(f"The tracker `{name}` is not installed. Install it with pip, or leave it out.")


def _forget_after(out: Path, step: int) -> None:
    """Take out of the log what a resumed training will log again."""
    path = out / "log.jsonl"
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        write_whole(path, "".join(f"{line}\n" for line in kept))


def _log(out: Path, values: Mapping[str, float]) -> None:
    with open(out / "log.jsonl", "a", encoding="utf-8") as log:
        log.write(json.dumps({name: round(value, 6) for name, value in values.items()}) + "\n")


def _memory(device: torch.device) -> float:
    """Most memory used so far, in GB: the GPU's, or the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
