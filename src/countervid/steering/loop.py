"""The loop: edit, judge, stop when everything holds, else the next target; the best edit is returned, not the last.

Every round is one line of a ledger, written before the next begins, so that a run that was killed goes on after the
last line: no edit, verdict or rewriting is made twice. A call that fails is a line, too; the edit that it was about is
shown once more, and counts once.

Once a run the critic is also shown the clip before any edit, so that what is seen afterwards can be told from what was
seen all along.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from countervid.causal.graph import CausalGraph
from countervid.chat.base import BudgetError
from countervid.clip import Clip
from countervid.critics.base import Critic, Request, Verdict, asked, spread
from countervid.editors.base import Editor, Prepared, Report, Target
from countervid.errors import CallError, ConfigError
from countervid.face import align
from countervid.files.whole import write_whole
from countervid.steering.base import Round, Steerer, Step, best, edits_of
from countervid.steering.candidates import Candidates, check_candidates

FAILURES = 2  # calls in a row that may fail
SEEN = "everything asked for is seen"


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    max_edits: int = 5  # first and all
    looks: int | None = None  # frames that the critic sees; None: as many as it likes
    source: bool = True  # the critic is shown the clip before any edit, too
    candidates: int = 1  # edits of one target with different seeds, for editors that have one

    def __post_init__(self) -> None:
        if self.max_edits < 1:
            raise ConfigError(f"`max-edits` is {self.max_edits}: nothing could be made. Give at least 1.")
        if self.looks is not None and self.looks < 1:
            raise ConfigError(f"A critic must see at least 1 frame, got {self.looks}.")
        if self.candidates < 1:
            raise ConfigError(f"`candidates` is {self.candidates}: nothing could be made. Give at least 1.")


@dataclass(frozen=True, kw_only=True)
class Steered:
    """What steering came to."""

    clip: Clip
    chosen: Round
    rounds: tuple[Round, ...]
    stopped: str  # why there was no further round


class Ledger:
    """The rounds so far, one line of JSON each; kept in a file where one is named."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.rounds: list[Round] = []
        if path is None or not path.exists():
            return
        lines = path.read_bytes().splitlines(keepends=True)
        for line in lines:
            try:
                self.rounds.append(Round.from_json(json.loads(line.decode("utf-8"))))
            except (ValueError, KeyError, TypeError, AttributeError, ConfigError):
                break  # a line that was cut off or damaged, and all after it
        kept = lines[: len(self.rounds)]
        if len(kept) < len(lines) or (kept and not kept[-1].endswith(b"\n")):
            write_whole(path, b"".join(line.rstrip(b"\r\n") + b"\n" for line in kept))

    def add(self, round: Round, **about: Any) -> None:
        self.rounds.append(round)
        if self.path is None:
            return
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({**round.to_json(), **about}, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


Watcher = Callable[[Round, Tensor], None]
"""Called after every round that is made anew, with the pictures that were judged, `(n, S, S, 3)` uint8."""


def steer(
    editor: Editor,
    prepared: Prepared,
    target: Target,
    *,
    graph: CausalGraph,
    critic: Critic,
    steerer: Steerer,
    config: LoopConfig = LoopConfig(),
    ledger: Ledger | None = None,
    report: Report | None = None,
    watch: Watcher | None = None,
) -> Steered:
    """Edit a prepared clip until the critic sees what the target asks for.

    Args:
        target: What is asked for; where the steerer starts.
        graph: Whose variables are asked about.
        ledger: The rounds of an earlier call with the same arguments, to go on from.
        watch: See `Watcher`.

    Raises:
        ConfigError: The critic cannot be asked about the graph, or the editor has no seed and candidates are asked for.
    """
    ledger = ledger or Ledger()
    check_candidates(config.candidates, editor)
    if config.candidates > 1:
        steerer = Candidates(steerer, config.candidates)
    view = View(prepared, spread_over(prepared, steerer, critic, config), critic.size)
    questions = asked(graph)
    limit = config.max_edits if steerer.manner.edits is None else min(config.max_edits, steerer.manner.edits)
    edits: dict[int, Clip] = {}
    source: Tensor | None = None
    pictures = torch.empty(0)
    failed = 0
    stopped = ""
    while not stopped:
        rounds = ledger.rounds
        repeats, made = bool(rounds) and bool(rounds[-1].failure), len(edits_of(rounds))
        if made >= limit and not repeats:
            stopped = f"{limit} edits were made" if limit > 1 else "one edit was asked for"
            break
        before = _costs(critic, steerer)
        try:
            step = _following(rounds, steerer, target)
        except BudgetError as error:
            if not rounds:
                raise
            stopped = str(error)
            break
        if step is None:
            stopped = _satisfied(best(rounds)) if best(rounds).holds else "nothing is left to try"
            break
        number = len(rounds)
        if repeats and number - 1 in edits:
            edits[number] = edits[number - 1]
        else:
            edits[number] = editor.edit(prepared, step.target, report=report)
            pictures = view.of(edits[number])
        source = view.of(prepared.clip) if source is None else source
        request = Request(
            pictures=pictures, frames=view.frames, questions=questions, changed=step.target.changed,
            kept=step.target.kept, prompt=step.target.prompt,
        )  # fmt: skip
        verdict, failure = None, ""
        if steerer.manner.judged is None or made - repeats < steerer.manner.judged:
            try:
                verdict = critic.judge(request)
            except CallError as error:
                failure = str(error)
                if isinstance(error, BudgetError):
                    stopped = failure
                    if repeats:  # it says nothing new
                        break
        known = next((one for one in rounds if one.source is not None), None)
        shown, shown_request = (None, "") if known is None else (known.source, known.source_request)
        if verdict is not None and shown is None and config.source and steerer.manner.source:
            asked_before = replace(request, pictures=source, changed={}, kept={}, prompt="")
            shown, shown_request = _judged(critic, asked_before), asked_before.key()
        distance = round(float((pictures.float() - source.float()).abs().mean()), 4)
        made_now = Round(
            number=number, step=step, verdict=verdict, failure=failure, distance=distance, request=request.key(),
            spent=_grown(before, _costs(critic, steerer)), source=shown, source_request=shown_request,
        )  # fmt: skip
        failed = failed + 1 if failure else 0
        ledger.add(made_now, size=critic.size)
        if watch is not None:
            watch(made_now, pictures)
        if not stopped and failed >= FAILURES:
            stopped = f"{failed} calls in a row failed: {failure}"
    tried = tuple(ledger.rounds)
    chosen = tried[-1] if steerer.manner.returns_last else best(tried)
    clip = edits.get(chosen.number)
    if clip is None:
        clip = editor.edit(prepared, chosen.step.target, report=report)
    return Steered(clip=clip, chosen=chosen, rounds=tried, stopped=stopped)


def _satisfied(chosen: Round) -> str:
    """Why nothing more is tried, where all that was asked for is seen."""
    if not chosen.already:
        return SEEN
    names = ", ".join(name.replace("_", " ") for name in chosen.already)
    return f"{SEEN}, but {names} looked so before any edit"


def _judged(critic: Critic, request: Request) -> Verdict | None:
    """What the critic says, or None where no answer could be had: that is no reason to stop."""
    try:
        return critic.judge(request)
    except CallError:
        return None


Costs = dict[str, dict[str, float]]


def _costs(critic: Critic, steerer: Steerer) -> Costs:
    def numbers(costs: dict[str, Any]) -> dict[str, float]:
        return {name: value for name, value in costs.items() if isinstance(value, (int, float))}

    return {"critic": numbers(critic.costs()), "writer": numbers(steerer.costs())}


def _grown(before: Costs, after: Costs) -> Costs:
    return {
        who: {name: round(value - before[who].get(name, 0), 6) for name, value in costs.items()}
        for who, costs in after.items()
    }


def _following(rounds: list[Round], steerer: Steerer, target: Target) -> Step | None:
    if not rounds:
        return steerer.first(target)
    if rounds[-1].failure:  # the same edit is shown once more: what a call's failure says is nothing about the edit
        return rounds[-1].step
    return steerer.next([round for round in rounds if not round.failure])


def spread_over(prepared: Prepared, steerer: Steerer, critic: Critic, config: LoopConfig) -> tuple[int, ...]:
    """The frames that are judged: those with the face, where one is tracked."""
    track = prepared.track
    present = range(len(prepared.clip)) if track is None else track.frames().tolist()
    if steerer.manner.looks is not None:
        return tuple(sorted({present[min(look, len(present) - 1)] for look in steerer.manner.looks}))
    return spread(present, config.looks or critic.looks)


class View:
    """The pictures of a clip that a critic is shown: squares round the face, or whole frames where none is tracked."""

    def __init__(self, prepared: Prepared, frames: tuple[int, ...], size: int) -> None:
        self.frames, self._track, self._size = frames, prepared.track, size

    def of(self, clip: Clip) -> Tensor:
        """`(n, S, S, 3)` uint8; whole frames keep their aspect ratio."""
        return self._framed(clip.frames_at(self.frames), np.asarray(self.frames))

    def _framed(self, frames: Tensor, rows: np.ndarray[Any, Any]) -> Tensor:
        if self._track is not None:
            return align.crop(frames, self._track.quads[rows], self._size)
        scale = self._size / max(frames.shape[1:3])
        pixels = frames.permute(0, 3, 1, 2).float()
        shrunk = F.interpolate(pixels, scale_factor=scale, mode="bilinear", antialias=True) if scale < 1 else pixels
        return shrunk.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
