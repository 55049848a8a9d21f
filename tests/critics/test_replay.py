import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from countervid.causal.graph import CausalGraph
from countervid.causal.questions import questions
from countervid.critics.base import Answer, Request, Verdict, load_critic
from countervid.errors import CallError, ConfigError

FACE = CausalGraph.load("face")
SHOWN = Request(
    pictures=torch.arange(48, dtype=torch.uint8).view(1, 4, 4, 3), frames=(3,), questions=questions(FACE),
    changed={"age": "old"}, kept={"gender": "man"}, prompt="He is old.",
)  # fmt: skip
SAID = Verdict(
    critic="openai:x", frames=(3,), answers={name: Answer(value=None, confidence=0.0) for name in FACE.variables}
)


def recorded(path: Path) -> Path:
    lines = [
        {"request": "0", "size": 256, "verdict": None, "failure": "no answer"},
        {"request": SHOWN.key(), "size": 256, "verdict": SAID.model_dump(mode="json")},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_it_repeats_what_was_said_of_the_same_pictures_and_nothing_else(tmp_path: Path) -> None:
    path = recorded(tmp_path / "verdicts.jsonl")
    for given in (path, tmp_path):
        critic = load_critic(f"replay:{given}")
        critic.check(FACE)
        assert critic.judge(SHOWN) == SAID and (critic.size, critic.looks) == (256, 1)
    others = [
        replace(SHOWN, pictures=SHOWN.pictures + 1),
        replace(SHOWN, prompt="He is young."),
        replace(SHOWN, changed={"age": "young"}),
    ]
    for other in others:
        with pytest.raises(CallError, match="no verdict on this edit"):
            critic.judge(other)


def test_files_that_hold_no_verdicts_are_refused(tmp_path: Path) -> None:
    empty, prose = tmp_path / "empty.jsonl", tmp_path / "prose.jsonl"
    empty.write_text("")
    prose.write_text("it looks fine\n")
    for name, message in (
        ("nowhere", "cannot be read"),
        (empty, "holds no verdicts"),
        (prose, "line 1, is no verdict"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_critic(f"replay:{name}")
    with pytest.raises(ConfigError, match="say nothing of moustache"):
        load_critic(f"replay:{recorded(tmp_path / 'v.jsonl')}").check(CausalGraph.load("phantom"))
