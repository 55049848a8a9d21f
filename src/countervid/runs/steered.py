"""Steering within a run: its ledger, the pictures of every round, and what `run.json` says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from countervid.causal.graph import CausalGraph
from countervid.clip.sheets import write_rows
from countervid.critics.base import Critic
from countervid.editors.base import Editor, Prepared, Report, Target
from countervid.runs.folder import RunFolder
from countervid.steering.base import Round, Steerer, front, spent
from countervid.steering.loop import Ledger, LoopConfig, Steered, steer

VERDICTS = "verdicts.jsonl"


@dataclass(frozen=True, kw_only=True)
class Steering:
    """Who looks, who writes, and how long.

    `watch` is called after each round, with the file of its pictures where there is a folder.
    """

    critic: Critic
    steerer: Steerer
    loop: LoopConfig = field(default_factory=LoopConfig)
    watch: Callable[[Round, Path | None], None] | None = None

    def settings(self) -> dict[str, Any]:
        """What the result depends on."""
        writer = getattr(getattr(self.steerer, "writer", None), "name", None)
        return {"critic": self.critic.name, "steering": self.steerer.name, "writer": writer, **asdict(self.loop)}


def picture_of(round: int) -> str:
    """The file in a run's folder that shows what was judged in a round."""
    return f"round-{round}.png"


def steered(
    editor: Editor, prepared: Prepared, target: Target, graph: CausalGraph, plan: Steering, folder: RunFolder | None,
    report: Report | None,
) -> Steered:  # fmt: skip
    """Steer, with every round in the folder as it is made."""

    def watch(round: Round, pictures: Tensor) -> None:
        file = None
        if folder is not None:
            folder.keep(VERDICTS)
            file = folder.path / picture_of(round.number)
            signed = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
            write_rows(file, {f"round {round.number}": signed})
            folder.keep(file.name)
        if plan.watch is not None:
            plan.watch(round, file)

    ledger = Ledger(None if folder is None else folder.log(VERDICTS))
    done = steer(
        editor, prepared, target, graph=graph, critic=plan.critic, steerer=plan.steerer, config=plan.loop,
        ledger=ledger, report=report, watch=watch,
    )  # fmt: skip
    if folder is not None:
        for round in done.rounds:
            folder.drop_damaged(picture_of(round.number))
    return done


def summary(done: Steered) -> dict[str, Any]:
    """What `run.json` says of it."""
    return {
        "edits": len(done.rounds), "chosen": done.chosen.number, "stopped": done.stopped,
        "satisfied": done.chosen.holds, "front": [round.number for round in front(done.rounds)],
        **spent(done.rounds),
    }  # fmt: skip
