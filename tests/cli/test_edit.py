"""`countervid edit`, `describe`, `verify` and `demo`: real files in and out; one clear line when it cannot be."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from skimage import data
from typer.testing import CliRunner

from countervid.cli.main import app
from countervid.clip import Clip
from countervid.editors import load_editor
from tiny_models import astronaut_frames, save_tiny_clip, save_tiny_models


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory):
    return save_tiny_models(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    path = tmp_path_factory.mktemp("footage") / "talk.mp4"
    Clip.from_frames(astronaut_frames(10)).write(path, crf=4)
    return path


@pytest.fixture
def call(tiny_models, cache):
    def invoke(command, *arguments, weights=True):
        more = ["--model", str(tiny_models), "--cache", str(cache)] if weights else []
        return CliRunner().invoke(app, [command, *map(str, arguments), *more])

    return invoke


FACTUAL = ("--factual", "She is young, she has brown hair.")


def test_edit_writes_a_run_named_after_clip_and_intervention(call, talk, folder):
    result = call("edit", talk, "--do", "age=old", "--steps", 3, *FACTUAL)
    assert result.exit_code == 0, result.output
    assert "set by the intervention" in result.output and "follows from age = old" in result.output
    record = json.loads((folder / "talk-age-old" / "run.json").read_text())
    assert record["finished"] and record["settings"]["editor_settings"]["steps"] == 3
    again = call("edit", talk, "--do", "age=old", "--steps", 3, "--strength", 0.5, *FACTUAL)
    assert again.exit_code == 0 and (folder / "talk-age-old-2" / "run.json").exists()


def test_an_attribute_of_the_classifier_is_edited_without_a_graph(call, talk, folder):
    result = call("edit", talk, "--attribute", "beard", "--scale", 0.5, "--steps", 3, "--out", "run")
    assert result.exit_code == 0, result.output
    assert "as it is" in result.output and "+0.5" in result.output
    target = json.loads(Path("run/target.json").read_text())
    assert target["guide"] == {"attribute": "beard", "scale": 0.5, "value": "", "normalise": True}
    other = call("edit", talk, "--attribute", "beard", "--scale", -0.5, "--no-normalize", "--steps", 3, "--out", "run")
    assert other.exit_code == 2 and "run" in other.output


def test_a_text_is_edited_without_a_graph(call, talk, folder, tmp_path_factory):
    clip = save_tiny_clip(tmp_path_factory.mktemp("clip"))
    options = ("--target-text", "old face", "--clip", clip, "--text", "iterations=2", "--text", 'templates=["a {}"]')
    result = call("edit", talk, *options, "--steps", 3, "--out", "run")
    assert result.exit_code == 0, (result.output, result.exception)
    target = json.loads(Path("run/target.json").read_text())
    assert target["guide"]["target_text"] == "old face" and target["guide"]["iterations"] == 2
    assert target["guide"]["identity_weight"] == 5  # as published
    bundled = ("--target-text", "elderly face", "--text", "iterations=2", "--text", "clip_weight=1")
    result = call("edit", talk, *bundled, "--steps", 3, "--out", "bundled")
    assert result.exit_code == 0, (result.output, result.exception)
    guide = json.loads(Path("bundled/target.json").read_text())["guide"]
    assert (guide["identity_weight"], guide["clip_weight"], guide["iterations"]) == (0.5, 1, 2)


def test_edit_refuses_to_mix_runs(call, talk, folder):
    options = ("--do", "beard=yes", "--steps", 3, *FACTUAL, "--out", "run")
    assert call("edit", talk, *options).exit_code == 0
    result = call("edit", talk, *options, "--seed", 1)
    assert result.exit_code == 2 and "seed was 0, is 1" in result.output


def test_describe_says_what_would_change(call, talk, folder):
    result = call("describe", talk, "--graph", "face", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.output)
    assert set(answer["attributes"]) == {"age", "gender", "beard", "bald"}
    assert all(0 < reading["confidence"] <= 1 for reading in answer["attributes"].values())
    assert len(answer["interventions"]) == 4
    assert "Face 0 of 1" in answer["faces"]
    spoken = call("describe", talk, "--graph", "face")
    assert spoken.exit_code == 0 and "What each intervention would change" in spoken.output


def test_one_person_is_asked_for_by_either_name_and_not_by_two(call, talk, folder):
    for command in (("describe", talk), ("edit", talk, "--do", "age=old")):
        result = call(*command, "--person", 1, "--face", 0)
        assert result.exit_code == 2 and "`--person 1` and `--face 0` name two people" in result.output
    result = call("edit", talk, "--do", "age=old", "--everyone", "--face", 0)
    assert result.exit_code == 2 and "`--everyone` and `--person 0`" in result.output
    missing = call("describe", talk, "--person", 3)
    assert missing.exit_code == 2 and "no person 3: the clip shows one person" in missing.output


def test_verify_reads_the_marks_back(call, talk, folder):
    from countervid.cli.verify import app as verify

    assert call("edit", talk, "--do", "age=old", "--steps", 3, *FACTUAL, "--out", "run").exit_code == 0
    for file in ("run", "run/counterfactual.mp4"):
        result = CliRunner().invoke(verify, [file, "--json"])
        assert result.exit_code == 0, result.output
        assert json.loads(result.output)["metadata"]["do"] == {"age": "old"}
    plain = CliRunner().invoke(verify, [str(talk)])
    assert plain.exit_code == 1 and "No mark" in plain.output


def one_line(result):
    """The message of a refusal: a single line on stderr and exit code 2."""
    assert result.exit_code == 2, (result.output, result.exception)
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("countervid: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--do", "agee=old"), "agee"),
        (("--do", "age=ancient"), "ancient"),
        (("--do", "age=old", "--do", "age=young"), "age"),
        (("--do", "age"), "age"),
        (("--do", "age=old", "--graph", "nowhere.yaml"), "nowhere.yaml"),
        (("--do", "age=old", "--strength", "-1"), "strength"),
        (("--do", "age=old", "--amount", "beard=much"), "beard=much"),
        (("--do", "age=old", "--set", "stepps=3"), "stepps"),
        (("--do", "age=old", "--editor", "dav"), "dav"),
        (("--do", "age=old", "--face", "3"), "no person 3"),
        (("--do", "age=old", "--truth", "nothing.mp4"), "nothing.mp4"),
        (("--do", "age=old", "--steps", "1"), "steps"),
        ((), "No intervention"),
        (("--do", "age=old", "--attribute", "beard", "--scale", "1"), "Give one of them"),
        (("--attribute", "beard"), "--scale"),
        (("--attribute", "beard", "--target-text", "old face"), "Give one of them"),
        (("--target-text", "face"), "nowhere to go"),
        (("--target-text", "old face", "--text", "iteration=3"), "iterations"),
        (("--do", "age=old", "--text", "iterations=3"), "--target-text"),
        (("--target-text", "old face", "--clip", "nowhere"), "no CLIP"),
        (("--attribute", "beard", "--scale", "0"), "--scale"),
        (("--do", "age=old", "--scale", "1"), "--attribute"),
        (("--attribute", "baerd", "--scale", "1"), "Did you mean `beard`"),
        (("--attribute", "hair_colour", "--scale", "1"), "hair_colour=grey"),
    ],
)
def test_wrong_options_are_one_line(call, talk, folder, arguments, words):
    assert words in one_line(call("edit", talk, *arguments, *FACTUAL))
    assert list(folder.iterdir()) == []


def test_a_graph_with_a_cycle_is_one_line(call, talk, folder):
    values = "{kind: binary}"
    Path("cycle.yaml").write_text(f"name: cycle\nvariables:\n  a: {values}\n  b: {values}\nedges: [a -> b, b -> a]\n")
    assert "a" in one_line(call("edit", talk, "--do", "a=yes", "--graph", "cycle.yaml"))


def write_audio(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    "kind", ["missing", "text", "empty", "truncated", "audio", "pixel", "folder", "mixed", "faceless"]
)
def test_wrong_clips_are_one_line(call, talk, folder, kind):
    path = folder / ("clip" if kind in ("folder", "mixed") else "clip.mp4")
    if kind == "text":
        path.write_text("not a video")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        content = talk.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif kind == "audio":
        write_audio(path)
    elif kind == "pixel":
        Clip.from_frames(torch.zeros(3, 1, 1, 3, dtype=torch.uint8)).write(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "mixed":
        Clip.from_frames(astronaut_frames(2, 64)).write(folder / "a")
        Clip.from_frames(astronaut_frames(2, 80)).write(folder / "b")
        path.mkdir()
        for name in ("a", "b"):
            next((folder / name).glob("*.png")).rename(path / f"{name}.png")
    elif kind == "faceless":
        Clip.from_frames(torch.full((4, 96, 96, 3), 90, dtype=torch.uint8)).write(path)
    message = one_line(call("edit", path, "--do", "age=old", *FACTUAL, "--out", "run"))
    assert "face" in message if kind in ("faceless", "pixel") else "clip" in message
    assert not list((folder / "run").glob("*.mp4")) if (folder / "run").exists() else True


def test_an_output_in_the_way_is_one_line(call, talk, folder):
    Path("taken").write_text("a letter")
    assert "taken" in one_line(call("edit", talk, "--do", "age=old", *FACTUAL, "--out", "taken"))
    assert "taken" in one_line(call("edit", talk, "--do", "age=old", *FACTUAL, "--out", "taken/run"))
    assert Path("taken").read_text() == "a letter"


def test_one_frame_is_a_clip(call, folder):
    Clip.from_frames(astronaut_frames(1)).write(folder / "still.mp4")
    result = call("edit", "still.mp4", "--do", "age=old", "--steps", 3, *FACTUAL)
    assert result.exit_code == 0, result.output
    assert len(Clip.read(folder / "still-age-old" / "counterfactual.mp4")) == 1


def test_real_footage(tiny_models, cache, folder):
    """A photograph under a virtual camera, found by the public detector; outside the face not a bit changes."""
    picture = torch.from_numpy(data.astronaut())
    frames = torch.stack([picture[2 * i : 2 * i + 300, 60 + 3 * i : 60 + 3 * i + 400] for i in range(8)])
    Clip.from_frames(frames.contiguous()).write(folder / "astronaut.mp4", crf=10)
    clip = Clip.read(folder / "astronaut.mp4")
    editor = load_editor("dva", tiny_models, cache=cache, steps=3, floor=0.0)  # toy weights move little
    assert editor.pipeline.detector.name == "yunet"
    from countervid.runs.run import counterfactual

    result = counterfactual(clip, {"age": "old"}, editor=editor, factual="She is young.")
    assert result.prepared.facts["track"]["detected"] == 8
    source, edited = clip.frames, result.clip.frames  # marked, before the codec
    changed = (source != edited).any(-1)
    assert changed.any(dim=(1, 2)).all()
    for index, quad in enumerate(result.prepared.track.quads):
        outside = changed[index].clone()
        low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
        outside[max(0, low[1]) : high[1] + 1, max(0, low[0]) : high[0] + 1] = False
        assert not outside.any()


@pytest.mark.slow
def test_the_demo_runs_whole(tiny_models, folder, monkeypatch):
    monkeypatch.setattr("countervid.cli.demo.FRAMES", 4)
    monkeypatch.setattr("countervid.cli.demo.SIZE", 128)
    result = CliRunner().invoke(app, ["demo", "--model", str(tiny_models), "--out", "demo"])
    assert result.exit_code == 0, result.output
    run = folder / "demo" / "age-old"
    assert (run / "report.html").exists() and (run / "comparison.mp4").exists()
    record = json.loads((run / "run.json").read_text())
    assert record["notes"] == []  # rendered people are what the miniature knows
    assert json.loads((run / "metrics.json").read_text())["truth"]["face"]["factual_error"] > 0
