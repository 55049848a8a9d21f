"""Answers as language models write them, and what may be read in them; over HTTP where the server's word counts too."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.server import serve
from countervid.causal.graph import CausalGraph
from countervid.causal.questions import Question, questions
from countervid.chat.answers import object_in, without_thoughts
from countervid.chat.base import BudgetError, ChatConfig
from countervid.critics.base import Answer, Request, load_critic
from countervid.critics.reading import read_answers
from countervid.errors import CallError, InterventionError

FACE = CausalGraph.load("face")  # age: A old, B young; gender: A man, B woman; beard and bald: A Yes, B No
OLD = {"age": "A", "gender": "A", "beard": "B", "bald": "B"}

pytestmark = pytest.mark.usefixtures("alone")


def request(frames: int = 5) -> Request:
    return Request(
        pictures=torch.zeros(frames, 8, 8, 3, dtype=torch.uint8), frames=tuple(range(frames)),
        questions=questions(FACE), changed={"age": "old"}, kept={"gender": "man", "beard": "no", "bald": "no"},
    )  # fmt: skip


def whole(**letters: Any) -> str:
    """An answer in the form that is asked for: five frames of one letter each, but for what is given."""
    entries = {
        name: given if isinstance(given, (dict, list)) or given is None else [given] * 5
        for name, given in {**OLD, **letters}.items()
    }
    return json.dumps(
        {"answers": {n: e if isinstance(e, dict) else {"frames": e, "confidence": 0.9} for n, e in entries.items()}}
    )


PER_FRAME = [{"frame": n, "age": "A", "gender": "A", "beard": "B", "bald": "B"} for n in range(1, 6)]
ONE_EACH = [{"variable": name, "frames": [letter] * 5, "confidence": 0.8} for name, letter in OLD.items()]
YES, READ = "old man no no", {
    # the form that was asked for, and what stands around it
    "as asked": whole(),
    "fence": f"```json\n{whole()}\n```",
    "fence without a language": f"```\n{whole()}\n```",
    "prose before": f"Sure! Here is my assessment of the five frames:\n\n{whole()}",
    "prose behind": f"{whole()}\n\nLet me know if you need anything else.",
    "note behind": f"{whole()}\n\n**Note:** the beard question is partly a matter of light.",
    "indented": json.dumps(json.loads(whole()), indent=4),
    "chat marks": f"<|im_start|>assistant\n{whole()}<|im_end|>",
    "box": f"<|begin_of_box|>{whole()}<|end_of_box|>",
    "footnotes": f"As in [1] and [2]: {whole()}",
    "braces in prose": f"The set {{A, B}} is what I chose from. {whole()}",
    # thoughts
    "thought": f"<think>The man seems {whole(age='B')}? No: wrinkles.</think>\n{whole()}",
    "thought opened by the template": f"Let me look. {whole(age='B')} no...\n</think>\n\n{whole()}",
    "two thoughts": f"<think>{whole(age='B')}</think><think>hm</think>{whole()}",
    "nested thoughts": f"<think>a <think>{whole(age='B')}</think> b {whole(bald='A')}</think>{whole()}",
    "thinking": f"<thinking>\nFrame 1: young?\n{whole(age='B')}\n</thinking>\n{whole()}",
    "reasoning": f"<reasoning>{whole(gender='B')}</reasoning>{whole()}",
    "bracketed thought": f"[THINK]{whole(age='B')}[/THINK]{whole()}",
    "channels": f"<|channel|>analysis<|message|>{whole(age='B')}<|end|><|start|>assistant"
    f"<|channel|>final<|message|>{whole()}",
    "kimi": f"\u25c1think\u25b7{whole(age='B')}\u25c1/think\u25b7{whole()}",
    "answer tags": f"<think>?</think><answer>{whole()}</answer>",
    # two objects, corrections
    "draft first": f"{whole(age='B')}\n\nCorrection: frame 2 shows wrinkles.\n\n{whole()}",
    "wait": f"{whole(beard='A')} Wait, that is a shadow. {whole()}",
    "example first": 'I will answer as {"answers": {"age": {"frames": ["A"]}}}:\n' + whole(),
    "final answer": f"Draft: {whole(age='B')}\nFinal answer: {whole()}",
    "corrected inside": json.dumps({"draft": json.loads(whole(age="B")), "corrected": json.loads(whole())}),
    # JSON that is none
    "single quotes": str(json.loads(whole())),
    "single quotes with an apostrophe": str(json.loads(whole(age={"frames": ["A"] * 5, "critique": "x"}))).replace(
        "'x'", "'the man's wrinkles'"
    ),
    "trailing commas": whole().replace("}", ",}").replace("]", ",]"),
    "no quotes": '{answers: {age: A, gender: A, beard: B, bald: B}}'.replace("A,", "[A,A,A,A,A],").replace(
        "B", "[B,B,B,B,B]"
    ),
    "curly quotes": whole().replace('"', "\u201d"),
    "comments": '{"answers": { // five frames\n' + whole()[len('{"answers": {'):],
    "Python's None": whole(age=["A", "A", "A", "A", None]).replace("null", "None"),
    "inner quotes": whole(age={"frames": ["A"] * 5, "critique": "Q"}).replace('"Q"', '"looks "rather" old"'),
    "line break in a string": whole(age={"frames": ["A"] * 5, "critique": "Q"}).replace('"Q"', '"grey\nhair"'),
    "a comma missing": json.dumps(json.loads(whole()), indent=1).replace("},\n", "}\n"),
    # names and nesting
    "no outer object": json.dumps(json.loads(whole())["answers"]),
    "capital keys": json.dumps({k.upper(): v for k, v in json.loads(whole())["answers"].items()}),
    "capital everything": whole().upper(),
    "letters alone": json.dumps({name: [letter] * 5 for name, letter in OLD.items()}),
    "list of variables": json.dumps(ONE_EACH),
    "list of variables inside": json.dumps({"answers": ONE_EACH}),
    "list of frames": json.dumps(PER_FRAME),
    "list of frames inside": json.dumps({"frames": PER_FRAME, "critique": "fine"}),
    "frames by name": json.dumps({"answers": {f"frame_{n}": dict(OLD) for n in range(1, 6)}}),
    "lines of JSON": "\n".join(json.dumps({name: [letter] * 5}) for name, letter in OLD.items()),
    "objects a frame": whole(age=[{"frame": n, "answer": "A"} for n in range(5)]),
    "frames by number": whole(age={"frames": {str(n): "A" for n in range(5)}}),
    "counts": whole(age={"frames": {"A": 5, "B": 0}}),
    "one string": whole(age={"frames": "A, A, A, A, A"}),
    "one word": whole(age={"frames": "AAAAA"}),
    # options
    "options as shown": whole(age=["A. old"] * 5, beard=["B. No"] * 5),
    "letter and colon": whole(age=["A: old"] * 5, gender=["A: man"] * 5),
    "brackets": whole(age=["(A)"] * 5, bald=["(B) No"] * 5),
    "values": whole(age=["old"] * 5, gender=["Man"] * 5, beard=["no"] * 5, bald=["NO"] * 5),
    "stops": whole(age=["old."] * 5, gender=["man."] * 5),
    "small letters": whole(age=["a"] * 5, beard=["b"] * 5),
    "emphasis": whole(age=["**A**"] * 5),
    "remarks": whole(age=["A (grey hair)"] * 5, beard=["No, clean shaven"] * 5),
    "truth values": whole(beard=[False] * 5, bald=["false"] * 5),
    "lists of one": whole(age=[["A"]] * 5),
    "one frame of five disagrees": whole(age=["A", "A", "B", "A", "A"]),
    "one frame of five unclear": whole(age=["A", "unclear", "A", "A", "A"]),
    "percent": whole(age={"frames": ["A"] * 5, "confidence": "90%"}),
    "of ten": whole(age={"frames": ["A"] * 5, "confidence": "9/10"}),
    "confidence of all": json.dumps({"answers": {n: [v] * 5 for n, v in OLD.items()}, "confidence": 0.9}),
    "confidence a frame": whole(age={"frames": ["A"] * 5, "confidence": [0.9] * 5}),
}  # fmt: skip
# What is not said, or not surely: the age cannot be told, the rest can.
OPEN = {
    "unclear": whole(age=["unclear"] * 5),
    "can't tell": whole(age=["can't tell"] * 5),
    "null": whole(age=None),
    "nulls": whole(age=[None] * 5),
    "not visible": whole(age=["Not visible (face turned away)"] * 5),
    "unknown": whole(age={"frames": ["Unknown"] * 5, "confidence": 0.95}),
    "maybe": whole(age=["maybe A"] * 5),
    "probably": whole(age=["A (probably)"] * 5),
    "either": whole(age=["A or B"] * 5),
    "slash": whole(age=["A/B"] * 5),
    "letter against option": whole(age=["A. young"] * 5),
    "not": whole(age=["not old"] * 5),
    "denied": whole(age=["A - not old"] * 5),
    "tie": whole(age=["A", "A", "B", "B", "unclear"]),
    "two of five": whole(age=["A", "A", None, None, None]),
    "one letter for five frames": whole(age={"frames": "A", "confidence": 0.99}),
    "one answer for five frames": whole(age={"answer": "A. old", "confidence": 1}),
    "frames against answer": whole(age={"frames": ["A"] * 5, "answer": "B", "confidence": 1}),
    "entry that corrects itself": whole(age={"frames": ["A"] * 5, "correction": "B", "confidence": 1}),
    "two values of one key": whole().replace('"age"', '"age": {"frames": ["B", "B", "B", "B", "B"]}, "age"'),
    "two spellings of one key": whole().replace('"age"', '"Age": {"frames": ["B", "B", "B", "B", "B"]}, "age"'),
}  # fmt: skip
UNREADABLE = {
    "nothing": ("", "no JSON object"),
    "prose": ("The man looks quite old in all frames.", "no JSON object"),
    "refusal": ("I'm sorry, but I can't help with identifying people in images.", "no JSON object"),
    "letters in prose": ("1. A\n2. A\n3. B\n4. B", "no JSON object"),
    "open thought": (f"<think>Frame 1 {whole()} but wait", "no JSON object"),
    "only a thought": (f"<think>{whole()}</think>", "no JSON object"),
    "cut in an entry": (whole()[:90], "ends within"),
    "cut at the last brace": (whole()[:-1], "ends within"),
    "cut in a list": (json.dumps(PER_FRAME)[:-20], "ends within"),
    "whole, then a second one cut": (whole() + "\n" + whole(age="B")[:60], "ends within"),
    "taken back": (f"{whole()}\n\nCorrection: he is in fact young.", "takes back"),
    "taken back politely": (f"{whole()} Actually, on closer look the beard is there.", "takes back"),
    "taken back inside": (json.dumps({**json.loads(whole()), "correction": "age is young"}), "corrects itself"),
    "a later object says less": (f'{whole()} Wait. {{"age": ["B"]}}', "no answer for `gender`"),
    "a variable missing": (json.dumps({"answers": {"age": "A"}}), "no answer for `gender`"),
    "another option": (whole(age=["C"] * 5), "answers no option"),
    "a sentence": (whole(age=["The man looks old"] * 5), "answers no option"),
    "numbers": (whole(age=[1, 1, 1, 1, 1]), "a list of letters"),
    "too many counted": (whole(age={"frames": {"A": 50}}), "more frames than there are"),
    "an empty list": (whole(age=[]), "a list of letters"),
    "an empty object": ("{}", "no answer for `age`"),
    "a list of letters": ('{"answers": ["A", "A", "B", "B"]}', "an object with an entry"),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_what_is_said_is_read(name: str) -> None:
    found, _ = read_answers(READ[name], request())
    assert " ".join(str(answer.value) for answer in found.values()) == YES
    assert all(answer.shows(str(answer.value), 0.0) for answer in found.values())


@pytest.mark.parametrize("name", OPEN)
def test_what_is_left_open_is_not_read_as_certain(name: str) -> None:
    found, _ = read_answers(OPEN[name], request())
    assert found["age"].value is None and found["age"].confidence == 0
    assert [found[other].value for other in ("gender", "beard", "bald")] == ["man", "no", "no"]


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_says_why(name: str) -> None:
    text, why = UNREADABLE[name]
    with pytest.raises(InterventionError, match=why):
        read_answers(text, request())


def test_the_table_is_large_enough() -> None:
    assert len(READ) + len(OPEN) + len(UNREADABLE) >= 100


@pytest.mark.parametrize(
    ("given", "value", "confidence", "shown"),
    [
        (["A"] * 5, "old", 0.9, True),
        (["A", "A", "A", "A", "B"], "old", 0.8, True),
        (["A", "A", "A", "A", None], "old", 0.8, True),
        (["A", "A", "A", "B", "B"], "old", 0.6, False),  # it comes and goes
        (["A", "A", "A", None, None], "old", 0.6, False),
        (["A", "A", "A"], "old", 0.6, False),  # two frames were passed over
        (["A"] * 6, "old", 0.9, True),
        ("A", None, 0.0, False),
    ],
)
def test_what_is_there_is_there_in_nearly_all_frames(given: Any, value: str, confidence: float, shown: bool) -> None:
    found, _ = read_answers(whole(age={"frames": given, "confidence": 0.9}), request())
    assert (found["age"].value, found["age"].confidence) == (value, confidence)
    assert found["age"].shows("old", 0.6) is shown


def test_what_stays_stays_in_nearly_all_frames() -> None:
    def lost(*letters: str | None) -> bool:
        return read_answers(whole(gender=list(letters)), request())[0]["gender"].loses("man")

    assert not lost(*"AAAAA") and not lost(*"AAAAB") and not lost("A", None, None, None, None)
    assert lost(*"AAABB") and lost(*"BBBBB") and not lost("A", "A", None, None, "B")
    assert Answer(value="woman", confidence=0.3).loses("man") and not Answer(value=None, confidence=0).loses("man")


@pytest.mark.parametrize(
    ("stated", "confidence"),
    [
        (0.75, 0.75), (75, 0.75), ("75%", 0.75), ("0.75", 0.75), ("0,75", 0.75), ("3 out of 4", 0.75), ("1%", 0.01),
        (1, 1.0), (-0.9, 0.0), ("-0.9", 0.0), (True, 0.5), (None, 0.5), ("certain", 0.5), ("high", 0.8), ("low", 0.3),
        (float("nan"), 0.5), (float("inf"), 0.5), (12345, 0.5), ("between 0.4 and 0.9", 0.4), ("not sure, 0.9", 0.5),
        ([0.9, 0.6], 0.75), ({"A": 0.9}, 0.9), ([], 0.5), ("below 0.9", 0.5),
    ],
)  # fmt: skip
def test_a_confidence_is_never_read_as_more_than_it_says(stated: Any, confidence: float) -> None:
    found, _ = read_answers(whole(age={"frames": ["A"] * 5, "confidence": stated}), request())
    assert found["age"].confidence == pytest.approx(confidence)


pieces = st.sampled_from([
    "{", "}", "[", "]", '"', "'", ":", ",", "A", "B", "old", "young", "not ", "age", "answers", "frames", "confidence",
    "<think>", "</think>", "```json", "Wait, ", "null", "1e999", "\\", "\\u12", "\n", " ", "maybe ", "\u201c",
    '"age"', '"frames": ["A", "A"]', '{"answers": ', '"gender": "A", "beard": "B", "bald": "B"', whole(),
])  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.lists(pieces, max_size=30).map("".join)), st.integers(1, 5))
def test_no_text_raises_anything_else_or_is_surer_than_its_frames(text: str, frames: int) -> None:
    try:
        found, critique = read_answers(text, request(frames))
    except InterventionError as error:
        assert "\n" not in str(error) or "\n" in text
        return
    assert isinstance(critique, str)
    for answer in found.values():
        assert 0 <= answer.confidence <= answer.votes.get(str(answer.value), 0.0) + 1e-3
        assert sum(answer.votes.values()) <= 1 + 1e-3


letters = st.lists(st.sampled_from(["A", "B", None, "unclear"]), min_size=1, max_size=5)
noise = st.text(alphabet=st.characters(exclude_characters="{}[]<>|\u25c1", exclude_categories=["Cs"]), max_size=60)


@settings(max_examples=200, deadline=None)
@given(letters, letters, st.floats(0, 1), noise)
def test_thoughts_and_drafts_change_nothing(
    given_letters: list[Any], others: list[Any], sure: float, around: str
) -> None:
    answer = whole(age={"frames": given_letters, "confidence": sure})
    plain, _ = read_answers(answer, request())
    for text in (
        f"<think>{around}{whole(age={'frames': others})}</think>{answer}",
        f"{around}{whole(bald=others)}\n---\n{answer}",
        f"{around}\n```json\n{answer}\n```", str(json.loads(answer)),
    ):  # fmt: skip
        assert read_answers(text, request())[0] == plain
    told = [letter for letter in given_letters if letter in ("A", "B")]
    assert plain["age"].confidence <= max(told.count("A"), told.count("B")) / 5 + 1e-3
    if plain["age"].shows("old", 0.0):
        assert told.count("A") >= 4


@settings(max_examples=200, deadline=None)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12,
))  # fmt: skip
def test_json_is_read_as_json_reads_it(value: Any) -> None:
    assert object_in(json.dumps({"value": value})) == {"value": value}


def test_thoughts_are_left_out_wherever_they_stand() -> None:
    assert without_thoughts("a<think>b</think>c<think>d") == "ac"
    assert without_thoughts("a</think>b</THINK> c") == " c"
    assert without_thoughts("nothing <b>bold</b> here") == "nothing <b>bold</b> here"


def test_options_are_told_apart_by_what_stands_beside_the_letter() -> None:
    hair = Question("hair", "Hair?", dict(zip("ABC", ("black", "dark brown", "brown"), strict=True)),
                    dict(zip("ABC", ("black", "dark_brown", "brown"), strict=True)))  # fmt: skip
    assert [hair.read(text) for text in ("B. dark brown", "dark brown.", "brown", "C brown", "dark_brown")] == [
        "dark_brown", "dark_brown", "brown", "brown", "dark_brown",
    ]  # fmt: skip
    assert hair.read("black or brown") is None and hair.read("C. black") is None
    with pytest.raises(InterventionError):
        hair.read("brownish")


# --- over HTTP -------------------------------------------------------------------------------------------------------


def test_a_truncated_answer_is_asked_for_again_with_more_room_and_not_told_that_it_is_unreadable() -> None:
    with serve(lambda messages, pictures: whole()) as server:
        server.cuts += [120, 200]  # characters; of the first two answers
        critic = load_critic("openai:any", ChatConfig(url=server.url, max_tokens=50))
        assert critic.judge(request()).answers["age"].value == "old"
        assert [asked.body["max_tokens"] for asked in server.requests] == [50, 200, 800]
        assert all(len(asked.body["messages"]) == 2 for asked in server.requests)  # nothing is said of a fault
        assert critic.costs()["calls"] == 3


def test_what_is_cut_off_again_and_again_is_given_up() -> None:
    with serve(lambda messages, pictures: whole()) as server:
        server.cuts += [50] * 9
        critic = load_critic("openai:any", ChatConfig(url=server.url, max_tokens=50))
        with pytest.raises(CallError, match="cut off at 800 tokens. Raise `max_tokens`"):
            critic.judge(request())
        assert len(server.requests) == 3


def test_tokens_that_went_into_thoughts_are_told_from_silence() -> None:
    with serve(lambda messages, pictures: whole()) as server:
        server.faults += ["length"]
        critic = load_critic("openai:any", ChatConfig(url=server.url, max_tokens=50))
        assert critic.judge(request()).answers["age"].value == "old"
        assert [asked.body["max_tokens"] for asked in server.requests] == [50, 200]


def test_an_answer_that_is_whole_though_cut_is_taken() -> None:
    with serve(lambda messages, pictures: whole() + "\n```") as server:
        server.cuts += [len(whole()) + 2]
        critic = load_critic("openai:any", ChatConfig(url=server.url))
        assert critic.judge(request()).answers["age"].value == "old" and len(server.requests) == 1


@pytest.mark.parametrize("name", ["refusal", "open thought", "taken back", "another option"])
def test_an_unreadable_answer_is_asked_for_once_more_with_what_is_wrong(name: str) -> None:
    text, why = UNREADABLE[name]
    with serve(lambda messages, pictures: text if len(messages) < 3 else whole()) as server:
        critic = load_critic("openai:any", ChatConfig(url=server.url))
        verdict = critic.judge(request())
        assert verdict.answers["age"].value == "old" and verdict.raw == (text, whole())
        assert why.strip("`") in json.dumps(server.requests[1].body["messages"][-1]).replace("\\", "")
        assert {asked.body["max_tokens"] for asked in server.requests} == {1000}


def test_more_room_is_paid_from_the_same_budget() -> None:
    with serve(lambda messages, pictures: whole()) as server:
        server.cuts += [50] * 9
        config = ChatConfig(url=server.url, max_tokens=50, max_cost=0.006, price_in=0.0, price_out=20.0)
        critic = load_critic("openai:any", config)
        with pytest.raises(BudgetError, match="may cost 0.016 US dollars"):  # 800 tokens
            critic.judge(request())
        assert len(server.requests) == 2
