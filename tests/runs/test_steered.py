"""A steered run that is stopped anywhere and goes on: target, video, record and ledger are of one round."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from countervid.causal.graph import CausalGraph
from countervid.clip import Clip
from countervid.critics.base import Answer, Request, Verdict
from countervid.errors import CallError
from countervid.steering.base import Round, best
from countervid.steering.loop import LoopConfig, View

MADE = ("target.json", "counterfactual.mp4", "metrics.json", "comparison.mp4", "verdicts.jsonl")
FARTHEST = 0.45  # levels of 255: toy networks move little
STAGES = ("write_json", "looked_at", "render_report")  # of `countervid.runs.outputs`, in their order


@dataclass
class Viewer:
    """The further an edit is from `source`, the older it looks, never old enough. Calls may fail, or be the last."""

    source: torch.Tensor | None = None
    fails: frozenset[int] = frozenset()
    dies: int = -1
    name: str = "viewer"
    size: int = 64
    looks: int = 2
    calls: int = 0
    paid: float = 0.0

    def check(self, graph: CausalGraph) -> None: ...

    def carry(self, spent: dict[str, float]) -> None:
        self.paid += spent.get("calls", 0)

    def judge(self, request: Request) -> Verdict:
        number, self.calls = self.calls, self.calls + 1
        if number == self.dies:
            raise KeyboardInterrupt
        if number in self.fails:
            raise CallError("nobody answers")
        if self.source is None:
            raise CallError("the source is not known yet")
        moved = float((request.pictures.float() - self.source.float()).abs().mean())
        sure = min(0.94, moved / FARTHEST)
        known = {**request.kept, **request.changed}
        answers = {name: Answer(value=value, confidence=0.9) for name, value in known.items()}
        answers["age"] = Answer(value="old", confidence=sure)
        return Verdict(critic=self.name, frames=request.frames, answers=answers, sure=0.95)

    def costs(self) -> dict[str, Any]:
        return {"calls": self.calls}


@pytest.fixture(scope="module")
def source(run: Any, footage: Path) -> torch.Tensor:
    """What a critic is shown of the clip before any edit."""
    prepared = run(clip=Clip.read(footage / "talk.mp4").first(4)).prepared
    return View(prepared, (1, 3), Viewer.size).of(prepared.clip)


@pytest.fixture
def steered(run: Any, footage: Path, source: torch.Tensor, tmp_path: Path) -> Any:
    clip = Clip.read(footage / "talk.mp4").first(4)

    def again(critic: Viewer, folder: str = "run") -> Any:
        critic.source = source
        loop = LoopConfig(max_edits=3)
        return run(clip=clip, critic=critic, steerer="strengths", loop=loop, out=tmp_path / folder)

    return again


def check(result: Any) -> Round:
    """All that a run's folder says is of one round, the best one."""
    folder = result.folder
    lines = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    rounds = [Round.from_json(line) for line in lines]
    target, record = (json.loads((folder / name).read_text()) for name in ("target.json", "run.json"))
    chosen = best(rounds)
    assert record["finished"] and record["steering"]["chosen"] == target["round"] == chosen.number
    asked = json.loads(json.dumps(chosen.step.target.to_json()))
    assert {name: target[name] for name in asked} == asked
    assert [round.number for round in rounds] == list(range(len(rounds)))
    again = result.clip.write(folder.parent / "again.mp4")
    assert torch.equal(Clip.read(folder / "counterfactual.mp4").frames, Clip.read(again).frames)
    assert json.loads((folder / "metrics.json").read_text()) == json.loads(json.dumps(result.metrics))
    page = (folder / "report.html").read_text()
    assert f'<b>Round {chosen.number}</b> <span class="badge">kept' in page
    assert all((folder / f"round-{number}.png").is_file() for number in range(len(rounds)))
    assert set(record["files"]) >= {*MADE, "report.html"}
    return chosen


def test_a_run_that_is_killed_while_it_is_steered_comes_to_the_same_end(steered: Any, tmp_path: Path) -> None:
    whole = steered(Viewer(), "whole")
    chosen = check(whole)
    assert len(whole.steered.rounds) == 3 and chosen.number > 0
    for dies in (0, 1, 3):  # in the first round, at the clip before any edit, in the last round
        with pytest.raises(KeyboardInterrupt):
            steered(Viewer(dies=dies), f"run-{dies}")
        critic = Viewer()
        result = steered(critic, f"run-{dies}")
        assert check(result) == chosen
        assert critic.paid == {0: 0, 1: 0, 3: 3}[dies]  # what whole rounds had cost
        for name in ("target.json", "counterfactual.mp4", "metrics.json", "comparison.mp4"):
            assert (result.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


@pytest.mark.parametrize("stage", STAGES)
def test_files_of_another_round_are_made_again_wherever_the_run_was_killed(
    steered: Any, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """The critic fails after the first round, so that is returned; later it answers, and a later round is the best."""
    with monkeypatch.context() as patch:
        patch.setattr(f"countervid.runs.outputs.{stage}", _die)
        with pytest.raises(KeyboardInterrupt):
            steered(Viewer(fails=frozenset({2, 3})))
    result = steered(Viewer(fails=frozenset({0, 1})))
    assert check(result).number == 0 and "calls in a row failed" in result.steered.stopped
    with monkeypatch.context() as patch:
        patch.setattr(f"countervid.runs.outputs.{stage}", _die)
        with pytest.raises(KeyboardInterrupt):
            steered(Viewer())
    result = steered(Viewer())
    assert check(result).number > 0
    stamps = {name: (result.folder / name).stat().st_mtime_ns for name in MADE}
    assert check(steered(Viewer(fails=frozenset(range(9))))).number > 0  # nobody is asked any more
    assert {name: (result.folder / name).stat().st_mtime_ns for name in MADE} == stamps


def _die(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def test_a_ledger_that_lost_its_last_line_is_not_contradicted(steered: Any) -> None:
    first = steered(Viewer())
    ledger = first.folder / "verdicts.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[:-1]) + lines[-1][:50])
    result = steered(Viewer(fails=frozenset({0, 1})))
    assert check(result).number < first.steered.chosen.number
    assert not torch.equal(result.clip.frames, first.clip.frames)
