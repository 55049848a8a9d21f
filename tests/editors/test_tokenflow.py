"""TokenFlow against what its published code computes, on a tiny Stable Diffusion (tests/goldens/tokenflow)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from countervid.diffusion.blocks import seeded
from countervid.diffusion.stable import Descent, guided, load_pipeline
from countervid.editors.tokenflow import (
    Carriers,
    TokenFlowConfig,
    TokenFlowPipeline,
    carried,
    draw,
    likest,
    nearest_two,
    previous_and_own,
)

GOLDENS = Path(__file__).parents[1] / "goldens" / "tokenflow"
SETTINGS = json.loads((GOLDENS / "run.json").read_text())["settings"]
CONFIG = TokenFlowConfig(steps=10, inversion_steps=20, batch=4, guidance=4.5)


def golden(name: str) -> dict[str, Tensor]:
    return load_file(GOLDENS / f"{name}.safetensors")


@pytest.fixture(scope="module")
def pipeline() -> TokenFlowPipeline:
    return load_pipeline(TokenFlowPipeline, GOLDENS / "tiny-sd")


@pytest.fixture(scope="module")
def prepared(pipeline: TokenFlowPipeline) -> dict[str, Tensor]:
    latents = golden("inputs")["latents"]
    return pipeline.prepare(latents, SETTINGS["source"], CONFIG, generator=seeded(SETTINGS["seed"]))


def test_frames_and_words_are_encoded_as_published(pipeline: TokenFlowPipeline) -> None:
    known = golden("inputs")
    latents = pipeline.encode(known["frames_u8"].float() / 255 * 2 - 1)
    torch.testing.assert_close(latents, known["latents"], atol=1e-4, rtol=0)
    for name in ("source", "target", "negative"):
        torch.testing.assert_close(
            pipeline.words(SETTINGS[name]).embedding[0], known[f"embeds_{name}"], atol=1e-4, rtol=0
        )
    decoded = (pipeline.decode(known["latents"][:2]) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(decoded, known["decode_of_latents"], atol=1e-4, rtol=0)


def test_schedule_is_the_published(pipeline: TokenFlowPipeline) -> None:
    known = golden("scheduler")
    abar = torch.tensor([pipeline.abar(t) for t in range(1000)])
    torch.testing.assert_close(abar, known["alphas_cumprod"].float(), atol=1e-6, rtol=0)
    assert pipeline.abar(-1) == pytest.approx(float(known["final_alpha_cumprod"]), abs=1e-6)
    for steps in (10, 20, 50, 100, 500):
        assert pipeline.timesteps(steps) == known[f"timesteps_{steps}"].tolist()


def test_inversion_is_the_published(pipeline: TokenFlowPipeline) -> None:
    known = golden("inversion")
    words = pipeline.words(SETTINGS["source"]).embedding
    path = pipeline.invert(golden("inputs")["latents"], words, 20)
    for t, x in zip(pipeline.timesteps(20)[::-1], path, strict=True):
        torch.testing.assert_close(x, known[f"every_t{t:04d}"], atol=1e-4, rtol=0)


def test_start_and_keyframes_are_the_published(prepared: dict[str, Tensor]) -> None:
    known = golden("edit_pnp")
    torch.testing.assert_close(prepared["start"], known["x_start"], atol=3e-4, rtol=0)
    assert torch.equal(prepared["keyframes"], known["keyframes"].long())


def test_every_step_is_the_published(pipeline: TokenFlowPipeline, prepared: dict[str, Tensor]) -> None:
    known, saved = golden("edit_pnp"), golden("inversion")
    words, source = (
        pipeline.told(SETTINGS["target"], SETTINGS["negative"]),
        pipeline.words(SETTINGS["source"]).embedding,
    )
    times = pipeline.timesteps(10)
    descent = Descent(pipeline, times)
    for i, t in enumerate(times):
        x = known["x_start"] if i == 0 else known[f"x_after_step_{i - 1:02d}"]
        keyframes = known["keyframes"][i].long()
        carriers = previous_and_own(12, 4)
        record = pipeline.record(saved[f"saved_t{t:04d}"], t, source, keyframes, carriers, 4)
        without, towards = pipeline.look(x, t, words, keyframes, carriers, record, conv=i < 8, attention=i < 5, batch=4)
        after = descent.step(i, x, guided(without, towards, 4.5))
        assert (after - known[f"x_after_step_{i:02d}"]).abs().mean() < 3e-4, i


def test_a_whole_edit_is_the_published(pipeline: TokenFlowPipeline, prepared: dict[str, Tensor]) -> None:
    known = golden("edit_pnp")
    path = pipeline.sample(prepared, SETTINGS["target"], SETTINGS["negative"], CONFIG)
    assert (path[-1] - known["x_after_step_09"]).abs().mean() < 1e-3
    levels = ((pipeline.decode(path[-1]) / 2 + 0.5).clamp(0, 1) * 255).to(torch.uint8)
    away = (levels.int() - known["edited_u8"].int()).abs()
    assert (away == 0).float().mean() > 0.99


def test_likenesses_are_the_published(pipeline: TokenFlowPipeline) -> None:
    """Inside the network: matches of four blocks at two steps, but for ties within rounding."""
    known, edit, saved = golden("edit_pnp_trace"), golden("edit_pnp"), golden("inversion")
    source = pipeline.words(SETTINGS["source"]).embedding
    for i in SETTINGS["trace_steps"]:
        t = pipeline.timesteps(10)[i]
        record = pipeline.record(
            saved[f"saved_t{t:04d}"], t, source, edit["keyframes"][i].long(), previous_and_own(12, 4), 4
        )
        for block in SETTINGS["trace_blocks"]:
            layer = f"{block}.transformer_blocks.0.attn1"
            for batch in range(3):
                for ours, theirs in (("first", "idx_own"), ("second", "idx_prev")):
                    name = f"step{i:02d}.{block}.batch{batch}.{theirs}"
                    if name in known:
                        found = record[f"{layer}.{ours}"][4 * batch : 4 * batch + 4].flatten().int()
                        assert (found == known[name]).float().mean() >= 0.995, name


def test_sdedit_is_the_published(pipeline: TokenFlowPipeline) -> None:
    known = golden("edit_sdedit")
    config = replace(CONFIG, begin=0.9, attention_share=0.0, conv_share=0.0)
    latents = golden("inputs")["latents"]
    prepared = pipeline.prepare(latents, SETTINGS["source"], config, generator=seeded(SETTINGS["seed_sdedit"]))
    assert pipeline.visited(config) == known["timesteps"].tolist()
    assert torch.equal(prepared["keyframes"], known["keyframes"].long())
    path = pipeline.sample(prepared, SETTINGS["target"], SETTINGS["negative"], config)
    assert (path[-1] - known["x_after_step_07"]).abs().mean() < 1e-3


@pytest.mark.parametrize(("toy", "batch"), [("even", 4), ("odd", 5), ("one_batch", 3), ("ragged", 4)])
def test_features_are_carried_as_published(toy: str, batch: int) -> None:
    known = {name.partition(".")[2]: x for name, x in golden("blend_toy").items() if name.startswith(f"{toy}.")}
    frames, keys = known["frame_features"], known["keyframe_features"]
    carriers = previous_and_own(frames.shape[1], batch)
    first, second = (likest(frames[0], keys[0][who]) for who in (carriers.first, carriers.second))
    assert torch.equal(first.int(), known["idx_own"].int())
    later = known["idx_prev"][:, 0] >= 0
    assert torch.equal(second[later].int(), known["idx_prev"][later].int())
    torch.testing.assert_close(carriers.weight[later], known["weight_own"][later].float(), atol=1e-6, rtol=0)
    share = carriers.weight[:, None, None]
    outputs = known["keyframe_attn_output"]
    blended = share * carried(outputs, carriers.first, first) + (1 - share) * carried(outputs, carriers.second, second)
    torch.testing.assert_close(blended, known["blended"], atol=1e-5, rtol=0)


def test_a_record_made_once_serves_every_prompt(pipeline: TokenFlowPipeline, prepared: dict[str, Tensor]) -> None:
    latents, config = golden("inputs")["latents"], replace(CONFIG, keep_mb=0)
    lean = pipeline.prepare(latents, SETTINGS["source"], config, generator=seeded(SETTINGS["seed"]))
    assert lean.keys() == {"start", "source", "keyframes", "words"}
    before = pipeline.evaluations
    played = pipeline.sample(prepared, "he is old", "", CONFIG)
    cost = pipeline.evaluations - before
    anew = pipeline.sample(lean, "he is old", "", CONFIG)
    assert cost == 10 * 2 * (12 + 3)  # steps, streams, frames and keyframes
    assert pipeline.evaluations - before == 2 * cost + cost // 2
    assert (played - anew).abs().mean() < 1e-5


def test_nearest_keyframes_surround_a_frame() -> None:
    carriers = nearest_two(8, torch.tensor([2, 6]))
    assert carriers.first.tolist() == [0, 0, 0, 0, 0, 0, 1, 1]
    assert carriers.second.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert carriers.weight.tolist() == [1, 1, 1, 0.75, 0.5, 0.25, 1, 1]


@pytest.mark.parametrize(("frames", "batch"), [(1, 8), (9, 4), (24, 8), (10, 3)])
def test_every_batch_has_one_keyframe_of_its_own(frames: int, batch: int) -> None:
    keyframes = draw(frames, batch, seeded(3))
    assert (keyframes // batch).tolist() == list(range(-(-frames // batch)))
    assert int(keyframes.max()) < frames
    for carriers in (previous_and_own(frames, batch), nearest_two(frames, keyframes)):
        assert isinstance(carriers, Carriers) and len(carriers.weight) == frames
        assert int(carriers.first.max()) < len(keyframes) and float(carriers.weight.min()) >= 0
