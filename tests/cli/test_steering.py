"""`countervid edit --critic`: steered from the command line, offline and by a server; one line when it cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from chat.server import serve
from countervid.causal.graph import CausalGraph
from countervid.causal.questions import questions
from countervid.cli.main import app
from countervid.cli.steering import steering_options
from countervid.clip import Clip
from countervid.critics.bundled import BundledCritic
from tiny_models import astronaut_frames

MODEL = str(Path(__file__).parents[1] / "goldens" / "tiny-sd-ft" / "sd2")
PHANTOM = CausalGraph.load("phantom")


@pytest.fixture(autouse=True)
def here(alone: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Clip.from_frames(astronaut_frames(4)).write(tmp_path_factory.mktemp("footage") / "talk.mp4", crf=4)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def call(talk: Path, cache: Path) -> Any:
    def invoke(*words: Any, editor: str = "tokenflow") -> Any:
        quick = ["--set", "steps=2", "--set", "inversion_steps=2", "--set", "floor=0", "--model", MODEL]
        options = ["--editor", editor, "--cache", cache, "--factual", "She is young, she has brown hair.", *quick]
        more = options if editor == "tokenflow" else options[:6]
        arguments = ["edit", talk, *([] if "--do" in words else ["--do", "age=old"]), *words, *more]
        return CliRunner().invoke(app, [str(word) for word in arguments])

    return invoke


def rounds(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "verdicts.jsonl").read_text().splitlines()]


def test_a_run_is_steered_before_ones_eyes_and_goes_on_from_its_rounds(call: Any) -> None:
    done = call("--critic", "bundled", "--max-edits", 2, "--out", "run")
    assert done.exit_code == 0, (done.output, done.exception)
    made, record = rounds("run"), json.loads(Path("run/run.json").read_text())
    assert record["steering"]["edits"] == len(made) == 2 and record["steering"]["critic"]["calls"] == 3
    for number, one in enumerate(made):
        assert f"round {number} " in done.output and Path(f"run/round-{number}.png").is_file()
        assert set(one["verdict"]["answers"]) == set(PHANTOM.variables)
    chosen, target = made[record["steering"]["chosen"]]["target"], json.loads(Path("run/target.json").read_text())
    assert target["prompt"] == chosen["prompt"] and target["round"] == record["steering"]["chosen"]
    assert "young → " in done.output and "seed" not in Path("run/report.html").read_text().partition("<pre")[0]
    attributes = record["steering"]["attributes"]
    assert set(attributes) == set(PHANTOM.variables) and attributes["age"]["wanted"] == "old"
    assert attributes["age"]["before"]["value"] in ("young", "old") and attributes["age"]["after"] is not None
    page = Path("run/report.html").read_text()
    assert "How it was steered" in page and "Round 1" in page and page.count("Frames that the critic saw") == 2
    again = call("--critic", "bundled", "--max-edits", 2, "--out", "run")
    assert again.exit_code == 0 and "as asked" not in again.output and rounds("run") == made
    assert json.loads(Path("run/run.json").read_text())["steering"] == record["steering"]
    before = Path("run/counterfactual.mp4").read_bytes()
    replayed = call("--critic", "replay:run", "--max-edits", 2, "--out", "replayed")
    assert replayed.exit_code == 0, replayed.output
    assert [r["verdict"] for r in rounds("replayed")] == [r["verdict"] for r in made]
    assert Path("replayed/counterfactual.mp4").read_bytes() == before


def test_a_server_that_looks_steers_as_the_bundled_critic_does(call: Any) -> None:
    """The server decodes the pictures that it is sent and answers as the bundled critic sees them."""
    critic, asked = BundledCritic.load(), questions(PHANTOM)

    def answer(messages: list[dict[str, Any]], pictures: list[np.ndarray]) -> str:
        if not pictures:
            return '{"prompt": "An elderly woman."}'
        frames = torch.from_numpy(np.stack(pictures))
        seen = critic.read(frames)
        entries = {}
        for question in asked:
            values, shares = critic.head.domains[question.variable], seen[question.variable]
            letters = [question.letter(values[int(i)]) for i in shares.argmax(1)]
            entries[question.variable] = {"frames": letters, "confidence": float(shares.mean(0).max()), "critique": ""}
        return json.dumps({"answers": entries, "critique": ""})

    local = call("--critic", "bundled", "--max-edits", 1, "--out", "local")
    assert local.exit_code == 0, local.output
    with serve(answer) as server:
        options = ("--critic", "openai:any", "--critic-url", server.url, "--chat", "side=128", "--max-edits", 2)
        done = call(*options, "--writer", "openai:any", "--out", "remote")
        assert done.exit_code == 0, (done.output, done.exception)
        assert all(picture.shape == (128, 128, 3) for request in server.requests for picture in request.pictures)
    first = rounds("remote")[0]["verdict"]["answers"]
    for name, seen in rounds("local")[0]["verdict"]["answers"].items():
        votes = seen["votes"]
        if max(votes.values()) > 0.5 and seen["confidence"] > 0.6:
            assert first[name]["value"] == max(votes, key=votes.__getitem__), name
    spent = json.loads(Path("remote/run.json").read_text())["steering"]
    assert spent["critic"]["calls"] >= 1 and spent["critic"]["tokens_in"] > 0
    assert "writer" in spent and "key" not in Path("remote/run.json").read_text().lower().replace("keyframe", "")


def test_a_service_that_fails_is_said_and_the_edit_is_kept(call: Any) -> None:
    with serve(lambda messages, pictures: "It looks nice.") as server:
        options = ("--critic", "openai:any", "--critic-url", server.url, "--max-edits", 3, "--out", "run")
        done = call(*options)
    assert done.exit_code == 0, (done.output, done.exception)
    record = json.loads(Path("run/run.json").read_text())
    assert record["finished"] and "calls in a row failed" in record["steering"]["stopped"]
    assert [bool(r["failure"]) for r in rounds("run")] == [True, True] and Path("run/counterfactual.mp4").is_file()


def test_the_autoencoder_is_steered_by_its_strengths(call: Any) -> None:
    done = call("--critic", "bundled", "--max-edits", 2, "--max-frames", 3, "--out", "run", editor="dva")
    assert done.exit_code == 0, (done.output, done.exception)
    made = rounds("run")
    assert made[0]["target"]["strengths"] == {} and (len(made) == 1 or made[1]["target"]["strengths"])


OTHER = "name: shoes\nvariables:\n  shoes: {kind: binary}\n  age: {kind: ordered, values: [young, old]}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--critic", "nobody"], "`nobody` is no critic. There are: bundled"),
        (["--critic", "openai:gpt-x"], "key"),
        (["--critic", "openai:x", "--critic-url", "http://127.0.0.1:9/v1", "--max-calls", "0"], "max-calls` is 0"),
        (["--critic", "openai:x", "--max-cost", "1"], "price"),
        (["--critic", "replay:nowhere.jsonl"], "cannot be read"),
        (["--critic", "bundled", "--max-edits", "0"], "`max-edits` is 0"),
        (["--critic", "bundled", "--looks", "0"], "at least 1 frame"),
        (["--critic", "bundled", "--steering", "magic"], "no steering `magic`"),
        (["--critic", "bundled", "--steering", "strengths"], "steer it by `csvc`"),
        (["--critic", "bundled", "--writer", "somebody"], "no language model"),
        (["--critic", "bundled", "--chat", "colour=3"], "`chat` has no setting `colour`"),
        (["--critic", "bundled", "--graph", "shoes.yaml", "--factual", "x"], "no answer for `shoes`"),
        (["--critic", "bundled", "--candidates", "3"], "`tokenflow` has no seed: 3 candidates"),
        (["--candidates", "2"], "Add `--critic bundled`"),
        (["--steering", "csvc"], "Add `--critic bundled`"),
        (["--critic-url", "http://127.0.0.1:9/v1"], "Add `--critic bundled`"),
    ],
)
def test_wrong_options_are_one_line(call: Any, words: list[str], message: str) -> None:
    Path("shoes.yaml").write_text(OTHER)
    done = call(*words, "--out", "run")
    assert done.exit_code == 2 and message in done.output, done.output
    assert len(done.output.strip().splitlines()) == 1 and not Path("run").exists()


@pytest.mark.parametrize(("chat", "shared"), [([], True), (["one_budget=false"], False)])
def test_critic_and_writer_share_a_budget_unless_told_otherwise(chat: list[str], shared: bool) -> None:
    editor: Any = SimpleNamespace(name="any", knobs={"prompt"}, config=SimpleNamespace(guidance=4.0))
    found = steering_options(
        editor, PHANTOM, critic="openai:one", url="http://127.0.0.1:9/v1", writer="openai:other", steering="auto",
        max_edits=3, max_calls=7, max_cost=0.5, looks=None, chat=["price_in=1", "price_out=2", *chat],
    )  # fmt: skip
    budgets = [found["critic"].chat.account.budget, found["steerer"].writer.chat.account.budget]
    assert (budgets[0] is budgets[1]) is shared
    assert all((budget.max_calls, budget.max_cost) == (7, 0.5) for budget in budgets)


def test_steering_round_the_graph_is_refused(call: Any) -> None:
    done = call("--attribute", "beard", "--scale", "0.5", "--do", "age=old", "--critic", "bundled", editor="dva")
    assert done.exit_code == 2 and "Give one of them" in done.output
