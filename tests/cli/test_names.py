"""Names that stand in files become no paths unchecked; names that are not UTF-8 work from end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from countervid.cli.main import app
from countervid.clip import Clip
from tiny_models import astronaut_frames, save_tiny_models

BAD = ["../../../x", "/etc/x", "a\\b", "..", ".git", "x\0y", "NUL", ""]
CAFE = os.fsdecode(b"caf\xe9.mp4")


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    Clip.from_frames(astronaut_frames(4)).write(folder / "her.mp4", crf=4)
    return folder / "her.mp4"


@pytest.fixture
def world(tmp_path, talk, monkeypatch):
    """A folder far enough down that `../../../x` would be seen, with clips where a bad name would find them."""
    place = tmp_path / "a" / "b" / "c" / "work"
    place.mkdir(parents=True)
    for path in (place / "data" / "her.mp4", tmp_path / "a" / "x.mp4", tmp_path / "a" / "b" / "x.mp4"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(talk.read_bytes())
    monkeypatch.chdir(place)
    return tmp_path


def files_in(folder):
    return {path for path in folder.rglob("*") if path.name != "prompts.json"}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("command", ["prepare", "baseline", "baseline-attribute", "benchmark", "benchmark-attribute"])
def test_a_name_that_would_leave_the_folder_is_one_line_and_writes_nothing(world, command, name):
    entry = {"factual": "She is young.", "counterfactual": {"age": "She is old."}}
    if command.endswith("attribute"):
        content = {"her": {**entry, "counterfactual": {name: "She is old."}}}
    else:
        content = {name: "She is young." if command == "prepare" else entry}
    Path("prompts.json").write_text(json.dumps(content))
    before = files_in(world)
    arguments = {
        "prepare": ["prepare", "--source-prompts", "prompts.json", "--data", "data", "--cache", "cache"],
        "baseline": ["baseline", "prompts.json", "--data", "data", "--cache", "cache", "--out", "out"],
        "benchmark": ["benchmark", "run", "--clips", "data", "--prompts", "prompts.json", "--editors", "dva",
                      "--steering", "none", "--out", "out"],
    }[command.partition("-")[0]]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1 and "prompts.json` names the" in result.stderr
    assert files_in(world) == before


def test_baseline_counts_a_file_as_made_by_settings_and_digest(talk, tmp_path):
    model = str(Path(__file__).parents[1] / "goldens" / "tiny-sd-ft" / "sd2")
    entry = {"factual": "She is young.", "counterfactual": {"age": "She is old."}}
    (tmp_path / "prompts.json").write_text(json.dumps({"her": entry}))
    out = tmp_path / "out"

    def call(guidance):
        words = ["baseline", tmp_path / "prompts.json", "--data", talk.parent, "--region", "frame", "--model", model,
                 "--cache", tmp_path / "cache", "--out", out,
                 "--set", f"guidance={guidance}", "--set", "inversion_steps=2", "--set", "steps=2",
                 "--set", "floor=0"]  # fmt: skip
        return CliRunner().invoke(app, list(map(str, words)))

    first = call(20)
    assert first.exit_code == 0, first.output
    path = out / "her" / "age.mp4"
    whole = path.read_bytes()
    assert sorted(os.listdir(out)) == ["baseline.json", "her"]
    path.write_bytes(bytes(len(whole)))
    assert call(20).exit_code == 0 and path.read_bytes() == whole
    other = call(9)
    assert other.exit_code == 2 and "guidance was 20, is 9" in other.stderr and path.read_bytes() == whole
    (out / "baseline.json").write_bytes(b"\0" * 10)
    assert call(9).exit_code == 0 and path.read_bytes() != whole


def test_a_name_that_is_not_utf8_works_from_end_to_end(talk, tmp_path):
    models, clip = save_tiny_models(tmp_path / "models"), tmp_path / CAFE
    clip.write_bytes(talk.read_bytes())
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict", "COLUMNS": "200"}

    def call(*arguments):
        command = [sys.executable, "-m", "countervid.cli.main", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, cwd=tmp_path, timeout=200)

    factual = ["--factual", "She is young, she has brown hair."]
    more = ["--model", models, "--cache", tmp_path / os.fsdecode(b"cach\xe9"), "--steps", 3]
    result = call("edit", clip.name, "--do", "age=old", *factual, *more)
    assert result.returncode == 0, (result.stdout, result.stderr)
    out = tmp_path / os.fsdecode(b"caf\xe9-age-old")
    assert b"caf\xe9-age-old/" in result.stdout
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["source"] == "caf\\xe9.mp4"
    assert "caf\\xe9.mp4" in (out / "report.html").read_text(encoding="utf-8")
    assert (out / "factual.mp4").read_bytes() == talk.read_bytes()
    marks = call("verify", out)
    assert marks.returncode == 0, (marks.stdout, marks.stderr)
    missing = call("describe", os.fsdecode(b"nich\xe9.mp4"), *more[:4])
    assert missing.returncode == 2 and missing.stderr.count(b"\n") == 1 and b"nich\xe9.mp4" in missing.stderr
