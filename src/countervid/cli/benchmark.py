"""`countervid benchmark`: many edits measured, and the tables and pages made of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from countervid.cli.common import console

if TYPE_CHECKING:
    from countervid.benchmark.engine import Seen
    from countervid.benchmark.run import Benchmark, Summary

app = typer.Typer(no_args_is_help=True)

LINE_EVERY = 60.0  # seconds between lines of progress where there is no terminal


@app.callback()
def group() -> None:
    """Editors x steering x interventions, measured; resumable, in parallel, on one machine or a cluster."""


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="The benchmark's folder.", show_default=False)],
    clips: Annotated[
        str, typer.Option(help="phantom:N, phantom:N@M (from the Mth on, counted from 0), celebv:DIR or a folder.")
    ] = "phantom:8",
    prompts: Annotated[
        Optional[Path], typer.Option(help="What is asked of footage: JSON as CSVC's counterfactual_explicit.json.")
    ] = None,
    editors: Annotated[str, typer.Option(help="Editors, joined by commas.")] = "tokenflow,flatten,tune-a-video,dva",
    steering: Annotated[
        str, typer.Option(help="Ways of steering: none, auto, csvc, csvc-paper, paraphrase, coupled ...")
    ] = "none,auto",
    critic: Annotated[str, typer.Option(help="Who steers: bundled, openai:MODEL or transformers:MODEL.")] = "bundled",
    judge: Annotated[str, typer.Option(help="Who grades: the examiner, and whoever else is named.")] = "examiner",
    questions: Annotated[
        Optional[Path], typer.Option(help="What that judge is asked: JSON as CSVC's questions_explicit.json.")
    ] = None,
    chat: Annotated[
        Optional[list[str]],
        typer.Option(metavar="NAME=VALUE", help="A setting of language models, critic and judge: --chat url=ADDRESS."),
    ] = None,
    interventions: Annotated[
        str, typer.Option(help="Variables, each set to its other value, or NAME=VALUE.", show_default="all four")
    ] = "",
    seeds: Annotated[int, typer.Option(help="Seeds of every edit.")] = 1,
    frames: Annotated[int, typer.Option(help="Frames of every clip.")] = 16,
    fps: Annotated[float, typer.Option(help="Frames a second of rendered clips.")] = 8.0,
    size: Annotated[int, typer.Option(help="Side of rendered clips, px.")] = 256,
    max_edits: Annotated[int, typer.Option(help="Most edits of a steered job.")] = 4,
    settings: Annotated[
        Optional[list[str]], typer.Option("--set", metavar="EDITOR.NAME=VALUE", help="A setting of an editor.")
    ] = None,
    preset: Annotated[
        Optional[list[str]], typer.Option(metavar="[EDITOR=]NAME", help="Named settings of the editors that have them.")
    ] = None,
    model: Annotated[
        Optional[list[str]],
        typer.Option(metavar="[EDITOR=]FOLDER", help="Weights in place of the bundled ones; a folder or a hub's name."),
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="Names or families of metrics; all: those whose weights are there.")
    ] = "all",
    weights: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="NAME=FOLDER", help="What metrics look with, where it is not bundled: --weights dino=DIR."
        ),
    ] = None,
    references: Annotated[
        bool, typer.Option("--references/--no-references", help="Also nothing, copy-target and oracle.")
    ] = True,
    graph: Annotated[str, typer.Option(help="The graph that prompts of footage are read by.")] = "face",
    modules: Annotated[
        Optional[list[str]], typer.Option("--import", metavar="MODULE", help="For editors and metrics of your own.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local or ray.")] = "local",
    address: Annotated[Optional[str], typer.Option(help="Of a Ray cluster; without it, one of this machine.")] = None,
    workers: Annotated[int, typer.Option(help="Jobs at a time.")] = 1,
    threads: Annotated[int, typer.Option(help="Threads of each worker; more than 1 may change the last digits.")] = 1,
    device: Annotated[str, typer.Option(help="auto (a GPU where there is one), cpu, cuda or cuda:1.")] = "auto",
    retries: Annotated[int, typer.Option(help="How often a job that fails is tried again.")] = 1,
    cache: Annotated[
        Optional[Path],
        typer.Option(help="Keep prepared clips there, for other benchmarks.", show_default="kept while needed"),
    ] = None,
    grow: Annotated[
        bool, typer.Option("--grow", help="Add clips, editors, steering, interventions or seeds to what was begun.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the grid and its size, and stop.")] = False,
) -> None:
    """Do every job that is not done yet, and write the results. The same command goes on where it was stopped."""
    from countervid.cli.stages import wait_politely

    wait_politely()
    from countervid.benchmark.grid import BenchmarkConfig
    from countervid.benchmark.run import Benchmark, How

    config = BenchmarkConfig(
        clips=_words(clips), prompts=_path(prompts), editors=_words(editors), steering=_words(steering), critic=critic,
        judge=judge, questions=_path(questions), chat=tuple(chat or ()), interventions=_words(interventions),
        seeds=seeds, frames=frames, fps=fps, size=size, max_edits=max_edits, settings=tuple(settings or ()),
        preset=tuple(preset or ()), model=tuple(model or ()), metrics=_words(metrics), weights=tuple(weights or ()),
        references=references, graph=graph, modules=tuple(modules or ()),
    )  # fmt: skip
    how = How(
        engine=engine,
        address=address,
        workers=workers,
        threads=threads,
        device=device,
        retries=retries,
        cache=cache,
        grow=grow,
    )
    benchmark = Benchmark(out, config, how)
    if dry_run:
        _show_grid(benchmark)
        return
    with _progress(len(benchmark.grid.jobs), len(benchmark.grid.jobs) - len(benchmark.left)) as seen:
        summary = benchmark.run(seen)
    _show(summary, benchmark)
    if summary.failed:
        raise typer.Exit(1)


@app.command()
def table(
    out: Annotated[Path, typer.Argument(help="A benchmark's folder.", show_default=False)],
    metric: Annotated[
        Optional[list[str]],
        typer.Option(
            help="A metric, or a family of them (cost); repeat it for more.", show_default="those of the paper"
        ),
    ] = None,
    rows: Annotated[
        str,
        typer.Option(help="What makes a row: editor, steering, metric, intervention, variable, direction, clip, seed."),
    ] = "editor,steering",
    columns: Annotated[
        str, typer.Option(help="What makes a column: metric, intervention, direction, steering ...")
    ] = "metric",
    form: Annotated[
        Optional[str],
        typer.Option("--format", help="markdown, latex or csv.", show_default="by the name of --to, else markdown"),
    ] = None,
    baseline: Annotated[str, typer.Option(help="The steering that others are compared with.")] = "none",
    to: Annotated[Optional[Path], typer.Option(help="Write to a file instead.", show_default=False)] = None,
) -> None:
    """Print the paper's tables, or one of your own: --metric truth.skill --columns intervention."""
    from countervid.benchmark.layout import FORMATS, render
    from countervid.benchmark.results import read
    from countervid.benchmark.tables import paper, tables
    from countervid.files.whole import write_whole

    named = {suffix: name for name, suffix in FORMATS.items()}
    kind = form or named.get(to.suffix if to else "", "markdown")
    results = read(out)
    plain = not metric and (rows, columns) == ("editor,steering", "metric")
    made = paper(results, baseline=baseline) if plain else tables(
        results, metric or (), _words(rows), columns, baseline=baseline
    )  # fmt: skip
    text = render(made, kind)
    if to is None:
        typer.echo(text, nl=False)
    else:
        write_whole(to, text)
        typer.echo(str(to))


@app.command()
def report(
    out: Annotated[Path, typer.Argument(help="A benchmark's folder.", show_default=False)],
    to: Annotated[Optional[Path], typer.Option(help="The page's file.", show_default="report.html in OUT")] = None,
) -> None:
    """Write one HTML page: tables, figures, the best and the worst edits, failures. It needs no network."""
    from countervid.benchmark.page import write_page
    from countervid.benchmark.results import read

    typer.echo(str(write_page(read(out), out, to)))


@app.command()
def compare(
    one: Annotated[Path, typer.Argument(help="A benchmark's folder: before.", show_default=False)],
    two: Annotated[Path, typer.Argument(help="Another one: after.", show_default=False)],
    metric: Annotated[
        Optional[list[str]], typer.Option(help="A metric, or a family of them.", show_default="all that both have")
    ] = None,
    most: Annotated[int, typer.Option(help="Most changes that are listed; 0 for all.")] = 30,
) -> None:
    """Say what differs between two benchmarks, over the jobs that both did."""
    from countervid.benchmark.compare import compare as compared
    from countervid.benchmark.compare import markdown
    from countervid.benchmark.results import read

    names = (str(one), str(two))
    typer.echo(markdown(compared(read(one), read(two), metric or ()), names, most or None), nl=False)


@app.command()
def trial(
    out: Annotated[Path, typer.Argument(help="A benchmark's folder, of phantoms.", show_default=False)],
    to: Annotated[
        Optional[Path], typer.Option(help="Write trial.md, .csv, .png and .svg into this folder.", show_default=False)
    ] = None,
) -> None:
    """Say which scores that need no truth rank edits as the truth does."""
    from countervid.benchmark.results import read
    from countervid.benchmark.trial import markdown, write
    from countervid.benchmark.trial import trial as tried

    done = tried(read(out))
    typer.echo(markdown(done), nl=False)
    for path in write(done, to) if to is not None else ():
        typer.echo(str(path))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _show_grid(benchmark: Benchmark) -> None:
    from rich.table import Table

    grid, screen = benchmark.grid, console()
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("editor", "steering", "jobs"):
        table.add_column(column)
    counts: dict[tuple[str, str], int] = {}
    for job in grid.jobs:
        counts[job.editor, job.steering] = counts.get((job.editor, job.steering), 0) + 1
    for (editor, steering), count in counts.items():
        table.add_row(editor, steering, str(count))
    screen.print(table)
    asked = dict.fromkeys(f"{job.variable}={job.value}" for job in grid.jobs)
    screen.print(f"clips: {', '.join(subject.name for subject in grid.subjects)}", soft_wrap=True)
    screen.print(f"interventions: {', '.join(asked)}", soft_wrap=True)
    for what, why in grid.left_out.items():
        screen.print(f"left out: {what}: {why}", soft_wrap=True)
    screen.print(f"{len(grid.jobs)} jobs, {len(benchmark.left)} left to do")


def _show(summary: Summary, benchmark: Benchmark) -> None:
    """What `benchmark.json` says of the jobs, in words."""
    from rich.text import Text

    screen = console()
    screen.print(f"{summary.done} of {summary.jobs} jobs done, {summary.already} of them before")
    for text in summary.damaged:
        screen.print(Text(f"{text}: done again"), soft_wrap=True)
    if summary.undefined:
        listed = ", ".join(f"{name} ({count})" for name, count in sorted(summary.undefined.items()))
        screen.print(Text(f"no number in some jobs: {listed}"), soft_wrap=True)
    if summary.left_out:
        screen.print(Text(f"left out, see benchmark.json for why: {', '.join(summary.left_out)}"), soft_wrap=True)
    for name, error in summary.failed.items():
        screen.print(Text(f"failed: {name}: {error}", style="red"), soft_wrap=True)
    if summary.failed:
        screen.print("The same command tries them again; each has its traceback in jobs/.../error.txt.")
    screen.print(Text(str(benchmark.out / "results.parquet")), soft_wrap=True)


@contextmanager
def _progress(total: int, done: int) -> Iterator[Seen]:
    """Jobs done of all, failures, time left; on a terminal a bar, elsewhere a line a minute. On stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    screen = Console(stderr=True)
    columns = (
        TextColumn("jobs"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    began, told, count, failures = time.monotonic(), time.monotonic(), done, 0
    with Progress(*columns, console=screen, disable=not screen.is_terminal, speed_estimate_period=3600) as bar:
        task = bar.add_task("", total=total, completed=done)

        def seen(outcome: Any) -> None:
            nonlocal count, failures, told
            failed = outcome.status == "failed"
            count, failures = count + (not failed), failures + failed
            if failed:
                screen.print(f"failed: {outcome.job.id}: {outcome.error}", style="red", markup=False, soft_wrap=True)
            bar.update(task, completed=count, description=f"{failures} failed" if failures else "")
            now = time.monotonic()
            if not screen.is_terminal and now - told >= LINE_EVERY:
                told = now
                minutes = (now - began) / max(count + failures - done, 1) * (total - count - failures) / 60
                screen.print(f"{count} of {total} jobs done, {failures} failed, about {minutes:.0f} min left")

        yield seen
