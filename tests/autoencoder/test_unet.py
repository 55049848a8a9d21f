import pytest
import torch

from countervid.autoencoder.config import AutoencoderConfig, UNetConfig
from countervid.autoencoder.unet import UNet, timestep_embedding
from countervid.errors import ConfigError
from goldens_rule import fill, gauss, golden, ruled_unet, uni


def test_the_rule_of_the_fixtures() -> None:
    tensors, _ = golden("rule")
    assert uni("a", 8, 0).tolist() == tensors["uni.a"].tolist()
    assert uni("a", 8, 5).tolist() == tensors["uni.a.seed5"].tolist()
    assert torch.equal(gauss("g", (2, 3), 1), tensors["gauss.g"])
    unet, _ = ruled_unet("unet_small")
    for name, value in unet.state_dict().items():
        if f"w.{name}" in tensors:
            assert torch.equal(value, tensors[f"w.{name}"]), name


@torch.no_grad()
@pytest.mark.parametrize("name", ["unet_small", "unet_odd", "unet_asym"])
def test_noise_is_the_published_networks(name: str) -> None:
    unet, tensors = ruled_unet(name)
    condition = unet.condition(tensors["cond"])
    for key, expected in tensors.items():
        if key.startswith("eps.t"):
            t = torch.tensor(int(key.removeprefix("eps.t")))
            torch.testing.assert_close(unet(tensors["x"], t, condition), expected, atol=1e-4, rtol=0)
    mixed = unet(tensors["x"], tensors["t_mixed"], tensors["cond"])
    torch.testing.assert_close(mixed, tensors["eps.mixed"], atol=1e-4, rtol=0)


@torch.no_grad()
def test_activations_on_the_way_are_the_published_networks() -> None:
    unet, tensors = ruled_unet("unet_small")
    times = torch.tensor([0, 1, 37, 500, 999])
    torch.testing.assert_close(unet.time_embed(times), tensors["time_emb"], atol=1e-5, rtol=0)
    seen: dict[str, torch.Tensor] = {}
    watched = {
        "h_in0": unet.input_blocks[0][0],
        "h_in1": unet.input_blocks[1][0],
        "h_mid": unet.middle_block[2],
        "h_out0": unet.output_blocks[0][0],
    }
    for key, module in watched.items():
        module.register_forward_hook(lambda _module, _args, out, key=key: seen.update({key: out}))
    unet(tensors["x"], torch.tensor(37), tensors["cond"])
    for key in watched:
        torch.testing.assert_close(seen[key], tensors[f"{key}.t37"], atol=1e-4, rtol=0)


def test_timestep_embedding_is_the_published_one() -> None:
    tensors, _ = golden("schedule")
    for width in (32, 128):
        embedding = timestep_embedding(tensors["timestep_embedding.t"], width)
        # Angles of up to 999 in float32 are 6e-5 apart, and the last digit of exp depends on the processor.
        torch.testing.assert_close(embedding, tensors[f"timestep_embedding.{width}"], atol=6e-5, rtol=0)
    assert timestep_embedding(torch.tensor([3]), 7).shape == (1, 7)


def test_the_default_is_the_published_size() -> None:
    with torch.device("meta"):
        unet = UNet(UNetConfig())
    assert sum(parameter.numel() for parameter in unet.parameters()) == 190_576_643
    assert len(unet.state_dict()) == 758


@torch.no_grad()
def test_a_new_network_predicts_no_noise_and_a_frame_does_not_see_its_batch() -> None:
    config = UNetConfig(
        size=8,
        in_channels=4,
        model_channels=8,
        channel_multipliers=(1, 2),
        norm_groups=4,
        attention_resolutions=(4,),
        embed_channels=16,
        condition_channels=5,
        heads=2,
    )
    unet = UNet(config).eval()
    x, faces = torch.randn(6, 4, 8, 8), torch.randn(6, 5)
    assert not unet(x, torch.tensor(10), faces).any()
    fill(unet, 3)
    together = unet(x, torch.tensor(10), faces)
    for index in range(6):
        alone = unet(x[index : index + 1], torch.tensor([10]), faces[index : index + 1])
        torch.testing.assert_close(alone[0], together[index], atol=1e-5, rtol=0)  # kernels may differ by batch size


def test_settings_that_do_not_fit_are_told() -> None:
    with pytest.raises(ConfigError, match="multiple of 4"):
        UNetConfig(size=18, channel_multipliers=(1, 2, 2))
    with pytest.raises(ConfigError, match="norm groups"):
        UNetConfig(model_channels=48)
    with pytest.raises(ConfigError, match="Unknown setting sise"):
        AutoencoderConfig.from_dict({"unet": {"sise": 3}})
    config = AutoencoderConfig(unet=UNetConfig(size=16, in_channels=8, channel_multipliers=(1, 2)))
    assert AutoencoderConfig.from_dict(config.to_dict()) == config
