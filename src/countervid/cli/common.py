"""What the sub-commands share: the error boundary, `--do`, the console and the progress bar.

Imports only typer at the top; rich is imported where it draws.
"""

from __future__ import annotations

import errno
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from countervid.errors import ConfigError, CountervidError, InterventionError

if TYPE_CHECKING:
    from rich.console import Console

DoOption = Annotated[
    list[str],
    typer.Option("--do", metavar="NAME=VALUE", help="Set an attribute: --do age=old. Repeat it to set several."),
]

CacheOption = Annotated[
    Optional[Path],
    typer.Option(envvar="COUNTERVID_CACHE", help="Where prepared clips are kept.", show_default="~/.cache/countervid"),
]
CacheLimitOption = Annotated[
    Optional[str],
    typer.Option(
        envvar="COUNTERVID_CACHE_LIMIT",
        metavar="SIZE",
        help="How much of them: 5GB. What was not used for longest goes first.",
        show_default="20GB, or half of the disk's room",
    ),
]

# Errors of the machine that a user can mend, and what to do about each.
_ADVICE = {
    errno.ENOSPC: "The disk is full. Free some space and run the same command again",
    errno.EDQUOT: "The disk quota is used up. Free some space and run the same command again",
    errno.EACCES: "No permission. Choose another path, or change its permissions",
    errno.EPERM: "No permission. Choose another path, or change its permissions",
    errno.EROFS: "The file system is read-only. Choose another path",
    errno.ENOENT: "No such file or folder",
    errno.ENOTDIR: "A part of the path is a file, not a folder",
    errno.EISDIR: "It is a folder, not a file",
    errno.ENAMETOOLONG: "The name is too long",
}


@contextmanager
def error_boundary() -> Iterator[None]:
    """Turn what a user can mend into one line `countervid: ...` on stderr and exit code 2.

    Covers `CountervidError`, the usage errors of the command line, and a full disk, missing permissions and the like.
    Anything else is a defect of ours and passes through with its traceback.
    """
    try:
        yield
    except CountervidError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno not in _ADVICE:
            raise
        where = f"`{error.filename}`: " if error.filename else ""
        _fail(f"{where}{_ADVICE[error.errno]}.")
    except Exception as error:
        # The usage errors of the command line: their base class has no public name in every version of typer.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()
        context = getattr(error, "ctx", None)
        if not message:  # no arguments at all where some are needed: typer has shown the help
            raise SystemExit(2) from None
        hint = f" See `{context.command_path} --help`." if context is not None else ""
        _fail(f"{message.rstrip('.')}.{hint}")


def print_any_name() -> None:
    """Let names of files that are not UTF-8 be printed: byte for byte, as other commands print them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")


def _fail(message: str) -> None:
    typer.echo("countervid: " + " ".join(message.split()), err=True)
    raise SystemExit(2)


def parse_do(assignments: Sequence[str]) -> dict[str, str]:
    """The interventions that repeated `--do name=value` ask for.

    Names and values are checked against a graph later; here only the form counts.

    Raises:
        InterventionError: An item is not `name=value`, or one attribute is set to two values.
    """
    do: dict[str, str] = {}
    for item in assignments:
        name, equals, value = (part.strip() for part in item.partition("="))
        if not (name and equals and value):
            raise InterventionError(
                f"`--do {item}` is not an intervention. Write it as name=value, as in --do age=old."
            )
        if do.get(name, value) != value:
            raise InterventionError(
                f"`--do` sets `{name}` to both `{do[name]}` and `{value}`. Keep one: an attribute has one value."
            )
        do[name] = value
    return do


def settings_of(items: list[str], option: str) -> dict[str, object]:
    """`name=value` items as settings; numbers and booleans are read as such."""
    found: dict[str, object] = {}
    for item in items:
        key, equals, text = (part.strip() for part in item.partition("="))
        if not (key and equals and text):
            raise ConfigError(f"`{option} {item}` is not a setting. Write it as name=value.")
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found


def console() -> Console:
    """A rich console on stdout, for results."""
    from rich.console import Console

    return Console()


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr; yields `report(done, total)`, the form that `Clip.write(progress=...)` calls.

    Nothing is drawn when stderr is not a terminal. The bar disappears when the block ends.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task(label, total=None)

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield report
