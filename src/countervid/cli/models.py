"""`countervid models`: which weights are there, under which licence, and whether they are the released ones."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from countervid.cli.common import console

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """List the model weights, their licences and checksums."""


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array instead of a table.")] = False,
) -> None:
    """Show every installed model: what it is, size, licence, origin, and whether its checksum is the released one."""
    from countervid.models import bundled_folder, listings

    rows = listings()
    if as_json:
        fields = ("name", "what", "licence", "source", "size", "checksum")
        entries = [{**{f: getattr(row, f) for f in fields}, "folder": str(row.folder)} for row in rows]
        typer.echo(json.dumps(entries, indent=2))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("model", "what", "MB", "licence", "checksum", "from"):
        table.add_column(heading, justify="right" if heading == "MB" else "left")
    for row in rows:
        table.add_row(row.name, row.what, f"{row.size / 1e6:.1f}", row.licence, row.checksum, row.source)
    console().print(table)
    console().print(f"Folder: {bundled_folder()}", soft_wrap=True)


@app.command()
def seal() -> None:
    """Record the checksums of the bundled weights as the right ones, after training them yourself."""
    from countervid.models import seal as seal_bundle

    typer.echo(f"Recorded in {seal_bundle()}.")
