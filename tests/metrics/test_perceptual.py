"""LPIPS against the answers recorded from given layers, its network against plain calls, and the stand-in."""

import doctest
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from countervid.errors import ModelError
from countervid.metrics import perceptual
from countervid.metrics.base import Eyes, Window, measured
from countervid.metrics.perceptual import LPIPS, layer_distance, lpips_input
from countervid.models.download import RELEASES
from countervid.phantom.world import render_clip, sample_person
from rendered_windows import EYES, pictures

GOLDEN = Path(__file__).parent / "goldens" / "lpips_head.safetensors"
SHAPES = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}  # of torchvision


def test_examples():
    assert doctest.testmod(perceptual).failed == 0


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


def layers(golden, picture):
    return [golden[f"feat{picture}_{stage}"] for stage in range(5)]


def test_the_distance_of_given_layers_agrees_with_the_golden(golden):
    weights = [golden[f"lin_{stage}"] for stage in range(5)]
    scalar = layer_distance(layers(golden, 0), layers(golden, 1), weights)
    torch.testing.assert_close(scalar, torch.tensor([1.6496704816818237, 1.6468151807785034]), atol=1e-5, rtol=0)
    maps = layer_distance(layers(golden, 0), layers(golden, 1), weights, size=(31, 31))
    assert maps.shape == (2, 31, 31)
    expected = torch.tensor([1.6497082710266113, 1.6466410160064697])
    torch.testing.assert_close(maps.mean(dim=(1, 2)), expected, atol=1e-5, rtol=0)


def test_the_input_is_scaled_as_in_the_golden(golden):
    means = lpips_input(golden["picture"]).mean(dim=(0, 2, 3))
    expected = torch.tensor([0.10925889760255814, 0.20743365095687866, 0.4283701777458191])
    torch.testing.assert_close(means, expected, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def states():
    """Files' contents by the published names, with weights of our own."""
    generator = torch.Generator().manual_seed(0)
    alexnet = {"classifier.1.bias": torch.zeros(3)}
    for number, (outputs, inputs, side) in SHAPES.items():
        spread = (2 / (inputs * side * side)) ** 0.5
        alexnet[f"features.{number}.weight"] = spread * torch.randn(outputs, inputs, side, side, generator=generator)
        alexnet[f"features.{number}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
    channels = [shape[0] for shape in SHAPES.values()]
    linear = {
        f"lin{stage}.model.1.weight": torch.rand(1, count, 1, 1, generator=generator)
        for stage, count in enumerate(channels)
    }
    return alexnet, linear


def test_the_network_is_alexnet_and_its_distance_lpips(states):
    alexnet, linear = states
    one, two = torch.rand(2, 2, 3, 64, 80, generator=torch.Generator().manual_seed(1))

    def stages(x):
        def convolved(x, number, **how):
            return functional.conv2d(x, alexnet[f"features.{number}.weight"], alexnet[f"features.{number}.bias"], **how)

        x = lpips_input(2 * x - 1)
        first = convolved(x, 0, stride=4, padding=2).relu()
        second = convolved(functional.max_pool2d(first, 3, 2), 3, padding=2).relu()
        third = convolved(functional.max_pool2d(second, 3, 2), 6, padding=1).relu()
        fourth = convolved(third, 8, padding=1).relu()
        return first, second, third, fourth, convolved(fourth, 10, padding=1).relu()

    expected = torch.zeros(2)
    for stage, (a, b) in enumerate(zip(stages(one), stages(two), strict=True)):
        apart = (functional.normalize(a, dim=1) - functional.normalize(b, dim=1)) ** 2
        expected += torch.einsum("nchw,c->n", apart, linear[f"lin{stage}.model.1.weight"].flatten()) / a[0, 0].numel()
    model = LPIPS(alexnet, linear)
    torch.testing.assert_close(model(one, two), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(model(one, two, spatial=True), expected, rtol=0.05, atol=0)  # nearly, not exactly
    assert model(one, one).abs().max() == 0


def test_other_weights_are_refused(states):
    with pytest.raises(ModelError, match="not the weights of AlexNet and of LPIPS"):
        LPIPS({}, states[1])
    with pytest.raises(ModelError, match="not the weights of AlexNet and of LPIPS"):
        LPIPS(states[0], {})


def test_files_are_the_published_ones_or_none(states, tmp_path):
    with pytest.raises(ModelError, match=r"alexnet-owt-7be5be79.pth` is missing. Get it with `countervid models pull"):
        LPIPS.from_folder(tmp_path)
    torch.save(states[0], tmp_path / "alexnet-owt-7be5be79.pth")
    with pytest.raises(ModelError, match="not the published file"):
        LPIPS.from_folder(tmp_path)


def test_the_published_checksum_begins_as_the_name_says():
    files = {file.name: file.sha256 for file in RELEASES["lpips"].files}
    assert files["alexnet-owt-7be5be79.pth"].startswith("7be5be79")
    assert all(len(pin) == 64 for pin in files.values())


def window(edited, factual, truth=None, eyes=EYES):
    clips = {"factual": factual, "counterfactual": edited} | ({} if truth is None else {"truth": truth})
    return Window(start=0, frames=clips, eyes=eyes)


def test_without_its_weights_lpips_says_what_to_get():
    still = torch.zeros(1, 3, 64, 64)
    with pytest.raises(ModelError, match="countervid models pull lpips"):
        measured(["lpips"], [window(still, still)])


def test_lpips_of_a_clip_is_the_mean_over_frames(states):
    generator = torch.Generator().manual_seed(2)
    one, two = torch.rand(2, 3, 3, 64, 64, generator=generator)
    model = LPIPS(*states)
    eyes = Eyes(folders={"lpips": "read already"})
    eyes.get("lpips", lambda _: model)
    found = measured(["lpips"], [window(one, two, eyes=eyes)])
    assert found == {"lpips": pytest.approx(model(one, two).mean().item(), rel=1e-6)}


@pytest.fixture(scope="module")
def people():
    """A person's clip, and the same take of the same person grown old."""
    person = sample_person(7)
    old = person.counterfactual({"age": "old"}).attributes
    young = person.counterfactual({"age": "young"}).attributes
    return [pictures(render_clip(person, frames=3, size=128, attributes=who)) for who in (young, old)]


def near(edited, factual, truth):
    return measured(["perceptual"], [window(edited, factual, truth)], has=["truth"])


def test_the_bundled_distance_grows_with_what_is_done_to_a_picture(people):
    young, old = people
    assert near(young, young, old)["perceptual"] == 0
    assert near(old, young, old)["perceptual.truth"] == 0
    noise = torch.randn(young.shape, generator=torch.Generator().manual_seed(0))
    noisy = [near((young + s * noise).clamp(0, 1), young, old)["perceptual"] for s in (0.02, 0.05, 0.1)]
    assert noisy == sorted(noisy) and 0 < noisy[0] and noisy[-1] < 4
    halfway = near((young + old) / 2, young, old)
    assert 0 < halfway["perceptual.truth"] < near(young, young, old)["perceptual.truth"]


def test_the_bundled_distance_forgives_a_shift_more_than_l1_does(people):
    """A shift of a pixel and a blur of the same L1: eyes mind the blur more."""
    young, old = people
    shifted = torch.cat([young[..., :1], young[..., :-1]], dim=-1)
    difference = (shifted - young).abs().mean()
    blurred = young
    while (blurred - young).abs().mean() < difference:
        blurred = functional.avg_pool2d(functional.pad(blurred, [1] * 4, mode="replicate"), 3, 1)
    assert near(shifted, young, old)["perceptual"] < near(blurred, young, old)["perceptual"]


def test_large_frames_are_seen_at_the_examiners_size(people):
    young, old = people
    large = [functional.interpolate(clip, scale_factor=2, mode="nearest") for clip in people]
    found = near(large[0], large[0], large[1])["perceptual.truth"]
    assert found == pytest.approx(near(young, young, old)["perceptual.truth"], rel=1e-4)
