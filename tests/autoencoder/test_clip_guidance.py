import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from countervid.autoencoder.clip_guidance import (
    TEMPLATES,
    TextGuidance,
    directional_loss,
    optimise,
    text_direction,
)
from countervid.autoencoder.codec import PixelCodec
from countervid.autoencoder.config import AutoencoderConfig
from countervid.autoencoder.directions import published_edit
from countervid.autoencoder.encoders import FaceEncoders
from countervid.autoencoder.model import DiffusionAutoencoder
from countervid.embeddings.contrastive import clip_input
from countervid.errors import ConfigError
from countervid.face import align, reference
from goldens_rule import fill, gauss, golden, published, uni


class StandInCLIP:
    """The fixture's: fixed random projections of a 7 x 7 picture, and numbers drawn from the sentence."""

    def __init__(self) -> None:
        projection = uni("A.clip.proj", 512 * 147, 1).reshape(512, 147) / 7
        self.projection = torch.from_numpy(projection.astype(np.float32))

    def images(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(clip_input(x), 7).flatten(1) @ self.projection.T

    def texts(self, sentences: list[str]) -> Tensor:
        return torch.stack([gauss(f"A.text:{sentence}", (512,), 1) for sentence in sentences])


def test_the_losses_are_the_published_ones() -> None:
    tensors, _ = golden("clip_loss")
    assert len(TEMPLATES) == int(tensors["n_templates"]) == len(set(TEMPLATES))
    direction = text_direction(tensors["text_src"], tensors["text_trg"])
    torch.testing.assert_close(direction[None], tensors["text_direction"], atol=1e-5, rtol=0)
    source, edited = tensors["image_src"], tensors["image_trg"]
    loss = directional_loss(source, edited, direction)
    torch.testing.assert_close(loss[None], tensors["loss_directional"], atol=1e-5, rtol=0)
    torch.testing.assert_close(-torch.log((2 - loss[None]) / 2), tensors["loss_clip_term"], atol=1e-5, rtol=0)
    same = directional_loss(source, source, direction)
    torch.testing.assert_close(same[None], tensors["loss_directional_same"], atol=1e-5, rtol=0)
    one = edited.clone()
    one[2] = source[2]
    torch.testing.assert_close(
        directional_loss(source, one, direction)[None], tensors["loss_directional_one_equal"], atol=1e-5, rtol=0
    )
    pictures = tensors["preprocess_in_u8"].permute(0, 3, 1, 2).float() / 127.5 - 1
    torch.testing.assert_close(
        clip_input(pictures)[:, :, ::8, ::8], tensors["preprocess_out_stride8"], atol=1e-4, rtol=0
    )


def test_a_way_too_short_to_have_a_direction_is_not_normalised() -> None:
    source = F.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    direction = F.normalize(torch.ones(8), dim=0)
    rounding = source + 1e-7
    assert directional_loss(source, rounding, direction, least=1e-3) == pytest.approx(
        float((1 - source @ direction).mean()), abs=1e-5
    )
    assert directional_loss(source, rounding, direction) != pytest.approx(
        float((1 - source @ direction).mean()), abs=0.1
    )


def model_of(name: str) -> tuple[DiffusionAutoencoder, FaceEncoders, dict[str, Tensor], dict]:
    """The fixture's autoencoder and encoders with its tensors and settings."""
    tensors, metadata = golden(name)
    model = DiffusionAutoencoder(AutoencoderConfig(unet=published(metadata["config"]))).eval()
    fill(model.unet, metadata["weight_seed"], tensors)
    fill(model.encoder, metadata["weight_seed"], tensors, rename="encoder.")
    encoders = FaceEncoders()
    fill(encoders, metadata["weight_seed"], tensors, rename="encoder.")
    return model.requires_grad_(False), encoders, tensors, metadata


@pytest.mark.slow  # 60 M weights are made by rule, and a network of 256 px runs there and back
@pytest.mark.timeout(600)
def test_the_whole_classifier_edit_is_the_published_one() -> None:
    model, encoders, tensors, metadata = model_of("e2e_classifier")
    steps = metadata["T"]
    x = tensors["imgs_u8"].float() / 127.5 - 1
    with torch.no_grad():
        mean = encoders.idnet(x).mean(0)
        torch.testing.assert_close(mean[None], tensors["z_id_avg"], atol=1e-4, rtol=0)
        pose = encoders.lndnet(x)
        torch.testing.assert_close(model.face(mean, pose), tensors["z_face"], atol=1e-3, rtol=0)
        noise = model.encode(x, mean, pose, steps=steps)
        torch.testing.assert_close(noise[:, :, ::4, ::4], tensors["xT_stride4"], atol=1e-3, rtol=0)
        again = (model.decode(noise, mean, pose, steps=steps) + 1) / 2
        torch.testing.assert_close(again[:, :, ::4, ::4], tensors["recon_stride4"], atol=1e-3, rtol=0)
        row = tensors["W"][22]
        moved = published_edit(mean, row, metadata["scale"], mean=tensors["conds_mean"], std=tensors["conds_std"])
        torch.testing.assert_close(moved[None], tensors["z_id_edited"], atol=1e-4, rtol=0)
        edited = model.decode(noise, moved, pose, steps=steps)
        torch.testing.assert_close((edited[:, :, ::4, ::4] + 1) / 2, tensors["edited_stride4"], atol=1e-3, rtol=0)
        mask = encoders.bgnet.mask(x, compositing=True)
    assert (mask != tensors["mask_video"]).float().mean() <= 0.002
    composite = edited * mask + x * (1 - mask)
    quads = align.quads(tensors["landmarks"].numpy(), smooth=True)
    np.testing.assert_allclose(quads, tensors["quads"].numpy(), atol=1e-9)
    for frame, crop, quad, expected in zip(tensors["frames_u8"], composite, quads, tensors["final_u8"], strict=True):
        coefficients = reference.inverse_coefficients(quad)
        pasted = reference.paste(frame.numpy(), reference.to_bytes(crop.numpy()), coefficients)
        apart = np.abs(pasted.astype(int) - expected.numpy().astype(int))
        assert (apart > 1).mean() <= 0.001 and apart.max() <= 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_text_edit_is_the_published_one() -> None:
    model, encoders, tensors, metadata = model_of("e2e_clip")
    x = tensors["start_img_u8"][None].float() / 127.5 - 1
    pose = encoders.lndnet(x)
    z_id = tensors["start_cond"][0]
    torch.testing.assert_close(encoders.idnet(x)[0], z_id, atol=1e-4, rtol=0)
    guidance = TextGuidance(
        source_text=metadata["src"], target_text=metadata["trg"], learning_rate=metadata["lr"],
        iterations=metadata["iterations"], clip_weight=metadata["cw"], identity_weight=metadata["iw"],
        l1_weight=metadata["lw"], view="noisy", patience=0,
    )  # fmt: skip
    start = z_id + tensors["init_perturbation"][0]
    iterations = list(
        optimise(
            model, StandInCLIP(), PixelCodec(), x, z_id, pose, tensors["start_mask"].float(), guidance, start=start,
            least=0.0,
        )
    )  # fmt: skip
    assert len(iterations) == guidance.iterations
    for found, losses, gradient, after in zip(
        iterations, tensors["losses"], tensors["grad_edit_cond"], tensors["edit_cond"][1:], strict=True
    ):
        got = torch.tensor([found.total, found.clip, found.identity, found.l1])
        torch.testing.assert_close(got, losses, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(found.gradient, gradient, atol=0.01 * float(gradient.abs().max()), rtol=0.01)
        torch.testing.assert_close(found.vector, after, atol=1e-3, rtol=0)
    pictures = iterations[0].pictures[:, :, ::4, ::4]
    torch.testing.assert_close(pictures, tensors["backward_imgs_iter0_stride4"], atol=2e-3, rtol=0)
    moved = F.normalize(tensors["z_id_avg"][0] + metadata["scale"] * (iterations[-1].vector - z_id), dim=0)
    torch.testing.assert_close(moved[None], tensors["z_id_edited"], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"target_text": " "}, "two texts"),
        ({"target_text": "face"}, "nowhere to go"),
        ({"target_text": "old face", "iterations": 0}, "at least 1 iteration"),
        ({"target_text": "old face", "clip_weight": 0.0}, "CLIP is above 0"),
        ({"target_text": "old face", "view": "both"}, '"noisy" or "clean"'),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TextGuidance(**settings)
