"""`countervid graph`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from countervid.cli.main import app


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["graph", *arguments])


def test_predict_answers_in_json() -> None:
    result = call("predict", "--graph", "face", "--factual", "He is young, he has beard.", "--do", "age=old", "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["counterfactual"] == {"age": "old", "gender": "man", "beard": "yes", "bald": "yes"}
    assert answer["prompt"] == "He is old, he has beard, he is bald."
    reasons = {change["variable"]: change["reason"] for change in answer["changes"]}
    assert reasons == {"age": "set by the intervention", "bald": "follows from age = old"}


def test_predict_prints_reasons_and_the_prompt() -> None:
    result = call("predict", "--graph", "phantom", "--factual", "She is young, she has red hair.", "--do", "age=old")
    assert result.exit_code == 0
    assert "follows from age = old" in result.stdout
    assert result.stdout.rstrip().endswith("She is old, she has grey hair.")


def test_predict_takes_attributes_besides_the_sentence() -> None:
    result = call("predict", "--attribute", "age=old", "--attribute", "gender=woman", "--attribute", "beard=no",
                  "--attribute", "bald=no", "--do", "gender=man", "--json")  # fmt: skip
    assert json.loads(result.stdout)["prompt"] == "He is old, he has beard, he is bald."


def test_show_draws_the_graph(tmp_path: Path) -> None:
    result = call("show", "phantom", "--svg", str(tmp_path / "graph.svg"))
    assert result.exit_code == 0
    assert "hair_colour" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["graph.svg"]
    assert (tmp_path / "graph.svg").read_text().startswith("<svg")


def test_check_accepts_a_whole_graph() -> None:
    result = call("check", "face")
    assert result.exit_code == 0
    assert "face is whole: 4 variables, 4 edges" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "fase"], "There is no graph `fase`"),
        (["show", "face", "--svg", "/nowhere/graph.svg"], "/nowhere/graph.svg cannot be written"),
        (["predict", "--factual", "He is young."], "--do"),
        (["predict", "--factual", "He is young.", "--do", "age=olld"], "Did you mean `old`"),
        (["predict", "--factual", "He is young.", "--do", "agee=old"], "Did you mean `age`"),
        (["predict", "--factual", "He is young.", "--do", "age=old", "--do", "age=young"], "both `old` and `young`"),
        (["predict", "--factual", "He has beard.", "--do", "age=old"], "The factual says nothing of `age`"),
        (["predict", "--factual", "He is a woman.", "--do", "age=old"], "says of `gender` both"),
    ],
)
def test_wrong_input_gets_one_line_and_code_2(arguments: list[str], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert message in result.stderr


def test_check_names_a_cycle(tmp_path: Path) -> None:
    path = tmp_path / "cycle.yaml"
    path.write_text("variables: {age: {kind: binary}, beard: {kind: binary}}\nedges: [age -> beard, beard -> age]\n")
    result = call("check", str(path))
    assert result.exit_code == 2
    assert "cause each other. Remove one edge" in result.stderr
