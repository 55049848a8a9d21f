"""Steering within a run: its ledger, the pictures of every round, and what `run.json` says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from countervid.causal.graph import CausalGraph
from countervid.clip.sheets import write_rows
from countervid.critics.base import NEARLY_ALL, Critic, Spender, Verdict
from countervid.editors.base import Editor, Prepared, Report, Target
from countervid.runs.folder import RunFolder
from countervid.steering.base import Round, Steerer, edits_of, front, spent
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
    for who, one in (("critic", plan.critic), ("writer", plan.steerer)):
        if isinstance(one, Spender):  # budgets are of a run, not of a process
            one.carry(spent(ledger.rounds).get(who, {}))
    done = steer(
        editor, prepared, target, graph=graph, critic=plan.critic, steerer=plan.steerer, config=plan.loop,
        ledger=ledger, report=report, watch=watch,
    )  # fmt: skip
    if folder is not None:
        for round in done.rounds:
            folder.drop_damaged(picture_of(round.number))
    return done


def summary(done: Steered) -> dict[str, Any]:
    """What `run.json` says of it.

    `attributes` has what the critic saw before the edit that was chosen and afterwards; `changed_seen` are those that
    should change, did not look so before and surely do now.
    """
    chosen = done.chosen
    return {
        "edits": len(edits_of(done.rounds)), "chosen": chosen.number, "stopped": done.stopped,
        "satisfied": chosen.holds and not chosen.already, "front": [round.number for round in front(done.rounds)],
        "attributes": before_and_after(chosen), "changed_seen": sorted(chosen.gained),
        **spent(done.rounds),
    }  # fmt: skip


def seen_as(round: Round, name: str) -> str:
    """What the critic saw of an attribute, before the edit and after: "young \u2192 old, in 60% of the frames"."""
    if round.verdict is None or name not in round.verdict.answers:
        return ""
    answer = round.verdict.answers[name]
    after = answer.value or "cannot be told"
    share = answer.votes.get(answer.value or "", 1.0)
    after += "" if share >= NEARLY_ALL - 1e-3 else f", in {share:.0%} of the frames"
    earlier = None if round.source is None else round.source.answers.get(name)
    return after if earlier is None else f"{earlier.value or 'cannot be told'} \u2192 {after}"


def before_and_after(round: Round) -> dict[str, dict[str, Any]]:
    """Of each attribute that a round was judged by: what is wanted, and what the critic saw before and after."""
    if round.verdict is None:
        return {}

    def told(verdict: Verdict | None, name: str) -> dict[str, Any] | None:
        answer = None if verdict is None else verdict.answers.get(name)
        return None if answer is None else {"value": answer.value, "confidence": answer.confidence}

    wanted = round.step.target.counterfactual
    return {
        name: {"wanted": wanted.get(name), "before": told(round.source, name), "after": told(round.verdict, name)}
        for name in round.verdict.answers
    }
