"""The editor on networks of the published kind: pixels of 256 px, ArcFace's identity, forty attributes of CelebA."""

from pathlib import Path

import pytest
import torch

from countervid.autoencoder import celeba
from countervid.autoencoder.classifier import AttributeClassifier
from countervid.autoencoder.config import AutoencoderConfig, UNetConfig
from countervid.autoencoder.encoders import FaceParser, IdentityNetwork, LandmarkNetwork
from countervid.autoencoder.model import DiffusionAutoencoder
from countervid.clip import Clip
from countervid.editors import Target, load_editor
from countervid.errors import InterventionError, ModelError
from tiny_models import astronaut_frames, save_tiny_models

FACTUAL = {"age": "young", "gender": "woman", "beard": "no", "bald": "no"}


def shaken(module: torch.nn.Module, amount: float) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += amount * torch.randn(parameter.shape)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frozen networks at their only size, with random weights; a noise estimator of a few channels."""
    root = tmp_path_factory.mktemp("published")
    unet = UNetConfig(
        model_channels=8, channel_multipliers=(1, 1), residual_blocks=1, attention_resolutions=(), embed_channels=16,
        condition_channels=16,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for role, kind in (("identity", IdentityNetwork), ("landmarks", LandmarkNetwork), ("parser", FaceParser)):
            kind().save_pretrained(root / role, dtype=torch.float16)
        shaken(DiffusionAutoencoder(AutoencoderConfig(unet=unet)), 0.05).save_pretrained(root / "dva")
        classifier = AttributeClassifier(dict.fromkeys(celeba.ATTRIBUTES, celeba.VALUES), 512)
        classifier.std.fill_(0.04)
        classifier.covariance.copy_(0.0016 * torch.eye(512))
        classifier.suppose_value_means()
        classifier.save_pretrained(root / "dva" / "classifier")
    return root


@pytest.mark.slow  # 60 M weights are read
def test_a_graphs_intervention_is_made_with_published_weights(folder: Path, tmp_path: Path) -> None:
    clip = Clip.from_frames(astronaut_frames(3), 25)
    editor = load_editor("dva", folder, cache=tmp_path, steps=3, floor=0.0, batch=2)
    prepared = editor.prepare(clip, FACTUAL)
    seen = editor.read(prepared)
    assert seen["age"].value == ("young" if seen["Young"].value == "yes" else "old")
    assert seen["age"].confidence == pytest.approx(seen["Young"].confidence)
    old = Target(factual=FACTUAL, do={"age": "old"}, counterfactual={**FACTUAL, "age": "old", "bald": "yes"})
    moved = editor.moved(prepared, old)
    logits = editor.classifier(torch.stack([prepared.payload, moved]))
    rows = {name: logits[:, celeba.ATTRIBUTES.index(name)].tolist() for name in celeba.ATTRIBUTES}
    assert rows["Young"][1] < rows["Young"][0] and rows["Bald"][1] > rows["Bald"][0]
    for kept in ("Male", "No_Beard"):
        assert rows[kept][1] == pytest.approx(rows[kept][0], abs=1e-3)
    edited = editor.edit(prepared, old).frames
    assert edited.shape == clip.frames.shape and not torch.equal(edited, clip.frames)
    again = load_editor("dva", folder, cache=tmp_path, steps=3, floor=0.0, batch=2)
    assert torch.equal(again.edit(again.prepare(clip, FACTUAL), old).frames, edited)
    red = Target(factual={"hair_colour": "black"}, do={}, counterfactual={"hair_colour": "red"})
    with pytest.raises(InterventionError, match="cannot make `hair_colour = red`"):
        editor.moved(prepared, red)


@pytest.mark.slow
def test_networks_of_two_kinds_do_not_go_together(folder: Path, tmp_path: Path) -> None:
    mixed = save_tiny_models(tmp_path / "mixed")
    for name in ("config.json", "model.safetensors"):
        (mixed / "identity" / name).write_bytes((folder / "identity" / name).read_bytes())
    with pytest.raises(ModelError, match="mobilenet-landmarks"):
        load_editor("dva", mixed, cache=tmp_path)


def test_without_a_classifier_attributes_are_refused(tmp_path: Path) -> None:
    import shutil

    root = save_tiny_models(tmp_path / "models")
    shutil.rmtree(root / "dva" / "classifier")
    editor = load_editor("dva", root, cache=tmp_path / "cache", steps=3)
    prepared = editor.look(Clip.from_frames(astronaut_frames(2), 25))
    assert editor.read(prepared) == {}
    old = Target(factual=FACTUAL, do={"age": "old"}, counterfactual={**FACTUAL, "age": "old"})
    with pytest.raises(InterventionError, match="came without a classifier"):
        editor.moved(prepared, old)
