"""Ten seconds of 1080p through every editor, from the file to the report."""

import json

import numpy as np
import pytest
import torch

from countervid.clip import Clip
from countervid.clip.seeking import DECODED
from countervid.editors import load_editor
from countervid.phantom.world import render_clip, sample_person
from countervid.runs.run import counterfactual

FRAMES, HEIGHT, WIDTH, SIDE = 250, 1080, 1920, 512
QUICK = {
    "dva": {"steps": 3},
    "tokenflow": {"steps": 2, "inversion_steps": 2},
    "flatten": {"steps": 2, "inversion_steps": 4, "inject_steps": 1},
    "tune-a-video": {"steps": 2, "tuning_steps": 2},
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A rendered person who sways to and fro, in the right half of a frame with a pattern around them."""
    person = torch.from_numpy(render_clip(sample_person(2_000_000), frames=25, size=128).frames)
    person = torch.cat([person, person.flip(0)])
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    room = torch.stack([x // 8 % 256, y // 5 % 256, (x + y) // 12 % 256], -1).to(torch.uint8)

    def draw(start, frames):
        small = person[(start + torch.arange(len(frames))) % len(person)].permute(0, 3, 1, 2).float()
        large = torch.nn.functional.interpolate(small, (SIDE, SIDE), mode="bicubic").round().clamp(0, 255)
        out = room.expand(len(frames), -1, -1, -1).clone()
        out[:, 300 : 300 + SIDE, 1100 : 1100 + SIDE] = large.permute(0, 2, 3, 1).to(torch.uint8)
        return out

    place = torch.zeros(1, 1, 1, 3, dtype=torch.uint8).expand(FRAMES, HEIGHT, WIDTH, 3)
    return Clip.from_frames(place).mapped(draw, window=8).write(tmp_path_factory.mktemp("full") / "talk.mp4", crf=12)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", QUICK)
def test_ten_seconds_of_full_hd(name, path, tmp_path):
    clip, editor = Clip.read(path), load_editor(name, cache=tmp_path / "cache", **QUICK[name])
    DECODED.clear()
    result = counterfactual(clip, {"age": "old"}, editor=editor, factual="She is young.", out=tmp_path / "run")
    assert DECODED[path] <= 2.5 * FRAMES
    back = Clip.read(tmp_path / "run" / "counterfactual.mp4")
    assert (len(back), back.height, back.width) == (FRAMES, HEIGHT, WIDTH)
    np.testing.assert_allclose(back.times, clip.times, atol=1e-9)
    shown = [0, FRAMES // 2, FRAMES - 1]
    changed = (result.clip.frames_at(shown) != clip.frames_at(shown)).any(-1)
    assert changed.any((1, 2)).all()
    for row, number in enumerate(shown):
        quad = result.prepared.track.quads[number]
        low, high = np.floor(quad.min(0)).astype(int) - 1, np.ceil(quad.max(0)).astype(int) + 1
        changed[row, max(0, low[1]) : high[1] + 1, max(0, low[0]) : high[0] + 1] = False
    assert not changed.any()
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["frames"] == FRAMES
    assert (tmp_path / "run" / "report.html").stat().st_size > 50_000
