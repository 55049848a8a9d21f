"""The DVA editor on toy weights: what must hold whatever the weights have learnt."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from countervid.autoencoder.clip_guidance import TextGuidance
from countervid.autoencoder.directions import Direction
from countervid.clip import Clip
from countervid.editors import Target, load_editor
from countervid.editors.dva import DVA
from countervid.editors.dva_drawing import significance
from countervid.errors import ConfigError, FaceError, InterventionError, ModelError
from countervid.runs.run import counterfactual
from tiny_models import astronaut_frames, save_tiny_clip

FACTUAL = {"age": "young", "gender": "woman", "beard": "no", "bald": "no", "hair_colour": "brown"}
OLD = {**FACTUAL, "age": "old", "hair_colour": "grey"}


def target(strength=1.0, **extra):
    return Target(factual=FACTUAL, do={"age": "old"}, counterfactual=OLD, strength=strength, **extra)


@pytest.fixture
def make(tiny_models, tmp_path):
    def make_editor(cache="cache", **settings):
        return load_editor(
            "dva",
            tiny_models,
            cache=tmp_path / cache,
            **{"steps": 3, "window": 8, "batch": 4, "floor": 0.0, **settings},
        )

    return make_editor


@pytest.fixture
def prepared(make, tiny_clip):
    editor = make()
    return editor, editor.prepare(tiny_clip, FACTUAL)


def test_strength_zero_is_the_source_bit_for_bit(prepared, tiny_clip):
    editor, ready = prepared
    assert torch.equal(editor.edit(ready, target(0.0)).frames, tiny_clip.frames)
    muted = target(strengths={"age": 0.0, "hair_colour": 0.0})
    assert torch.equal(editor.edit(ready, muted).frames, tiny_clip.frames)


def test_an_identity_that_does_not_move_leaves_every_pixel(prepared, tiny_clip, monkeypatch):
    """The whole path runs, and what the autoencoder cannot draw cancels."""
    editor, ready = prepared
    monkeypatch.setattr(DVA, "moved", lambda self, prepared, target, report: prepared.payload)
    assert torch.equal(editor.edit(ready, target()).frames, tiny_clip.frames)


def test_the_face_changes_and_the_rest_is_untouched(prepared, tiny_clip):
    editor, ready = prepared
    source, edited = tiny_clip.frames, editor.edit(ready, target()).frames
    changed = (source != edited).any(-1)
    assert changed.any(dim=(1, 2)).all()
    for frame, quad in enumerate(ready.track.quads):
        low, high = np.floor(quad.min(0)).astype(int), np.ceil(quad.max(0)).astype(int)
        outside = changed[frame].clone()
        outside[max(0, low[1]) : high[1] + 1, max(0, low[0]) : high[0] + 1] = False
        assert not outside.any()


def test_what_moves_less_than_the_floor_stays_the_sources_but_never_all(make, tiny_clip):
    changed = []
    for floor in (0.0, 0.05, 100.0):
        editor = make(floor=floor)
        edited = editor.edit(editor.prepare(tiny_clip, FACTUAL), target()).frames
        changed.append(int((edited != tiny_clip.frames).sum()))
    assert changed[0] >= changed[1] >= changed[2] and changed[0] > changed[2] > 0


def test_significance_rises_from_half_the_floor_to_the_floor():
    again = torch.zeros(5, 4, 16, 16)
    edited = torch.tensor([0.0, 0.1, 0.15, 0.2, 1.0]).view(5, 1, 1, 1).repeat(1, 4, 16, 16)
    edited[:, :, :4, :4] = 2.0  # somewhere every frame changes much
    values = significance(edited, again, floor=0.2)
    assert values.shape == (5, 128, 128)
    rest = values[:, 64:, 64:].mean((1, 2))
    torch.testing.assert_close(rest, torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0]), atol=1e-5, rtol=0)
    assert significance(edited, again, floor=0.0)[1:].min() == 1  # every difference counts


def test_a_faint_edit_is_not_lost_below_the_floor():
    again = torch.zeros(1, 4, 16, 16)
    faint = 0.02 * torch.ones_like(again)
    faint[:, :, 4:12, 4:12] = 0.1
    values = significance(faint, again, floor=0.3)
    assert values[0, 64, 64] == 1 and values[0, 0, 0] == 0
    assert significance(again, again, floor=0.3).max() == 0  # nothing is still nothing


def test_an_unusable_device_is_said(make):
    with pytest.raises(ConfigError, match="`nonsense` cannot be used.*auto, cpu, cuda"):
        make(device="nonsense")


def test_more_strength_is_more_change(prepared):
    editor, ready = prepared
    identity = ready.payload
    strengths = (0.25, 0.5, 1.0, 2.0)
    age = editor.classifier.outputs("age")
    logits = [float(editor.classifier(editor.moved(ready, target(s)))[age]) for s in strengths]
    assert float(editor.classifier(identity)[age]) < logits[0]
    assert logits == sorted(logits)


def test_the_kept_attributes_do_not_move(prepared):
    editor, ready = prepared
    before, after = editor.classifier(ready.payload), editor.classifier(editor.moved(ready, target()))
    for name in ("gender", "beard", "bald"):
        part = editor.classifier.outputs(name)
        torch.testing.assert_close(after[part], before[part], atol=1e-3, rtol=0)  # float32 of a float64 solution


def test_the_same_seed_gives_the_same_bytes_from_a_fresh_cache(make, tiny_clip):
    one, two = make("one"), make("two")
    first = one.edit(one.prepare(tiny_clip, FACTUAL), target()).frames
    assert torch.equal(first, two.edit(two.prepare(tiny_clip, FACTUAL), target()).frames)


def test_a_prepared_clip_is_found_again(make, tiny_clip):
    make().prepare(tiny_clip, FACTUAL)
    told = []
    again = make().prepare(tiny_clip, FACTUAL, report=lambda what, done, total: told.append(what))
    assert "finding the face" not in told and "encoding" not in told
    assert again.key != make(steps=4).prepare(tiny_clip, FACTUAL).key


def test_evaluations_are_counted_and_what_is_kept_costs_none(make, tiny_clip):
    editor = make("first")
    ready = editor.prepare(tiny_clip, FACTUAL)
    preparing = editor.costs()["unet_evaluations"]
    assert preparing >= len(tiny_clip)
    again = make("first")
    again.prepare(tiny_clip, FACTUAL)
    assert again.costs()["unet_evaluations"] == 0
    assert len(editor.edit(ready, target()).frames) == len(tiny_clip)
    assert editor.costs()["unet_evaluations"] >= preparing + len(tiny_clip)


def test_a_damaged_entry_is_computed_again(make, tiny_clip):
    editor = make()
    ready = editor.prepare(tiny_clip, FACTUAL)
    expected = editor.edit(ready, target()).frames
    for name in ("looks/00000000", "codes/00000008"):
        path = ready.store.folder / f"{name}.safetensors"
        path.write_bytes(path.read_bytes()[:-9])
    (ready.store.folder / "track.safetensors").write_bytes(b"nonsense")
    assert torch.equal(editor.edit(editor.prepare(tiny_clip, FACTUAL), target()).frames, expected)


def test_a_stopped_edit_goes_on(make, tiny_clip):
    whole = make("whole")
    expected = whole.edit(whole.prepare(tiny_clip, FACTUAL), target()).frames
    editor = make("stopped")
    windows = editor.edit(editor.prepare(tiny_clip, FACTUAL), target()).windows(8)
    next(windows)
    windows.close()  # what Ctrl-C leaves: one window of two
    again = make("stopped")
    assert torch.equal(again.edit(again.prepare(tiny_clip, FACTUAL), target()).frames, expected)


def test_a_frame_does_not_depend_on_its_batch(make, tiny_clip):
    editor = make()
    ready = editor.prepare(tiny_clip, FACTUAL)
    codes, looks = ready.store.load("codes/00000000"), ready.store.load("looks/00000000")
    with torch.inference_mode():
        together = editor.draw(codes["noise"], looks["pose"], ready.payload)
        alone = torch.cat(
            [editor.draw(codes["noise"][i : i + 1], looks["pose"][i : i + 1], ready.payload) for i in range(8)]
        )
    assert torch.equal(together, alone)


def test_windows_agree_with_the_whole(make, tiny_clip):
    small, large = make("small", window=4), make("large", window=32)
    first = small.edit(small.prepare(tiny_clip, FACTUAL), target()).frames
    second = large.edit(large.prepare(tiny_clip, FACTUAL), target()).frames
    assert torch.equal(first, second)


def test_many_windows_are_read_again_from_the_start(make, tiny_clip):
    """Masks reach into the windows before and after; the ones that are held are those used last."""
    editor = make(window=2)
    edited = editor.edit(editor.prepare(tiny_clip, FACTUAL), target())
    first = edited.frames
    assert torch.equal(edited.frames, first)
    assert torch.equal(torch.cat([frames for _, frames in edited.windows(2, 6)]), first[6:])
    assert torch.equal(torch.cat([frames for _, frames in edited.windows(2, 2)]), first[2:])


def test_frames_without_a_face_pass_through_and_are_counted(make):
    frames = astronaut_frames(30)
    frames[6:24] = 90  # longer than the gap that tracking bridges
    editor = make()
    ready = editor.prepare(Clip.from_frames(frames), FACTUAL)
    edited = editor.edit(ready, target()).frames
    assert ready.facts["frames_without_face"] == 18
    assert torch.equal(edited[6:24], frames[6:24])
    assert not torch.equal(edited[:6], frames[:6]) and not torch.equal(edited[24:], frames[24:])


def test_one_frame_is_enough(make):
    clip = Clip.from_frames(astronaut_frames(1))
    editor = make()
    assert editor.edit(editor.prepare(clip, FACTUAL), target()).frames.shape == clip.frames.shape


def test_no_face_is_said(make):
    with pytest.raises(FaceError, match="No face"):
        make().prepare(Clip.from_frames(torch.full((4, 64, 64, 3), 120, dtype=torch.uint8)), FACTUAL)


def test_reads_every_attribute_that_the_weights_know(prepared):
    editor, ready = prepared
    seen = editor.read(ready)
    assert set(seen) == set(FACTUAL)
    assert all(0.19 <= reading.confidence <= 1 for reading in seen.values())


def test_an_attribute_beyond_the_weights_is_refused(prepared):
    editor, ready = prepared
    asked = Target(factual={"ears": "two"}, do={"ears": "one"}, counterfactual={"ears": "one"})
    with pytest.raises(InterventionError, match="cannot make `ears = one`"):
        editor.edit(ready, asked)


def test_what_the_weights_cannot_do_is_said_before_the_clip_is_prepared(make, tiny_clip, tmp_path):
    editor = make()
    with pytest.raises(InterventionError, match="Did you mean `beard`"):
        editor.check({}, Direction(attribute="baerd", scale=1.0))
    with pytest.raises(InterventionError, match="cannot make `hat = yes`"):
        counterfactual(tiny_clip, {"hat": "yes"}, editor=editor, factual=FACTUAL)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    editor.check({"age": "old"})
    editor.check({}, TextGuidance(target_text="an old face"))


def test_settings_are_checked(tiny_models, tmp_path):
    with pytest.raises(ConfigError, match="no setting `step`. It has: steps"):
        load_editor("dva", tiny_models, step=3)
    with pytest.raises(ConfigError, match="`paste` must be one of"):
        load_editor("dva", tiny_models, paste="glue")
    with pytest.raises(ConfigError, match="`precision` must be one of float32, bfloat16, float16, got `half`"):
        load_editor("dva", tiny_models, precision="half")
    with pytest.raises(ConfigError, match="no editor `dav`"):
        load_editor("dav")
    with pytest.raises(ModelError, match="lacks identity, dva"):
        load_editor("dva", tmp_path)


def test_a_text_moves_the_identity_the_way_it_says(make, tiny_clip, tmp_path, monkeypatch):
    guidance = TextGuidance(
        target_text="old face", source_text="face", iterations=30, learning_rate=0.02, identity_weight=0.1,
        l1_weight=0.1, templates=("a {}", "the {}"),
    )  # fmt: skip
    asked = Target(
        factual={"text": "face"}, do={"text": "old face"}, counterfactual={"text": "old face"}, guide=guidance
    )
    editor = make(text_model=str(save_tiny_clip(tmp_path / "clip")))
    ready = editor.prepare(tiny_clip, FACTUAL)
    reports = []
    edited = editor.edit(ready, asked, report=lambda what, done, total: reports.append((what, done, total)))
    assert reports[-1][0] == "following the text" and reports[-1][2] == 30
    assert not torch.equal(edited.frames, tiny_clip.frames)
    (table,) = ready.store.folder.rglob("losses.csv")
    totals = [float(line.split(",")[1]) for line in table.read_text().splitlines()[1:]]
    assert min(totals) < totals[0] and (table.parent / "preview.png").stat().st_size > 1000
    monkeypatch.setattr("countervid.editors.dva.optimise", None)  # what was found is kept
    assert torch.equal(editor.edit(ready, asked).frames, edited.frames)
    twice = replace(asked, guide=replace(guidance, scale=2.0))  # and followed twice as far
    once, further = (editor.moved(ready, t) @ ready.payload for t in (asked, twice))
    assert further < once < 1
    with pytest.raises(ModelError, match="is no CLIP"):
        make(text_model=str(tmp_path / "nothing")).moved(ready, twice)
