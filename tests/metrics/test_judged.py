"""Questions, keys and answers against the published script's own matrix, and what it does wrong."""

import doctest
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from chat.server import serve
from countervid.causal.graph import CausalGraph
from countervid.causal.questions import questions
from countervid.chat.base import ChatConfig, load_chat
from countervid.errors import ConfigError
from countervid.metrics import judged
from countervid.metrics.judged import (
    PUBLISHED_FRAMES,
    ChatJudge,
    Item,
    accuracy_matrix,
    after_marker,
    answers_of,
    balanced_matrix,
    calibrated_matrix,
    disputed,
    published_index,
    published_picture,
    read_questions,
    right,
)

FACE = CausalGraph.load("face")
ASKED = {question.variable: question for question in questions(FACE)}
CANNED = json.loads((Path(__file__).parent / "goldens" / "answers.json").read_text())
PUBLISHED = Path(__file__).parents[3] / "shared" / "reference" / "csvc" / "data" / "questions_explicit.json"
# CSVC's effectiveness_llava.py on these answers: [asked][intervened]
MATRIX = {
    "age": {"age": 0.2, "gender": 0.4, "beard": 0.0, "bald": 0.6},
    "gender": {"age": 0.6, "gender": 0.8, "beard": 0.4, "bald": 0.2},
    "beard": {"age": 0.4, "gender": 0.6, "beard": 0.6, "bald": 0.4},
    "bald": {"age": 0.6, "gender": 0.4, "beard": 0.6, "bald": 0.8},
}

pytestmark = pytest.mark.usefixtures("alone")
needs_published = pytest.mark.skipif(not PUBLISHED.is_file(), reason="the published question file is not here")


def item(attribute="beard", published="Yes", corrected="Yes", clip="a", intervention="age"):
    question = ASKED[attribute]
    return Item(clip=clip, intervention=intervention, question=question, published=published, corrected=corrected)


def test_doctests():
    assert doctest.testmod(judged).failed == 0


def test_canned_answers_give_the_published_matrix():
    by_text = {question.text: name for name, question in ASKED.items()}
    items = [
        item(by_text[row["question"]], row["key"], row["key"], row["video"], row["intervention"]) for row in CANNED
    ]
    answers = [row["model"] for row in CANNED]
    found = accuracy_matrix(items, answers, key="published", reading="published", failures="left out", decimals=3)
    assert found == MATRIX


@needs_published
def test_canned_answers_through_the_published_question_file():
    entries = json.loads(PUBLISHED.read_text())
    clips = dict.fromkeys(row["video"] for row in CANNED)
    items = read_questions({clip: entries[clip] for clip in clips}, FACE)
    given = {(row["video"], row["intervention"], row["question"]): row["model"] for row in CANNED}
    answers = [f"[INST] Look. [/INST]{given[one.clip, one.intervention, one.question.text]}" for one in items]
    answers = [after_marker(answer) for answer in answers]
    published = accuracy_matrix(items, answers, key="published", reading="published", decimals=3)
    corrected = accuracy_matrix(items, answers, reading="published", decimals=3)
    assert published == MATRIX
    assert corrected != MATRIX  # three of the keys of these clips are wrong
    differing = {(a, i) for a in MATRIX for i in MATRIX if corrected[a][i] != published[a][i]}
    assert differing <= {(one.attribute, one.intervention) for one in disputed(items)}


@needs_published
def test_published_questions_keep_the_order_of_their_options():
    entries = json.loads(PUBLISHED.read_text())
    items = read_questions(entries, FACE)
    asked = [q for clip in entries.values() for entry in clip.values() for q in entry["questions"]]
    assert [item.question.options for item in items] == [q["options"] for q in asked]
    assert [list(item.question.options) for item in items] == [list(q["options"]) for q in asked]
    woman_first = sum(item.attribute == "gender" and item.question.value("A") == "woman" for item in items)
    assert woman_first == 129 and sum(item.attribute == "gender" for item in items) == 268


@pytest.mark.parametrize("options", [{"A": "woman", "B": "man"}, ["woman", "man"], {"1": "Woman", "2": "Man"}])
def test_a_question_is_asked_in_its_files_own_order(options):
    entry = {"question": "What is the gender of this person?", "options": options, "correctAnswer": "man"}
    (item,) = read_questions({"a": {"age": {"prompt": "He is old.", "questions": [entry]}}}, FACE)
    first, second = item.question.options
    assert (item.question.value(first), item.question.value(second)) == ("woman", "man")
    assert item.corrected.lower() == item.published == "man" and right(item, second) and not right(item, first)
    sent = []

    def answer(messages, pictures):
        sent.append(json.dumps(messages))
        return "woman"

    with serve(answer) as server:
        ChatJudge(load_chat("openai:any", ChatConfig(url=server.url))).answer(
            torch.zeros(1, 8, 8, 3, dtype=torch.uint8), [item.question]
        )
    assert "(woman, man)" in sent[0].lower()


def test_options_that_are_not_the_variables_values_are_refused():
    for options in ({"A": "old", "B": "ancient"}, {"A": "old"}, {"A": "old", "B": "old"}, "old"):
        entry = {"question": "What is the age of this person?", "options": options, "correctAnswer": "old"}
        with pytest.raises(ConfigError, match="cannot be read"):
            read_questions({"her": {"age": {"prompt": "He is old.", "questions": [entry]}}}, FACE)


def test_what_a_judge_thinks_aloud_is_no_answer():
    with serve(lambda messages, pictures: "<think>No beard? There it is.</think>\n\nYes.") as server:
        judge = ChatJudge(load_chat("openai:any", ChatConfig(url=server.url)))
        (said,) = judge.answer(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), [item().question])
    assert right(item(), said) and right(item(), said, reading="published")


@needs_published
def test_fourteen_published_keys_contradict_their_prompts():
    items = read_questions(json.loads(PUBLISHED.read_text()), FACE)
    wrong = disputed(items)
    assert len(items) == 1072 and len(wrong) == 14
    cells = [(one.attribute, one.intervention) for one in wrong]
    assert cells.count(("beard", "bald")) == 5 and ("bald", "beard") in cells
    faultless = accuracy_matrix(items, [one.corrected for one in items], key="published")
    assert min(min(row.values()) for row in faultless.values()) == faultless["beard"]["bald"] == 62 / 67


@needs_published
def test_a_constant_answer_earns_chance_when_balanced():
    items = read_questions(json.loads(PUBLISHED.read_text()), FACE)
    always = [one.question.options["A"] for one in items]
    assert accuracy_matrix(items, always)["bald"]["bald"] == pytest.approx(0.91, abs=0.01)
    assert balanced_matrix(items, always)["bald"]["bald"] == 0.5


@pytest.mark.parametrize(
    ("answer", "published", "tolerant"),
    [
        ("Yes", True, True), (" YES.\n", True, True), ("yes!", False, False), ("A", False, True), ("(A)", False, True),
        ("Yes, clearly", False, False), ("No", False, False), (None, False, False), ("Y.e.s", True, False),
    ],
)  # fmt: skip
def test_answers_as_published_and_read_tolerantly(answer, published, tolerant):
    assert right(item(), answer, reading="published") is published
    assert right(item(), answer) is tolerant


def test_failures_count_unless_they_are_left_out():
    items, answers = [item(clip=clip) for clip in "abcd"], ["Yes", None, "Yes", "No"]
    assert accuracy_matrix(items, answers) == {"beard": {"age": 0.5}}
    assert accuracy_matrix(items, answers, failures="left out", decimals=3) == {"beard": {"age": 0.667}}
    assert balanced_matrix(items, answers) == {"beard": {"age": 0.5}}
    with pytest.raises(ValueError, match="4 questions, 3 answers"):
        accuracy_matrix(items, answers[:3])


def test_a_cell_without_a_ceiling_is_not_defined():
    found = calibrated_matrix({"age": {"age": 0.4, "bald": 0.4}}, {"age": {"age": 0.5, "bald": 0.0}})
    assert found["age"]["age"] == pytest.approx(0.8) and np.isnan(found["age"]["bald"])


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"prompt": "He is old."}, "'questions' is missing"),
        ({"prompt": "He is old.", "questions": [{"question": "Is it raining?"}]}, "Is it raining"),
        ({"prompt": "She is a man.", "questions": []}, "cannot be read"),
        ("He is old.", "cannot be read"),
    ],
)
def test_a_question_file_that_does_not_fit_is_one_line(entry, words):
    with pytest.raises(ConfigError, match=words) as caught:
        read_questions({"her": {"age": entry}}, FACE)
    assert "her" in str(caught.value) and "\n" not in str(caught.value)


def test_frames_and_channels_that_the_published_judges_see():
    # recorded from CSVC's helper: what it returns when asked for the n-th frame
    assert {n: published_index(n) for n in range(1, 25)} == {1: None, **{n: n - 2 for n in range(2, 25)}}
    assert published_index(7) == PUBLISHED_FRAMES["effectiveness"] == 5
    assert published_index(6) == PUBLISHED_FRAMES["minimality"] == 4
    assert PUBLISHED_FRAMES["steering"] == 6
    frames = torch.zeros(8, 20, 30, 3, dtype=torch.uint8)
    frames[5, ..., 0] = 255  # the sixth is red
    seen = published_picture(frames, 5)
    assert seen.shape == (512, 512, 3) and seen.float().mean((0, 1)).argmax() == 2
    assert published_picture(frames, 9).sum() == 0  # a shorter clip: its last frame


def test_a_chat_model_is_asked_each_question_for_one_word():
    def answer(messages, pictures):
        return " Yes." if "beard" in json.dumps(messages) else "old"

    items = [item(), item("age", "old", "old"), item(clip="gone")]
    with serve(answer) as server:
        judge = ChatJudge(load_chat("openai:any", ChatConfig(url=server.url)))
        picture = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
        answers = answers_of(judge, items, lambda clip, _: None if clip == "gone" else picture)
        assert len(server.requests) == 2 and len(server.requests[0].pictures) == 1
        assert "(Yes, No)" in json.dumps(server.requests[0].body)
    assert answers == [" Yes.", "old", None]
    assert accuracy_matrix(items, answers) == {"beard": {"age": 0.5}, "age": {"age": 1.0}}


def test_a_service_that_fails_is_a_failure_and_no_end():
    with serve(lambda messages, pictures: "Yes") as server:
        server.faults += ["401"]
        judge = ChatJudge(load_chat("openai:any", ChatConfig(url=server.url, wait=0.01)))
        assert judge.answer(torch.zeros(1, 8, 8, 3, dtype=torch.uint8), [ASKED["bald"]] * 2) == [None, "Yes"]
