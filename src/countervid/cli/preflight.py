"""What commands say, or refuse, before a long run begins; and what they keep of it for the next estimate."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from countervid.clip import Clip
    from countervid.editors.base import Editor


@contextmanager
def preflight(editor: Editor, clip: Clip, edits: int = 1) -> Iterator[None]:
    """Around a run: refuses what memory or disk will not do, and says what a run of a minute or more takes, on stderr.

    Raises:
        OutputError, ConfigError: There is no room for it.
    """
    from rich.console import Console
    from rich.text import Text

    from countervid.runs.preflight import WORTH_SAYING, check, estimate, learn

    expected = estimate(editor, clip, edits=edits)
    if expected is not None:
        check(editor, clip, expected)
        if expected.seconds >= WORTH_SAYING:
            Console(stderr=True).print(Text(f"{clip_name(clip)}: {expected.sentence()}"), soft_wrap=True)
    before, started = evaluations(editor), time.perf_counter()
    yield
    learn(editor, time.perf_counter() - started, evaluations(editor) - before)


def evaluations(editor: Editor) -> int:
    """What the editor has computed so far."""
    return int(editor.costs()["unet_evaluations"]) if hasattr(editor, "costs") else 0


def clip_name(clip: Clip) -> str:
    from countervid.files.names import printable

    return printable(clip.source.name) if clip.source else "frames in memory"
