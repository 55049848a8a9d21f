"""The `countervid` command: finds the module of a sub-command, and turns user errors into one line.

How a command is added. Write `countervid/cli/<name>.py` with one module-level object and add a row to `COMMANDS`:

    app = typer.Typer()                 # the name `app` is the convention

    @app.command()                      # one command and no callback: `countervid <name> ...`
    def demo(out: Path = Path("demo")) -> None: ...

    @app.callback()                     # with a callback it is a group, however few its commands:
    def group() -> None: ...            # `countervid <name> <command> ...`

Rules for these modules. Import torch, numpy-heavy packages and the rest of `countervid` inside the functions, so that
`--help` answers at once (`countervid.errors`, `countervid.cli.common` and typer may be imported at the top). Raise
`countervid.errors` classes and let them pass: the boundary here prints `countervid: <message>` on stderr and exits
with code 2. Raise `typer.Exit(code)` for any other code. Results go to stdout, progress to stderr (`common.progress`).
Tests call `typer.testing.CliRunner().invoke(countervid.cli.main.app, ["graph", "show", ...])`.

A module is imported only when its command is called, so a broken or missing one does not disturb the others.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from countervid.cli.common import error_boundary, print_any_name
from countervid.files.stopping import Terminated, terminating_as_interrupt


@dataclass(frozen=True)
class Entry:
    """Where a sub-command lives, and the line that the overview shows for it."""

    module: str
    summary: str


COMMANDS: dict[str, Entry] = {
    "demo": Entry("countervid.cli.demo", "Make a clip, its counterfactual, the truth and a report. Offline."),
    "edit": Entry("countervid.cli.edit", "Write the counterfactual of a video: --do age=old."),
    "editors": Entry("countervid.cli.editors", "List editors, and show the settings and presets of one."),
    "prepare": Entry("countervid.cli.prepare", "Do once what every edit of a clip needs."),
    "baseline": Entry("countervid.cli.baseline", "Edit clips by the prompts of a file, unsteered."),
    "benchmark": Entry("countervid.cli.benchmark", "Measure editors and steering over many clips; resumable."),
    "describe": Entry("countervid.cli.describe", "Say what is seen in a video and what interventions would change."),
    "measure": Entry("countervid.cli.measure", "Measure an edit by the field's metrics, and against the truth."),
    "verify": Entry("countervid.cli.verify", "Say whether a video was made here, and by which intervention."),
    "graph": Entry("countervid.cli.graph", "Show, check and query causal graphs."),
    "phantom": Entry("countervid.cli.phantom", "Render people, and their true counterfactuals."),
    "cache": Entry("countervid.cli.cache", "List what is kept of prepared clips, and remove it."),
    "models": Entry("countervid.cli.models", "List model weights, fetch published ones, import others."),
    "align": Entry("countervid.cli.align", "Cut aligned face crops out of raw videos, to train on."),
    "train": Entry("countervid.cli.train", "Train the autoencoder and the bundled models."),
}


class LazyGroup(TyperGroup):
    """A group that knows its commands' names and summaries, and imports a command's module when it is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name, entry in COMMANDS.items() if _exists(entry.module)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        # The overview, completion and spelling suggestions need no more than names and summaries.
        entry = COMMANDS.get(cmd_name)
        return TyperCommand(name=cmd_name, help=entry.summary) if entry and _exists(entry.module) else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        self.commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}  # for "did you mean"
        name, command, rest = super().resolve_command(ctx, args)
        if name in COMMANDS:
            command = load(name)
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            what, code = ("terminated", 143) if isinstance(stop, Terminated) else ("interrupted", 130)
            typer.echo(f"countervid: {what}. The same command goes on where this one stopped.", err=True)
            raise typer.Exit(code) from None

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        print_any_name()
        with error_boundary(), terminating_as_interrupt():
            code = super().main(args, "countervid", complete_var, False, windows_expand_args, **extra)
        sys.exit(code if isinstance(code, int) else 0)


def _exists(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def load(name: str) -> Any:
    """The real command behind a name: imports its module and builds what its `app` describes."""
    command = typer.main.get_command(importlib.import_module(COMMANDS[name].module).app)
    command.name = name
    # `install-completion` belongs to the whole program, not to each of its commands.
    command.params = [p for p in command.params if p.name not in ("install_completion", "show_completion")]
    return command


app = typer.Typer(cls=LazyGroup, no_args_is_help=True, rich_markup_mode="rich")


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"countervid {version('countervid')}")
        except PackageNotFoundError:
            typer.echo("countervid, not installed (run from its source)")
        raise typer.Exit()


@app.callback()
def countervid(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Say the version and stop."
    ),
) -> None:
    """What would this video have looked like, had one thing about the person been different?"""


def app_entry() -> None:
    """What the installed `countervid` script calls."""
    typer.main.get_command(app).main()


if __name__ == "__main__":
    app_entry()
