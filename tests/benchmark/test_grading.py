"""A judge beside the examiner, asked over real HTTP on loopback; published answer keys, and keys that do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import Result

from chat.server import serve
from countervid.benchmark.clips import people
from countervid.benchmark.results import about, read
from countervid.clip import Clip
from countervid.phantom.world import render_clip

Run = Callable[..., Result]
PROMPTS = {"talk": {"factual": "He is old.", "counterfactual": {"beard": "He is old, he has beard."}}}


def question(text: str, options: dict[str, str], answer: str) -> dict[str, Any]:
    return {"question": text, "options": options, "correctAnswer": answer}


QUESTIONS = {
    "talk": {
        "beard": {
            "prompt": "He is old, he has beard.",
            "questions": [
                question("What is the age of this person?", {"A": "old", "B": "young"}, "old"),
                question("What is the gender of this person?", {"A": "man", "B": "woman"}, "man"),
                # The file's key contradicts its own prompt, as 14 of the published ones do.
                question("Does this person have a beard?", {"A": "Yes", "B": "No"}, "No"),
                question("Is this person bald?", {"A": "Yes", "B": "No"}, "No"),
            ],
        }
    }
}


def looking(messages: list[dict[str, Any]], pictures: list[np.ndarray]) -> str:
    """Says that everybody is old, bearded and bald, and cannot tell men from women."""
    assert len(pictures) == 1
    text = str(messages[-1])
    return "old" if "the age" in text else "Hard to say, really" if "gender" in text else "Yes"


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    made = render_clip(people(1)[0], frames=4, fps=8.0, size=128)
    Clip.from_frames(torch.from_numpy(made.frames), 8.0).write(tmp_path / "talk.mp4", crf=8)
    (tmp_path / "prompts.json").write_text(json.dumps(PROMPTS))
    (tmp_path / "questions.json").write_text(json.dumps(QUESTIONS))
    return tmp_path


def told(footage: Path, url: str) -> list[str]:
    return [
        "--prompts",
        str(footage / "prompts.json"),
        "--judge",
        "openai:any",
        "--chat",
        f"url={url}",
        "--metrics",
        "l1",
    ]


@pytest.mark.usefixtures("alone")
def test_a_judge_answers_by_both_keys(footage: Path, benchmark_run: Run, tmp_path: Path) -> None:
    with serve(looking) as server:
        asked = ("--questions", str(footage / "questions.json"))
        result = benchmark_run(tmp_path / "out", *told(footage, server.url), *asked, clips=str(footage))
    assert result.exit_code == 0, result.output
    said = {row.metric: row.score for row in read(tmp_path / "out").rows if row.metric.startswith("judge.")}
    assert said == {
        "judge.age": 1.0, "judge.gender": None, "judge.beard": 1.0, "judge.bald": 0.0,
        "judge.published.age": 1.0, "judge.published.gender": 0.0, "judge.published.beard": 0.0,
        "judge.published.bald": 0.0,
    }  # fmt: skip
    assert "no number in some jobs: judge.gender (1)" in " ".join(result.output.split())
    assert about("judge.published.beard").high == 1.0 and "published key" in about("judge.published.beard").title


@pytest.mark.usefixtures("alone")
def test_without_a_file_the_graph_asks(footage: Path, benchmark_run: Run, tmp_path: Path) -> None:
    with serve(looking) as server:
        result = benchmark_run(tmp_path / "out", *told(footage, server.url), clips=str(footage))
    assert result.exit_code == 0, result.output
    said = {row.metric: row.score for row in read(tmp_path / "out").rows if row.metric.startswith("judge.")}
    assert said == {"judge.age": 1.0, "judge.gender": None, "judge.beard": 1.0, "judge.bald": 0.0}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--judge", "bundled"), "cannot be the judge too"),
        (("--questions", "questions.json"), "--judge"),
        (("--judge", "nobody"), "`nobody` is no critic"),
        (("--judge", "openai:any", "--chat", "speed=1"), "no setting `speed`"),
    ],
)
def test_a_judge_that_cannot_be_is_refused(
    benchmark_run: Run, tmp_path: Path, more: tuple[str, ...], words: str
) -> None:
    result = benchmark_run(tmp_path / "out", *more)
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1 and words in result.stderr


def test_an_answer_key_of_other_clips_is_refused(footage: Path, benchmark_run: Run, tmp_path: Path) -> None:
    (footage / "questions.json").write_text(json.dumps({"another": QUESTIONS["talk"]}))
    asked = ("--questions", str(footage / "questions.json"))
    result = benchmark_run(tmp_path / "out", *told(footage, "http://127.0.0.1:9/v1"), *asked, clips=str(footage))
    assert result.exit_code == 2 and "does not fit the clips" in result.stderr and "talk under beard" in result.stderr
