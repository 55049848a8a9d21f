"""An editor whose every drawing is counted: what it took is told once for all jobs that share it."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from countervid.clip import Clip
from countervid.editors.base import Editor, Prepared, Report, Target
from countervid.files.whole import write_whole

PREPARING = "prepared"
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
        began, before = time.perf_counter(), self._evaluations()
        prepared = self.editor.prepare(clip, factual, prompt=prompt, report=report)
        self._keep(prepared, PREPARING, time.perf_counter() - began, before)
        return prepared

    def edit(self, prepared: Prepared, target: Target, *, report: Report | None = None) -> Clip:
        mark = self.mark(target)
        if mark not in self._drawn:
            began, before = time.perf_counter(), self._evaluations()
            lazy = self.editor.edit(prepared, target, report=report)
            frames = lazy.frames
            seconds = time.perf_counter() - began
            self.seconds += seconds
            self._keep(prepared, mark, seconds, before)
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
        try:
            found: Cost = json.loads(self._path(prepared, mark).read_text(encoding="utf-8"))
            return {name: found[name] for name in ("seconds", "evaluations")}
        except (OSError, ValueError, KeyError, TypeError):
            return {"seconds": None, "evaluations": None}

    def _keep(self, prepared: Prepared, mark: str, seconds: float, before: int | None) -> None:
        """Note a cost, unless what was noted is more: then most was found in the store this time."""
        after = self._evaluations()
        cost: Cost = {"seconds": seconds, "evaluations": None if after is None or before is None else after - before}
        known = self.cost(prepared, mark)
        if known["seconds"] is None or _order(cost) > _order(known):
            write_whole(self._path(prepared, mark), json.dumps(cost) + "\n")

    def _path(self, prepared: Prepared, mark: str) -> Path:
        return self.folder / prepared.key / f"{mark}.json"

    def _evaluations(self) -> int | None:
        return int(self.editor.costs()["unet_evaluations"]) if hasattr(self.editor, "costs") else None


def _order(cost: Cost) -> tuple[float, float]:
    return cost["evaluations"] or 0.0, cost["seconds"] or 0.0
