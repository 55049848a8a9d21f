"""`countervid measure`: the metrics, of a clip and its counterfactual."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from countervid.cli.common import DoOption, console
from countervid.errors import ConfigError, FaceError, ModelError

if TYPE_CHECKING:
    from countervid.clip import Clip
    from countervid.face.pipeline import FaceTrack
    from countervid.metrics.base import About, Asked, Eyes, Window

app = typer.Typer(no_args_is_help=True)

MARKS = ("<!-- metrics: countervid measure --list --into docs/metrics.md -->", "<!-- metrics end -->")
WANTS = {  # what a number needs -> how to give it
    "truth": "the true counterfactual: --truth FILE",
    "face": "a face that can be followed through the factual clip",
    "attributes": "what the edit was asked for: --do NAME=VALUE",
    "prompt": "what the editor was told: --prompt TEXT, or --do NAME=VALUE",
    "world": "what only a renderer knows: the phantom benchmark measures it",
}
CHATS = ("openai:", "transformers:")


@app.command()
def measure(
    metrics: Annotated[
        Optional[list[str]], typer.Argument(help="Numbers or families: ssim, truth, truth.skill; or all.")
    ] = None,
    factual: Annotated[Optional[Path], typer.Option(help="The clip as it was.", show_default=False)] = None,
    counterfactual: Annotated[Optional[Path], typer.Option(help="The edited clip.", show_default=False)] = None,
    truth: Annotated[Optional[Path], typer.Option(help="The true counterfactual, where it is known.")] = None,
    do: DoOption = [],  # noqa: B006 (typer copies it)
    person: Annotated[
        Optional[str], typer.Option(help='The factual person in words: "He is young." What is left out is read off.')
    ] = None,
    prompt: Annotated[
        Optional[str], typer.Option(help="What the editor was told.", show_default="--do, in a sentence")
    ] = None,
    graph: Annotated[str, typer.Option(help="A bundled graph's name, or a YAML file.")] = "phantom",
    face: Annotated[int, typer.Option(help="Which face, counted from the largest, 0.")] = 0,
    weights: Annotated[
        Optional[list[str]], typer.Option(metavar="NAME=FOLDER", help="Weights to look with; --list tells names.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ... or auto, a GPU where there is one.")] = "auto",
    as_json: Annotated[Optional[Path], typer.Option("--json", metavar="FILE", help="Write the numbers too.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="Show what can be measured, and measure nothing.")] = False,
    into: Annotated[
        Optional[Path], typer.Option(help="With --list: renew the table of a Markdown file, between its marks.")
    ] = None,
) -> None:
    """Measure an edit: numbers of the pair, and against the truth where it is known."""
    if listing or into is not None:
        _list(metrics or ["all"], into)
        return
    if not metrics:
        raise ConfigError(
            "Name what to measure: `ssim`, `truth`, `all`; `countervid measure --list` shows what there is."
        )
    if factual is None or counterfactual is None:
        raise ConfigError("`--factual FILE` and `--counterfactual FILE` are needed: the clip and its edit.")
    from countervid.cli.stages import stages, wait_politely

    wait_politely()
    from countervid.clip import Clip
    from countervid.files.whole import write_whole
    from countervid.metrics.base import Eyes, chosen, measured
    from countervid.models.device import choose_device
    from countervid.runs.measure import clips_of, needs_met, windows_of

    families = chosen(metrics)
    eyes = Eyes(choose_device(device), folders=_folders(weights or []))
    clips = clips_of(Clip.read(factual), Clip.read(counterfactual), None if truth is None else Clip.read(truth))
    source, edited, true = clips["factual"], clips["counterfactual"], clips.get("truth")
    with stages() as report:
        track, faceless = None, ""
        if do or any("face" in family.needs for family in families.values()):  # type: ignore[attr-defined]
            track, faceless = _track(source, face, lambda done, total: report("finding faces", done, total))
        asked = _asked(do, person, prompt, graph, source, track, eyes)
        missing: dict[str, str] = {}
        has = needs_met(truth=true, track=track, asked=asked)
        watched = _counted(
            windows_of(source, edited, true, track, asked, eyes),
            lambda done: report("measuring", done, len(source)),
        )
        scores = measured(metrics, watched, has, missing)
    wanting = {name: sorted(family.needs - has) for name, family in families.items() if not family.needs <= has}  # type: ignore[attr-defined]
    outcome = Outcome(
        scores=scores,
        undefined={name: _why(families[name], name) for name, value in scores.items() if not math.isfinite(value)},
        missing=missing,
        left_out={name: [faceless if need == "face" and faceless else WANTS[need] for need in needs]
                  for name, needs in wanting.items()},
    )  # fmt: skip
    if as_json is not None:
        files = {name: str(clip.source) for name, clip in clips.items()}
        write_whole(as_json, json.dumps(outcome.to_json(files, asked), indent=2, ensure_ascii=False) + "\n")
    named = [name for name in metrics if name in families]
    _show(outcome, named)
    for name in sorted(eyes.unused()):
        console().print(
            f"`--weights {name}=...` was not looked with: no number measured here has weights of that name."
        )
    _refuse(named, outcome)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a measurement, by the numbers' names."""

    scores: Mapping[str, float]
    undefined: Mapping[str, str]  # numbers that are not defined for this clip -> why, "" where nobody says
    missing: Mapping[str, str]  # numbers whose weights are missing -> what to do
    left_out: Mapping[str, Sequence[str]]  # numbers that need what was not given -> what that is

    def to_json(self, files: Mapping[str, str], asked: Asked | None) -> dict[str, Any]:
        """Ready for JSON: a number that is not defined is null."""
        told = None
        if asked is not None:
            fields = ("factual", "do", "counterfactual")
            told = {**{name: dict(getattr(asked, name)) for name in fields}, "prompt": asked.prompt}
        return {
            "clips": dict(files),
            "asked": told,
            "scores": {name: value if math.isfinite(value) else None for name, value in sorted(self.scores.items())},
            "undefined": dict(self.undefined),
            "missing": dict(self.missing),
            "left_out": {name: list(wants) for name, wants in self.left_out.items()},
        }


def _folders(items: Sequence[str]) -> dict[str, str]:
    """`--weights NAME=FOLDER`: name -> folder, file or language model.

    Raises:
        ConfigError: Not of this form, or there is nothing of that name.
    """
    found = {}
    for item in items:
        name, _, folder = (part.strip() for part in item.partition("="))
        if not (name and folder):
            raise ConfigError(
                f"`--weights {item}` names no weights. Write it as name=folder, as in --weights clip=DIR."
            )
        if not (folder.startswith(CHATS) or os.path.exists(folder)):
            raise ConfigError(f"`--weights {item}`: there is no `{folder}`. Give a folder of weights.")
        found[name] = folder
    return found


def _track(clip: Clip, face: int, progress: Callable[[int, int], None]) -> tuple[FaceTrack | None, str]:
    """The face of the factual clip as the editors find it, or why there is none."""
    from countervid.face.pipeline import FacePipeline

    try:
        return FacePipeline().analyze(clip, face, progress), ""
    except FaceError as error:
        return None, str(error)


def _asked(
    do: Sequence[str],
    person: str | None,
    prompt: str | None,
    graph: str,
    clip: Clip,
    track: FaceTrack | None,
    eyes: Eyes,
) -> Asked | None:
    """What the edit was asked for, as far as the options tell; the rest of the person is read off by the examiner."""
    from countervid.causal.graph import CausalGraph
    from countervid.causal.language import describe
    from countervid.causal.lexicon import read
    from countervid.metrics.base import Asked
    from countervid.metrics.effectiveness import Votes
    from countervid.runs.measure import windows_of

    if not do:
        return None if prompt is None else Asked(factual={}, do={}, counterfactual={}, prompt=prompt)
    plan = CausalGraph.load(graph)
    asked = plan.interventions(do)
    known = {} if person is None else dict(read(person, plan).stated)
    if any(name not in known for name in plan.variables) and track is not None:
        votes = Votes()
        for window in windows_of(clip, clip, None, track, None, eyes):
            votes.update(window, "factual")
        seen = {name: value for name, value in votes.values().items() if name in plan.variables}
        known = {**{name: value for name, value in seen.items() if value in plan.variables[name].values}, **known}
    outcome = plan.counterfactual(known, asked)
    return Asked(
        factual=outcome.factual,
        do=outcome.do,
        counterfactual=outcome.attributes,
        prompt=prompt or describe(outcome.attributes, plan, person),
        factual_prompt=person or describe(outcome.factual, plan),
        graph=plan,
    )


def _counted(windows: Iterator[Window], report: Callable[[int], None]) -> Iterator[Window]:
    for window in windows:
        yield window
        report(window.start + len(window))


def _why(family: type, name: str) -> str:
    return str(getattr(family, "undefined", {}).get(name, ""))


def _show(outcome: Outcome, named: Sequence[str]) -> None:
    """The numbers, and what could not be had of those that nobody named: for the others there is an error."""
    from rich.table import Table
    from rich.text import Text

    from countervid.metrics.base import catalogue

    about, screen = catalogue(), console()
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("metric", "value", "better", "unit", "what"):
        table.add_column(
            column, justify="right" if column == "value" else "left", no_wrap=column in ("metric", "value")
        )
    for name, value in sorted(outcome.scores.items()):
        shown, what = Text(f"{value:.4g}"), about[name].title
        if name in outcome.undefined:
            shown, why = Text("not defined", style="yellow"), outcome.undefined[name]
            what = f"{what} ({why})" if why else what
        table.add_row(name, shown, about[name].better, about[name].unit, Text(what))
    if outcome.scores:
        screen.print(table)
    for why, names in _grouped({n: why for n, why in outcome.missing.items() if n not in named}).items():
        screen.print(Text(f"Not measured: {names}. {why}"), style="yellow", soft_wrap=True)
    for wants, names in _grouped({n: "; ".join(why) for n, why in outcome.left_out.items() if n not in named}).items():
        screen.print(Text(f"Left out: {names}. Needed is {wants}"), style="dim", soft_wrap=True)


def _grouped(reasons: Mapping[str, str]) -> dict[str, str]:
    """Reason -> the names it holds for, in a line."""
    found: dict[str, list[str]] = {}
    for name, why in reasons.items():
        found.setdefault(why, []).append(name)
    return {why: ", ".join(names) for why, names in found.items()}


def _refuse(named: Sequence[str], outcome: Outcome) -> None:
    """A number that was asked for by its own name and could not be had is an error; one of a family is a line."""
    for name in named:
        if name in outcome.missing:
            raise ModelError(outcome.missing[name])
        if name in outcome.left_out:
            raise ConfigError(f"`{name}` needs {'; and '.join(outcome.left_out[name])}.")


def _list(names: Sequence[str], into: Path | None) -> None:
    from rich.table import Table
    from rich.text import Text

    from countervid.files.whole import write_whole
    from countervid.metrics.base import catalogue, chosen, of_several

    known = catalogue()
    about = {name: known[name] for name in sorted(chosen(names))}
    if into is not None:
        write_whole(into, with_table(into.read_text(encoding="utf-8"), known, of_several(), str(into)))
        return
    about |= of_several() if "all" in names else {}
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("metric", "better", "formula", "weights", "source"):
        table.add_column(column, no_wrap=column == "metric")
    for name, it in about.items():
        shown = name if name in known else f"{name}°"
        table.add_row(shown, it.better, Text(it.formula), Text(it.weights or "none"), Text(it.source))
    console().print(table)
    if len(about.keys() - known):
        console().print(
            "° takes several clips, several edits of one, or a graph: from Python, see docs/truth.md", style="dim"
        )


def with_table(text: str, about: Mapping[str, About], several: Mapping[str, About], where: str) -> str:
    """A Markdown text with the table of metrics renewed between its two marks.

    Args:
        about: Of one clip.
        several: Of several clips, edits, or a graph.

    Raises:
        ConfigError: The marks are not there.
    """
    before, first, rest = text.partition(MARKS[0])
    _, last, after = rest.partition(MARKS[1])
    if not (first and last):
        raise ConfigError(f"`{where}` has no place for the table. Put the lines {MARKS[0]} and {MARKS[1]} there.")
    return f"{before}{first}\n\n{markdown(about, several)}\n{last}{after}"


def markdown(about: Mapping[str, About], several: Mapping[str, About]) -> str:
    """The metrics as Markdown: a table a family, and one of those of several clips; ending in a line break."""
    families: dict[str, list[str]] = {}
    for name in about:
        families.setdefault(name.partition(".")[0], []).append(name)
    families |= {"of several clips, several edits of one, or a graph: from Python": list(several)} if several else {}
    about, parts = {**about, **several}, []
    for family, names in families.items():
        rows = [
            f"**{family}**\n",
            "| metric | what | better | formula | weights | source |",
            "|---|---|---|---|---|---|",
        ]
        for name in names:
            it = about[name]
            cells = (f"`{name}`", it.title, _better(it), it.formula, it.weights or "none", it.source)
            rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _better(about: About) -> str:
    return f"{about.better}, {about.unit}" if about.unit else about.better
