"""`countervid edit`: the counterfactual of a video, in a folder with its comparison and report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from countervid.cli.common import CacheLimitOption, CacheOption, DoOption, console, settings_of
from countervid.cli.preflight import preflight
from countervid.cli.steering import (
    PAPER,
    CandidatesOption,
    ChatOption,
    CriticOption,
    LooksOption,
    MaxCallsOption,
    MaxCostOption,
    MaxEditsOption,
    SteeringOption,
    UrlOption,
    WriterOption,
    steering_options,
)
from countervid.errors import ConfigError, InterventionError
from countervid.files.names import safe_name

if TYPE_CHECKING:
    from countervid.editors.base import Editor, Guide
    from countervid.runs.run import Result

app = typer.Typer(no_args_is_help=True)

ClipArgument = Annotated[Path, typer.Argument(help="A video file, or a folder of pictures.", show_default=False)]
GraphOption = Annotated[str, typer.Option(help="A bundled graph's name, or a YAML file.")]
EditorOption = Annotated[str, typer.Option(help="Which editor.")]
ModelOption = Annotated[
    Optional[str],
    typer.Option(help="A folder of weights, or a hub's name; by default the bundled miniature.", show_default=False),
]
PresetOption = Annotated[
    Optional[str], typer.Option(help="Named settings of the editor; `countervid editors show EDITOR` lists them.")
]
RegionOption = Annotated[
    Optional[str], typer.Option(help="face or frame: what a text-guided editor edits.", show_default="face")
]
SettingsOption = Annotated[
    Optional[list[str]], typer.Option("--set", metavar="NAME=VALUE", help="Any other setting of the editor.")
]
FaceOption = Annotated[Optional[int], typer.Option(help="The same as --person.")]
PersonOption = Annotated[
    Optional[int], typer.Option(help="Which person, counted from the largest, 0; `describe` lists them.")
]
DeviceOption = Annotated[
    Optional[str],
    typer.Option(help="cpu, cuda, cuda:1 ... or auto, a GPU where there is one.", show_default="auto"),
]


@app.command()
def edit(
    clip: ClipArgument,
    do: DoOption = [],  # noqa: B006 (typer copies it)
    attribute: Annotated[
        Optional[str],
        typer.Option(
            metavar="NAME[=VALUE]", help="Instead of --do: along one attribute of the classifier, as published."
        ),
    ] = None,
    target_text: Annotated[
        Optional[str], typer.Option(help='Instead of --do: the way two texts lie apart, "face with beard".')
    ] = None,
    source_text: Annotated[str, typer.Option(help="What --target-text is compared with.")] = "face",
    scale: Annotated[
        Optional[float], typer.Option(help="How far with --attribute (either sign: 0.25) or --target-text (1).")
    ] = None,
    normalize: Annotated[
        bool, typer.Option("--normalize/--no-normalize", help="With --attribute: in normalised space, as published.")
    ] = True,
    editor: EditorOption = "dva",
    model: ModelOption = None,
    graph: GraphOption = "phantom",
    factual: Annotated[Optional[str], typer.Option(help='The person in words: "He is young."')] = None,
    person: PersonOption = None,
    face: FaceOption = None,
    everyone: Annotated[bool, typer.Option("--everyone", help="Edit every person, each as they are.")] = False,
    strength: Annotated[float, typer.Option(help="0 is the source, 1 the edit as asked.")] = 1.0,
    only: Annotated[
        Optional[list[str]], typer.Option("--amount", metavar="NAME=NUMBER", help="The same for one attribute.")
    ] = None,
    steps: Annotated[Optional[int], typer.Option(help="Steps of the chains, for editors that diffuse.")] = None,
    max_frames: Annotated[Optional[int], typer.Option(help="Edit the first frames only, and write no more.")] = None,
    clip_model: Annotated[
        Optional[str], typer.Option("--clip", help="The CLIP of --target-text: a folder or a hub's name.")
    ] = None,
    text_options: Annotated[
        Optional[list[str]],
        typer.Option("--text", metavar="NAME=VALUE", help="Any setting of the text edit: --text iterations=500."),
    ] = None,
    preset: PresetOption = None,
    region: RegionOption = None,
    settings: SettingsOption = None,
    device: DeviceOption = None,
    seed: Annotated[int, typer.Option(help="For editors that draw noise.")] = 0,
    critic: CriticOption = None,
    critic_url: UrlOption = None,
    writer: WriterOption = "rules",
    steering: SteeringOption = "auto",
    max_edits: MaxEditsOption = 5,
    max_calls: MaxCallsOption = None,
    max_cost: MaxCostOption = None,
    looks: LooksOption = None,
    candidates: CandidatesOption = 1,
    chat: ChatOption = None,
    truth: Annotated[Optional[Path], typer.Option(help="The true counterfactual, where it is known.")] = None,
    out: Annotated[Optional[Path], typer.Option(help="The run's folder; named after clip and --do by default.")] = None,
    marking: Annotated[
        bool, typer.Option("--marking/--no-marking", help="Mark the result as synthetic: metadata and watermark.")
    ] = True,
    cache: CacheOption = None,
    cache_limit: CacheLimitOption = None,
) -> None:
    """Write the counterfactual of a video: the same clip, had the person been so. The same command resumes."""
    from countervid.cli.stages import stages, wait_politely

    wait_politely()
    from countervid.causal.graph import CausalGraph
    from countervid.clip import Clip
    from countervid.runs.folder import OtherRunError
    from countervid.runs.run import counterfactual

    guide = _guide(attribute, scale, normalize, source_text, target_text, text_options or [], clip_model)
    stated: str | dict[str, str] | None = factual
    if guide is None:
        plan = CausalGraph.load(graph)
        asked = plan.interventions(do)
    elif do:
        raise ConfigError(
            "`--do` asks the causal graph, `--attribute` and `--target-text` go round it. Give one of them."
        )
    else:
        name, before, after = guide.said()
        plan = CausalGraph.of_one(name, (before, after))
        (variable,) = plan.variables
        stated, asked = {variable: before}, {variable: after}
    if clip_model is not None:
        settings = [*(settings or []), f"text_model={clip_model}"]
    if preset == PAPER:
        preset, steering = "csvc", PAPER
    amounts = _amounts(only or [])
    source = Clip.read(clip)
    true = None if truth is None else Clip.read(truth)
    if max_frames is not None:
        source, true = source.first(max_frames), None if true is None else true.first(max_frames)
    person = one_person(person, face)
    if everyone and person is not None:
        raise ConfigError(f"`--everyone` and `--person {person}` ask for different people. Give one of them.")
    chosen = make_editor(
        editor,
        model,
        cache,
        cache_limit=cache_limit,
        preset=preset,
        steps=steps,
        face=person,
        region=region,
        device=device,
        settings=settings,
    )
    steered = steering_options(
        chosen, plan, critic=critic, url=critic_url, writer=writer, steering=steering, max_edits=max_edits,
        max_calls=max_calls, max_cost=max_cost, looks=looks, candidates=candidates, chat=chat,
    )  # fmt: skip
    edits = 1 if critic is None else max_edits
    with stages() as bars, preflight(chosen, source, bars, edits) as report:

        def run(folder: Path) -> Result:
            return counterfactual(
                source, asked, graph=plan, editor=chosen, factual=stated, truth=true, strength=strength,
                strengths=amounts, seed=seed, guide=guide, out=folder, marking=marking, everyone=everyone,
                report=report, **steered,
            )  # fmt: skip

        if out is not None:
            result = run(out)
        else:
            named = "-".join([clip.resolve().stem, *(f"{name}-{value}" for name, value in asked.items())])
            base = Path(safe_name(named.lstrip("."), "run's folder (name another with `--out DIR`)", clip))
            result = _in_free_folder(base, run, OtherRunError)
    show(result)


def _guide(
    attribute: str | None,
    scale: float | None,
    normalise: bool,
    source: str,
    target: str | None,
    options: list[str],
    clip_model: str | None,
) -> Guide | None:
    """The way round the graph that the options describe, if any."""
    from countervid.autoencoder.clip_guidance import BUNDLED, TextGuidance
    from countervid.autoencoder.directions import Direction
    from countervid.editors.base import make_config

    if attribute is not None and target is not None:
        raise ConfigError("`--attribute` and `--target-text` are two ways to edit. Give one of them.")
    if scale is not None and not math.isfinite(scale):
        raise ConfigError(f"`--scale` must be a number, got {scale}.")
    if target is not None:
        suited = BUNDLED if clip_model is None else {}
        values = {**suited, "source_text": source, "target_text": target, **settings_of(options, "--text")}
        guidance: TextGuidance = make_config(TextGuidance, values | ({} if scale is None else {"scale": scale}), "text")
        return guidance
    if options:
        raise ConfigError("`--text` goes with `--target-text`. Give that too.")
    if attribute is None:
        if scale is not None or not normalise:
            raise ConfigError("`--scale` and `--no-normalize` go with `--attribute NAME`. Give that too.")
        return None
    if not scale:
        raise ConfigError("`--attribute` needs `--scale`: how far, a number of either sign, such as 0.25.")
    name, _, value = (part.strip() for part in attribute.partition("="))
    return Direction(attribute=name, value=value, scale=scale, normalise=normalise)


def one_person(person: int | None, face: int | None) -> int | None:
    """The number that `--person` or `--face` gives.

    Raises:
        ConfigError: They give two.
    """
    if person is not None and face is not None and person != face:
        raise ConfigError(f"`--person {person}` and `--face {face}` name two people. They mean the same: give one.")
    return face if person is None else person


def make_editor(
    name: str,
    model: str | Path | None,
    cache: Path | None,
    *,
    cache_limit: str | None = None,
    preset: str | None = None,
    settings: list[str] | None = None,
    **given: object,
) -> Editor:
    """The editor that the options describe; options that were not given (None) are left to its defaults."""
    from countervid.cli.cache import opened
    from countervid.editors.base import load_editor

    chosen = {key: value for key, value in given.items() if value is not None}
    chosen |= settings_of(settings or [], "--set")
    return load_editor(name, model, cache=opened(cache, cache_limit), preset=preset, **chosen)


def show(result: Result) -> None:
    """What came out: changes with their reasons, the numbers, and where the files are."""
    from rich.table import Table
    from rich.text import Text

    from countervid.runs.everyone import told

    screen = console()
    for note in result.record["notes"]:
        screen.print(Text(note, style="yellow"))
    if not result.outcome.changes:
        screen.print("Nothing changes: the person is so already. The counterfactual is the source.")
    table = Table(box=None, padding=(0, 1), show_header=True, header_style="dim")
    for column in ("attribute", "before", "after", "why", "examiner sees"):
        table.add_column(column)
    examiner = result.metrics.get("examiner") or {}
    for change in result.outcome.changes:
        before, after = (examiner.get(clip, {}).get(change.variable) for clip in ("factual", "counterfactual"))
        mark = "" if after is None else f"{after['value']} {after['confidence']:.0%}"
        mark = mark if before is None or after is None else f"{before['value']} → {mark}"
        name = change.variable.replace("_", " ")
        table.add_row(name, change.before, Text(change.after, style="bold"), change.reason, mark)
    screen.print(table)
    if result.steered is not None:
        tried, kept = result.record["steering"]["edits"], result.steered.chosen.number
        screen.print(f"steered: {tried} edit{'s' * (tried > 1)}, round {kept} kept; {result.steered.stopped}")
    for line in figures(result.metrics, result.factual.notes):
        screen.print(line)
    for line in told(result.people) if len(result.people) > 1 else ():
        screen.print(Text(line))
    screen.print(str(result.prepared.facts.get("faces", "")))
    if result.folder is not None:
        screen.print(Text(f"{result.folder}/"), soft_wrap=True)
        for name in ("counterfactual.mp4", "comparison.mp4", "report.html"):
            screen.print(Text(f"  {name}"), soft_wrap=True)


def figures(metrics: dict[str, Any], notes: Sequence[str] = ()) -> list[str]:
    """The run's main numbers in a line or two; what was not measured is left out. `notes` are the source's."""
    from countervid.runs.touched import rest_of

    parts = []
    truth = (metrics.get("truth") or {}).get("face")
    if truth and truth["skill"] is not None:
        parts.append(f"skill against the truth {truth['skill']:.2f} (1 is the truth, 0 is doing nothing)")
    examiner = metrics.get("examiner")
    if examiner and examiner["changed_seen"] is not None and examiner["kept_kept"] is not None:
        parts.append(f"examiner: {examiner['changed_seen']:.0%} of changes seen, {examiner['kept_kept']:.0%} kept")
    identity = metrics.get("identity")
    if identity and identity["tl_id"] is not None and identity["tg_id"] is not None:
        parts.append(f"TL-ID {identity['tl_id']:.3f}, TG-ID {identity['tg_id']:.3f}")
    parts.append(f"{metrics['changed_share']:.1%} of all pixels touched; {rest_of(metrics, notes)}")
    return parts


def _amounts(items: list[str]) -> dict[str, float]:
    amounts = {}
    for item in items:
        name, _, text = (part.strip() for part in item.partition("="))
        try:
            amounts[name] = float(text)
        except ValueError:
            raise InterventionError(
                f"`--amount {item}` is not an amount. Write it as name=number, as in --amount beard=0.5."
            ) from None
    return amounts


def _in_free_folder(base: Path, run: Callable[[Path], Result], taken: type[Exception]) -> Result:
    """Run in `base`, or in `base-2`, `base-3`, ... where those hold runs with other settings."""
    for number in range(1, 1000):
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            return run(folder)
        except taken:
            continue
    raise ConfigError(f"There are a thousand runs named `{base.name}` here. Name one with `--out DIR`.")
