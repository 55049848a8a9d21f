"""How often a run decodes its clip: while it is analysed, and while its files are written."""

from pathlib import Path

import pytest
import torch

from countervid.clip import Clip
from countervid.clip.seeking import DECODED
from countervid.editors import Target, load_editor
from countervid.face.parse import MaskConfig
from countervid.face.smooth import reach
from countervid.runs.run import counterfactual
from countervid.steering.loop import View
from tiny_models import astronaut_frames

SD = Path(__file__).parents[1] / "goldens" / "tiny-sd-ft" / "sd2"
QUICK = {
    "tokenflow": {"steps": 2, "inversion_steps": 2, "batch": 4},
    "flatten": {"steps": 2, "inversion_steps": 4, "inject_steps": 1},
    "tune-a-video": {"steps": 2, "tuning_steps": 2},
}
MOST = 2.5  # of each frame, in a whole run


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """40 frames: several windows of the editor."""
    frames = astronaut_frames(40)
    return Clip.from_frames(frames).write(tmp_path_factory.mktemp("clip") / "talk.mp4")


def test_a_run_decodes_each_frame_twice(path, tiny_models, eyes, tmp_path):
    editor = load_editor("dva", tiny_models, cache=tmp_path / "cache", steps=3, window=8, batch=4)
    DECODED.clear()
    clip = Clip.read(path)
    counterfactual(clip, {"age": "old"}, editor=editor, eyes=eyes, factual="She is young.", out=tmp_path / "run")
    assert len(clip) <= DECODED[path] <= MOST * len(clip)
    DECODED.clear()  # what is kept is not looked at again
    counterfactual(
        clip, {"age": "old"}, editor=editor, eyes=eyes, factual="She is young.", strength=2.0, out=tmp_path / "more"
    )
    assert DECODED[path] <= 1.1 * len(clip)


@pytest.mark.parametrize(
    ("name", "region"),
    [
        ("tokenflow", "face"),
        *(
            pytest.param(n, r, marks=pytest.mark.slow)
            for n in QUICK
            for r in ("face", "frame")
            if (n, r) != ("tokenflow", "face")
        ),
    ],
)
def test_a_run_by_a_text_guided_editor_decodes_each_frame_twice(name, region, tmp_path, eyes):
    clip = Clip.read(Clip.from_frames(astronaut_frames(10)).write(tmp_path / "talk.mp4"))
    editor = load_editor(
        name, SD, cache=tmp_path / "cache", region=region, window=6, overlap=2, floor=0.0, **QUICK[name]
    )  # fmt: skip
    DECODED.clear()
    counterfactual(clip, {"age": "old"}, editor=editor, eyes=eyes, factual="She is young.", out=tmp_path / "run")
    assert len(clip) <= DECODED[clip.source] <= MOST * len(clip)


def test_a_round_that_is_judged_on_few_frames_draws_what_they_need(path, tiny_models, tmp_path):
    clip = Clip.read(path)
    editor = load_editor("dva", tiny_models, cache=tmp_path / "cache", steps=3, window=4, batch=4)
    factual = {"age": "young"}
    ready = editor.prepare(clip, factual)
    asked = Target(factual=factual, do={"age": "old"}, counterfactual={"age": "old"})
    before = editor.costs()["unet_evaluations"]
    edited = editor.edit(ready, asked)
    pictures = View(ready, (1, 38), 32).of(edited)
    few = editor.costs()["unet_evaluations"] - before
    whole = edited.frames
    every = editor.costs()["unet_evaluations"] - before
    assert every == pytest.approx(
        10 * (few / few_windows(ready)), abs=0
    )  # each window costs the same, and is drawn once
    assert few_windows(ready) < 10
    assert torch.equal(pictures, View(ready, (1, 38), 32).of(Clip.from_frames(whole)))


def few_windows(ready):
    """Windows that hold frame 1 or 38, or a frame that masks there are smoothed with."""
    halo = reach(MaskConfig().sigma)
    present = set(ready.track.frames().tolist())
    wanted = {n for at in (0, 1, 2, 3, 36, 37, 38, 39) for n in range(at - halo, at + halo + 1)} & present
    return len({n // 4 for n in wanted})
