"""`countervid phantom`: render people and their true counterfactuals, contact sheets, training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from countervid.cli.common import DoOption, parse_do, progress

app = typer.Typer(no_args_is_help=True)

SizeOption = Annotated[int, typer.Option(help="Side of the picture in pixels, 64 to 512.", min=64, max=512)]
SeedOption = Annotated[int, typer.Option(help="The first person's seed; the others follow.", min=0)]


@app.callback()
def phantom() -> None:
    """Render people of the phantom world, and their true counterfactuals."""


@app.command("compile")
def compile_command() -> None:
    """Compile the renderer now, once for this machine, rather than when it first draws. Takes about a minute."""
    from countervid.phantom.world import render_clip, sample_person

    with progress("compiling the renderer"):
        render_clip(sample_person(0), frames=2, size=64, layers=True)
    typer.echo("The renderer is compiled.")


@app.command("render")
def render_command(
    out: Annotated[Path, typer.Option(help="Folder to write into.")],
    people: Annotated[int, typer.Option(help="How many people.", min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="Length of each clip.", min=0.04)] = 2.0,
    size: SizeOption = 256,
    seed: SeedOption = 0,
    take: Annotated[int, typer.Option(help="Which clip of each person: another scene and motion.", min=0)] = 0,
    fps: Annotated[float, typer.Option(help="Frames a second.", min=1.0, max=120.0)] = 25.0,
    do: DoOption = [],  # noqa: B006 (typer reads the default, nobody changes it)
) -> None:
    """Write clips with the truth for each --do, landmarks, masks and optical flow."""
    from countervid.phantom.export import write_person
    from countervid.phantom.scm import check_values
    from countervid.phantom.world import sample_person

    interventions = [parse_do([item]) for item in do]
    for intervention in interventions:
        check_values(intervention)
    frames = max(1, round(seconds * fps))
    with progress("people") as report:
        for index in range(people):
            report(index, people)
            write_person(
                out / f"person-{index:04d}",
                sample_person(seed + index),
                interventions,
                take=take,
                frames=frames,
                fps=fps,
                size=size,
            )
        report(people, people)
    typer.echo(f"{people} people, {frames} frames each, in {out}")


@app.command("sheet")
def sheet_command(
    out: Annotated[Path, typer.Option(help="Picture to write, .png or .jpg.")],
    people: Annotated[int, typer.Option(help="How many people: rows.", min=1, max=40)] = 5,
    size: SizeOption = 256,
    seed: SeedOption = 0,
    do: DoOption = [],  # noqa: B006
) -> None:
    """Draw a contact sheet: people in rows, the same moment under each intervention in columns."""
    from countervid.phantom.scm import check_values
    from countervid.phantom.sheet import INTERVENTIONS, write_sheet

    interventions = [parse_do([item]) for item in do]
    for intervention in interventions:
        check_values(intervention)
    with progress("pictures") as report:
        write_sheet(out, range(seed, seed + people), interventions or INTERVENTIONS, size=size, progress=report)
    typer.echo(str(out))


@app.command("dataset")
def dataset_command(
    out: Annotated[Path, typer.Option(help="Folder of the data set. The same command goes on where it stopped.")],
    split: Annotated[str, typer.Option(help="train, validation, test or examiner: disjoint people.")] = "train",
    people: Annotated[int, typer.Option(help="How many people.", min=1)] = 1000,
    takes: Annotated[int, typer.Option(help="Clips of each person.", min=1)] = 2,
    frames: Annotated[int, typer.Option(help="Frames of each clip, seconds apart.", min=1)] = 3,
    size: Annotated[int, typer.Option(help="Side of a crop in pixels.", min=32, max=512)] = 128,
    interventional: Annotated[
        float, typer.Option(help="Share of people with independent attributes.", min=0.0, max=1.0)
    ] = 0.5,
    pairs: Annotated[
        bool, typer.Option(help="Also each frame's true counterfactual, one intervention a person.")
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes.", min=1)] = 1,
) -> None:
    """Render aligned face crops with landmarks, masks and attributes, for training and for measuring."""
    from countervid.phantom.dataset import DatasetConfig, people_of, render_dataset

    config = DatasetConfig(takes=takes, frames=frames, size=size, interventional=interventional, pairs=pairs)
    with progress("people") as report:
        render_dataset(out, people_of(split, people), config, workers=workers, progress=report)
    typer.echo(str(out))
