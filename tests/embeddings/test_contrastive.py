from pathlib import Path

import pytest
import torch

from countervid.embeddings.contrastive import CLIP_MEAN, CLIP_STD, Contrastive, clip_input
from countervid.errors import ConfigError, ModelError
from tiny_models import save_tiny_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


def test_features_are_the_models_own_whatever_else_is_in_the_batch(folder: Path) -> None:
    clip = Contrastive.from_pretrained(folder)
    sentences = ["a face", "a face with a long beard", "bald"]
    together = clip.texts(sentences)
    assert together.shape == (3, 12)
    for sentence, features in zip(sentences, together, strict=True):
        torch.testing.assert_close(clip.texts([sentence])[0], features, atol=1e-5, rtol=1e-4)
    pictures = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    own = clip.model.get_image_features(pixel_values=clip_input(pictures, 32)).pooler_output
    torch.testing.assert_close(clip.images(pictures), own)


def test_gradients_reach_the_picture_and_not_the_weights(folder: Path) -> None:
    clip = Contrastive.from_pretrained(folder)
    picture = torch.zeros(1, 3, 32, 32, requires_grad=True)
    clip.images(picture).square().sum().backward()
    assert picture.grad is not None and picture.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in clip.model.parameters())


def test_input_is_the_middle_square_normalised() -> None:
    grey = clip_input(torch.zeros(1, 3, 10, 20), 8)
    expected = (0.5 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    torch.testing.assert_close(grey, expected[None, :, None, None].expand(1, 3, 8, 8))
    halves = torch.cat([-torch.ones(1, 3, 10, 5), torch.zeros(1, 3, 10, 10), torch.ones(1, 3, 10, 5)], dim=3)
    torch.testing.assert_close(clip_input(halves, 10), expected[None, :, None, None].expand(1, 3, 10, 10))


def test_what_cannot_be_read_is_said(folder: Path, tmp_path: Path) -> None:
    clip = Contrastive.from_pretrained(folder)
    with pytest.raises(
        ConfigError, match='The text "a face with a beard that goes on .*takes .* tokens, CLIP reads 40'
    ):
        clip.texts(["a face", "a face with a beard that goes on and on and on and on and on"])
    with pytest.raises(ModelError, match="is no CLIP that can be had here"):
        Contrastive.from_pretrained(tmp_path)
