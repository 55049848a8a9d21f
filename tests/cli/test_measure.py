"""`countervid measure`: real files in, a table and JSON out, one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from countervid.cli.main import app
from countervid.cli.measure import MARKS, WANTS, markdown, with_table
from countervid.clip import Clip
from countervid.errors import ConfigError
from countervid.metrics.base import About, catalogue, of_several
from countervid.phantom.world import render_clip, sample_person

GUIDE = Path(__file__).parents[2] / "docs" / "metrics.md"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A young woman, and the same grown old: `young.mp4`, `old.mp4`; and nobody at all: `grey.mp4`."""
    folder = tmp_path_factory.mktemp("clips")
    person = sample_person(2_000_003)
    states = {"young": person.attributes, "old": person.counterfactual({"age": "old"}).attributes}
    for name, state in states.items():
        frames = torch.from_numpy(render_clip(person, frames=5, size=160, attributes=state).frames)
        Clip.from_frames(frames).write(folder / f"{name}.mp4", crf=4)
    Clip.from_frames(torch.full((5, 160, 160, 3), 127, dtype=torch.uint8)).write(folder / "grey.mp4")
    Clip.from_frames(torch.full((4, 160, 160, 3), 127, dtype=torch.uint8)).write(folder / "short.mp4")
    return folder


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "240")

    def invoke(*words: Any) -> Any:
        return CliRunner().invoke(app, ["measure", *(str(word) for word in words)])

    return invoke


def pair(clips: Path, factual: str = "young", edited: str = "old") -> list[str]:
    return ["--factual", f"{clips}/{factual}.mp4", "--counterfactual", f"{clips}/{edited}.mp4", "--device", "cpu"]


def test_a_table_and_the_same_in_json(clips: Path, call: Any, tmp_path: Path) -> None:
    truth = ["--truth", clips / "old.mp4", "--do", "age=old", "--json", tmp_path / "out.json"]
    result = call("effectiveness", "truth.skill", "psnr", "minimality.outside", *pair(clips), *truth)
    assert result.exit_code == 0, result.output
    said = json.loads((tmp_path / "out.json").read_text())
    assert said["scores"]["truth.skill"] == 1 and said["scores"]["effectiveness.target"] == 1
    assert said["asked"]["factual"]["gender"] == "woman" and said["asked"]["do"] == {"age": "old"}
    assert "old" in said["asked"]["prompt"] and not said["missing"] and not said["left_out"]
    for name, value in said["scores"].items():
        line = next(line for line in result.output.splitlines() if line.strip().startswith(f"{name} "))
        assert f" {value:.4g} " in line and catalogue()[name].better in line
    assert " dB " in result.output


def test_what_is_not_defined_says_so_with_its_reason(clips: Path, call: Any, tmp_path: Path) -> None:
    asked = ["--do", "age=young", "--person", "She is young.", "--json", tmp_path / "out.json"]
    result = call("effectiveness.changed", "effectiveness.kept", *pair(clips, "young", "young"), *asked)
    assert result.exit_code == 0, result.output
    assert "not defined" in result.output and "(nothing was asked to change)" in result.output
    said = json.loads((tmp_path / "out.json").read_text())
    assert said["scores"]["effectiveness.changed"] is None
    assert said["undefined"] == {"effectiveness.changed": "nothing was asked to change"}


def test_what_a_family_lacks_is_a_line_and_the_rest_is_measured(clips: Path, call: Any) -> None:
    result = call("psnr", *pair(clips))
    assert result.exit_code == 0, result.output
    assert f"Left out: psnr.truth. Needed is {WANTS['truth']}" in result.output
    result = call("identity", "psnr", *pair(clips, "grey", "grey"))
    assert result.exit_code == 0, result.output
    assert "identity.tl_id" in result.output and "No face" in result.output and " 100 " in result.output


def test_a_number_by_its_name_is_an_error_where_it_cannot_be_had(clips: Path, call: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = call("effectiveness.target", "psnr", *pair(clips), "--do", "age=old", "--weights",
                  f"clip={tmp_path}/empty", "--person", "She is young.")  # fmt: skip
    assert "`--weights clip=...` was not looked with" in result.output
    result = call("truth.skill", *pair(clips))
    assert result.exit_code == 2 and "`truth.skill` needs the true counterfactual: --truth FILE" in result.stderr
    told = ["--do", "age=old", "--graph", "face", "--person", "She is young, she has no beard, she is not bald."]
    result = call("effectiveness.age", "psnr", *pair(clips), *told, "--weights", f"examiner={tmp_path}/empty")
    assert result.exit_code == 2 and " psnr " in result.output and "No model in" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["psrn", "PAIR"], "There is no metric `psrn`"),
        (["obedience", "PAIR"], "`obedience` takes several clips, several edits of one, or a graph"),
        (["PAIR"], "Name what to measure"),
        (["psnr"], "`--factual FILE` and `--counterfactual FILE` are needed"),
        (["psnr", "--factual", "young", "--counterfactual", "short"], "has 4 frames of 160 x 160, the factual 5"),
        (["psnr", "--factual", "nowhere", "--counterfactual", "old"], "nowhere.mp4"),
        (["psnr", "PAIR", "--weights", "clip"], "Write it as name=folder"),
        (["psnr", "PAIR", "--weights", "clip=/nowhere"], "there is no `/nowhere`"),
        (["psnr", "PAIR", "--device", "abacus"], "The device `abacus` cannot be used"),
        (["psnr", "PAIR", "--do", "age=ancient"], "`age` cannot be `ancient`"),
        (["effectiveness.age", "--factual", "grey", "--counterfactual", "grey", "--do", "age=old"], "is not known"),
    ],
)
def test_wrong_input_is_one_line(clips: Path, call: Any, words: list[str], said: str) -> None:
    files = [f"{clips}/{word}.mp4" if before in ("--factual", "--counterfactual") else word
             for before, word in zip(["", *words], words, strict=False)]  # fmt: skip
    spelt = [part for word in files for part in (pair(clips) if word == "PAIR" else [word])]
    result = call(*spelt)
    assert result.exit_code == 2
    assert said in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_the_list_names_everything_and_what_it_needs(call: Any) -> None:
    result = call("--list")
    assert result.exit_code == 0, result.output
    assert all(f" {name} " in result.output for name in catalogue())
    assert all(f" {name}° " in result.output for name in of_several()) and "obedience" in of_several()
    result = call("--list", "truth")
    assert "truth.skill" in result.output and "effectiveness" not in result.output


def test_the_guide_tells_every_metric_as_it_is() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert text == with_table(text, catalogue(), of_several(), "docs/metrics.md"), (
        "The table of metrics is not up to date: countervid measure --list --into docs/metrics.md"
    )


def test_a_table_is_renewed_between_its_marks_alone(call: Any, tmp_path: Path) -> None:
    guide = tmp_path / "guide.md"
    guide.write_text(f"Before.\n{MARKS[0]}\nold\n{MARKS[1]}\nAfter.\n")
    assert call("--list", "--into", guide).exit_code == 0
    text = guide.read_text()
    assert text.startswith("Before.\n") and text.endswith("After.\n") and "old" not in text.split(MARKS[0])[1][:5]
    assert all(f"| `{name}` |" in text for name in (*catalogue(), *of_several()))
    assert call("--list", "--into", guide).exit_code == 0
    assert guide.read_text() == text
    about = {"a.b": About(title="A", better="lower", formula="|x - y|", source="us", unit="px")}
    assert "| `a.b` | A | lower, px | \\|x - y\\| | none | us |" in markdown({}, about)
    with pytest.raises(ConfigError, match="no place for the table"):
        with_table("nothing here", about, {}, "guide.md")
