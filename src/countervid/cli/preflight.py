"""What commands say, or refuse, before a long run begins; and what they keep of it for the next estimate."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from countervid.clip import Clip
    from countervid.editors.base import Editor, Report


@contextmanager
def preflight(editor: Editor, clip: Clip, report: Report, edits: int = 1) -> Iterator[Report]:
    """Around a run: refuses what memory or disk will not do. Yields `report`, which first says what a long run takes.

    It is said on stderr once the run computes, so that a run that is refused for another reason says that alone.

    Raises:
        OutputError, ConfigError: There is no room for it.
    """
    from countervid.runs.preflight import WORTH_SAYING, check, estimate, learn

    expected = estimate(editor, clip, edits=edits)
    if expected is not None:
        check(editor, clip, expected)
    told = expected is None or expected.seconds < WORTH_SAYING

    def telling(what: str, done: int, total: int) -> None:
        nonlocal told
        if not told and expected is not None:
            told = True
            typer.echo(f"{clip_name(clip)}: {expected.sentence()}", err=True)
        report(what, done, total)

    before, started = evaluations(editor), time.perf_counter()
    yield telling
    computed = evaluations(editor) - before
    if expected is not None and 2 * computed >= expected.evaluations:  # of a run that found much there, it says little
        learn(editor, time.perf_counter() - started, computed)


def evaluations(editor: Editor) -> int:
    """What the editor has computed so far."""
    return int(editor.costs()["unet_evaluations"]) if hasattr(editor, "costs") else 0


def clip_name(clip: Clip) -> str:
    from countervid.files.names import printable

    return printable(clip.source.name) if clip.source else "frames in memory"
