"""`countervid editors`, `prepare`, `baseline`, and `edit` with a text-guided editor: real files in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from countervid.cli.main import app
from countervid.clip import Clip
from tiny_models import astronaut_frames

MODEL = str(Path(__file__).parents[1] / "goldens" / "tiny-sd-ft" / "sd2")
NAMED_BY_THEMSELVES = ("tuning_steps", "learning_rate", "tuning_seed")
QUICK = ["--set", "steps=2", "--set", "inversion_steps=2", "--set", "floor=0", "--set", "guidance=20"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    Clip.from_frames(astronaut_frames(4)).write(folder / "her.mp4", crf=4)
    (folder / "source_prompts.json").write_text(json.dumps({"her": "She is young.", "him": "He is young."}))
    entry = {"factual": "She is young.", "counterfactual": {"age": "She is old.", "gender": "He is young."}}
    (folder / "explicit.json").write_text(json.dumps({"her": entry, "him": entry}))
    return folder


@pytest.fixture
def call(tmp_path: Path) -> Any:
    def invoke(*arguments: Any, weights: bool = True) -> Any:
        more = ["--model", MODEL, "--cache", tmp_path / "cache", *QUICK] if weights else []
        return CliRunner().invoke(app, [str(word) for word in (*arguments, *more)])

    return invoke


def test_editors_are_listed_with_their_presets(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = call("editors", "list", weights=False)
    assert result.exit_code == 0, result.output
    for word in ("dva", "tokenflow", "flatten", "tune-a-video", "csvc, fast, miniature"):
        assert word in result.output


@pytest.mark.parametrize("name", ["dva", "tokenflow", "flatten", "tune-a-video"])
def test_every_setting_is_shown_and_explained(call: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import fields

    from countervid.cli.editors import comments
    from countervid.editors.base import editor_class

    monkeypatch.setenv("COLUMNS", "200")
    result = call("editors", "show", name, weights=False)
    assert result.exit_code == 0, result.output
    config: Any = editor_class(name).Config  # type: ignore[attr-defined]
    meanings = comments(config)
    for setting in fields(config):
        assert setting.name in result.output
        if name == "dva" or setting.name not in NAMED_BY_THEMSELVES:
            assert meanings[setting.name], setting.name


def test_an_edit_says_what_it_cost(call: Any, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "old"
    result = call(
        "edit", data / "her.mp4", "--editor", "tokenflow", "--do", "age=old", "--graph", "face", "--factual",
        "She is young.", "--region", "frame", "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    record = json.loads((out / "run.json").read_text())
    # 2 steps of inversion and of the source's record (4 frames, 1 keyframe); two drawings in two streams.
    assert record["costs"] == {"unet_evaluations": 2 * 4 + 2 * 5 + 2 * 2 * 2 * 5, "model_loads": 1}
    assert record["facts"]["source_prompt"] == "She is young."
    target = json.loads((out / "target.json").read_text())
    assert target["prompt"].startswith("She is old")
    assert (out / "comparison.mp4").exists() and (out / "report.html").exists()


def test_prepare_and_baseline_read_the_published_files(call: Any, data: Path, tmp_path: Path) -> None:
    asked = ("--data", data, "--editor", "tokenflow", "--region", "frame")
    result = call("prepare", "--source-prompts", data / "source_prompts.json", *asked)
    assert result.exit_code == 0, result.output
    assert "her.mp4: 4 frames" in result.output and "left out: him" in result.output
    prepared = {path.parent.name for path in (tmp_path / "cache").rglob("prepared")}
    out = tmp_path / "baseline"
    result = call("baseline", data / "explicit.json", *asked, "--out", out)
    assert result.exit_code == 0, result.output
    assert {
        path.parent.name for path in (tmp_path / "cache").rglob("prepared")
    } == prepared  # nothing was prepared anew
    source = Clip.read(data / "her.mp4").frames
    for name in ("age", "gender"):
        edited = Clip.read(out / "her" / f"{name}.mp4")
        assert edited.frames.shape == source.shape and not torch.equal(edited.frames, source)
        assert "synthetic" in edited.metadata["comment"]
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    call("baseline", data / "explicit.json", *asked, "--out", out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")} == times  # what is there is left


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("prepare",), "Nothing to prepare"),
        (("prepare", "--source-prompts", "x.json"), "go together"),
        (("prepare", "nowhere.mp4"), "nowhere.mp4"),
        (("editors", "show", "tokenflo"), "There is no editor `tokenflo`"),
        (("edit", "her.mp4", "--do", "age=old", "--editor", "tokenflow", "--preset", "best"), "has no preset `best`"),
        (
            ("edit", "her.mp4", "--editor", "tokenflow", "--attribute", "5_o_Clock_Shadow", "--scale", "1"),
            "are of `dva`",
        ),
        (("edit", "her.mp4", "--do", "age=old", "--editor", "flatten", "--set", "flow=farneback"), "dis, raft"),
        (("baseline", "source_prompts.json", "--data", "."), "is not of the kind"),
    ],
)
def test_wrong_input_is_one_line(
    call: Any, data: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(data)
    result = call(*arguments, weights=False)
    assert result.exit_code == 2
    assert message in result.output and len(result.output.strip().splitlines()) == 1
