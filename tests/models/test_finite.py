"""Weights that are no numbers are refused by name, whoever loads them; so is what a network draws from overflow."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from countervid.autoencoder.model import DiffusionAutoencoder
from countervid.cli.main import app
from countervid.clip import Clip
from countervid.diffusion.stable import FramesPipeline, load_pipeline
from countervid.embeddings.contrastive import Contrastive
from countervid.errors import ModelError
from countervid.models.finite import check_finite, check_result, is_finite
from tiny_models import astronaut_frames, save_tiny_clip, save_tiny_models


def spoil(file, value=float("nan")):
    """Put one value into the last weight of a file; returns the tensor's name."""
    tensors = load_file(file)
    name = sorted(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.ndim > 1)[-1]
    tensors[name].view(-1)[-1] = value
    save_file(tensors, file)
    return name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_one_value_is_found_in_any_place_and_kind(value, kind):
    tensor = torch.zeros(3, 5, dtype=kind)
    assert is_finite(tensor)
    for place in (0, 7, 14):
        bad = tensor.clone()
        bad.view(-1)[place] = value
        assert not is_finite(bad)
        with pytest.raises(ModelError, match=r"`x.safetensors` is damaged: the tensor `b` holds 1 values .* of 15"):
            check_finite({"a": tensor, "b": bad}, "x.safetensors")
        with pytest.raises(ModelError, match="use float32"):
            check_result(bad, "What was drawn")
    assert is_finite(torch.zeros(0)) and is_finite(torch.ones(2, dtype=torch.int64))


@pytest.mark.parametrize("role", ["dva", "dva/classifier", "identity", "vae"])
def test_an_edit_refuses_them_in_one_line_and_leaves_nothing(tmp_path, role):
    models = save_tiny_models(tmp_path / "models")
    files = sorted((models / role).glob("*.safetensors"))
    name = spoil(files[0])
    Clip.from_frames(astronaut_frames(4)).write(tmp_path / "talk.mp4", crf=4)
    words = ["edit", tmp_path / "talk.mp4", "--do", "age=old", "--model", models, "--out", tmp_path / "out",
             "--cache", tmp_path / "cache", "--steps", 3, "--factual", "She is young."]  # fmt: skip
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1, result.stderr
    assert files[0].name in result.stderr and f"`{name}`" in result.stderr and not (tmp_path / "out").exists()


def test_pipelines_and_clips_of_others_are_looked_at_too(tmp_path, request):
    source = request.path.parents[1] / "goldens" / "tiny-sd-ft" / "sd2"
    for role in ("unet", "vae", "text_encoder"):
        folder = tmp_path / role
        shutil.copytree(source, folder)
        name = spoil(next((folder / role).glob("*.safetensors")), float("inf"))
        with pytest.raises(ModelError, match=rf"{role}` is damaged: the tensor `.*{name.rpartition('.')[2]}`"):
            load_pipeline(FramesPipeline, folder)
    clip = save_tiny_clip(tmp_path / "clip")
    spoil(next(clip.glob("*.safetensors")))
    with pytest.raises(ModelError, match="is damaged: the tensor"):
        Contrastive.from_pretrained(clip)


def test_a_network_that_overflows_stops_with_a_line(tmp_path):
    models = save_tiny_models(tmp_path / "models")
    model = DiffusionAutoencoder.from_pretrained(models / "dva")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3e4)
    model.save_pretrained(models / "dva", dtype=torch.float32)
    Clip.from_frames(astronaut_frames(4)).write(tmp_path / "talk.mp4", crf=4)
    words = ["edit", tmp_path / "talk.mp4", "--do", "age=old", "--model", models, "--out", tmp_path / "out",
             "--cache", tmp_path / "cache", "--steps", 3, "--factual", "She is young."]  # fmt: skip
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 2 and "came out as NaN or infinity" in result.stderr, (result.output, result.exception)
    assert not (tmp_path / "out").exists()
