import json

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from countervid.cli.main import app
from countervid.clip import Clip

run = CliRunner().invoke


def test_render_writes_clips_truths_and_layers(tmp_path):
    out = tmp_path / "people"
    command = "phantom render --people 2 --seconds 0.12 --size 64 --seed 7 --do age=old --do gender=man --out"
    result = run(app, [*command.split(), str(out)])
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in out.iterdir()) == ["person-0000", "person-0001"]
    folder = out / "person-0000"
    names = {"factual.mp4", "truth-age-old.mp4", "truth-gender-man.mp4", "attributes.json"}
    assert {p.name for p in folder.iterdir()} == names | {"landmarks.npz", "masks.npz", "flow.npz"}
    for name in ("factual.mp4", "truth-age-old.mp4"):
        clip = Clip.read(folder / name)
        assert (len(clip), clip.height, clip.width, clip.fps) == (3, 64, 64, 25.0)
    with np.load(folder / "flow.npz") as flow, np.load(folder / "masks.npz") as masks:
        assert flow["flow"].shape == (2, 64, 64, 2) and flow["visible"].shape == (2, 64, 64)
        assert masks["masks"].shape == (3, 64, 64) and masks["masks"].any()
    with np.load(folder / "landmarks.npz") as landmarks:
        assert landmarks["landmarks"].shape == (3, 68, 2)
    about = json.loads((folder / "attributes.json").read_text())
    assert about["person"] == 7
    truth = about["counterfactuals"]["truth-age-old.mp4"]
    assert truth["do"] == {"age": "old"} and truth["attributes"]["age"] == "old"


def test_one_frame_has_no_flow_but_all_files(tmp_path):
    result = run(
        app, ["phantom", "render", "--people", "1", "--seconds", "0.04", "--size", "64", "--out", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "person-0000" / "flow.npz") as flow:
        assert flow["flow"].shape == (0, 64, 64, 2)


def test_sheet_draws_people_by_interventions(tmp_path):
    out = tmp_path / "sheet.png"
    result = run(app, ["phantom", "sheet", "--people", "2", "--size", "64", "--do", "age=old", "--out", str(out)])
    assert result.exit_code == 0, result.output
    width, height = Image.open(out).size
    assert width > 2 * 64 and height > 2 * 64


def test_dataset_renders_a_split(tmp_path):
    out = tmp_path / "set"
    command = "phantom dataset --split test --people 1 --takes 1 --frames 1 --size 32 --out"
    result = run(app, [*command.split(), str(out)])
    assert result.exit_code == 0, result.output
    assert [p.name for p in out.glob("*.safetensors")] == ["people-2000000-2000001.safetensors"]


def test_wrong_input_is_one_line_and_nothing_is_written(tmp_path):
    out = tmp_path / "none"
    for arguments, word in [
        (["render", "--do", "species=cat"], "species"),
        (["render", "--do", "age=ancient"], "ancient"),
        (["render", "--do", "age"], "name=value"),
        (["dataset", "--split", "exam"], "exam"),
    ]:
        result = run(app, ["phantom", *arguments, "--people", "1", "--out", str(out)])
        assert result.exit_code == 2
        assert word in result.output and len(result.output.strip().splitlines()) == 1
        assert not out.exists()
    result = run(app, ["phantom", "sheet", "--people", "1", "--size", "64", "--out", str(tmp_path / "sheet.bmp")])
    assert result.exit_code == 2 and ".png" in result.output
