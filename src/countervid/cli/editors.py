"""`countervid editors`: which there are, and what can be set."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Annotated, Any

import typer

from countervid.cli.common import console

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_editors() -> None:
    """The editors there are."""
    from rich.table import Table

    from countervid.editors.base import editor_class, names, presets

    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("editor", "what it does", "presets"):
        table.add_column(column)
    for name in names():
        what = next(iter((inspect.getdoc(editor_class(name)) or "").splitlines()), "")  # of others, perhaps without one
        table.add_row(name, what, ", ".join(presets(name)))
    console().print(table)


@app.command()
def show(name: Annotated[str, typer.Argument(help="An editor: dva, tokenflow ...", show_default=False)]) -> None:
    """Every setting of an editor, what each preset makes of it, and what it means. Change one: `--set NAME=VALUE`."""
    from rich.table import Table
    from rich.text import Text

    from countervid.editors.base import editor_class, presets

    config: Any = editor_class(name).Config  # type: ignore[attr-defined]
    meanings, screen = comments(config), console()
    table = Table(box=None, padding=(0, 2), header_style="dim")
    table.add_column("setting", no_wrap=True)
    table.add_column("default", no_wrap=True)
    table.add_column("what it is")
    for setting in dataclasses.fields(config):
        table.add_row(setting.name, _shown(setting.default), Text(meanings.get(setting.name, "")))
    screen.print(table)
    for preset, values in presets(name).items():
        said = ", ".join(f"{key}={_shown(value)}" for key, value in values.items())
        screen.print(Text.assemble((f"\n--preset {preset}: ", "bold"), said))


def comments(kind: type) -> dict[str, str]:
    """What the comments beside a dataclass' fields say, its bases' first."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        above: list[str] = []
        for line in inspect.getsource(base).splitlines():
            field = re.match(r"    (\w+): [^=]+ = [^#]*(?:# (.*))?$", line)
            if field:
                found[field[1]] = field[2] or " ".join(above)
            alone = re.match(r"    # (.*)$", line)
            above = [*above, alone[1]] if alone else []
    return found


def _shown(value: object) -> str:
    return f'"{value}"' if value == "" or " " in str(value) else str(value)
