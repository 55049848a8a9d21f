"""A language model as critic, over real HTTP on loopback: the server decodes the pictures and looks at them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from chat.server import serve
from countervid.causal.graph import CausalGraph
from countervid.causal.questions import questions
from countervid.chat.answers import object_in
from countervid.chat.base import BudgetError, ChatConfig
from countervid.critics.base import Request, load_critic
from countervid.critics.reading import read_answers
from countervid.errors import CallError, ConfigError, InterventionError

FACE = CausalGraph.load("face")


pytestmark = pytest.mark.usefixtures("alone")


def request(levels: list[int]) -> Request:
    """Frames of one level each; bright ones pass for old."""
    pictures = torch.stack([torch.full((48, 48, 3), level, dtype=torch.uint8) for level in levels])
    return Request(
        pictures=pictures, frames=tuple(range(len(levels))), questions=questions(FACE), changed={"age": "old"},
        kept={"gender": "man", "beard": "no", "bald": "no"}, prompt="He is old.",
    )  # fmt: skip


def looking(messages: list[dict[str, Any]], pictures: list[np.ndarray]) -> str:
    letters = ["A" if picture.mean() > 127 else "B" for picture in pictures]
    still = ["B"] * len(pictures)
    entries = {
        "age": {"frames": letters, "confidence": 0.9, "critique": "wrinkles are faint"},
        "gender": {"frames": ["A"] * len(pictures), "confidence": 1, "critique": ""},
        "beard": {"frames": still, "confidence": 0.8, "critique": ""},
        "bald": {"frames": still, "confidence": 0.8, "critique": ""},
    }
    return json.dumps({"answers": entries, "critique": "He could look older."})


def test_frames_vote_and_the_spread_is_told() -> None:
    with serve(looking) as server:
        critic = load_critic("openai:any", ChatConfig(url=server.url))
        verdict = critic.judge(request([200, 210, 220, 40, 250]))
    age = verdict.answers["age"]
    assert age.value == "old" and age.votes == {"old": 0.8, "young": 0.2} and age.confidence == 0.8
    assert age.critique == "wrinkles are faint" and verdict.critique == "He could look older."
    assert verdict.shows("age", "old") and verdict.answers["gender"].value == "man"
    assert len(server.requests) == 1 and [p.shape for p in server.requests[0].pictures] == [(48, 48, 3)] * 5
    assert critic.costs()["calls"] == 1 and critic.costs()["tokens_in"] > 0


def test_every_variable_is_asked_about_and_the_answer_has_a_schema() -> None:
    with serve(looking) as server:
        load_critic("openai:any", ChatConfig(url=server.url)).judge(request([200]))
        body = server.requests[0].body
    text = json.dumps(body["messages"])
    assert all(question.text in text for question in questions(FACE)) and "He is old." in text
    schema = body["response_format"]["json_schema"]["schema"]
    assert set(schema["properties"]["answers"]["required"]) == {"age", "gender", "beard", "bald"}


def test_prose_is_asked_for_once_more_and_then_given_up() -> None:
    said = ["The man looks quite old to me, well done!"]

    def answer(messages: list[dict[str, Any]], pictures: list[np.ndarray]) -> str:
        return said[0] if len(messages) < 3 else looking(messages, pictures)

    with serve(answer) as server:
        critic = load_critic("openai:any", ChatConfig(url=server.url))
        assert critic.judge(request([200])).answers["age"].value == "old"
        assert len(server.requests) == 2 and "holds no JSON object" in json.dumps(server.requests[1].body)
    with serve(lambda messages, pictures: said[0]) as server:
        critic = load_critic("openai:any", ChatConfig(url=server.url))
        with pytest.raises(CallError, match="no answer that can be read, asked twice"):
            critic.judge(request([200]))


@pytest.mark.parametrize("fault", ["refusal", "html", "no-choices", "401", "404"])
def test_what_the_service_cannot_do_is_one_line(fault: str) -> None:
    with serve(looking) as server:
        server.faults += [fault]
        critic = load_critic("openai:any", ChatConfig(url=server.url, wait=0.01))
        with pytest.raises(CallError) as caught:
            critic.judge(request([200]))
        assert "\n" not in str(caught.value)


def test_passing_trouble_is_waited_for() -> None:
    with serve(looking) as server:
        server.faults += ["429", "500", "drop"]
        critic = load_critic("openai:any", ChatConfig(url=server.url, wait=0.01))
        assert critic.judge(request([200])).answers["age"].value == "old"
        assert len(server.requests) == 4 and critic.costs()["calls"] == 1


def test_a_budget_of_calls_is_kept() -> None:
    with serve(looking) as server:
        critic = load_critic("openai:any", ChatConfig(url=server.url, max_calls=1))
        critic.judge(request([200]))
        with pytest.raises(BudgetError, match="1 calls"):
            critic.judge(request([200]))
        assert len(server.requests) == 1


def test_a_model_that_contradicts_itself_is_not_believed() -> None:
    torn = {"answers": {name: {"frames": ["A"], "confidence": 1} for name in ("gender", "beard", "bald")}}
    torn["answers"]["age"] = {"frames": ["A", "B"], "confidence": 0.9}
    found, _ = read_answers(json.dumps(torn), request([1, 2]))
    assert found["age"].value is None and found["age"].confidence == 0
    torn["answers"]["age"] = {"value": "young", "frames": ["A", "A"], "confidence": 0.9}
    found, _ = read_answers(json.dumps(torn), request([1, 2]))
    assert found["age"].value is None


def test_answers_are_read_in_many_forms() -> None:
    loose = """Sure!
```json
{"Age": "old", "gender": "A.", "beard": {"answer": "No", "confidence": "85%"}, "bald": ["B"]}
```"""
    found, _ = read_answers(loose, request([1]))
    assert {name: answer.value for name, answer in found.items()} == {
        "age": "old", "gender": "man", "beard": "no", "bald": "no",
    }  # fmt: skip
    assert found["beard"].confidence == 0.85 and found["age"].confidence == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing here", "no JSON object"),
        ('{"answers": {"age": "old"}}', "no answer for `gender`"),
        ('{"answers": {"age": "ancient", "gender": "A", "beard": "A", "bald": "A"}}', "`ancient` answers no option"),
        ('{"answers": {"age": {"frames": []}, "gender": "A", "beard": "A", "bald": "A"}}', "a list of letters"),
        ('{"answers": [1]}', "an object with an entry"),
    ],
)
def test_what_cannot_be_read_says_why(text: str, message: str) -> None:
    with pytest.raises(InterventionError, match=message):
        read_answers(text, request([1]))


def test_the_last_whole_object_counts() -> None:
    assert object_in('{"torn": {"a": 1} and then {"b": 2}') == {"b": 2}


@pytest.mark.parametrize("name", ["nobody", "openai:", "replay:", "transformers"])
def test_an_unknown_critic_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match="is no critic. There are"):
        load_critic(name)
