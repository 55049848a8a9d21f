import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from countervid.autoencoder.config import AutoencoderConfig, LossConfig, UNetConfig, miniature
from countervid.autoencoder.model import DiffusionAutoencoder, denoising_loss
from countervid.diffusion.schedule import Schedule
from countervid.errors import ConfigError, ModelError
from goldens_rule import fill, ruled_unet

TINY = AutoencoderConfig(
    unet=UNetConfig(size=8, in_channels=4, model_channels=8, channel_multipliers=(1, 2), residual_blocks=1,
                    attention_resolutions=(4,), embed_channels=16, condition_channels=12, norm_groups=4, dropout=0.0),
    identity_channels=6, landmark_channels=10, clip=False,
)  # fmt: skip


@pytest.fixture
def tiny() -> DiffusionAutoencoder:
    model = DiffusionAutoencoder(TINY)
    fill(model.unet, 1)
    fill(model.encoder, 1, rename="encoder.")
    return model.eval()


def batch(count: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 4, 8, 8, generator=generator)
    z_id = torch.nn.functional.normalize(torch.randn(count, 6, generator=generator), dim=1)
    return x, z_id, torch.rand(count, 10, generator=generator)


@pytest.mark.parametrize("distance", ["l1", "mse"])
def test_loss_and_gradients_are_the_published_ones(distance: str) -> None:
    unet, tensors = ruled_unet(f"train_small_{distance}")
    loss = denoising_loss(
        unet, Schedule.linear(), tensors["x_start"], tensors["cond"], tensors["t"],
        (tensors["noise1"], tensors["noise2"]), mask=tensors["mask"], config=LossConfig(distance=distance),
    )  # fmt: skip
    loss.total.backward()
    torch.testing.assert_close(loss.noise, tensors["mse"], atol=0, rtol=1e-4)
    torch.testing.assert_close(loss.regulariser, tensors["xT_reg"], atol=0, rtol=1e-4)
    torch.testing.assert_close(loss.total.reshape(1), tensors["total"].reshape(1), atol=0, rtol=1e-4)
    gain = Schedule.linear().tables("cpu").noise_to_signal[tensors["t"]]
    for clean, key in zip(loss.clean, ("x0_estimated", "x0_estimated2"), strict=True):
        worst = (clean * tensors["mask"] - tensors[key]).abs().flatten(1).amax(1)
        assert (worst <= 1e-4 * gain.clamp(min=1)).all()  # float32 noise of eps, amplified
    gradients = dict(unet.named_parameters())
    for key, expected in tensors.items():
        if key.startswith("grad."):
            gradient = gradients[key.removeprefix("grad.")].grad
            # The two draws' regulariser gradients cancel in the last bias: what is left of large terms is rounding.
            atol = max(1e-4 * float(expected.abs().max()), 1e-6 * float(tensors["grad_norm"]))
            torch.testing.assert_close(gradient, expected, atol=atol, rtol=0)
    norm = torch.stack([p.grad.norm() for p in unet.parameters() if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(float(tensors["grad_norm"]), rel=1e-3)


def test_one_noise_term_costs_one_evaluation_and_equals_the_first_of_two(tiny: DiffusionAutoencoder) -> None:
    x, z_id, z_lnd = batch()
    t = torch.tensor([3, 200, 600, 990])
    noises = (torch.randn(x.shape), torch.randn(x.shape))
    seen: list[int] = []
    tiny.unet.register_forward_pre_hook(lambda _module, args: seen.append(len(args[0])))
    single = LossConfig(noise_terms=1, regulariser_weight=0)
    once = tiny.loss(x, z_id, z_lnd, t=t, noises=noises, config=single)
    other = tiny.loss(x, z_id, z_lnd, t=t, noises=noises[::-1], config=single)
    both = tiny.loss(x, z_id, z_lnd, t=t, noises=noises)
    part = tiny.loss(x, z_id, z_lnd, t=t, noises=noises, config=LossConfig(noise_terms=1, regulariser_share=0.25))
    assert seen == [4, 4, 8, 5]
    torch.testing.assert_close(both.noise, once.noise + other.noise)
    torch.testing.assert_close(part.regulariser, both.regulariser[:1])
    torch.testing.assert_close(both.total, both.noise.mean() + both.regulariser.mean())
    assert once.regulariser.numel() == 0


def test_the_limited_gain_tames_the_noisiest_steps_alone(tiny: DiffusionAutoencoder) -> None:
    x, z_id, z_lnd = batch(1)
    noises = (torch.randn(x.shape), torch.randn(x.shape))
    for step, limited in ((100, False), (990, True)):
        t = torch.tensor([step])
        plain = tiny.loss(x, z_id, z_lnd, t=t, noises=noises)
        tame = tiny.loss(x, z_id, z_lnd, t=t, noises=noises, config=LossConfig(regulariser_gain=1.0))
        torch.testing.assert_close(tame.regulariser, plain.regulariser)
        assert (tame.total.item() < 0.5 * plain.total.item()) == limited


def test_a_mask_of_nothing_leaves_the_noise_terms(tiny: DiffusionAutoencoder) -> None:
    x, z_id, z_lnd = batch()
    generator = torch.Generator().manual_seed(1)
    loss = tiny.loss(x, z_id, z_lnd, mask=torch.zeros(4, 1, 8, 8), generator=generator)
    assert not loss.regulariser.any() and torch.equal(loss.total.detach(), loss.noise.mean())
    again = tiny.loss(x, z_id, z_lnd, mask=torch.zeros(4, 1, 8, 8), generator=generator.manual_seed(1))
    assert torch.equal(loss.total, again.total)  # the generator decides every draw


def test_codes_bring_the_frames_back_and_the_identity_changes_them(tiny: DiffusionAutoencoder) -> None:
    x, z_id, z_lnd = batch(2)
    with torch.no_grad():
        tiny.unet.out[2].weight.mul_(0.02)  # a random network's noise is too rough to undo
    errors = []
    for steps in (10, 50):
        code = tiny.encode(x, z_id[0], z_lnd, steps=steps)
        errors.append(float((tiny.decode(code, z_id[0], z_lnd, steps=steps) - x).abs().mean()))
    other = tiny.decode(code, z_id[1], z_lnd, steps=50)
    assert errors[1] < 0.6 * errors[0]  # plain inversion is exact to first order in the step
    assert float((other - x).abs().mean()) > 5 * errors[1]


def test_a_network_of_velocities_is_one_of_noise_in_other_words(tiny: DiffusionAutoencoder) -> None:
    x, z_id, z_lnd = batch()
    other = DiffusionAutoencoder(replace(TINY, prediction_type="v_prediction")).eval()
    other.load_state_dict(tiny.state_dict())
    t, noises = torch.tensor([3, 200, 600, 990]), (torch.randn(x.shape), torch.randn(x.shape))
    once = LossConfig(distance="mse", noise_terms=1, regulariser_weight=0)
    found = other.loss(x, z_id, z_lnd, t=t, noises=noises, config=once)
    noisy = other.schedule.add_noise(x, noises[0], t)
    eps = other.schedule.noise_in(noisy, other.unet(noisy, t, other.face(z_id, z_lnd)), t)
    # A velocity that is off by d is noise off by sqrt(abar) d.
    signal = other.schedule.tables("cpu").signal[t]
    expected = (eps - noises[0]).square().flatten(1).mean(1) / signal.square()
    torch.testing.assert_close(found.noise, expected.detach(), rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        other.unet.out[2].weight.mul_(0.02)
    code = other.encode(x, z_id, z_lnd, steps=50)
    assert float((other.decode(code, z_id, z_lnd, steps=50) - x).abs().mean()) < 0.1
    with pytest.raises(ConfigError, match="v_prediction"):
        replace(TINY, prediction_type="velocity")


def test_windows_agree_with_the_whole_and_progress_ends_at_all(tiny: DiffusionAutoencoder) -> None:
    x, z_id, z_lnd = batch(5)
    seen: list[tuple[int, int]] = []
    whole = tiny.encode(x, z_id, z_lnd, steps=5)
    parts = tiny.encode(x, z_id, z_lnd, steps=5, batch=2, progress=lambda done, total: seen.append((done, total)))
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=0)  # kernels may differ by batch size
    assert seen == [(done, 12) for done in range(1, 13)]
    assert torch.equal(whole, tiny.encode(x, z_id, z_lnd, steps=5))
    assert tiny.decode(x[:0], z_id[:0], z_lnd[:0], steps=5).shape == (0, 4, 8, 8)
    with pytest.raises(ConfigError, match="37 steps"):
        tiny.encode(x, z_id, z_lnd, steps=37)


def test_a_saved_folder_comes_back(tiny: DiffusionAutoencoder, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path)
    again = DiffusionAutoencoder.from_pretrained(tmp_path)
    assert again.config == TINY and not again.training
    for name, value in tiny.state_dict().items():
        stored = again.state_dict()[name]
        assert stored.dtype == torch.float32 and torch.equal(stored, value.half().float()), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_folder_that_is_not_one_is_told(tiny: DiffusionAutoencoder, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no config.json"):
        DiffusionAutoencoder.from_pretrained(tmp_path)
    tiny.save_pretrained(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match="damaged"):
        DiffusionAutoencoder.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(weights)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "identity_channels": 7}))
    with pytest.raises(ModelError, match=r"encoder\.linear\.weight"):
        DiffusionAutoencoder.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "kind": "vae"}))
    with pytest.raises(ModelError, match="holds vae"):
        DiffusionAutoencoder.from_pretrained(tmp_path)


def test_the_miniature_fits_its_file() -> None:
    with torch.device("meta"):
        model = DiffusionAutoencoder(miniature())
    assert 2 * sum(parameter.numel() for parameter in model.parameters()) < 11e6


def test_half_precision_is_near_and_the_chain_stays_in_single(tiny: DiffusionAutoencoder) -> None:
    x, z_id, z_lnd = batch()
    with torch.no_grad():
        tiny.unet.out[2].weight.mul_(0.02)
    code = tiny.encode(x, z_id[0], z_lnd, steps=4)
    tiny.precision = torch.bfloat16
    half = tiny.encode(x, z_id[0], z_lnd, steps=4)
    assert half.dtype == torch.float32
    assert 0 < float((half - code).abs().mean()) < 0.01 * float(code.abs().mean())
