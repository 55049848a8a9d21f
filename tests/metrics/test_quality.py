"""Picture quality against recorded numbers of four reference implementations and against scikit-image."""

import doctest
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from skimage.metrics import structural_similarity

from countervid.metrics import quality, streaming
from countervid.metrics.base import Eyes, Window, measured
from countervid.metrics.quality import l1, ms_ssim, mse, psnr, ssim

GOLDENS = Path(__file__).parent / "goldens"
# DVA's own ssim.py, mse and psnr on three pictures of reconstruction.safetensors; torchmetrics on the same
REFERENCE_SSIM = [0.8074030876159668, 0.8124377727508545, 0.8181393146514893]
REFERENCE_MSE = [0.002032969845458865, 0.002019514562562108, 0.002055617282167077]
REFERENCE_PSNR = [26.918689727783203, 26.947528839111328, 26.870576858520508]
REFLECTED_SSIM = [0.7462620735168457, 0.7517063021659851, 0.7599406242370605]
# pytorch-msssim and torchmetrics on ms_a and ms_b
REFERENCE_MS_SSIM = [0.8958752686922636, 0.8811169120628115]
OTHER_MS_SSIM = [0.895901083946228, 0.8812732696533203]
# common_metrics (CSVC) on video_pairs.safetensors, a mean over clips for each frame's number
REFERENCE_RGB = {
    psnr: [24.83852319574993, 62.62874555613667, 24.9561225319639, 25.170766015678975, 24.88178166651246],
    ssim: [0.7994813050070317, 0.9129212098300268, 0.7886926073942018, 0.7978966139678274, 0.8038235855446287],
}
REFERENCE_GREY = {
    psnr: [29.613686368245816, 64.97628894818118, 30.012386573425026, 29.653999406392035, 29.09948422408076],
    ssim: [0.8554600061357998, 0.9276036311705749, 0.8084398877909367, 0.8195241862497027, 0.8829884230798866],
}


@pytest.mark.parametrize("module", [quality, streaming])
def test_examples(module):
    assert doctest.testmod(module).failed == 0


@pytest.fixture(scope="module")
def pictures():
    return load_file(GOLDENS / "reconstruction.safetensors")


def test_zero_border_agrees_with_the_golden(pictures):
    one, two = (pictures["x"] + 1) / 2, (pictures["y"] + 1) / 2
    torch.testing.assert_close(ssim(one, two, border="zero"), torch.tensor(REFERENCE_SSIM), atol=1e-6, rtol=0)
    torch.testing.assert_close(psnr(one, two), torch.tensor(REFERENCE_PSNR), atol=1e-4, rtol=0)
    torch.testing.assert_close(mse(one, two), torch.tensor(REFERENCE_MSE), atol=1e-7, rtol=0)


def test_reflected_border_agrees_with_the_golden(pictures):
    one, two = (pictures["x"].double() + 1) / 2, (pictures["y"].double() + 1) / 2
    expected = torch.tensor(REFLECTED_SSIM, dtype=torch.float64)  # recorded in single precision: the fifth digit
    torch.testing.assert_close(ssim(one, two, border="reflect"), expected, atol=5e-6, rtol=0)


def test_five_scales_agree_with_the_golden(pictures):
    one, two = pictures["ms_a"] / 255, pictures["ms_b"] / 255  # single precision, as the reference's window is
    found = ms_ssim(one, two)
    torch.testing.assert_close(found, torch.tensor(REFERENCE_MS_SSIM), atol=1e-6, rtol=0)
    # the other library reflects at borders and joins the channels: another reading, not another metric
    torch.testing.assert_close(found, torch.tensor(OTHER_MS_SSIM), atol=2e-4, rtol=0)


@pytest.mark.parametrize(("one", "two", "answers"), [("a", "b", REFERENCE_RGB), ("gray_a", "gray_b", REFERENCE_GREY)])
@pytest.mark.parametrize(("score", "tolerance"), [(psnr, 1e-5), (ssim, 1e-8)])
def test_each_frame_agrees_with_the_reference(one, two, answers, score, tolerance):
    clips = load_file(GOLDENS / "video_pairs.safetensors")
    pairs = zip(clips[one].double(), clips[two].double(), strict=True)
    found = torch.stack([score(a, b) for a, b in pairs]).mean(0)
    torch.testing.assert_close(found, torch.tensor(answers[score], dtype=torch.float64), atol=tolerance, rtol=0)


def test_valid_border_is_scikit_image():
    generator = np.random.default_rng(0)
    one = generator.random((2, 3, 24, 20))
    two = np.clip(one + generator.normal(0, 0.1, one.shape), 0, 1)
    expected = [
        structural_similarity(
            a, b, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
        )
        for a, b in zip(one, two, strict=True)
    ]
    measured = ssim(torch.from_numpy(one), torch.from_numpy(two)).numpy()
    np.testing.assert_allclose(measured, expected, atol=1e-12)


def test_black_against_white():
    black, white = torch.zeros(1, 3, 16, 16, dtype=torch.float64), torch.ones(1, 3, 16, 16, dtype=torch.float64)
    assert psnr(black, white).item() == 0.0
    assert ssim(black, white).item() == pytest.approx(9.999000099989996e-05, abs=1e-12)  # recorded
    assert l1(black, white).item() == 1.0


def test_an_equal_frame_is_capped_and_leaves_the_others_alone():
    one = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    two = one.clone()
    two[1] = (two[1] + 0.1).clamp(0, 1)
    both = psnr(one, two)
    assert both[0].item() == 100.0
    assert both[1].item() == psnr(one[1:], two[1:]).item()


def test_frames_too_small_for_the_window_are_refused():
    with pytest.raises(ValueError, match="at least 11 px"):
        ssim(torch.zeros(1, 3, 8, 30), torch.zeros(1, 3, 8, 30))


def test_frames_too_small_for_five_scales_are_refused():
    with pytest.raises(ValueError, match="at least 161 px"):
        ms_ssim(torch.zeros(1, 3, 160, 200), torch.zeros(1, 3, 160, 200))


@pytest.mark.parametrize("sides", [(161, 177), (175, 163)])
def test_five_scales_of_odd_sides_follow_equal_pictures_and_fall_with_noise(sides):
    generator = torch.Generator().manual_seed(0)
    one = torch.rand(1, 3, *sides, generator=generator)
    noise = torch.randn(1, 3, *sides, generator=generator)
    scores = [ms_ssim(one, (one + strength * noise).clamp(0, 1)).item() for strength in (0, 0.05, 0.1, 0.2)]
    assert scores[0] == pytest.approx(1, abs=1e-6) and scores == sorted(scores, reverse=True)


def windows(clips, length):
    frames = len(clips["factual"])
    eyes = Eyes()
    for start in range(0, frames, length):
        yield Window(
            start=start, frames={name: clip[start : start + length] for name, clip in clips.items()}, eyes=eyes
        )


def test_a_clip_scores_the_mean_of_its_frames_however_it_is_cut():
    generator = torch.Generator().manual_seed(0)
    clips = {name: torch.rand(5, 3, 32, 24, generator=generator) for name in ("factual", "counterfactual", "truth")}
    names = ["psnr", "ssim", "l1", "mse", "ms-ssim"]
    whole = measured(names, windows(clips, 5), has=["truth"])
    parts = measured(names, windows(clips, 2), has=["truth"])
    assert whole["psnr"] == pytest.approx(psnr(clips["counterfactual"], clips["factual"]).double().mean().item())
    assert whole["ssim.truth"] == pytest.approx(ssim(clips["counterfactual"], clips["truth"]).double().mean().item())
    for name in ("psnr", "ssim", "l1", "mse"):
        for one in (name, f"{name}.truth"):
            assert parts[one] == pytest.approx(whole[one], rel=1e-6)
    assert np.isnan(whole["ms-ssim"])  # too small for five scales: not defined, and the others do not suffer


def test_without_the_truth_nothing_is_compared_to_it():
    clips = {name: torch.rand(1, 3, 16, 16) for name in ("factual", "counterfactual")}
    assert set(measured(["mse"], windows(clips, 1))) == {"mse"}
