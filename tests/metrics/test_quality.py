"""Picture quality against recorded numbers of two reference implementations and against scikit-image."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from skimage.metrics import structural_similarity

from countervid.metrics.quality import l1, psnr, ssim

GOLDENS = Path(__file__).parent / "goldens"
# DVA's own ssim.py, mse and psnr on three pictures of reconstruction.safetensors
REFERENCE_SSIM = [0.8074030876159668, 0.8124377727508545, 0.8181393146514893]
REFERENCE_PSNR = [26.918689727783203, 26.947528839111328, 26.870576858520508]


def test_zero_border_agrees_with_the_golden():
    pair = load_file(GOLDENS / "reconstruction.safetensors")
    one, two = (pair["x"] + 1) / 2, (pair["y"] + 1) / 2
    torch.testing.assert_close(
        ssim(one, two, border="zero"), torch.tensor(REFERENCE_SSIM, dtype=torch.float32), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(psnr(one, two), torch.tensor(REFERENCE_PSNR, dtype=torch.float32), atol=1e-4, rtol=0)


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
