"""The loop on an editor and a critic that are small enough to know every number of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from countervid.clip import Clip
from countervid.critics.base import Answer, Verdict, spread
from countervid.editors.base import Target
from countervid.errors import ConfigError
from countervid.steering.base import AS_GOOD, Round, Step, best, front
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
    done, _ = steered(clip, tmp_path, Meter(level=500, glare=45), config=LoopConfig(max_edits=3))
    assert [bool(round.lost) for round in done.rounds] == [False, False, True]
    assert done.chosen.number == 0 and done.stopped == "3 edits were made"


def test_as_published_the_last_edit_is_returned_unseen(clip: Clip, tmp_path: Path) -> None:
    critic = Meter(level=500)
    done, _ = steered(clip, tmp_path, critic, steerer=published(graph(), RuleWriter(), 2.0))
    assert len(done.rounds) == 3 and len(critic.seen) == 2
    assert done.rounds[-1].verdict is None and done.chosen.number == 2
    assert done.rounds[0].verdict is not None and done.rounds[0].verdict.frames == (6,)
    assert all(round.step.target.guidance is None for round in done.rounds)


def test_one_failed_call_is_one_record_and_two_in_a_row_end_it(clip: Clip, tmp_path: Path) -> None:
    done, _ = steered(clip, tmp_path / "one", Meter(level=55, broken=frozenset({0})))
    assert [round.failure for round in done.rounds] == ["the lamp's meter is out of order", "", ""]
    assert done.rounds[0].step == done.rounds[1].step and done.chosen.holds
    done, _ = steered(clip, tmp_path / "two", Meter(level=55, broken=frozenset({1, 2})))
    assert done.stopped.startswith("2 calls in a row failed") and done.chosen.number == 0


def test_a_run_that_was_cut_off_at_any_line_goes_on_to_the_same_end(clip: Clip, tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    config = LoopConfig(max_edits=4)
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
        config=LoopConfig(max_edits=8),
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


@pytest.mark.parametrize("settings", [{"max_edits": 0}, {"looks": 0}])
def test_a_budget_of_nothing_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        LoopConfig(**settings)
