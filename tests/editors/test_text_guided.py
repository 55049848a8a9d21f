"""What every text-guided editor promises, on a tiny Stable Diffusion of SD 2's shape with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from countervid.clip import Clip
from countervid.clip.seeking import DECODED
from countervid.diffusion.windows import windows
from countervid.editors import Target, load_editor
from countervid.editors.text_drawing import FADE, Drawing, Sampled
from countervid.errors import ClipError, ConfigError, InterventionError, ModelError
from tiny_models import astronaut_frames

MODEL = Path(__file__).parents[1] / "goldens" / "tiny-sd-ft" / "sd2"
FACTUAL = {"age": "young", "gender": "woman"}
QUICK: dict[str, dict[str, Any]] = {
    "tokenflow": {"steps": 2, "inversion_steps": 2, "batch": 4},
    "flatten": {"steps": 2, "inversion_steps": 4, "inject_steps": 1},
    "tune-a-video": {"steps": 2, "tuning_steps": 2},
}
EDITORS = pytest.mark.parametrize("name", list(QUICK))
Make = Callable[..., Any]


def target(prompt: str = "She is old.", strength: float = 1.0, **more: Any) -> Target:
    return Target(
        factual=FACTUAL, do={"age": "old"}, counterfactual={**FACTUAL, "age": "old"}, prompt=prompt, strength=strength,
        **more,
    )  # fmt: skip


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(name: str, cache: str = "cache", model: Any = MODEL, **settings: Any) -> Any:
        return load_editor(name, model, cache=tmp_path / cache, **{**QUICK[name], "floor": 0.0, **settings})

    return made


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip.from_frames(astronaut_frames(6))


@EDITORS
def test_strength_zero_is_the_source_bit_for_bit(name: str, make: Make, clip: Clip) -> None:
    editor = make(name)
    ready = editor.prepare(clip, FACTUAL, prompt="She is young.")
    assert torch.equal(editor.edit(ready, target(strength=0)).frames, clip.frames)


@EDITORS
def test_asking_for_what_is_there_changes_nothing(name: str, make: Make, clip: Clip) -> None:
    """What is laid back is a difference of two drawings: with the same words there is none."""
    editor = make(name)
    ready = editor.prepare(clip, FACTUAL, prompt="She is young.")
    assert torch.equal(editor.edit(ready, target("She is young.")).frames, clip.frames)


@EDITORS
def test_the_face_changes_and_the_rest_is_untouched(name: str, make: Make, clip: Clip) -> None:
    editor = make(name, guidance=20.0)
    ready = editor.prepare(clip, FACTUAL, prompt="She is young.")
    changed = (editor.edit(ready, target()).frames != clip.frames).any(-1)
    assert changed.any(dim=(1, 2)).all()
    for frame, quad in enumerate(ready.track.quads):
        low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
        outside = changed[frame].clone()
        outside[max(0, low[1]) : high[1] + 1, max(0, low[0]) : high[0] + 1] = False
        assert not outside.any()


@EDITORS
def test_a_second_prompt_costs_its_own_sampling_and_no_more(name: str, make: Make, clip: Clip) -> None:
    editor = make(name, region="frame", against="encoded")
    ready = editor.prepare(clip, FACTUAL, prompt="She is young.")
    prepared = editor.costs()["unet_evaluations"]
    first = editor.edit(ready, target()).frames
    one = editor.costs()["unet_evaluations"] - prepared
    again = editor.edit(ready, target()).frames
    assert torch.equal(again, first) and editor.costs()["unet_evaluations"] == prepared + one  # kept
    editor.edit(ready, target("He is old.")).frames  # noqa: B018 (drawing is what is asked)
    frames = 6 + 2 if name == "tokenflow" else 6  # and its keyframes
    assert one == 2 * 2 * frames and editor.costs()["unet_evaluations"] == prepared + 2 * one
    assert editor.costs()["model_loads"] == 1


@EDITORS
def test_what_is_prepared_is_found_again_and_mended(name: str, make: Make, clip: Clip) -> None:
    first = make(name, region="frame")
    ready = first.prepare(clip, FACTUAL, prompt="She is young.")
    expected = first.edit(ready, target()).frames
    second = make(name, region="frame")
    again = second.prepare(clip, FACTUAL, prompt="She is young.")
    assert again.key == ready.key and second.costs()["unet_evaluations"] == 0
    assert second.prepare(clip, FACTUAL, prompt="She is smiling.").key != ready.key
    for file in (ready.store.folder / "prepared").iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    for file in ready.store.folder.glob("edits/*/*"):
        file.unlink()
    third = make(name, region="frame")
    assert torch.equal(third.edit(third.prepare(clip, FACTUAL, prompt="She is young."), target()).frames, expected)
    assert third.costs()["unet_evaluations"] > 0


@EDITORS
def test_the_same_seed_gives_the_same_bytes(name: str, make: Make, clip: Clip) -> None:
    results = []
    for cache in ("one", "two"):
        editor = make(name, cache, region="frame")
        results.append(editor.edit(editor.prepare(clip, FACTUAL, prompt="She is young."), target()).frames)
    assert torch.equal(*results)


@EDITORS
def test_long_clips_go_through_in_windows(name: str, make: Make, clip: Clip) -> None:
    editor = make(name, region="frame", window=4, overlap=2)
    ready = editor.prepare(clip, FACTUAL, prompt="She is young.")
    assert ready.facts["windows"] == 2
    edited = editor.edit(ready, target())
    assert edited.frames.shape == clip.frames.shape and len(edited) == 6
    late = editor.edit(ready, target()).frames[4:]  # windows are drawn in order, whoever asks
    assert torch.equal(late, edited.frames[4:])


@EDITORS
def test_a_window_takes_over_from_the_one_before_without_a_step(name: str, make: Make, clip: Clip) -> None:
    editor = make(name, window=4, overlap=1, guidance=20.0)
    ready = editor.prepare(clip, FACTUAL, prompt="She is young.")
    border = ready.payload.windows[1].own.start
    drawing = Drawing(editor, ready, target(), None)

    def step(pair: tuple[Tensor, Tensor]) -> Tensor:
        change = pair[0] - pair[1]
        return change[border] - change[border - 1]

    everything = np.arange(len(clip))
    rough, smooth = step(drawing._drawn(everything)), step(drawing._pair(everything))
    assert rough.abs().max() > 0
    torch.testing.assert_close(smooth, rough / (FADE + 1), atol=1e-6, rtol=1e-4)
    late = drawing._pair(everything[border:])[0]
    assert torch.equal(late, drawing._pair(everything)[0][border:])  # whoever asks


def test_windows_may_be_asked_for_in_any_order(make: Make, clip: Clip) -> None:
    """Masks are smoothed over time: with short windows they reach back over several."""
    editor = make("flatten", window=2, overlap=0)
    ready = editor.prepare(clip, FACTUAL, prompt="She is young.")
    assert ready.facts["windows"] == 3
    edited = editor.edit(ready, target()).frames
    assert edited.shape == clip.frames.shape and not torch.equal(edited, clip.frames)
    sampled = Sampled(editor, ready, ("She is old.", "", "She is young.", 1.0), 7.5, None)
    early = sampled.rows(np.array([0]))["sampled"]
    sampled.rows(np.array([3, 5]))
    assert torch.equal(sampled.rows(np.array([0]))["sampled"], early)


@EDITORS
def test_frames_keep_their_size_and_shape(name: str, make: Make) -> None:
    wide = Clip.from_frames(astronaut_frames(3)[:, 16:112].contiguous())
    editor = make(name, region="frame", guidance=20.0)
    edited = editor.edit(editor.prepare(wide, FACTUAL, prompt="She is young."), target()).frames
    assert edited.shape == wide.frames.shape and not torch.equal(edited, wide.frames)


@EDITORS
def test_more_strength_goes_further_from_the_source_prompt(name: str, make: Make, clip: Clip) -> None:
    editor = make(name, region="frame")
    ready = editor.prepare(clip, FACTUAL, prompt="She is young.")
    away = [
        (editor.edit(ready, target(strength=s)).frames.float() - clip.frames.float()).abs().mean() for s in (0, 0.3, 1)
    ]
    assert 0 == away[0] < away[1] < away[2]


@pytest.mark.parametrize(
    ("problem", "kind", "message"),
    [
        ({"prompt": "  "}, InterventionError, "needs a prompt"),
        (
            {"strengths": {"age": 0.5, "gender": 1.0}, "counterfactual": {"age": "old", "gender": "man"}},
            ConfigError,
            "together",
        ),
    ],
)
def test_what_cannot_be_edited_is_said(
    make: Make, clip: Clip, problem: dict[str, Any], kind: type[Exception], message: str
) -> None:
    editor = make("tokenflow")
    ready = editor.prepare(clip, FACTUAL, prompt="She is young.")
    asked = {"factual": FACTUAL, "do": {"age": "old"}, "counterfactual": {**FACTUAL, "age": "old"}, "prompt": "Old."}
    with pytest.raises(kind, match=message):
        editor.edit(ready, Target(**{**asked, **problem}))


@pytest.mark.parametrize("name", ["flatten", "tune-a-video"])
def test_one_frame_is_too_few(name: str, make: Make, clip: Clip) -> None:
    with pytest.raises(ClipError, match="at least 2 frames"):
        make(name).prepare(clip.first(1), FACTUAL)


@pytest.mark.parametrize(
    "wrong",
    [
        {"region": "face and neck"}, {"against": "all"}, {"solver": "euler"}, {"steps": 0}, {"overlap": 24},
        {"precision": "int8"}, {"guidance": float("nan")}, {"propagation": "both"}, {"inversion_steps": 1},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused_before_weights_are_read(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        load_editor("tokenflow", "/nowhere", **wrong)


def test_models_that_are_none_are_named(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "xl"
    folder.mkdir()
    with pytest.raises(ModelError, match="no model_index.json"):
        make("tokenflow", model=folder)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionXLPipeline"}))
    with pytest.raises(ModelError, match="StableDiffusionXLPipeline, which is not supported yet. Supported: Stable"):
        make("flatten", model=folder)
    (folder / "model_index.json").write_text("{")
    with pytest.raises(ModelError, match="damaged"):
        make("flatten", model=folder)
    with pytest.raises(ModelError, match="There is no folder"):
        make("tune-a-video", model="./nowhere")


def test_a_hubs_name_without_a_network_says_so(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="no folder here, and it could not be had from the hub.*is bundled"):
        make("tokenflow", model="nobody/has-this-model")


def test_a_prompt_too_long_is_cut_and_told(make: Make, clip: Clip) -> None:
    editor = make("tokenflow", region="frame")
    ready = editor.prepare(clip, FACTUAL, prompt="She is young. " * 40)
    assert "young" in ready.facts["source_prompt_cut"]


@pytest.mark.parametrize(("count", "size", "overlap"), [(10, 24, 4), (25, 24, 4), (100, 24, 4), (7, 3, 1), (9, 4, 0)])
def test_windows_cover_every_frame_once(count: int, size: int, overlap: int) -> None:
    parts = windows(count, size, overlap)
    assert [frame for part in parts for frame in part.own] == list(range(count))
    assert all(part.stop - part.start <= size for part in parts)
    assert [part.held for part in parts] == [0] + [overlap] * (len(parts) - 1)
    assert all(b.start + b.held == a.stop for a, b in zip(parts, parts[1:], strict=False))


@pytest.mark.parametrize(
    ("name", "region"),
    [
        ("tokenflow", "face"),
        ("flatten", "frame"),
        pytest.param("tokenflow", "frame", marks=pytest.mark.slow),
        pytest.param("flatten", "face", marks=pytest.mark.slow),
        pytest.param("tune-a-video", "face", marks=pytest.mark.slow),
    ],
)
def test_what_the_analysis_left_is_what_the_clip_holds(name: str, region: str, make: Make, tmp_path: Path) -> None:
    """First, crops or frames come from the pass that finds the face; then, from one of their own."""
    clip = Clip.read(Clip.from_frames(astronaut_frames(10)).write(tmp_path / "a.mp4"))
    assert clip.source is not None
    few = {"region": region, "window": 6, "overlap": 2}
    DECODED.clear()
    editor = make(name, **few)
    first = editor.prepare(clip, FACTUAL, prompt="She is young.")
    assert DECODED[clip.source] <= len(clip) + 2 and not editor._taken
    DECODED.clear()
    second = make(name, **few).prepare(clip, FACTUAL, prompt="She is 20.")
    passes = 2 if name == "flatten" else 1  # encoding and following the flow
    assert len(clip) <= DECODED[clip.source] <= passes * len(clip) + 2
    for part in windows(len(clip), 6, 2):
        bundles = [ready.store.load(f"latents/{part.start:08d}") for ready in (first, second)]
        assert bundles[0].keys() == bundles[1].keys()
        for key, tensor in bundles[0].items():
            assert torch.equal(tensor, bundles[1][key]), key
    if name == "flatten":
        flows = [ready.store.load(f"prepared/{part.start:08d}")["trajectories"] for ready in (first, second)]
        assert torch.equal(*flows)


@pytest.mark.parametrize("name", ["tokenflow", "flatten"])
def test_what_is_kept_or_computed_again_is_the_same_to_the_byte(name: str, make: Make, tmp_path: Path) -> None:
    clip, found, kept = Clip.from_frames(astronaut_frames(7)), [], []
    for room in (1000.0, 0.0, 1e-3):
        editor = make(name, cache=f"cache-{room}", window=4, overlap=1, keep_mb=room)
        ready = editor.prepare(clip, FACTUAL, prompt="She is young.")
        found.append(editor.edit(ready, target()).frames)
        kept.append(sum(path.stat().st_size for path in (ready.store.folder / "prepared").iterdir()))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert kept[1] == kept[2] < kept[0] / 2


@EDITORS
def test_of_the_way_into_noise_only_the_end_and_the_overlap_are_kept(name: str, make: Make) -> None:
    editor = make(name, window=4, overlap=1)
    ready = editor.prepare(Clip.from_frames(astronaut_frames(7)), FACTUAL, prompt="She is young.")
    first, last = (ready.store.load(f"prepared/{part.start:08d}") for part in ready.payload.windows)
    assert "path" not in first and "path" not in last and "tail" not in last
    if name != "tokenflow":  # which inverts frame by frame
        assert first["tail"].shape[1] == 1
        assert torch.equal(first["tail"][-1], first["start"][-1:])
