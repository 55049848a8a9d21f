import re

import pytest
import torch

from countervid.autoencoder.config import AutoencoderConfig, LossConfig
from countervid.autoencoder.encoders import FaceEncoders, FaceParser
from countervid.autoencoder.model import ConditionEncoder, DiffusionAutoencoder
from goldens_rule import fill, gauss, golden, published


@pytest.fixture(scope="module")
def encoders() -> FaceEncoders:
    encoders = FaceEncoders()
    fill(encoders, 1, golden("encoder")[0], rename="encoder.")
    return encoders


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return golden("encoder")[0]["images_u8"].permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.mark.slow  # 60 M weights are made by rule
@torch.no_grad()
def test_identities_landmarks_and_face_vectors_are_the_published_ones(
    encoders: FaceEncoders, pictures: torch.Tensor
) -> None:
    tensors, _ = golden("encoder")
    z_id, z_lnd = encoders.idnet(pictures), encoders.lndnet(pictures)
    torch.testing.assert_close(z_id, tensors["id_feats"], atol=1e-4, rtol=0)
    small = torch.nn.functional.avg_pool2d(pictures, 2)
    torch.testing.assert_close(encoders.idnet(small), tensors["id_feats_from128"], atol=1e-4, rtol=0)
    torch.testing.assert_close(encoders.lndnet.raw(pictures), tensors["lnd_raw136"], atol=1e-4, rtol=0)
    torch.testing.assert_close(z_lnd, tensors["lnd_feats"], atol=1e-4, rtol=0)
    middle = pictures[:, :, 10:234, 20:244]
    torch.testing.assert_close(encoders.lndnet(middle), tensors["lnd_feats_from224"], atol=1e-4, rtol=0)

    condition = ConditionEncoder(AutoencoderConfig())
    fill(condition, 1, rename="encoder.")
    torch.testing.assert_close(condition(z_id, z_lnd), tensors["z_face"], atol=1e-4, rtol=0)
    torch.testing.assert_close(condition(z_id, z_lnd.flip(0)), tensors["z_face_swap"], atol=1e-4, rtol=0)
    mean = z_id.mean(dim=0, keepdim=True).expand(3, -1)
    torch.testing.assert_close(condition(mean, z_lnd), tensors["z_face_avg_id"], atol=1e-4, rtol=0)


@pytest.mark.slow
@torch.no_grad()
def test_masks_are_the_published_ones(encoders: FaceEncoders, pictures: torch.Tensor) -> None:
    tensors, _ = golden("encoder")
    logits = encoders.bgnet.logits(pictures)[:, :, ::16, ::16]
    torch.testing.assert_close(logits, tensors["seg_logits_stride16"], atol=1e-3, rtol=1e-4)
    for got, key in (
        (encoders.bgnet(pictures), "seg_argmax_256"),
        (encoders.bgnet.mask(pictures, compositing=False), "mask"),
        (encoders.bgnet.mask(pictures, compositing=True), "mask_video"),
    ):
        assert (got != tensors[key]).float().mean() <= 0.002  # ties between classes fall by rounding


@pytest.mark.slow
@pytest.mark.timeout(600)  # a forward and a backward pass of two pictures twice at 256 px: a minute on one core
def test_loss_of_the_whole_autoencoder_is_the_published_one(encoders: FaceEncoders, pictures: torch.Tensor) -> None:
    tensors, metadata = golden("train_256")
    model = DiffusionAutoencoder(AutoencoderConfig(unet=published(metadata["config"]))).eval()
    fill(model.unet, 1)
    fill(model.encoder, 1, rename="encoder.")
    x = pictures[:2]
    with torch.no_grad():
        z_id, z_lnd, mask = encoders.idnet(x), encoders.lndnet(x), encoders.bgnet.mask(x, compositing=False)
    noises = (gauss("A.train256.noise1", (2, 3, 256, 256), 1), gauss("A.train256.noise2", (2, 3, 256, 256), 1))
    loss = model.loss(x, z_id, z_lnd, mask=mask, t=tensors["t"], noises=noises, config=LossConfig())
    loss.total.backward()
    torch.testing.assert_close(loss.noise, tensors["mse"], atol=0, rtol=1e-3)
    torch.testing.assert_close(loss.regulariser, tensors["xT_reg"], atol=0, rtol=1e-3)
    torch.testing.assert_close(loss.total.reshape(1), tensors["total"], atol=0, rtol=1e-3)
    for name, gradient in (
        ("encoder.linear.bias", model.encoder.linear.bias.grad),
        ("encoder.linear.weight.rows0_3", model.encoder.linear.weight.grad[:4]),
        ("out.2.weight", model.unet.out[2].weight.grad),
    ):
        expected = tensors[f"grad.{name}"]
        torch.testing.assert_close(gradient, expected, atol=1e-3 * float(expected.abs().max()), rtol=0)


def test_frozen_networks_stay_frozen() -> None:
    with torch.device("meta"):
        around = torch.nn.Sequential(FaceParser()).train()
    assert not any(module.training for module in around[0].modules())
    assert not any(parameter.requires_grad for parameter in around.parameters())


def test_names_are_those_of_the_published_checkpoint() -> None:
    """A few of the 1,986 names of the released checkpoint that pin every stage down, and what is left out of them."""
    with torch.device("meta"):
        names = {name: tuple(value.shape) for name, value in FaceEncoders().state_dict().items()}
    assert names["idnet.backbone.body.3.shortcut_layer.0.weight"] == (128, 64, 1, 1)
    assert names["idnet.backbone.body.23.res_layer.5.fc2.weight"] == (512, 32, 1, 1)
    assert names["idnet.backbone.output_layer.3.weight"] == (512, 25088)
    assert names["lndnet.backbone.base_net.0.1.conv.0.0.weight"] == (32, 1, 3, 3)
    assert names["lndnet.backbone.base_net.0.17.conv.2.weight"] == (320, 960, 1, 1)
    assert names["lndnet.backbone.linear7.conv.weight"] == (1280, 1, 7, 7)
    assert names["bgnet.backbone.cp.resnet.layer2.0.downsample.0.weight"] == (128, 64, 1, 1)
    assert names["bgnet.backbone.ffm.conv2.weight"] == (256, 64, 1, 1)
    assert sum(1 for name in names if name.startswith("idnet.")) == 397
    assert not [name for name in names if re.search(r"pretrain_net|conv_out16|conv_out32", name)]
