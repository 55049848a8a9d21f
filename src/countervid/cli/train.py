"""`countervid train`: the bundled models from nothing, on rendered people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from countervid.cli.common import console, progress
from countervid.errors import ConfigError

if TYPE_CHECKING:
    from countervid.phantom.dataset import PhantomFrames

app = typer.Typer(no_args_is_help=True)

PEOPLE = {"train": 3000, "validation": 160, "examiner": 2500}  # rendered when a data folder is empty


@app.callback()
def group() -> None:
    """Train and evaluate the bundled models."""


@app.command()
def miniature(
    stage: Annotated[
        Optional[str], typer.Option(help="vae, identity, landmarks, parser, examiner, dva, or `all`.")
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
    workers: Annotated[int, typer.Option(help="Processes that render.")] = 2,
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
                note=console().log,
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


def _people(split: str, data: Path, count: int | None, workers: int) -> PhantomFrames:
    from countervid.phantom.dataset import DatasetConfig, PhantomFrames, people_of, render_dataset

    people = people_of(split, PEOPLE[split] if count is None else count)
    config = DatasetConfig(takes=2, frames=1, pairs=split != "examiner")  # many people rather than many frames
    with progress(f"rendering {split} people") as advance:
        folder = render_dataset(data / split, people, config, workers=workers, progress=advance)
    return PhantomFrames(folder, people)
