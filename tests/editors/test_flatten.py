"""FLATTEN against what its published code computes (tests/goldens/flatten)."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention
from safetensors.torch import load_file
from torch import Tensor

from countervid.diffusion.blocks import ClipShape, seeded
from countervid.diffusion.stable import load_pipeline
from countervid.diffusion.trajectories import displacements, follow, groups, successors, trajectories
from countervid.editors.flatten import FlattenConfig, FlattenPipeline, _FlowGuided, _State
from countervid.errors import ConfigError

GOLDENS = Path(__file__).parents[1] / "goldens"
EDIT = FlattenConfig(steps=5, inversion_steps=10, inject_steps=4, guidance=7.5)
PROMPT, NEGATIVE = "an old man with a beard", "a young woman, blurry"


def golden(name: str) -> dict[str, Tensor]:
    return load_file(GOLDENS / "flatten" / f"{name}.safetensors")


def flow_of(kind: str, frames: int) -> Tensor:
    place = importlib.util.spec_from_file_location("flow_fields", GOLDENS / "flatten" / "flow_fields.py")
    assert place is not None and place.loader is not None
    fields: Any = importlib.util.module_from_spec(place)
    place.loader.exec_module(fields)
    return torch.stack([torch.from_numpy(fields.flow_field(kind, t)) for t in range(frames - 1)]).permute(0, 2, 3, 1)


def known_trajectories(kind: str, side: int) -> Tensor:
    return (
        torch.from_numpy(np.load(GOLDENS / "flatten" / f"trajectories_{kind}.npz")[f"traj_id{side}"]).long().flatten(1)
    )


def frames_first(video: Tensor) -> Tensor:
    return video.transpose(1, 2).flatten(0, 1)


@pytest.fixture(scope="module")
def pipeline() -> FlattenPipeline:
    return load_pipeline(FlattenPipeline, GOLDENS / "tiny-sd-ft" / "sd2")


@pytest.mark.parametrize("side", [64, 32, 16, 8])
@pytest.mark.parametrize("kind", ["clean", "crowd", "fast"])
def test_trajectories_are_the_published(kind: str, side: int) -> None:
    known = np.load(GOLDENS / "flatten" / f"trajectories_{kind}.npz")
    ids = known[f"traj_id{side}"]
    flow = flow_of(kind, len(ids))
    moves, error = displacements(flow, side, side)
    np.testing.assert_array_equal(moves, known[f"disp{side}"].transpose(0, 2, 3, 1))
    if kind != "crowd":  # nothing to choose: one answer
        np.testing.assert_array_equal(follow(flow, side, side).reshape(ids.shape), ids)
    theirs = known[f"next{side}"][:-1].reshape(len(ids) - 1, -1).astype(np.int64)
    np.testing.assert_array_equal(trajectories(theirs).reshape(ids.shape), ids)  # their choices, our numbering
    ours = successors(moves, error)
    for t in range(len(ours)):  # exactly one goes on to each cell that is reached, as theirs
        reached = ours[t][ours[t] >= 0]
        assert len(np.unique(reached)) == len(reached)
        assert set(reached) == set(theirs[t][theirs[t] >= 0])


def test_groups_hold_every_cell_but_lone_ones_once() -> None:
    ids = known_trajectories("crowd", 16)
    found = groups(ids)
    cells = torch.cat([part.flatten() for part in found])
    lengths = torch.bincount(ids.flatten())
    assert len(cells.unique()) == len(cells) == int(lengths[lengths > 1].sum())
    for part in found:
        numbers = ids.flatten()[part]
        assert (numbers == numbers[:, :1]).all()
        assert ((part[:, 1:] // 256 - part[:, :-1] // 256) == 1).all()  # in consecutive frames


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("kind", ["clean", "crowd"])
def test_a_layer_is_the_published(kind: str, own: bool) -> None:
    known = golden("flow_attention")
    layer = Attention(query_dim=8, heads=2, dim_head=4)
    layer.load_state_dict({name.removeprefix("weight."): x for name, x in known.items() if name.startswith("weight.")})
    clip, state = ClipShape(), _State(own_queries=own)
    clip.frames = 6
    processor = _FlowGuided(state, clip, "layer", finest=True, injected=True)
    torch.testing.assert_close(processor(layer, known["hidden"]), known["dense_out"], atol=2e-4, rtol=1e-5)
    state.along = groups(known_trajectories(kind, 16))
    name = f"{kind}.old_qk{int(own)}"
    torch.testing.assert_close(processor(layer, known["hidden"]), known[f"{name}.out"], atol=2e-4, rtol=1e-5)
    if kind == "clean":
        given = {part: known[f"inject_{part}"].view(2, 6 * 256, 8) for part in "qk"}
        state.given = {f"layer.{part}": x for part, x in given.items()}
        out = processor(layer, known["hidden"])
        torch.testing.assert_close(out, known[f"{name}.injected.out"], atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("kind", ["clean", "crowd", "dense"])
def test_noise_is_the_published(pipeline: FlattenPipeline, kind: str, own: bool) -> None:
    known = golden("unet_miniature")
    pipeline.follow(torch.empty(0) if kind == "dense" else known_trajectories(kind, 16), own)
    with torch.no_grad():
        noise = pipeline.predict(frames_first(known["latents"]), 481, known["text"])
    name = "dense.noise" if kind == "dense" else f"{kind}.old_qk{int(own)}.noise"
    torch.testing.assert_close(noise, frames_first(known[name]), atol=2e-5, rtol=0)


@pytest.mark.parametrize("own", [False, True])
def test_noise_at_the_published_size_is_the_published(pipeline: FlattenPipeline, own: bool) -> None:
    known = golden("unet_64")
    pipeline.follow(known_trajectories("clean", 64)[:2], own)
    with torch.no_grad():
        noise = pipeline.predict(frames_first(known["latents"]), 481, known["text"])
    torch.testing.assert_close(noise, frames_first(known[f"old_qk{int(own)}.noise"]), atol=2e-5, rtol=0)


def test_what_is_kept_is_the_published(pipeline: FlattenPipeline) -> None:
    known = golden("unet_miniature")
    pipeline.follow(known_trajectories("clean", 16))
    noise, saved = pipeline.features(frames_first(known["latents"][:1]), 21, known["empty"][:1])
    torch.testing.assert_close(noise, frames_first(known["saved.noise"][:1]), atol=2e-5, rtol=0)
    wanted = {name.removeprefix("saved."): x for name, x in known.items() if name.startswith("saved.up")}
    assert set(saved) == set(wanted)
    for name, x in wanted.items():
        ours = saved[name][0].unflatten(0, (6, -1)) if "attentions" in name else saved[name]
        torch.testing.assert_close(ours, x if "attentions" in name else frames_first(x), atol=2e-5, rtol=0)


def test_a_whole_edit_is_the_published(pipeline: FlattenPipeline) -> None:
    known = golden("edit")
    pixels = known["frames"].permute(0, 3, 1, 2).float() / 127.5 - 1
    encoded = pipeline.encode(pixels, generator=seeded(66))
    latents = frames_first(known["encoded"])
    torch.testing.assert_close(encoded, latents, atol=2e-2, rtol=0)  # the published code darkens by a grey level
    ids = known_trajectories("clean", 16)
    prepared = pipeline.prepare(latents, "", EDIT, trajectories=ids)
    torch.testing.assert_close(prepared["path"][1:], known["inversion_latents"].transpose(1, 2), atol=1e-5, rtol=0)
    path = pipeline.sample(prepared, PROMPT, NEGATIVE, EDIT)
    torch.testing.assert_close(path, known["sampling_latents"].transpose(1, 2), atol=1e-3, rtol=0)
    video = (pipeline.decode(path[-1]) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(video, frames_first(known["video"]).float(), atol=3e-3, rtol=0)
    untouched = pipeline.sample(prepared, PROMPT, NEGATIVE, replace(EDIT, inject_steps=0))
    torch.testing.assert_close(untouched[-1], frames_first(known["inject0.final"]), atol=1e-3, rtol=0)
    lean = pipeline.prepare(latents, "", replace(EDIT, keep_mb=0), trajectories=ids)
    assert lean.keys() == {"path", "start", "source", "trajectories", "words"}
    torch.testing.assert_close(pipeline.sample(lean, PROMPT, NEGATIVE, EDIT), path, atol=1e-4, rtol=0)
    for change, name in (({"own_queries": True}, "old_qk_other"), ({}, "crowd")):
        config = replace(EDIT, **change)
        other = pipeline.prepare(
            latents, "", config, trajectories=known_trajectories("crowd", 16) if not change else ids
        )
        final = pipeline.sample(other, PROMPT, NEGATIVE, config)[-1]
        torch.testing.assert_close(final, frames_first(known[f"{name}.final"]), atol=1e-3, rtol=0)


def test_inversion_must_pass_the_steps_of_sampling(pipeline: FlattenPipeline) -> None:
    latents = torch.zeros(2, 4, 16, 16)
    with pytest.raises(ConfigError, match="does not pass"):
        pipeline.prepare(latents, "", replace(EDIT, inversion_steps=7), trajectories=torch.zeros(2, 256).long())


@pytest.mark.parametrize(("height", "width"), [(64, 96), (128, 64)])
def test_any_size_that_the_vae_divides(pipeline: FlattenPipeline, height: int, width: int) -> None:
    frames = torch.rand(3, 3, height, width, generator=seeded(0))
    config = FlattenConfig(steps=2, inversion_steps=4, inject_steps=1)
    result = pipeline(prompt="he is old", frames=frames, config=config)
    assert result.frames.shape == frames.shape and torch.isfinite(result.frames).all()
    assert result.evaluations == 3 * 3 + 2 * 2 * 3  # inversion, and two streams of sampling
