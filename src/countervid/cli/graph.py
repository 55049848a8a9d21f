"""`countervid graph`: show a causal graph, check a graph's file, predict what an intervention changes. No video."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from countervid.cli.common import DoOption, console
from countervid.errors import InterventionError, OutputError
from countervid.files.whole import replacing

if TYPE_CHECKING:
    from countervid.causal.counterfactual import Counterfactual
    from countervid.causal.graph import CausalGraph

app = typer.Typer(no_args_is_help=True)

GraphArgument = Annotated[str, typer.Argument(metavar="GRAPH", help="face, phantom, or the path of a YAML file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer with JSON.")]


@app.callback()
def group() -> None:
    """Show, check and query causal graphs."""


@app.command()
def show(
    graph: GraphArgument = "face",
    svg: Annotated[Path | None, typer.Option("--svg", help="Draw the graph into this SVG file as well.")] = None,
) -> None:
    """Print a graph: variables, values, causes, and what is asked about each."""
    from rich.markup import escape
    from rich.tree import Tree

    from countervid.causal.drawing import draw
    from countervid.causal.graph import CausalGraph

    loaded = CausalGraph.load(graph)
    tree = Tree(f"[bold]{escape(loaded.name)}[/bold]  {escape(loaded.description)}")
    for name in loaded.order:
        variable, causes = loaded.variables[name], loaded.parents(name)
        follows = f"  [dim]follows from[/dim] {', '.join(causes)}" if causes else ""
        branch = tree.add(f"[bold cyan]{name}[/bold cyan]  {escape(' | '.join(variable.values))}{follows}")
        if loaded.children(name):
            branch.add(f"[dim]causes[/dim] {', '.join(loaded.children(name))}")
        if loaded.mechanisms[name].associated:
            branch.add(f"[dim]seen together with[/dim] {', '.join(loaded.mechanisms[name].associated)}")
        if variable.question:
            branch.add(f"[dim]asked as[/dim] {escape(variable.question)}")
    console().print(tree)
    if svg is not None:
        _write(svg, draw(loaded).to_svg())


@app.command()
def check(graph: Annotated[str, typer.Argument(metavar="GRAPH", help="The path of a YAML file, or a name.")]) -> None:
    """Check a graph's file: exit code 0 if it is whole, else one line that says what to mend."""
    from countervid.causal.graph import CausalGraph
    from countervid.causal.lexicon import phrases

    loaded = CausalGraph.load(graph)
    drawable = all(
        m.probabilities is not None or m.functional or not loaded.parents(name) for name, m in loaded.mechanisms.items()
    )
    typer.echo(
        f"{loaded.name} is whole: {len(loaded.variables)} variables, {len(loaded.edges)} edges, "
        f"{len(phrases(loaded))} phrases; people {'can' if drawable else 'cannot'} be drawn from it."
    )


@app.command()
def predict(
    do: DoOption,
    graph: Annotated[str, typer.Option("--graph", help="face, phantom, or the path of a YAML file.")] = "face",
    factual: Annotated[str, typer.Option("--factual", help='The person as is: "He is young, he has beard."')] = "",
    attribute: Annotated[
        list[str] | None,
        typer.Option("--attribute", metavar="NAME=VALUE", help="A factual attribute; goes before the sentence."),
    ] = None,
    svg: Annotated[Path | None, typer.Option("--svg", help="Draw the graph with what changes into this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what an intervention changes, why, and the prompt that asks for it."""
    from countervid.causal.drawing import draw
    from countervid.causal.graph import CausalGraph
    from countervid.causal.language import describe, parse

    loaded = CausalGraph.load(graph)
    known = {**(parse(factual, loaded) if factual.strip() else {}), **loaded.interventions(attribute or [])}
    missing = [name for name in loaded.variables if name not in known]
    if missing:
        values = ", ".join(loaded.variables[missing[0]].values)
        raise InterventionError(
            f"The factual says nothing of `{missing[0]}`. "
            f"Say it in `--factual`, or add `--attribute {missing[0]}=...` with one of {values}."
        )
    result = loaded.counterfactual(known, loaded.interventions(do))
    prompt = describe(result.attributes, loaded, like=factual or None)
    if svg is not None:
        _write(svg, draw(loaded, result).to_svg())
    if as_json:
        typer.echo(json.dumps({"graph": loaded.name, **result.to_dict(), "prompt": prompt}, indent=2))
    else:
        _print(loaded, result, prompt)


def _print(graph: CausalGraph, result: Counterfactual, prompt: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    reasons = {change.variable: change.reason for change in result.changes}
    table = Table("variable", "factual", "counterfactual", "why", box=None, pad_edge=False)
    for name in graph.variables:
        before, after = result.factual[name], result.attributes[name]
        style = "bold" if before != after else "dim"
        why = reasons.get(name, "as it was, though set" if name in result.do else "")
        table.add_row(name, before, after, escape(why), style=style)
    screen = console()
    screen.print(table)
    screen.print(f"\n{escape(prompt)}")


def _write(path: Path, text: str) -> None:
    """Write a text file whole, or not at all."""
    try:
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror}. Choose a folder that exists and is writable."
        ) from error
