"""Prompts and attributes, both ways."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from countervid.causal import Attributes, CausalGraph
from countervid.causal.language import describe, parse
from countervid.causal.questions import answer_key, question, questions
from countervid.errors import InterventionError

FACE, PHANTOM = CausalGraph.load("face"), CausalGraph.load("phantom")
PATIENT = settings(max_examples=100, deadline=None)  # a loaded machine is no failure

SOURCES = [
    "He is young, he has beard.",
    "This woman is old, she has a beard",
    "A man has beard, this man is young.",
    "He has beard. He is bald. He is young.",
    "she's elderly and doesn't wear a hat",
    "An old man with grey hair and glasses, smiling.",
    "He is young, he is talking on a stage, he has a full beard.",
    "a youthful lady without lipstick but with blonde hair",
    "The guy is clean-shaven, he is smiling.",
    "A person with a moustache.",
    "studio light, high detail",
    "portrait, bald",
    "She",
    ".",
]


def everyone(graph: CausalGraph) -> st.SearchStrategy[Attributes]:
    return st.fixed_dictionaries({name: st.sampled_from(v.values) for name, v in graph.variables.items()})


@PATIENT
@given(data=st.data(), graph=st.sampled_from([FACE, PHANTOM]))
def test_what_is_described_is_read_back(data: st.DataObject, graph: CausalGraph) -> None:
    attributes = data.draw(everyone(graph))
    assert parse(describe(attributes, graph), graph) == attributes


@PATIENT
@given(data=st.data(), graph=st.sampled_from([FACE, PHANTOM]), like=st.sampled_from(SOURCES))
def test_what_is_described_like_another_prompt_is_read_back(data: st.DataObject, graph: CausalGraph, like: str) -> None:
    attributes = data.draw(everyone(graph))
    assert parse(describe(attributes, graph, like=like), graph) == attributes


@PATIENT
@given(data=st.data(), like=st.sampled_from(SOURCES), other=st.data())
def test_describing_like_itself_changes_nothing(data: st.DataObject, like: str, other: st.DataObject) -> None:
    prompt = describe(data.draw(everyone(PHANTOM)), PHANTOM, like=like)
    assert describe(parse(prompt, PHANTOM), PHANTOM, like=prompt) == prompt


SALAD = st.lists(
    st.sampled_from(
        "He she a man person this lady is has wears with without no not but and beard hat bald old young grey hair "
        "clean-shaven smiling talking isn't 30 years 's , . ; \u2019 -".split()
    ),
    max_size=14,
).map(" ".join)


@PATIENT
@given(data=st.data(), text=SALAD)
def test_any_text_serves_as_a_model_or_is_refused_as_a_contradiction(data: st.DataObject, text: str) -> None:
    attributes = data.draw(everyone(PHANTOM))
    try:
        PHANTOM.check(parse(text, PHANTOM))
    except InterventionError as error:
        assert "both" in str(error)
        return
    assert parse(describe(attributes, PHANTOM, like=text), PHANTOM) == attributes


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("He is young, he has beard.", {"age": "young", "gender": "man", "beard": "yes", "bald": "no"}),
        ("An elderly, clean-shaven man.", {"age": "old", "gender": "man", "beard": "no"}),
        ("a hairless old woman", {"bald": "yes", "age": "old", "gender": "woman"}),
        ("He isn't bald and has a beard", {"bald": "no", "beard": "yes"}),
        ("He is not young.", {"age": "old"}),
        ("He has neither a beard nor glasses, he is smiling", {"beard": "no", "glasses": "no", "smiling": "yes"}),
        ("without a beard and a hat", {"beard": "no", "hat": "no"}),
        ("no beard, glasses", {"beard": "no", "glasses": "yes"}),
        ("no beard and a hat", {"beard": "no", "hat": "yes"}),
        ("a man with no hair but a moustache", {"bald": "yes", "moustache": "yes"}),
        ("She\u2019s wearing a hat", {"gender": "woman", "hat": "yes"}),
        ("A GREY-HAIRED WOMAN", {"hair_colour": "grey", "gender": "woman"}),
        ("he is no longer clean shaven", {"beard": "yes"}),
        ("He is old.", {"hair_colour": "grey"}),  # likeliest
        ("He is old, he hasn't grey hair.", {"hair_colour": "brown"}),  # likeliest of the others
        ("He is young.", {"hair_colour": "brown", "moustache": "no"}),
    ],
)
def test_prompts_are_understood(prompt: str, expected: Attributes) -> None:
    read = parse(prompt, PHANTOM)
    assert {name: read.get(name) for name in expected} == expected


@pytest.mark.parametrize("prompt", ["She is 25 years old.", "a 25-year-old woman", "a woman"])
def test_a_number_of_years_or_silence_leaves_age_open(prompt: str) -> None:
    read = parse(prompt, FACE)
    assert "age" not in read
    assert read["gender"] == "woman"


@pytest.mark.parametrize("prompt", ["He is young, she has beard.", "A bearded, clean-shaven man.", "old and not old"])
def test_contradictions_are_refused(prompt: str) -> None:
    with pytest.raises(InterventionError, match="says of `.*` both"):
        parse(prompt, FACE)


@pytest.mark.parametrize(
    ("like", "do", "expected"),
    [
        ("This man has beard, he is young.", {"age": "old"}, "This man is old, he has beard, he is bald."),
        ("This man has beard, he is young.", {"bald": "yes"}, "This man has beard, he is young, he is bald."),
        ("A man has beard, he is young.", {"beard": "no"}, "A man is young."),
        ("He is old, he has a beard", {"gender": "woman"}, "She is old"),
        ("she is young, she has a beard", {"gender": "man"}, "he is young, he has a beard"),
        ("He is young, he is talking.", {"age": "old"}, "He is old, he is talking, he has beard, he is bald."),
        (
            "This guy is young. He has a full beard.",
            {"bald": "yes"},
            "This guy is young. He has a full beard. He is bald.",
        ),
        ("The young man has a beard.", {"bald": "yes"}, "The man is young, he has a beard, he is bald."),
        ("An elderly man.", {"gender": "woman"}, "A woman is old."),
        (
            "This man is old, this man is bald.",
            {"beard": "yes"},
            "This man is old, this man is bald, this man has beard.",
        ),
    ],
)
def test_the_surface_of_the_source_is_kept(like: str, do: Attributes, expected: str) -> None:
    result = FACE.counterfactual(parse(like, FACE), do)
    assert describe(result.attributes, FACE, like=like) == expected


def test_variables_left_out_are_not_named() -> None:
    man = {"age": "old", "gender": "man", "beard": "yes", "bald": "no"}
    assert describe(man, FACE, without=FACE.decoupled(["beard"])) == "This person has beard."
    like = "A man has a beard, he is old."
    assert describe(man, FACE, like=like, without=FACE.decoupled(["beard"])) == "A person has a beard."


def test_graphs_without_a_subject_speak_of_a_person() -> None:
    graph = CausalGraph.parse(
        "variables: {hat: {kind: binary, language: {clauses: {yes: wears (a) hat, no: wears no hat}}}}"
    )
    assert describe({"hat": "no"}, graph) == "This person wears no hat."
    assert parse("This person wears no hat.", graph) == {"hat": "no"}


def test_attributes_that_do_not_exist_cannot_be_described() -> None:
    with pytest.raises(InterventionError, match="Did you mean `beard`"):
        describe({"beards": "yes"}, FACE)


def test_questions_offer_every_value() -> None:
    for asked in questions(PHANTOM):
        assert sorted(asked.values.values()) == sorted(PHANTOM.variables[asked.variable].values)
        for letter, option in asked.options.items():
            assert asked.value(f"{letter}.") == asked.value(option.upper()) == asked.values[letter]
    assert question("age", FACE).shown() == "What is the age of this person? A. old B. young"
    assert question("beard", FACE).to_dict("no") == {
        "question": "Does this person have a beard?",
        "options": {"A": "Yes", "B": "No"},
        "correctAnswer": "No",
    }
    assert answer_key({"age": "young", "beard": "yes"}, FACE) == {"age": "B", "beard": "A"}
    with pytest.raises(InterventionError, match="answers no option of `beard`"):
        question("beard", FACE).value("perhaps")


def test_a_variable_without_a_question_gets_a_plain_one() -> None:
    graph = CausalGraph.parse("variables: {wet_hair: {kind: binary}, mood: {kind: categorical, values: [calm, cross]}}")
    assert [asked.text for asked in questions(graph)] == [
        "Is this true of this person: wet hair?",
        "What is the mood of this person?",
    ]
