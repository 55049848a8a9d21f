"""Being asked to stop: SIGTERM ends a command as Ctrl-C does, and a loop may finish the step at hand first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM came: whatever handles Ctrl-C handles this."""


def raise_terminated(number: int, frame: FrameType | None) -> None:
    """A handler for SIGTERM. A second signal, while files are put away, ends the process at once."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise Terminated


@contextmanager
def terminating_as_interrupt() -> Iterator[None]:
    """While the block lasts SIGTERM raises `Terminated`; in a process's main thread, for others hear no signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Stop:
    """What was asked for while a loop was at work."""

    asked: type[KeyboardInterrupt] | None = None

    def raise_asked(self) -> None:
        """Raise what was asked for, if anything was."""
        if self.asked is not None:
            raise self.asked


@contextmanager
def after_this_step() -> Iterator[Stop]:
    """While the block lasts, SIGINT and SIGTERM only note that a stop is asked for; a second one is raised at once.

    The loop looks at `Stop.asked` between its steps, puts its state away, and calls `Stop.raise_asked`.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: FrameType | None) -> None:
        kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        if stop.asked is not None:
            raise kind
        stop.asked = kind

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
