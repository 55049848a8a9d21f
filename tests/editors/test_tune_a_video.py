"""Tune-A-Video against what its published code and CSVC's copy compute (tests/goldens/tuneavideo)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import Attention
from safetensors.torch import load_file, save_file
from torch import Tensor

from countervid.diffusion.blocks import ClipShape, seeded
from countervid.diffusion.inflation import SparseCausalAttention
from countervid.diffusion.stable import load_pipeline
from countervid.editors.tune_a_video import TuneAVideoConfig, TuneAVideoPipeline

GOLDENS = Path(__file__).parents[1] / "goldens"
FACTS = json.loads((GOLDENS / "tuneavideo" / "facts.json").read_text())


def golden(name: str) -> dict[str, Tensor]:
    return load_file(GOLDENS / "tuneavideo" / f"{name}.safetensors")


def begun(kind: str, known: dict[str, Tensor], prefix: str) -> TuneAVideoPipeline:
    """An inflated tiny model with the temporal weights that the goldens were made with."""
    pipeline = load_pipeline(TuneAVideoPipeline, GOLDENS / "tiny-sd-ft" / kind)
    pipeline.load_tuned({name.removeprefix(prefix): x for name, x in known.items() if name.startswith(prefix)})
    return pipeline


def frames_first(video: Tensor) -> Tensor:
    """`(B, c, F, h, w)` as `(B F, c, h, w)`."""
    return video.transpose(1, 2).flatten(0, 1)


@pytest.mark.parametrize(("who", "first_only"), [("upstream", False), ("csvc", True)])
def test_sparse_causal_attention_is_the_published(who: str, first_only: bool) -> None:
    known = golden("sparse_causal")
    layer = Attention(query_dim=8, heads=2, dim_head=4)
    layer.load_state_dict({name.removeprefix("weight."): x for name, x in known.items() if name.startswith("weight.")})
    clip = ClipShape()
    clip.frames = 5
    out = SparseCausalAttention(clip, first_only)(layer, known["hidden"])
    torch.testing.assert_close(out, known[f"{who}.out"], atol=5e-5, rtol=0)


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_noise_is_the_published(kind: str) -> None:
    known = golden("noise")
    pipeline = begun(kind, known, f"{kind}.temporal.")
    x, words = frames_first(known["latents"]), known[f"{kind}.text"]
    for who, first_only in (("upstream", False), ("csvc", True)):
        pipeline.attend_to(first_frame_only=first_only)
        with torch.no_grad():
            noise = pipeline.predict(x, 481, words)
        torch.testing.assert_close(noise, frames_first(known[f"{kind}.{who}.noise"]), atol=5e-5, rtol=0)


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_names_are_the_published(kind: str) -> None:
    names = json.loads((GOLDENS / "tuneavideo" / "names.json").read_text())[kind]
    pipeline = load_pipeline(TuneAVideoPipeline, GOLDENS / "tiny-sd-ft" / kind)
    added = {name for name, _ in pipeline.unet.named_parameters() if "_temp." in name}
    assert added == set(names["added"])
    assert set(pipeline.tunable()) == set(names["trainable"])
    assert len(pipeline.tunable()) == 112 and len(pipeline.tunable("mid_up")) == 70


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_is_the_published(checkpointing: bool) -> None:
    known, facts = golden("training"), FACTS["training"]
    pipeline = begun("sd1", known, "initial.")
    if checkpointing:
        pipeline.unet.enable_gradient_checkpointing()
        pipeline.unet.train()
    parameters = pipeline.tunable()
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters.values(), lr=3e-5, weight_decay=1e-2, eps=1e-8)
    clip, words = frames_first(known["latents"]), known["text"]
    losses = []
    for i, t in enumerate((501, 37, 881)):
        losses.append(pipeline.learn(clip, frames_first(known[f"step{i}.noise"]), t, words, optimizer))
        if i == 0:
            for name, parameter in parameters.items():
                assert parameter.grad is not None, name
                away = (parameter.grad - known[f"grad.{name}"]).norm()
                assert away <= 1e-3 * known[f"grad.{name}"].norm() + 1e-9, name
        if i in (0, 2):
            for name, parameter in parameters.items():
                torch.testing.assert_close(parameter.detach(), known[f"after{i + 1}.{name}"], atol=5e-6, rtol=0)
    assert losses == pytest.approx(facts["losses"], abs=1e-6)


@pytest.mark.parametrize(("who", "first_only"), [("upstream", False), ("csvc", True)])
def test_a_whole_edit_is_the_published(who: str, first_only: bool) -> None:
    known, facts = golden(f"edit_{who}"), FACTS[f"edit.{who}"]
    pipeline = begun("sd1", golden("noise"), "sd1.temporal.")
    config = TuneAVideoConfig(steps=5, guidance=facts["guidance"], first_frame_only=first_only)
    latents = frames_first(known["encoded"])
    prepared = pipeline.prepare(latents, "", config, generator=seeded(0), tuned=True)
    torch.testing.assert_close(prepared["path"], known["inversion_latents"].transpose(1, 2), atol=1e-5, rtol=0)
    for solver in ("ddim", "pndm"):
        settings = TuneAVideoConfig(steps=5, guidance=facts["guidance"], first_frame_only=first_only, solver=solver)
        path = pipeline.sample(prepared, facts["prompt"], "", settings)
        torch.testing.assert_close(path[-1], known[f"{solver}.latents"][-1].transpose(0, 1), atol=3e-3, rtol=0)
        if solver == "ddim":
            ends = (pipeline.decode(path[-1][[0, -1]]) / 2 + 0.5).clamp(0, 1)
            shown = frames_first(known["ddim.frames_first_last"]).float()
            torch.testing.assert_close(ends, shown, atol=3e-3, rtol=0)


def test_inflation_changes_nothing_for_one_frame() -> None:
    pipeline = load_pipeline(TuneAVideoPipeline, GOLDENS / "tiny-sd-ft" / "sd2")
    from diffusers import UNet2DConditionModel

    plain = UNet2DConditionModel.from_pretrained(GOLDENS / "tiny-sd-ft" / "sd2" / "unet")
    x, words = torch.randn(1, 4, 16, 16, generator=seeded(0)), pipeline.words("an old man").embedding
    with torch.no_grad():
        theirs = plain(x, 481, encoder_hidden_states=words).sample
        torch.testing.assert_close(pipeline.predict(x, 481, words), theirs, atol=1e-5, rtol=0)


def test_a_tuned_clip_is_learnt_and_forgotten() -> None:
    pipeline = load_pipeline(TuneAVideoPipeline, GOLDENS / "tiny-sd-ft" / "sd1")
    clips = [torch.randn(4, 4, 16, 16, generator=seeded(i)) for i in range(2)]
    config = TuneAVideoConfig(tuning_steps=3)
    first = pipeline.fit([clips[0]], "she is young", config, seeded(1))
    moved = pipeline.tunable()["mid_block.attentions.0.transformer_blocks.0.attn_temp.to_out.0.weight"].abs().max()
    assert moved > 0
    pipeline.fit([clips[1]], "she is young", config, seeded(1))
    assert pipeline.fit([clips[0]], "she is young", config, seeded(1)) == first


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_published_inflated_folder_loads(tmp_path: Path, kind: str) -> None:
    """As the authors' library writes them: `UNet3DConditionModel`, block types with 3D, temporal weights inside."""
    known = golden("noise")
    pipeline = begun("sd1", known, "sd1.temporal.")
    pipeline.unet.config["_class_name"] = "UNet3DConditionModel"
    folder = tmp_path / "published"
    for part in ("scheduler", "text_encoder", "tokenizer", "vae"):
        (folder / part).mkdir(parents=True)
        for file in (GOLDENS / "tiny-sd-ft" / "sd1" / part).iterdir():
            (folder / part / file.name).write_bytes(file.read_bytes())
    index = json.loads((GOLDENS / "tiny-sd-ft" / "sd1" / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "TuneAVideoPipeline"}))
    config = (GOLDENS / "tiny-sd-ft" / "sd1" / "unet" / "config.json").read_text().replace("2D", "3D")
    (folder / "unet").mkdir()
    (folder / "unet" / "config.json").write_text(config)
    state = {name: x.contiguous() for name, x in pipeline.unet.state_dict().items()}
    if kind == "bin":
        torch.save(state, folder / "unet" / "diffusion_pytorch_model.bin")
    else:
        save_file(state, folder / "unet" / "diffusion_pytorch_model.safetensors")
    again = load_pipeline(TuneAVideoPipeline, folder)
    for name, x in again.unet.state_dict().items():
        assert torch.equal(x, state[name]), name
