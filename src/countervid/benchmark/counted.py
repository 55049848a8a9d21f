"""An editor whose every drawing is counted: what it took is told once for all jobs that share it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from countervid.clip import Clip
from countervid.editors.base import Editor, Prepared, Report, Target
from countervid.files.whole import write_whole

PREPARING = "prepared"
NOTED_EVERY = 5.0  # seconds, at most, between two notes of what is under way
Cost = dict[str, float | None]


class Counted:
    """An editor whose results are drawn at once and counted; a target is drawn once a unit.

    Args:
        editor: Who draws.
        folder: Where costs are kept, so that what another job has drawn, or a run that was stopped, still counts.
    """

    def __init__(self, editor: Editor, folder: Path) -> None:
        self.editor, self.folder = editor, folder
        self.seconds = 0.0  # spent drawing, so far
        self._drawn: dict[str, Clip] = {}
        self._frames: dict[int, Tensor] = {}

    def __getattr__(self, name: str) -> Any:  # all else is the editor's own
        return getattr(self.editor, name)

    def prepare(
        self, clip: Clip, factual: dict[str, str], *, prompt: str = "", report: Report | None = None
    ) -> Prepared:
        config = hashlib.sha256(repr(getattr(self.editor, "config", "")).encode()).hexdigest()[:20]
        with self._counting(self.folder / f"unfinished-{config}.json", report) as (noted, cost):
            prepared = self.editor.prepare(clip, factual, prompt=prompt, report=noted)
            self._keep(prepared, PREPARING, cost())
        return prepared

    def edit(self, prepared: Prepared, target: Target, *, report: Report | None = None) -> Clip:
        mark = self.mark(target)
        if mark not in self._drawn:
            began = time.perf_counter()
            with self._counting(self._path(prepared, f"{mark}.unfinished"), report) as (noted, cost):
                lazy = self.editor.edit(prepared, target, report=noted)
                frames = lazy.frames
                self._keep(prepared, mark, cost())
            self.seconds += time.perf_counter() - began
            self._drawn[mark] = clip = Clip.from_frames(frames, lazy.fps)
            self._frames[id(clip)] = frames
        return self._drawn[mark]

    def frames_of(self, clip: Clip) -> Tensor:
        """The frames of a clip that was drawn here."""
        return self._frames[id(clip)]

    def mark(self, target: Target) -> str:
        """A name for what is drawn of a target."""
        told = {name: value for name, value in target.to_json().items() if name != "seed"}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:20]

    def cost(self, prepared: Prepared, mark: str) -> Cost:
        """Seconds and evaluations that something took when it was made."""
        return _read(self._path(prepared, mark))

    @contextmanager
    def _counting(self, unfinished: Path, report: Report | None) -> Iterator[tuple[Report, Callable[[], Cost]]]:
        """Counts while the block lasts, and on from where a process stopped that did not come to its end.

        Gives a report that has the count noted every few seconds, and the count itself: of all processes together.
        """
        earlier = _read(unfinished)
        began, before, noted = time.perf_counter(), self._evaluations(), time.monotonic()

        def cost() -> Cost:
            after = self._evaluations()
            evaluations = None if after is None or before is None else after - before + (earlier["evaluations"] or 0)
            return {"seconds": time.perf_counter() - began + (earlier["seconds"] or 0.0), "evaluations": evaluations}

        def told(what: str, done: int, total: int) -> None:
            nonlocal noted
            if time.monotonic() - noted > NOTED_EVERY:
                write_whole(unfinished, json.dumps(cost()) + "\n")
                noted = time.monotonic()
            if report is not None:
                report(what, done, total)

        try:
            yield told, cost
        except BaseException:
            write_whole(unfinished, json.dumps(cost()) + "\n")
            raise
        unfinished.unlink(missing_ok=True)

    def _keep(self, prepared: Prepared, mark: str, cost: Cost) -> None:
        """Note a cost, unless what was noted is more: then most was found in the store this time."""
        known = self.cost(prepared, mark)
        if known["seconds"] is None or _order(cost) > _order(known):
            write_whole(self._path(prepared, mark), json.dumps(cost) + "\n")

    def _path(self, prepared: Prepared, mark: str) -> Path:
        return self.folder / prepared.key / f"{mark}.json"

    def _evaluations(self) -> int | None:
        return int(self.editor.costs()["unet_evaluations"]) if hasattr(self.editor, "costs") else None


def _read(path: Path) -> Cost:
    """A cost that was noted; None for what is not known."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        values = {name: found[name] for name in ("seconds", "evaluations")}
    except (OSError, ValueError, KeyError, TypeError):
        values = {}
    numbers = {name: value for name, value in values.items() if isinstance(value, (int, float))}
    return {"seconds": numbers.get("seconds"), "evaluations": numbers.get("evaluations")}


def _order(cost: Cost) -> tuple[float, float]:
    return cost["evaluations"] or 0.0, cost["seconds"] or 0.0
