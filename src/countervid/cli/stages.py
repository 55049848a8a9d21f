"""What long commands share: progress bars, one for each thing that a run does, and threads that wait politely."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def wait_politely() -> None:
    """Let idle threads sleep instead of spinning; to be called before torch is imported.

    The networks are small and their kernels short: with another busy process on the machine, spinning threads made an
    edit ten times slower (68 s instead of 7 s on 2 shared cores). A policy that is set already stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Yields `report(what, done, total)`; each `what` gets a line of its own the first time it is named.

    On stderr, and only where that is a terminal.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    screen = Console(stderr=True)
    columns = (TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as bars:
        known: dict[str, object] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=total)
            bars.update(known[what], completed=done, total=total)  # type: ignore[arg-type]

        yield report
