"""`countervid describe`: what is seen in a video, and what each intervention would change."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from countervid.cli.common import CacheLimitOption, CacheOption, console
from countervid.cli.edit import (
    ClipArgument,
    EditorOption,
    FaceOption,
    GraphOption,
    ModelOption,
    PersonOption,
    make_editor,
    one_person,
)
from countervid.errors import ConfigError

if TYPE_CHECKING:
    from countervid.causal.graph import CausalGraph
    from countervid.editors.base import Seen

app = typer.Typer(no_args_is_help=True)


@app.command()
def describe(
    clip: ClipArgument,
    editor: EditorOption = "dva",
    model: ModelOption = None,
    graph: GraphOption = "phantom",
    person: PersonOption = None,
    face: FaceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
    cache: CacheOption = None,
    cache_limit: CacheLimitOption = None,
) -> None:
    """Say what is seen in a video: the person's attributes, the graph, and what each intervention would change."""
    from countervid.cli.stages import stages, wait_politely

    wait_politely()
    from countervid.causal.graph import CausalGraph
    from countervid.clip import Clip
    from countervid.runs.run import PHANTOM_MARK

    plan = CausalGraph.load(graph)
    source = Clip.read(clip)
    chosen = make_editor(editor, model, cache, cache_limit=cache_limit, face=one_person(person, face))
    if not hasattr(chosen, "look"):
        raise ConfigError(f"The editor `{editor}` cannot read attributes off a clip. Use one that does: dva.")
    with stages() as report:
        prepared = chosen.look(source, report=report)
        seen: dict[str, Seen] = chosen.read(prepared)  # type: ignore[attr-defined]
    known = {name: seen[name].value for name in plan.variables if name in seen}
    answer: dict[str, Any] = {
        "clip": {"frames": len(source), "width": source.width, "height": source.height, "fps": source.fps},
        "faces": str(prepared.facts["faces"]),
        "person": 0 if prepared.track is None else prepared.track.face,
        "persons": [] if prepared.track is None else prepared.track.persons,
        "shots": [] if prepared.track is None else prepared.track.shots,
        "attributes": {name: vars(seen[name]) for name in known},
        "unknown": [name for name in plan.variables if name not in seen],
        "interventions": interventions(plan, known) if len(known) == len(plan.variables) else [],
        "miniature": chosen.miniature and not source.metadata.get("comment", "").startswith(PHANTOM_MARK),
    }
    if as_json:
        typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))
    else:
        _show(answer, plan)


def interventions(graph: CausalGraph, attributes: dict[str, str]) -> list[dict[str, Any]]:
    """For every variable and every other value it could have: what would change, and why."""
    found = []
    for name, variable in graph.variables.items():
        for value in variable.values:
            if value != attributes[name]:
                changes = graph.counterfactual(attributes, {name: value}).changes
                following = [vars(change) for change in changes if change.variable != name]
                found.append({"do": {name: value}, "follows": following})
    return found


def _show(answer: dict[str, Any], graph: CausalGraph) -> None:
    from rich.table import Table

    from countervid.runs.run import MINIATURE_NOTE

    screen = console()
    if answer["miniature"]:
        screen.print(f"[yellow]{MINIATURE_NOTE}[/yellow]")
    size = answer["clip"]
    screen.print(f"{size['frames']} frames, {size['width']} x {size['height']}, {size['fps']:g} fps. {answer['faces']}")
    if len(answer["persons"]) > 1:
        screen.print("\n[bold]Who is there[/bold]")
        people = Table(box=None, padding=(0, 2), header_style="dim")
        for column in ("person", "shots", "frames", "box"):
            people.add_column(column)
        for number, one in enumerate(answer["persons"]):
            shots, share = ", ".join(str(shot + 1) for shot in one["shots"]), one["frames"] / size["frames"]
            people.add_row(str(number), shots, f"{share:.0%}", f"{one['width']} x {one['height']} px")
        screen.print(people)
    whose = f" of person {answer['person']}" if len(answer["persons"]) > 1 else ""
    screen.print(f"\n[bold]What is seen{whose}[/bold]")
    seen = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("attribute", "value", "confidence"):
        seen.add_column(column)
    for name, reading in answer["attributes"].items():
        seen.add_row(name, reading["value"], f"{reading['confidence']:.0%}")
    screen.print(seen)
    if answer["unknown"]:
        screen.print(f"Not read by these weights: {', '.join(answer['unknown'])}.")
    edges = ", ".join(f"{cause} -> {effect}" for cause, effect in graph.edges)
    screen.print(f"\nGraph {graph.name}: {edges}", soft_wrap=True)
    if answer["interventions"]:
        screen.print("\n[bold]What each intervention would change[/bold]")
        table = Table(box=None, padding=(0, 2), header_style="dim")
        table.add_column("do")
        table.add_column("follows from it")
        for entry in answer["interventions"]:
            (name, value), *_ = entry["do"].items()
            parts = [f"{c['variable']}: {c['before']} -> {c['after']}" for c in entry["follows"]]
            table.add_row(f"{name}={value}", ", ".join(parts) or "nothing else")
        screen.print(table)
