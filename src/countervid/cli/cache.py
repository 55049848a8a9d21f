"""`countervid cache`: what prepared clips take, and how to be rid of them."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from countervid.cli.common import CacheLimitOption, CacheOption, console
from countervid.errors import ConfigError

if TYPE_CHECKING:
    from countervid.editors.cache import Cache, Entry

app = typer.Typer(no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@app.callback()
def group() -> None:
    """What is kept of prepared clips, so that a second edit costs less: list it, measure it, remove it."""


@app.command("list")
def list_entries(as_json: JsonOption = False, cache: CacheOption = None, cache_limit: CacheLimitOption = None) -> None:
    """Show each prepared clip: whose, by which editor, how large, when it was last used. The last used first."""
    held = opened(cache, cache_limit)
    entries = held.entries()
    if as_json:
        fields = ("name", "clip", "digest", "editor", "frames", "size", "edits", "used", "made")
        typer.echo(json.dumps([{field: getattr(entry, field) for field in fields} for entry in entries], indent=2))
        return
    if entries:
        _show(entries)
    _total(held, entries)


@app.command()
def size(as_json: JsonOption = False, cache: CacheOption = None, cache_limit: CacheLimitOption = None) -> None:
    """Say how much is kept in all, how much may be, and what the disk has."""
    held = opened(cache, cache_limit)
    entries = held.entries()
    used = held.used(entries)
    if as_json:
        values = {"folder": str(held.path), "entries": len(entries), "used": used, "limit": held.bound(used)}
        typer.echo(json.dumps({**values, "free": held.free}, indent=2))
        return
    _total(held, entries)


@app.command()
def prune(
    older_than: Annotated[
        Optional[str], typer.Option(metavar="AGE", help="Not used for so long: 30d, 12h, 2w.", show_default=False)
    ] = None,
    max_size: Annotated[
        Optional[str],
        typer.Option(metavar="SIZE", help="What was used longest ago, until so much is left: 5GB.", show_default=False),
    ] = None,
    clip: Annotated[
        Optional[Path], typer.Option(help="What is kept of this video, or folder of pictures.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove it; without this, it is only shown.")] = False,
    cache: CacheOption = None,
) -> None:
    """Show what would be removed, or, with --yes, remove it. What a running command uses stays."""
    from countervid.editors.cache import human, parse_size

    if not (older_than or max_size or clip or everything):
        raise ConfigError("Say what to remove: `--older-than 30d`, `--max-size 5GB`, `--clip FILE` or `--all`.")
    held = opened(cache, None)
    age = None if older_than is None else parse_age(older_than)
    target = None if max_size is None else parse_size(max_size)
    digest = None if clip is None else _digest(clip)
    entries = held.entries()
    chosen = [entry for entry in entries if digest is None or entry.digest == digest]
    if age is not None:
        chosen = [entry for entry in chosen if time.time() - entry.used > age]
    drawn: list[Entry] = []  # of these only what was drawn goes
    if target is not None:
        left, oldest, chosen = held.used(entries), chosen[::-1], []
        for entry in oldest:
            if left > target and entry.edits:
                drawn.append(entry)
                left -= entry.edits
        for entry in oldest:
            if left > target:
                chosen.append(entry)
                left -= entry.size - entry.edits * (entry in drawn)
        drawn = [entry for entry in drawn if entry not in chosen]
    screen = console()
    if not chosen and not drawn:
        screen.print("Nothing to remove.")
        return
    if not yes:
        if chosen:
            _show(chosen)
        total = sum(entry.size for entry in chosen) + sum(entry.edits for entry in drawn)
        screen.print(f"{human(total)} would be removed: {_counted(chosen, drawn)}. Do it with --yes.", soft_wrap=True)
        return
    gone = [entry for entry in chosen if held.remove(entry)]
    stripped = [entry for entry in drawn if held.remove(entry, edits_only=True)]
    total = sum(entry.size for entry in gone) + sum(entry.edits for entry in stripped)
    screen.print(f"{human(total)} removed: {_counted(gone, stripped)}.", soft_wrap=True)
    busy = len(chosen) + len(drawn) - len(gone) - len(stripped)
    if busy:
        screen.print(f"{busy} in use by running commands, and left.", style="yellow")


def opened(cache: Path | None, limit: str | None) -> Cache:
    """The cache that the options name."""
    from countervid.editors.cache import Cache, default_cache, parse_size

    return Cache(cache or default_cache(), None if limit is None else parse_size(limit))


def parse_age(text: str) -> float:
    """Seconds of an age in words: 30d, 12h, 2w, 45m.

    Raises:
        ConfigError: It is not an age.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([mhdw])\s*", text)
    if match is None:
        raise ConfigError(f"`{text}` is not an age. Write it as in 45m, 12h, 30d or 2w.")
    return float(match[1]) * _SECONDS[match[2]]


def since(seconds: float) -> str:
    """An age in words, in its largest unit: 3 d."""
    for unit in ("w", "d", "h", "m"):
        if seconds >= _SECONDS[unit] * (2 if unit == "w" else 1):
            return f"{seconds / _SECONDS[unit]:.0f} {unit if unit != 'm' else 'min'}"
    return "now"


def _digest(path: Path) -> str:
    from countervid.clip import Clip

    return Clip.read(path).digest()


def _counted(entries: list[Entry], drawn: list[Entry]) -> str:
    parts = [f"{len(entries)} prepared clip{'s' * (len(entries) != 1)}"] if entries else []
    parts += [f"the edits drawn of {len(drawn)} other{'s' * (len(drawn) != 1)}"] if drawn else []
    return " and ".join(parts) or "nothing"


def _total(cache: Cache, entries: list[Entry]) -> None:
    from rich.text import Text

    from countervid.editors.cache import human

    used = cache.used(entries)
    line = f"{len(entries)} prepared clip{'s' * (len(entries) != 1)}, {human(used)} of {human(cache.bound(used))} that "
    console().print(Text(f"{line}may be kept; {human(cache.free)} free on the disk"), soft_wrap=True)
    console().print(Text(str(cache.path)), soft_wrap=True)


def _show(entries: list[Entry]) -> None:
    from rich.table import Table
    from rich.text import Text

    from countervid.editors.cache import human

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("clip", overflow="ellipsis", no_wrap=True, max_width=24)
    table.add_column("editor", no_wrap=True)
    for heading in ("frames", "size", "edits", "used", "age"):
        table.add_column(heading, justify="right", no_wrap=True)
    now = time.time()
    for entry in entries:
        table.add_row(
            Text(entry.clip), Text(entry.editor), "" if entry.frames is None else str(entry.frames), human(entry.size),
            human(entry.edits) if entry.edits else "", since(now - entry.used), since(now - entry.made),
        )  # fmt: skip
    console().print(table)
