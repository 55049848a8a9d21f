import pytest
import torch

from countervid.diffusion.ddim import ddim_step, decode, decoding_steps, encode, encoding_steps
from countervid.diffusion.schedule import Schedule
from goldens_rule import golden, ruled_unet


@torch.no_grad()
@pytest.mark.parametrize("name", ["ddim_T10", pytest.param("ddim_T20", marks=pytest.mark.slow), "ddim_T10_noclip"])
def test_chains_are_the_published_ones(name: str) -> None:
    unet, tensors = ruled_unet(name)
    metadata = golden(name)[1]
    clip = metadata["clip_denoised"]
    condition = unet.condition(tensors["cond"])
    schedule = Schedule.linear().respaced(metadata["T"])
    whole = 1e-3 if clip else 5e-3  # float32 networks differ by 1e-6 a step; chains amplify it

    steps = list(encoding_steps(lambda x, t: unet(x, t, condition), tensors["x0"], schedule, clip=clip))
    assert len(steps) == metadata["T"] - 1
    torch.testing.assert_close(steps[-1].sample, tensors["xT"], atol=whole, rtol=0)
    steps = list(decoding_steps(lambda x, t: unet(x, t, condition), tensors["xT"], schedule, clip=clip))
    torch.testing.assert_close(steps[-1].sample, tensors["recon"], atol=whole, rtol=0)
    error = (steps[-1].sample - tensors["x0"]).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(error, tensors["recon_mse"], atol=0, rtol=0.02)
    for step, clean in zip(steps, tensors["dec_pred_x0"], strict=True):
        scale = float(clean.max() - clean.min())
        torch.testing.assert_close(step.clean, clean, atol=0.01 * scale, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["ddim_T10", "ddim_T10_noclip"])
def test_single_steps_are_the_published_ones(name: str) -> None:
    unet, tensors = ruled_unet(name)
    metadata = golden(name)[1]
    schedule = Schedule.linear().respaced(metadata["T"])
    abar = schedule.alphas_cumprod
    x = tensors["x0"]
    for k, expected in enumerate(tensors["enc_sample"]):
        eps = unet(x, tensors["timesteps"][k], tensors["cond"])
        after, _ = ddim_step(x, eps, float(abar[k]), float(abar[k + 1]), clip=metadata["clip_denoised"])
        torch.testing.assert_close(after, expected, atol=1e-4, rtol=0)
        x = expected  # teacher forced: each step starts from the published chain


def test_a_model_that_knows_the_noise_is_inverted_exactly() -> None:
    schedule = Schedule.linear().respaced(20)
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 3, 2, 8, 8, generator=generator)
    abar = float(schedule.alphas_cumprod[-1])

    code = encode(lambda _x, _t: noise, x, schedule, clip=False)
    first = float(schedule.alphas_cumprod[0])  # encoding takes the clean picture to stand at the first noise level
    clean = (x - (1 - first) ** 0.5 * noise) / first**0.5
    torch.testing.assert_close(code, abar**0.5 * clean + (1 - abar) ** 0.5 * noise, atol=1e-4, rtol=0)
    back = decode(lambda _x, _t: noise, code, schedule, clip=False)
    torch.testing.assert_close(back, clean, atol=1e-4, rtol=0)  # rounding only


def test_progress_counts_every_evaluation_and_numbers_equal_tensors() -> None:
    schedule = Schedule.linear().respaced(5)
    seen: list[tuple[int, int]] = []
    x = torch.linspace(-1, 1, 8).reshape(2, 4)
    encode(lambda x, _t: 0.1 * x, x, schedule, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    seen.clear()
    decode(lambda x, _t: 0.1 * x, x, schedule, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (5, 5)
    number, _ = ddim_step(x, 0.3 * x, 0.5, 0.2, clip=True)
    tensor, _ = ddim_step(x, 0.3 * x, torch.tensor([[0.5], [0.5]]), torch.tensor([[0.2], [0.2]]), clip=True)
    torch.testing.assert_close(number, tensor, atol=1e-6, rtol=0)
