"""The loop on an editor and a critic that are small enough to know every number of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from countervid.chat.base import BudgetError
from countervid.clip import Clip
from countervid.critics.base import Answer, Request, Verdict, load_critic, spread
from countervid.editors.base import Prepared, Target
from countervid.errors import ConfigError
from countervid.runs.steered import before_and_after, seen_as, summary
from countervid.steering.base import AS_GOOD, Round, Step, best, edits_of, front
from countervid.steering.baselines import Once
from countervid.steering.loop import Ledger, LoopConfig, Steered, steer
from countervid.steering.rewrite import RuleWriter
from countervid.steering.strengths import Strengths
from countervid.steering.words import Words, published
from steering.lamp import Lamp, Meter, graph, target


@pytest.fixture
def clip() -> Clip:
    """Eight grey frames of level 20, the sixth of them a little lighter."""
    frames = torch.full((8, 32, 32, 3), 20, dtype=torch.uint8)
    frames[5] += 4
    return Clip.from_frames(frames, 10)


def steered(clip: Clip, folder: Path, critic: Meter, **options: object) -> tuple[Steered, Lamp]:
    steerer = options.pop("steerer", None) or Words(graph(), RuleWriter(), 2.0)
    editor = Lamp(folder / "cache", **({"knobs": options.pop("knobs")} if "knobs" in options else {}))
    prepared = editor.prepare(clip, {})
    options = {"config": LoopConfig(source=False), **options}
    return steer(editor, prepared, target(), graph=graph(), critic=critic, steerer=steerer, **options), editor


def test_it_goes_on_until_the_critic_sees_what_was_asked_for(clip: Clip, tmp_path: Path) -> None:
    done, editor = steered(clip, tmp_path, Meter(level=55))
    assert [round.holds for round in done.rounds] == [False, False, True]
    assert done.stopped == "everything asked for is seen" and editor.edits == 3
    assert float(done.clip.first(1).frames.float().mean()) >= 55
    assert (
        "shining" in done.chosen.step.target.prompt
        and done.chosen.step.target.negative_prompt == "This person is dark."
    )


def test_what_holds_at_once_is_edited_once(clip: Clip, tmp_path: Path) -> None:
    done, editor = steered(clip, tmp_path, Meter(level=30))
    assert len(done.rounds) == editor.edits == 1 and done.stopped == "everything asked for is seen"


def test_the_best_is_returned_and_not_the_last(clip: Clip, tmp_path: Path) -> None:
    # Bright from 200 on is never reached in three edits; each goes further from the source, and past 45 it looks red.
    done, _ = steered(clip, tmp_path, Meter(level=500, glare=45), config=LoopConfig(max_edits=3, source=False))
    assert [bool(round.lost) for round in done.rounds] == [False, False, True]
    assert done.chosen.number == 0 and done.stopped == "3 edits were made"


def test_as_published_the_last_edit_is_returned_unseen(clip: Clip, tmp_path: Path) -> None:
    critic = Meter(level=500)
    done, _ = steered(clip, tmp_path, critic, steerer=published(graph(), RuleWriter(), 2.0))
    assert len(done.rounds) == 3 and len(critic.seen) == 2
    assert done.rounds[-1].verdict is None and done.chosen.number == 2
    assert done.rounds[0].verdict is not None and done.rounds[0].verdict.frames == (6,)
    assert all(round.step.target.guidance is None for round in done.rounds)


def test_a_failed_call_is_a_line_and_uses_up_no_edit_and_two_in_a_row_end_it(clip: Clip, tmp_path: Path) -> None:
    limit = LoopConfig(max_edits=3, source=False)
    sound, _ = steered(clip, tmp_path / "none", Meter(level=55), config=limit)
    done, editor = steered(clip, tmp_path / "one", Meter(level=55, broken=frozenset({0, 2})), config=limit)
    broken = "the lamp's meter is out of order"
    assert [round.failure for round in done.rounds] == [broken, "", broken, "", ""]
    assert done.rounds[0].step == done.rounds[1].step and done.rounds[2].step == done.rounds[3].step
    assert [r.step for r in edits_of(done.rounds)] == [round.step for round in sound.rounds] and editor.edits == 3
    assert done.chosen.holds and done.chosen.step == sound.chosen.step
    last, _ = steered(clip, tmp_path / "last", Meter(level=500, broken=frozenset({2})), config=limit)
    assert len(last.rounds) == 4 and last.rounds[-1].verdict is not None  # the last edit is judged, too
    done, editor = steered(clip, tmp_path / "two", Meter(level=55, broken=frozenset({1, 2})))
    assert done.stopped.startswith("2 calls in a row failed") and done.chosen.number == 0 and editor.edits == 2


def test_what_the_budget_ends_stays_ended_when_the_run_goes_on(clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"

    class Spent(Meter):
        def judge(self, request: Request) -> Verdict:
            if len(self.seen) == 1:
                raise BudgetError("The budget of 1 calls is spent (`--max-calls`).")
            return super().judge(request)

    done, _ = steered(clip, tmp_path, Spent(level=500), ledger=Ledger(path))
    lines = path.read_text()
    for _ in range(2):
        again, _ = steered(clip, tmp_path, Spent(level=500, seen=[0.0]), ledger=Ledger(path))
        assert path.read_text() == lines and again.stopped == done.stopped and again.chosen == done.chosen


def test_the_clip_is_judged_before_any_edit_and_only_what_changed_counts(clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    critic, config = Meter(level=55), LoopConfig()
    done, _ = steered(clip, tmp_path, critic, config=config, ledger=Ledger(path))
    assert len(critic.seen) == 4 and critic.seen[1] == pytest.approx(20, abs=1)  # once, after the first round
    chosen = done.chosen
    assert chosen.source is not None and chosen.source.answers["light"].value == "dark"
    assert chosen.gained == {"light": "bright"} and not chosen.already and not done.rounds[0].gained
    said = before_and_after(chosen)["light"]
    assert said["wanted"] == "bright" and said["before"]["value"] == "dark" and said["after"]["value"] == "bright"
    assert seen_as(chosen, "light") == "dark \u2192 bright" and summary(done)["changed_seen"] == ["light"]
    first = path.read_text().splitlines(keepends=True)[0]
    path.write_text(first)
    critic = Meter(level=55)
    again, _ = steered(clip, tmp_path, critic, config=config, ledger=Ledger(path))
    assert [r.to_json() for r in again.rounds] == [r.to_json() for r in done.rounds] and len(critic.seen) == 2
    replayed, _ = steered(clip, tmp_path, load_critic(f"replay:{path}"), config=config)  # type: ignore[arg-type]
    assert replayed.chosen.source == chosen.source and replayed.chosen.verdict == chosen.verdict


def test_what_looked_so_before_is_no_success_of_the_edit(clip: Clip, tmp_path: Path) -> None:
    done, _ = steered(clip, tmp_path, Meter(level=15), config=LoopConfig())  # bright from the start, it says
    assert done.stopped == "everything asked for is seen, but light looked so before any edit"
    assert done.chosen.holds and done.chosen.already == {"light": "bright"} and not done.chosen.gained
    assert not summary(done)["satisfied"] and summary(done)["changed_seen"] == []


def test_a_clip_that_cannot_be_judged_before_is_no_reason_to_stop(clip: Clip, tmp_path: Path) -> None:
    done, _ = steered(clip, tmp_path, Meter(level=30, broken=frozenset({1})), config=LoopConfig())
    assert done.chosen.holds and done.chosen.source is None and summary(done)["satisfied"]
    assert before_and_after(done.chosen)["light"]["before"] is None and seen_as(done.chosen, "light") == "bright"


class Dice(Lamp):
    """A lamp whose seed decides: 12 levels for each step of it, up to 36."""

    def edit(self, prepared: Prepared, target: Target, *, report: Any = None) -> Clip:
        made = super().edit(prepared, target)
        return made.mapped(lambda start, frames: frames + 12 * min(target.seed, 3))


def test_candidates_have_seeds_and_the_steerer_goes_on_from_the_best(clip: Clip, tmp_path: Path) -> None:
    knobs = frozenset({"prompt", "guidance", "strength", "seed"})

    def run(critic: Meter, **more: Any) -> Steered:
        editor, config = Dice(tmp_path / "cache", knobs), LoopConfig(max_edits=9, source=False, **more)
        steerer = Words(graph(), RuleWriter(), 2.0, controls=knobs)
        return steer(
            editor, editor.prepare(clip, {}), target(), graph=graph(), critic=critic, steerer=steerer, config=config
        )

    assert {round.step.target.seed for round in run(Meter(level=500)).rounds} == {0}
    done = run(Meter(level=60), candidates=3)  # 40, 52, 64: the third holds, and ends its round
    assert [round.step.target.seed for round in done.rounds] == [0, 1, 2] and done.chosen.number == 2
    done = run(Meter(level=90), candidates=3)
    seeds = [round.step.target.seed for round in done.rounds]
    assert seeds[:4] == [0, 1, 2, 2]  # the next target is asked for with the best seed first
    assert done.chosen.holds and len(done.rounds) == len(seeds) <= 9
    with pytest.raises(ConfigError, match="`lamp` has no seed: 2 candidates"):
        steered(clip, tmp_path, Meter(), config=LoopConfig(candidates=2))


def test_nothing_is_moved_that_the_editor_does_not_answer_to(clip: Clip, tmp_path: Path) -> None:
    for controls in ({"prompt"}, {"prompt", "strength"}, {"prompt", "guidance"}, {"prompt", "negative_prompt"}):
        steerer = Words(graph(), RuleWriter(), 2.0, controls=frozenset(controls))
        config = LoopConfig(max_edits=9, source=False)
        done, _ = steered(clip, tmp_path, Meter(level=500), steerer=steerer, config=config)
        moved = [replace(round.step.target, prompt="") for round in done.rounds]
        assert len(done.rounds) > 2
        assert ("guidance" in controls) == any(asked.guidance is not None for asked in moved)
        assert ("strength" in controls) == any(asked.strength != 1.0 for asked in moved)
        assert ("negative_prompt" in controls) == any(asked.negative_prompt is not None for asked in moved)
        assert {asked.seed for asked in moved} == {0}


def test_a_run_that_was_cut_off_at_any_line_goes_on_to_the_same_end(clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    config = LoopConfig(max_edits=4, source=False)
    whole, _ = steered(clip, tmp_path, Meter(level=400), config=config, ledger=Ledger(path))
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    for kept in range(len(lines)):
        path.write_text("".join(lines[:kept]) + lines[kept][: len(lines[kept]) // 2])  # the last line is torn
        critic = Meter(level=400)
        again, editor = steered(clip, tmp_path, critic, config=config, ledger=Ledger(path))
        assert [r.to_json() for r in again.rounds] == [r.to_json() for r in whole.rounds]
        assert len(critic.seen) == 4 - kept
        assert torch.equal(again.clip.frames, whole.clip.frames)
        assert [json.loads(line) for line in path.read_text().splitlines()] == [json.loads(line) for line in lines]


def test_baselines_make_one_edit(clip: Clip, tmp_path: Path) -> None:
    done, _ = steered(clip, tmp_path, Meter(level=500), steerer=Once())
    assert len(done.rounds) == 1 and done.chosen.step.target == target()
    louder = Once("loud", lambda asked: asked.prompt + " It is shining.")
    done, _ = steered(clip, tmp_path, Meter(level=500), steerer=louder)
    assert done.chosen.step.target.prompt == "It is bright. It is shining."


def test_strengths_are_bisected_to_where_the_answer_turns(clip: Clip, tmp_path: Path) -> None:
    # 20 + 20 * strength levels: 72 is reached from strength 2.6 on.
    done, _ = steered(
        clip, tmp_path, Meter(level=72), steerer=Strengths(), knobs=frozenset({"strengths"}),
        config=LoopConfig(max_edits=8, source=False),
    )  # fmt: skip
    strength = done.chosen.step.target.strengths["light"]
    assert done.chosen.holds and 2.6 <= strength < 3.0 and done.stopped == "everything asked for is seen"


def test_a_strength_that_was_tried_is_not_tried_again(clip: Clip, tmp_path: Path) -> None:
    # 1 and 1.3 are too little for 50, 1.6 is enough: what is left between is as good as the same.
    knobs = frozenset({"strengths"})
    done, _ = steered(clip, tmp_path, Meter(level=50), steerer=Strengths(), knobs=knobs)
    assert [round.step.target.strengths.get("light", 1.0) for round in done.rounds] == pytest.approx([1.0, 1.6, 1.3])
    assert done.chosen.number == 1 and done.chosen.holds


def test_the_frames_that_are_judged_are_spread_over_those_with_the_face() -> None:
    assert spread(range(24), 5) == (2, 7, 12, 16, 21)
    assert spread([3, 4], 5) == (3, 4)


@given(st.integers(1, 500), st.integers(1, 40))
def test_spread_frames_are_different_and_in_order(frames: int, looks: int) -> None:
    chosen = spread(range(frames), looks)
    assert list(chosen) == sorted(set(chosen)) and len(chosen) == min(frames, looks)


def round_of(number: int, value: str, confidence: float, distance: float, colour: str = "grey") -> Round:
    answers = {"light": Answer(value=value, confidence=confidence), "colour": Answer(value=colour, confidence=0.9)}
    verdict = Verdict(critic="meter", frames=(0,), answers=answers)
    return Round(number=number, step=Step(target=target(), note=""), verdict=verdict, distance=distance)


rounds = st.lists(
    st.builds(
        round_of, st.integers(0, 9), st.sampled_from(["dark", "bright"]), st.floats(0.5, 1), st.floats(0, 50),
        st.sampled_from(["grey", "red"]),
    ), min_size=1, max_size=6,
)  # fmt: skip


@given(rounds)
def test_nothing_better_than_the_best_was_tried(tried: list[Round]) -> None:
    chosen = best(tried)

    def wrong(round: Round) -> float:
        """Attributes that are probably wrong; the intervention counts twice."""
        assert round.verdict is not None
        return 3 - 2 * round.verdict.leaves("light", "bright") - round.verdict.leaves("colour", "grey")

    assert chosen.holds or all(wrong(chosen) <= wrong(other) + AS_GOOD for other in tried)
    assert not any(other.holds for other in tried) or chosen.holds
    nearest = front(tried)
    assert nearest and [r.distance for r in nearest] == sorted(r.distance for r in nearest)
    assert Round.from_json(json.loads(json.dumps(chosen.to_json()))) == chosen


def test_effectiveness_goes_before_what_stays_and_that_before_nearness() -> None:
    near_and_dark = round_of(0, "dark", 0.9, 1.0)
    red = round_of(1, "bright", 0.9, 5.0, "red")
    far = round_of(2, "bright", 0.9, 30.0)
    near = round_of(3, "bright", 0.9, 20.0)
    assert best([near_and_dark, red]) is red
    assert best([near_and_dark, red, far]) is far
    assert best([far, near]) is near


def test_a_consequence_that_is_missing_weighs_as_much_as_what_was_lost() -> None:
    asked = Target(
        factual={"light": "dark", "shadow": "no", "colour": "grey"}, do={"light": "bright"},
        counterfactual={"light": "bright", "shadow": "yes", "colour": "grey"},
    )  # fmt: skip

    def made(number: int, light: str, shadow: str, colour: str, sure: float = 0.9, distance: float = 9.0) -> Round:
        said = {"light": (light, 0.9), "shadow": (shadow, 0.9), "colour": (colour, sure)}
        answers = {name: Answer(value=value, confidence=sure) for name, (value, sure) in said.items()}
        verdict = Verdict(critic="meter", frames=(0,), answers=answers, sure=0.8)
        return Round(number=number, step=Step(target=asked, note=""), verdict=verdict, distance=distance)

    nothing, gentle = made(0, "dark", "no", "grey", distance=1.0), made(1, "bright", "no", "grey")
    loud, doubtful = made(2, "bright", "yes", "red", distance=5.0), made(3, "bright", "no", "red", sure=0.6)
    assert best([nothing, loud]) is loud  # the intervention itself weighs most
    assert best([loud, made(1, "bright", "no", "grey", distance=4.0)]).number == 1  # one wrong in either, and nearer
    assert best([loud, gentle]) is loud
    assert best([doubtful, gentle]) is gentle


@pytest.mark.parametrize("settings", [{"max_edits": 0}, {"looks": 0}, {"candidates": 0}])
def test_a_budget_of_nothing_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        LoopConfig(**settings)
