import numpy as np
import pytest
import torch

from countervid.diffusion.schedule import Schedule, valid_steps
from countervid.errors import ConfigError
from goldens_rule import golden


@pytest.mark.parametrize("steps", [5, 10, 20, 50, 100, 500, 1000])
def test_respaced_tables_are_the_published_ones(steps: int) -> None:
    tensors, _ = golden("schedule")
    schedule = Schedule.linear().respaced(steps)
    assert schedule.timesteps.tolist() == tensors[f"T{steps}.timesteps"].tolist()
    for name in ("betas", "alphas_cumprod", "alphas_cumprod_prev", "alphas_cumprod_next"):
        np.testing.assert_allclose(getattr(schedule, name), tensors[f"T{steps}.{name}"].numpy(), rtol=0, atol=1e-12)


def test_training_tables_and_valid_counts_are_the_published_ones() -> None:
    tensors, _ = golden("schedule")
    schedule = Schedule.linear()
    np.testing.assert_allclose(schedule.betas, tensors["betas"].numpy(), rtol=0, atol=1e-15)
    np.testing.assert_allclose(schedule.alphas_cumprod, tensors["alphas_cumprod"].numpy(), rtol=0, atol=1e-14)
    assert valid_steps() == tuple(tensors["valid_T"].tolist())


def test_a_count_without_a_stride_names_its_neighbours() -> None:
    with pytest.raises(ConfigError, match="Use 36 or 38 steps"):
        Schedule.linear().respaced(37)
    with pytest.raises(ConfigError, match="Use 1000 steps"):
        Schedule.linear().respaced(2000)
    with pytest.raises(ConfigError, match="at least 2"):
        Schedule.linear(train_steps=1)


def test_adding_noise_and_predicting_the_clean_picture_undo_each_other() -> None:
    schedule = Schedule.linear()
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 4, 3, 8, 8, generator=generator)
    index = torch.tensor([0, 10, 500, 900])
    clean = schedule.predict_clean(schedule.add_noise(x, noise, index), noise, index)
    torch.testing.assert_close(clean, x, atol=1e-4, rtol=0)  # float32 rounding, amplified 60 times at step 900


def test_tables_are_built_once_per_device() -> None:
    schedule = Schedule.linear().respaced(10)
    assert schedule.tables("cpu") is schedule.tables(torch.device("cpu"))
    assert schedule.tables("cpu").signal.dtype == torch.float32


def test_the_velocity_and_the_noisy_picture_imply_the_noise_and_the_clean_picture() -> None:
    schedule = Schedule.linear()
    x, noise = torch.randn(2, 6, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    index = torch.tensor([0, 1, 250, 500, 998, 999])
    noisy, velocity = schedule.add_noise(x, noise, index), schedule.velocity(x, noise, index)
    torch.testing.assert_close(schedule.noise_in(noisy, velocity, index), noise, atol=1e-6, rtol=0)
    tables = schedule.tables("cpu")
    signal, spread = (table[index].reshape(-1, 1, 1, 1) for table in (tables.signal, tables.noise))
    torch.testing.assert_close(signal * noisy - spread * velocity, x, atol=1e-6, rtol=0)
    one = schedule.noise_in(noisy[:1], velocity[:1], index[0])  # a chain stands at one index for all
    assert torch.equal(one, schedule.noise_in(noisy[:1], velocity[:1], index[:1]))
