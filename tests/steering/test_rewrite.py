"""Prompts rewritten from the graph's own words, and by a language model over HTTP."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.server import serve
from countervid.causal.graph import CausalGraph
from countervid.causal.language import describe
from countervid.causal.lexicon import read
from countervid.chat.base import ChatConfig, load_chat
from countervid.critics.base import Answer, Verdict
from countervid.editors.base import Target
from countervid.errors import CallError, InterventionError
from countervid.steering.base import Round, Step
from countervid.steering.choose import load_steerer
from countervid.steering.drafts import fault_of, written
from countervid.steering.gradient import CRITIC, EXPRESSIVE, WRITER, ChatWriter
from countervid.steering.rewrite import RuleWriter, Task
from countervid.steering.words import Words

PHANTOM, FACE = CausalGraph.load("phantom"), CausalGraph.load("face")
OLD_MAN = {"age": "old", "gender": "man", "beard": "yes", "bald": "no"}


pytestmark = pytest.mark.usefixtures("alone")


def task(graph: CausalGraph = FACE, wanted: dict[str, str] | None = None, **changes: Any) -> Task:
    wanted = wanted or OLD_MAN
    known: dict[str, Any] = {
        "goal": describe(wanted, graph), "prompt": describe(wanted, graph), "wanted": wanted, "missing": {},
        "factual": {}, "lost": {}, "unsaid": frozenset(), "verdict": None, "graph": graph, "turn": 0,
    }  # fmt: skip
    return Task(**{**known, **changes})


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    graph = draw(st.sampled_from([FACE, PHANTOM]))
    wanted = {name: draw(st.sampled_from(variable.values)) for name, variable in graph.variables.items()}
    missing = draw(st.sets(st.sampled_from(list(wanted)), max_size=3))
    do = draw(st.sampled_from(list(wanted)))
    factual = {name: draw(st.sampled_from(variable.values)) for name, variable in graph.variables.items()}
    return task(
        graph, wanted, factual=factual, missing={name: wanted[name] for name in missing},
        unsaid=graph.decoupled([do]) - {do}, turn=draw(st.integers(0, 5)),
    )  # fmt: skip


@given(tasks())
def test_a_rewritten_prompt_says_nothing_that_is_not_wanted(asked: Task) -> None:
    draft = RuleWriter().rewrite(asked)
    stated = read(draft.prompt, asked.graph).stated
    assert all(asked.wanted[name] == value for name, value in stated.items())
    assert not stated.keys() & asked.unsaid
    assert len(draft.prompt.split()) < 60
    assert all(asked.factual[name] == value for name, value in read(draft.negative, asked.graph).stated.items())


@given(tasks())
def test_paraphrases_mean_the_same(asked: Task) -> None:
    said = RuleWriter().paraphrase(asked.goal, asked.wanted, asked.graph)
    assert all(asked.wanted[name] == value for name, value in read(said, asked.graph).stated.items())


def test_what_is_missing_comes_first_and_each_turn_has_other_words() -> None:
    factual = {**OLD_MAN, "age": "young"}
    drafts = [RuleWriter().rewrite(task(factual=factual, missing={"age": "old"}, turn=turn)) for turn in range(4)]
    assert drafts[0].prompt == "He is old, he has beard."  # the gentlest push is the negative prompt alone
    assert drafts[1].prompt == "A man, elderly. He is old, he has beard."
    assert len({draft.prompt for draft in drafts}) == 4
    assert drafts[0].negative == "He is young."


def test_the_negative_prompt_says_what_was_lost_and_has_words_for_what_is_silent() -> None:
    factual = {"age": "old", "gender": "man", "beard": "yes", "bald": "no"}
    wanted = {**factual, "gender": "woman", "beard": "no"}
    answers = {"beard": Answer(value="yes", confidence=0.9), "bald": Answer(value="yes", confidence=0.6)}
    verdict = Verdict(critic="x", frames=(0,), answers=answers)

    def negative(**changes: Any) -> str:
        return RuleWriter().rewrite(task(wanted=wanted, factual=factual, verdict=verdict, **changes)).negative

    assert negative(missing={"beard": "no"}) == "This person has beard."  # neither he nor she: a woman is seen
    assert negative(missing={"beard": "no", "gender": "woman"}) == "He has beard."
    assert negative(missing={"beard": "no"}, lost={"bald": "no"}) == "This person has beard, this person is bald."
    bearded = task(wanted={**factual, "bald": "yes"}, factual={**factual, "beard": "no"}, missing={"beard": "yes"})
    assert RuleWriter().rewrite(bearded).negative == "A man, clean shaven."
    assert negative() == ""
    dyed = Verdict(critic="x", frames=(0,), answers={"hair_colour": Answer(value="blond", confidence=0.9)})
    grey, brown = {**factual, "hair_colour": "grey"}, {**factual, "hair_colour": "brown"}
    asked = task(PHANTOM, brown, factual=grey, missing={"hair_colour": "brown"}, verdict=dyed)
    assert RuleWriter().rewrite(asked).negative == "He has blond hair."  # as it looks, not as it was


def test_causes_of_what_is_set_are_left_unsaid() -> None:
    wanted = {"age": "young", "gender": "woman", "beard": "no", "bald": "yes"}
    asked = task(wanted=wanted, missing={"bald": "yes"}, unsaid=FACE.decoupled(["bald"]), turn=1)
    draft = RuleWriter().rewrite(asked)
    assert draft.prompt == "A person, baldness. This person is bald."
    assert "causes what is set" in draft.feedback


def writing(*answers: str) -> Any:
    """Gives these answers one after the other, the last one for ever; feedback to whoever asks for none in JSON."""
    left = list(answers)

    def answer(messages: list[dict[str, Any]], pictures: list[np.ndarray]) -> str:
        if "improved prompt" not in json.dumps(messages[1]):
            return "Say elderly."
        return left.pop(0) if len(left) > 1 else left[0]

    return answer


def test_a_language_model_gives_feedback_and_then_a_prompt() -> None:
    with serve(writing('{"prompt": "An elderly man with a full beard."}')) as server:
        writer = ChatWriter(load_chat("openai:any", ChatConfig(url=server.url)))
        draft = writer.rewrite(task(missing={"age": "old"}))
        assert draft.prompt == "An elderly man with a full beard." and draft.feedback == "Say elderly."
        assert len(server.requests) == 2 and "Not seen yet: age = old" in json.dumps(server.requests[0].body)
        assert "Say elderly." in json.dumps(server.requests[1].body)


def test_a_prompt_that_says_something_else_is_asked_for_once_more() -> None:
    with serve(writing('{"prompt": "A youthful man."}', '{"prompt": "A man, elderly."}')) as server:
        writer = ChatWriter(load_chat("openai:any", ChatConfig(url=server.url)))
        assert writer.rewrite(task(missing={"age": "old"})).prompt == "A man, elderly."
        assert "it says age = young, and old is wanted" in json.dumps(server.requests[2].body)
    with serve(writing('{"prompt": "A youthful man."}')) as server:
        writer = ChatWriter(load_chat("openai:any", ChatConfig(url=server.url)))
        with pytest.raises(CallError, match="asked twice: it says age = young"):
            writer.rewrite(task())


@pytest.mark.parametrize(
    ("prompt", "changes", "fault"),
    [
        ("", {}, "empty"),
        ("very " * 30 + "old man", {}, "more than 24"),
        ("a bald old man", {}, "it says bald = yes"),
        ("an elderly person, bearded", {"unsaid": frozenset({"age"})}, "it names age"),
        ("a person with a beard", {"unsaid": frozenset({"age", "gender"})}, ""),
    ],
)
def test_what_a_prompt_must_not_do(prompt: str, changes: dict[str, Any], fault: str) -> None:
    found = fault_of(prompt, task(**changes))
    assert (fault in found) if fault else not found


@pytest.mark.parametrize(
    "text",
    [
        '{"prompt": "An  old man."}',
        "<IMPROVED_VARIABLE>An old man.</IMPROVED_VARIABLE>",
        '"An old man."',
        "An old\nman.",
        "<think>A young man? No.</think>An old man.",
        "<think>The user wants...</think>\n```json\n{'prompt': 'An old man.',}\n```",
        '{"prompt": "A young man."}\nWait, that is wrong.\n{"prompt": "An old man."}',
        'Sure, here it is: {"Prompt": "An old man."} I hope that helps!',
        '{"improved_prompt": "An old man."}',
        "Prompt: An old man.",
        "**Improved prompt:** An old man.",
        'Here is the improved prompt:\n\n"An old man."',
        "Rewritten prompt - An old man.",
        "\u201cAn old man.\u201d",
        "```\nAn old man.\n```",
        "<answer>An old man.</answer>",
    ],
)
def test_a_prompt_is_found_in_many_forms(text: str) -> None:
    assert written(text) == "An old man."


NO_PROMPT = [
    "", "   ", "OK", "Okay.", "{}", "[]", "null", '{"prompt": ""}', '{"prompt": null}', '{"prompt": ["An old man."]}',
    '{"prompt": "OK"}', '{"prompt": "..."}', '{"prompt": "Prompt:"}', '{"note": "An old man with a beard."}',
    "Prompt:", "Done",
    "I'm sorry, I can't help with that.", "I\u2019m sorry, but I can\u2019t rewrite an old man with a beard.",
    '{"prompt": "I cannot assist with requests about an old bearded man."}', "Understood.", "Yes.",
    "As an AI, I describe no old man with beard.",
    '{"prompt": "Sorry, an old man with a beard is against my guidelines."}',
    "<think>An old man with a beard.</think>", "<think>An old man with a beard. Should I add", "Sure!",
    "Let me think: an old man with a beard.", "I would write an old man with a beard.",
    "Here you go: an old man, beard",
    '{"prompt": "An old man with a beard', '{"prompt": "An old man with a beard."} Wait, that is wrong.',
    "You rewrite the prompt of a video editor by the feedback on it.", WRITER, CRITIC[:150],
    "a description of one person, no instruction to anybody, old man with beard",
    "The video should show: age = old, beard = yes", "An old man. The prompt now states his beard.", "old", "A man.",
    "Please show an old man with a beard.", "A man with a beard.", "An old man.", "An old woman with a beard.",
    "A young man with a beard.", "A person who is not old, with a beard.", "https://example.org/an-old-man-with-beard",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_PROMPT)
def test_what_is_no_prompt_is_never_one(text: str) -> None:
    """Asked for twice, then the rules write: of an old man with a beard, who was young and had none."""
    factual = {**OLD_MAN, "age": "young", "beard": "no"}
    with serve(writing(text)) as server:
        writer = ChatWriter(load_chat("openai:any", ChatConfig(url=server.url, max_tokens=50)))
        with pytest.raises(CallError) as caught:
            writer.rewrite(task(factual=factual))
        assert "\n" not in str(caught.value)
        assert len(server.requests) == (3 if text.strip() else 2)  # feedback, and twice the prompt
        steerer = Words(FACE, writer, 4.0)
        step = steerer.next([round_of(replace(target(), factual=factual), 0.6)])
        assert step is not None and step.target.prompt == "He is old, he has beard."


def test_a_prompt_states_what_changes_and_what_was_missed() -> None:
    factual = {**OLD_MAN, "age": "young"}
    known = task(factual=factual)
    assert not fault_of("An elderly gentleman in warm light.", known)
    assert "does not say that age = old" in fault_of("A bearded gentleman.", known)
    assert "does not say that beard = yes" in fault_of(
        "An elderly man.", task(factual=factual, missing={"beard": "yes"})
    )
    assert not fault_of("An elderly man.", task(factual=factual, lost={"bald": "no"}))  # no words for that
    assert not fault_of("A bearded person.", task(factual=factual, unsaid=frozenset({"age", "gender"})))


def test_a_refused_feedback_is_not_passed_on() -> None:
    def answer(messages: list[dict[str, Any]], pictures: list[np.ndarray]) -> str:
        asked = json.dumps(messages)
        assert "sorry" not in asked
        return '{"prompt": "An elderly man."}' if "improved prompt" in asked else "I'm sorry, I can't help with that."

    with serve(answer) as server:
        draft = ChatWriter(load_chat("openai:any", ChatConfig(url=server.url))).rewrite(task(missing={"age": "old"}))
        assert draft.prompt == "An elderly man." and draft.feedback == ""


def test_a_paraphrase_says_all_that_its_prompt_said_or_the_rules_write_it() -> None:
    for said, prompt in (("A weathered old gentleman, bearded.",) * 2, ("A weathered gentleman.", None), ("OK", None)):
        with serve(lambda messages, pictures, said=said: json.dumps({"prompt": said})) as server:  # type: ignore[misc]
            writer = ChatWriter(load_chat("openai:any", ChatConfig(url=server.url)))
            editor: Any = SimpleNamespace(knobs={"prompt"}, config=SimpleNamespace(guidance=4.0), name="any")
            first = load_steerer("paraphrase", editor, FACE, writer).first(target()).target.prompt
        assert first == (prompt or RuleWriter().paraphrase(target().prompt, OLD_MAN, FACE))


@settings(deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from([
    "{", "}", '"prompt"', ":", '"', "An old man", " with a beard", ".", "I'm sorry", "<think>", "</think>", "\n",
    "Prompt:",
]), max_size=12).map("".join)))  # fmt: skip
def test_no_answer_breaks_the_writer_or_says_something_else(text: str) -> None:
    known = task(factual={**OLD_MAN, "age": "young"})
    try:
        prompt = written(text)
    except InterventionError:
        return
    if not fault_of(prompt, known, (CRITIC, WRITER, EXPRESSIVE)):
        assert read(prompt, FACE).stated["age"] == "old" and "sorry" not in prompt and "think" not in prompt


def round_of(
    target: Target, sure: float, number: int = 0, gender: str | None = None, distance: float | None = None
) -> Round:
    """Age is seen so surely; a later round is a little further from the source unless told."""
    answers = {name: Answer(value=value, confidence=0.9) for name, value in target.counterfactual.items()}
    answers["age"] = Answer(value="old", confidence=sure)
    if gender is not None:
        answers["gender"] = Answer(value=gender, confidence=0.9)
    verdict = Verdict(critic="x", frames=(0,), answers=answers, sure=0.8)
    return Round(
        number=number, step=Step(target=target, note=""), verdict=verdict,
        distance=-number if distance is None else distance,
    )  # fmt: skip


def target() -> Target:
    factual = {**OLD_MAN, "age": "young"}
    return Target(factual=factual, do={"age": "old"}, counterfactual=OLD_MAN, prompt=describe(OLD_MAN, FACE))


def test_the_way_grows_where_words_were_not_enough_and_is_halved_where_something_was_lost() -> None:
    steerer, begun = Words(FACE, RuleWriter(), 4.0), round_of(target(), 0.6)
    first = steerer.next([begun])
    assert first is not None and first.target.strength == 1.0 and first.target.negative_prompt == "He is young."
    second = steerer.next([begun, round_of(first.target, 0.7, number=1)])
    assert second is not None and second.target.strength == 1.15 and second.target.guidance is None
    assert second.target.prompt.startswith("A man, elderly")
    lost = round_of(second.target, 0.9, number=2, gender="woman")
    third = steerer.next([begun, round_of(first.target, 0.7, number=1), lost])
    assert third is not None and third.target.strength == 1.075


def test_the_guidance_moves_last() -> None:
    steerer = Words(FACE, RuleWriter(), 4.0)
    rounds = [round_of(target(), 0.6)]
    for number in range(1, 7):
        step = steerer.next(rounds)
        assert step is not None
        rounds.append(round_of(step.target, 0.6 + 0.01 * number, number=number, distance=0.0))
    guidance = [round.step.target.guidance for round in rounds]
    assert guidance == [None] * 6 + [5.6] and max(r.step.target.strength for r in rounds) == 1.6


def test_one_writer_that_fails_is_not_the_end() -> None:
    with serve(writing('{"prompt": "A youthful man."}')) as server:
        steerer = Words(FACE, ChatWriter(load_chat("openai:any", ChatConfig(url=server.url))), 4.0)
        step = steerer.next([round_of(target(), 0.6)])
        assert step is not None and step.target.negative_prompt == "He is young."
        assert "no prompt that can be used" in step.note and "The graph's words serve" in step.note
