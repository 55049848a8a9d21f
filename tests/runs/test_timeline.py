"""A run's numbers over time, its plots and its stills, against numpy and what they were made from."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from countervid.metrics.examiner import Examiner, ExaminerConfig
from countervid.runs import media
from countervid.runs.comparison import Panel
from countervid.runs.media import SHOWN, Pictures
from countervid.runs.plots import Line, over_time
from countervid.runs.timeline import LOOKS, TimelineMeter
from tiny_models import astronaut_frames

PANELS = [Panel(caption=name) for name in ("factual", "counterfactual", "difference")]


def fed(meter, clips, window):
    frames = len(clips["factual"])
    for start in range(0, frames, window):
        meter.update(start, {name: clip[start : start + window] for name, clip in clips.items()})
    return meter.compute()


@pytest.fixture(scope="module")
def clips():
    factual = astronaut_frames(8, 96)
    edited, truth = factual.clone(), factual.clone()
    edited[:, 30:60, 30:60] = (edited[:, 30:60, 30:60].int() + 30).clamp(max=255).byte()
    truth[:, 20:50, 30:60] = (truth[:, 20:50, 30:60].int() + 50).clamp(max=255).byte()
    return {"factual": factual, "counterfactual": edited, "truth": truth}


@pytest.fixture(scope="module")
def track(finished):
    return finished.prepared.track


def test_without_a_face_everything_is_outside(clips):
    found = fed(TimelineMeter(8, None, {}, None), clips, 3)
    x, fx, y = (clip.numpy().astype(float) for clip in clips.values())
    np.testing.assert_allclose(found.outside, np.abs(fx - x).mean((1, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(found.true_outside, np.abs(y - x).mean((1, 2, 3)), rtol=1e-12)
    luma = np.array([0.2126, 0.7152, 0.0722])
    np.testing.assert_allclose(found.light, ((fx - x) @ luma).mean((1, 2)), atol=1e-10)
    assert np.isnan(found.inside).all() and np.isnan(found.error).all() and not found.seen


def test_inside_and_outside_make_up_the_frame_whatever_the_windows(finished, track):
    frames = {"factual": finished.factual.frames, "counterfactual": finished.clip.frames}
    variables = ("age=young old", "hair_colour=black grey")
    examiner = Examiner(ExaminerConfig(variables=variables, width=8)).eval()
    asked = {"age": "old", "hair_colour": "green"}
    one, other = (fed(TimelineMeter(12, track, asked, examiner), frames, window) for window in (12, 5))
    for name in ("inside", "outside", "light", "touched"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    moved = (frames["factual"].int() - frames["counterfactual"].int()).abs().float().mean((1, 2, 3)).numpy()
    assert (np.minimum(one.inside, one.outside) <= moved + 1e-4).all()
    assert (moved <= np.maximum(one.inside, one.outside) + 1e-4).all()
    assert one.inside.mean() > 5 * one.outside.mean()  # the editor works on the face
    assert list(one.seen) == ["age"]  # a value that the examiner does not know is not asked for
    np.testing.assert_allclose(one.seen["age"]["factual"], other.seen["age"]["factual"], atol=1e-5)
    assert ((one.seen["age"]["counterfactual"] > 0) & (one.seen["age"]["counterfactual"] < 1)).all()


def test_the_examiner_looks_at_evenly_spread_frames(track):
    few = TimelineMeter(12, track, {}, Examiner(ExaminerConfig(variables=("age=young old",), width=8))).compute()
    assert few.looked.tolist() == list(range(12)) and len(few.looked) <= LOOKS


def test_a_gap_breaks_a_line_and_a_lone_frame_is_a_dot():
    plot = over_time([Line(kind="edit", name="change", values=np.array([1.0, 2.0, np.nan, 3.0, np.nan]))], "change")
    path = plot.split('class="line edit" d="')[1].split('"')[0]
    assert path.count("M") == 2 and path.endswith("h.1") and "nan" not in plot


@pytest.mark.parametrize(("largest", "end"), [(0.4, "1"), (22.0, "30"), (31.0, "40"), (255.0, "300")])
def test_an_axis_ends_on_a_plain_number_above_all(largest, end):
    plot = over_time([Line(kind="edit", name="change", values=np.array([0.0, largest]))], "change")
    assert f">{end}</text>" in plot


def test_a_sheet_holds_each_frame_in_its_place(clips):
    pictures = Pictures(8, (96, 96), PANELS)
    for start in (0, 3, 6):
        pictures.update(start, [clips[name][start : start + 3] for name in ("factual", "counterfactual")])
    shown = pictures.media()
    assert shown.numbers == tuple(range(8)) and shown.remark == ""
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.sheets[1]))).convert("RGB")).astype(float)
    for index in range(8):
        top, left = index // shown.columns * 96, index % shown.columns * 96
        tile = sheet[top : top + 96, left : left + 96]
        errors = [np.abs(tile - frame.numpy()).mean() for frame in clips["counterfactual"]]
        assert int(np.argmin(errors)) == index and errors[index] < 8  # of 255: WebP's own loss


def test_a_long_clip_is_shown_from_end_to_end_within_the_budget(monkeypatch):
    monkeypatch.setattr(media, "BUDGET", 150_000)  # noise of this size takes 250 kB at the lowest quality
    frames = 300
    pictures = Pictures(frames, (48, 80), PANELS)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (32, 48, 80, 3), generator=generator, dtype=torch.uint8)
    for start in range(0, frames, 32):
        window = noise[: min(32, frames - start)]
        pictures.update(start, [window, 255 - window])
    shown = pictures.media()
    assert len(shown.numbers) == SHOWN and shown.numbers[0] == 0 and shown.numbers[-1] == frames - 1
    assert f"{SHOWN} of {frames}" in shown.remark
    assert sum(len(base64.b64decode(sheet)) for sheet in shown.sheets) <= media.BUDGET
    assert shown.width / shown.height == pytest.approx(80 / 48, rel=0.06)
