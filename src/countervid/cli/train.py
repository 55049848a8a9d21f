"""`countervid train`: the autoencoder on anybody's videos, and the bundled models from nothing on rendered people."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from countervid.cli.common import console, progress
from countervid.errors import ConfigError
from countervid.files.locks import alone_in

if TYPE_CHECKING:
    import torch

    from countervid.autoencoder.faces import FaceNetworks
    from countervid.phantom.dataset import PhantomFrames

app = typer.Typer(no_args_is_help=True)

NetworksOption = Annotated[
    Optional[Path],
    typer.Option(help="Folder of the frozen networks, as `models import` writes it; the bundled ones by default."),
]
CpuOption = Annotated[bool, typer.Option("--cpu", help="Leave GPUs alone.")]
PeopleOption = Annotated[int, typer.Option(help="How many people `--data phantom` renders.")]
WorkersOption = Annotated[int, typer.Option(help="Processes that render.")]

PEOPLE = {"train": 3000, "validation": 160, "examiner": 2500}  # rendered when a data folder is empty


@app.callback()
def group() -> None:
    """Train the autoencoder, and train and evaluate the bundled models."""


@app.command()
def miniature(
    stage: Annotated[
        Optional[str],
        typer.Option(
            help="vae, identity, landmarks, parser, examiner, dva, classifier, couple, recouple, clip, or `all`."
        ),
    ] = None,
    evaluate: Annotated[bool, typer.Option("--evaluate", help="Measure the finished miniature, end to end.")] = False,
    data: Annotated[Path, typer.Option(help="Rendered people; rendered here if absent.")] = Path("checkpoints/data"),
    runs: Annotated[Path, typer.Option(help="States, logs and sample sheets of the training runs.")] = Path(
        "checkpoints/miniature"
    ),
    models: Annotated[
        Optional[Path], typer.Option(help="Where finished models are written; the bundled ones by default.")
    ] = None,
    steps: Annotated[Optional[int], typer.Option(help="Instead of the stage's own number.")] = None,
    batch: Annotated[Optional[int], typer.Option(help="Instead of the stage's own size.")] = None,
    seed: Annotated[Optional[int], typer.Option(help="Instead of the stage's own.")] = None,
    start: Annotated[
        Optional[Path], typer.Option(help="A folder of models to train on from, instead of from random weights.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ... or auto, a GPU where there is one.")] = "auto",
    people: Annotated[Optional[int], typer.Option(help="How many people to render for training.")] = None,
    clips: Annotated[int, typer.Option(help="Unseen people that --evaluate edits.")] = 24,
    workers: WorkersOption = 2,
) -> None:
    """Train a stage of the miniature; the same command resumes. Then, or only, measure it."""
    from countervid.models import bundled_folder, seal
    from countervid.models.device import choose_device
    from countervid.training.miniature import STAGES
    from countervid.training.run import train_stage

    target = bundled_folder() if models is None else models
    if stage is None and not evaluate:
        raise ConfigError(f"Nothing to do. Give --stage (one of {', '.join(STAGES)}, all) or --evaluate.")
    if stage not in (None, "all", *STAGES):
        raise ConfigError(f"`{stage}` is not a stage. Use one of: {', '.join(STAGES)}, all.")
    if start is not None and not start.is_dir():
        raise ConfigError(f"`--start {start}` is not a folder of models. Give one that an earlier training wrote.")
    place = choose_device(device)
    for name in STAGES if stage == "all" else [stage] if stage else []:
        plan = STAGES[name]
        train = _people("examiner" if name == "examiner" else "train", data, people, workers)
        validation = _people("validation", data, None, workers)
        total = plan.loop.steps if steps is None else steps
        with progress(f"{name}: training") as advance:

            def report(step: int, means: Mapping[str, float], total: int = total) -> None:
                advance(step, total)

            with alone_in(runs / name, "--runs"):
                figures = train_stage(
                    plan,
                    train,
                    validation,
                    runs / name,
                    target,
                    steps=steps,
                    batch=batch,
                    seed=seed,
                    start=start,
                    device=place,
                    report=report,
                    note=console().print,
                )
        for what, value in figures.items():
            console().print(f"{name}: {what} {value:.2f}")
    if evaluate:
        from countervid.training.evaluate import evaluate_miniature

        with progress("measuring") as advance:
            table = evaluate_miniature(clips, out=runs / "evaluation", models=target, progress=advance)
        console().print(table)
    if target == bundled_folder():
        seal()


@app.command()
def autoencoder(
    data: Annotated[
        str, typer.Option(help="ROOT of ROOT/{train,test}/VIDEO/FRAME.png, or `phantom`: rendered people.")
    ],
    preset: Annotated[str, typer.Option(help="paper-256, the published system; or miniature.")] = "paper-256",
    out: Annotated[Path, typer.Option(help="The training's folder; the same command resumes it.")] = Path(
        "checkpoints/autoencoder"
    ),
    networks: NetworksOption = None,
    steps: Annotated[Optional[int], typer.Option(help="Instead of the preset's number.")] = None,
    videos: Annotated[Optional[int], typer.Option(help="Videos a step, over all processes.")] = None,
    frames: Annotated[Optional[int], typer.Option(help="Frames of each video a step.")] = None,
    lr: Annotated[Optional[float], typer.Option(help="Learning rate, instead of the preset's.")] = None,
    accumulate: Annotated[Optional[int], typer.Option(help="Batches whose gradients make a step.")] = None,
    precision: Annotated[Optional[str], typer.Option(help="no, bf16 or fp16.")] = None,
    seed: Annotated[Optional[int], typer.Option(help="Instead of the preset's.")] = None,
    tracker: Annotated[
        Optional[list[str]], typer.Option(help="Also log to tensorboard, wandb ...; repeat it for several.")
    ] = None,
    people: PeopleOption = 1000,
    cpu: CpuOption = False,
    workers: WorkersOption = 2,
) -> None:
    """Train the diffusion video autoencoder; under `accelerate launch` on many GPUs. The same command resumes."""
    from dataclasses import replace

    from accelerate import PartialState

    from countervid.training.autoencoder import PRESETS, FolderSource, PhantomSource, Source, train
    from countervid.training.videos import VideoFolders

    if preset not in PRESETS:
        raise ConfigError(f"There is no preset `{preset}`. There are: {', '.join(PRESETS)}.")
    seen, folders = _networks(networks, cpu)
    config = PRESETS[preset](seen)
    given: dict[str, Any] = {
        "steps": steps, "videos": videos, "frames": frames, "lr": lr, "accumulate": accumulate, "precision": precision,
        "seed": seed,
    }  # fmt: skip
    config = replace(config, **{name: value for name, value in given.items() if value is not None})
    if config.model.unet.in_channels != seen.codec.channels or config.model.unet.size * seen.codec.factor != seen.size:
        raise ConfigError(
            f"The preset {preset} does not fit the frozen networks in {folders['identity'].parent}: they see "
            f"{seen.size} px and give {seen.codec.channels} channels. Use "
            + ("--preset miniature, or --networks with imported ones." if networks is None else "another preset.")
        )
    sources: list[Source] = []
    place = PartialState(cpu=cpu)  # of several processes one renders and speaks
    for split in ("train", "test"):
        if data == "phantom":
            rendered = "train" if split == "train" else "validation"
            count = people if split == "train" else None
            with place.main_process_first():
                sources.append(PhantomSource(_people(rendered, out.parent / "data", count, workers)))
            continue
        with progress(f"looking at {split}") as advance:
            found = VideoFolders.scan(Path(data), split, least=config.frames, check=advance)
        if found.skipped:
            console().print(f"{split}: left out {len(found.skipped)}, such as {found.skipped[0]}", style="yellow")
        sources.append(FolderSource(found, seen.size, config.seed))
    with progress("training") as advance:

        def report(step: int, means: Mapping[str, float]) -> None:
            advance(step, config.steps)

        with alone_in(out) if place.is_main_process else nullcontext():
            figures = train(
                sources[0], sources[1], seen, out, config, keep=folders, trackers=tuple(tracker or ()), cpu=cpu,
                report=report, note=console().print,
            )  # fmt: skip
    if not place.is_main_process:
        return
    for name, value in figures.items():
        console().print(f"{name.replace('_', ' ')}: {value:.4f}")
    if (out / "dva" / "classifier").is_dir():
        console().print(f"Use it: countervid edit CLIP --do age=old --model {out}", soft_wrap=True)
    else:
        source = "phantom" if data == "phantom" else "CELEBA_HQ"
        console().print(
            f"For edits by attribute: countervid train classifier --data {source} --model {out}", soft_wrap=True
        )


@app.command()
def statistics(
    data: Annotated[
        str, typer.Option(help="ROOT of ROOT/{train,test}/VIDEO/FRAME.png, or `phantom`: rendered people.")
    ],
    networks: NetworksOption = None,
    split: Annotated[str, typer.Option(help="train or test.")] = "test",
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("checkpoints/statistics.safetensors"),
    people: PeopleOption = 1000,
    cpu: CpuOption = False,
    workers: WorkersOption = 2,
) -> None:
    """Mean and spread of all frames' identity vectors, which normalise those that the classifier reads."""
    from countervid.training.classifier import frames_of, save_statistics, statistics_of, vectors_of, vectors_of_people

    seen, _ = _networks(networks, cpu)
    device = _device(cpu)
    if data == "phantom":
        rendered = _people("train", out.parent / "data", people, workers)
        with progress("looking") as advance:
            vectors = vectors_of_people(rendered, seen, device, advance)
    else:
        files = frames_of(Path(data), split)
        with progress("looking") as advance:
            vectors = vectors_of(files, seen, device, advance)
    save_statistics(statistics_of(iter(vectors.split(4096)), vectors.shape[1]), out)
    console().print(f"Statistics of {len(vectors):,} vectors in {out}", soft_wrap=True)


@app.command()
def classifier(
    data: Annotated[str, typer.Option(help="CelebA-HQ, the folder of CelebAMask-HQ-attribute-anno.txt; or `phantom`.")],
    model: Annotated[Path, typer.Option(help="The autoencoder's folder: the classifier goes to MODEL/dva/classifier.")],
    networks: NetworksOption = None,
    statistics: Annotated[Optional[Path], typer.Option(help="Of `train statistics`; else of these pictures.")] = None,
    people: PeopleOption = 1000,
    cpu: CpuOption = False,
    workers: WorkersOption = 2,
) -> None:
    """Learn to read attributes from identity vectors: what `edit --do` and `--attribute` move along."""
    from countervid.training.classifier import load_statistics, train_celeba, train_phantom

    seen, _ = _networks(networks if networks is not None else model, cpu)
    known = None if statistics is None else load_statistics(statistics)
    if data == "phantom":
        folder = model.parent / "data"
        rendered = _people("train", folder, people, workers), _people("validation", folder, None, workers)
        with progress("looking") as advance:
            learnt, figures = train_phantom(*rendered, seen, _device(cpu), statistics=known, progress=advance)
    else:
        with progress("looking") as advance:
            learnt, figures = train_celeba(Path(data), seen, _device(cpu), statistics=known, progress=advance)
    learnt.save_pretrained(model / "dva" / "classifier")
    for name, right in figures.items():
        console().print(f"{name}: {right:.1f} % right on pictures it did not learn from")
    console().print(f"{len(learnt.variables)} attributes in {model / 'dva' / 'classifier'}", soft_wrap=True)


def _device(cpu: bool) -> torch.device:
    from countervid.models.device import choose_device

    return choose_device("cpu" if cpu else "auto")


def _networks(folder: Path | None, cpu: bool) -> tuple[FaceNetworks, dict[str, Path]]:
    """The frozen networks of a folder, or the bundled ones, and their folders by role."""
    from countervid.autoencoder.faces import load_networks
    from countervid.models import available, bundled

    roles = ("identity", "vae", "landmarks", "parser")
    if folder is None:
        folders = {role: bundled(role) for role in roles if role in available()}
    elif folder.is_dir():
        folders = {role: folder / role for role in roles if (folder / role).is_dir()}
    else:
        raise ConfigError(f"`{folder}` is not a folder of networks. `countervid models import` writes one.")
    return load_networks(folders, _device(cpu)), folders


def _people(split: str, data: Path, count: int | None, workers: int) -> PhantomFrames:
    from countervid.phantom.dataset import DatasetConfig, PhantomFrames, people_of, render_dataset

    people = people_of(split, PEOPLE[split] if count is None else count)
    config = DatasetConfig(takes=2, frames=1, pairs=split != "examiner")  # many people rather than many frames
    with progress(f"rendering {split} people") as advance:
        folder = render_dataset(data / split, people, config, workers=workers, progress=advance)
    return PhantomFrames(folder, people)
