"""Videos as vectors: preprocessing against the references', a TorchScript network of our own, the bundled feature."""

import doctest
import math
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from countervid.errors import ModelError
from countervid.metrics import videos
from countervid.metrics.base import Eyes, Window, measured
from countervid.metrics.frechet import Moments, set_distance
from countervid.metrics.videos import ClipVector, i3d_features, i3d_input, load_i3d
from countervid.models import sha256
from countervid.phantom.world import render_clip, sample_person
from rendered_windows import EYES, pictures

GOLDEN = Path(__file__).parent / "goldens" / "fvd_preprocess.safetensors"


def test_examples():
    assert doctest.testmod(videos).failed == 0


@pytest.mark.parametrize("shape", ["wide", "tall", "square", "upscaled"])
def test_preprocessing_agrees_with_the_golden(shape):
    clips = load_file(GOLDEN)
    found = i3d_input(clips[f"in_{shape}"].float() / 255, side=16)
    torch.testing.assert_close(found, clips[f"out_{shape}"], atol=1e-5, rtol=0)


class Means(nn.Module):
    """Takes what the published network takes; gives a clip's mean colours, a hundred times and more."""

    def forward(self, video: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        if rescale or resize or not return_features:
            raise ValueError("asked otherwise than for features of prepared clips")
        return video.mean(dim=[2, 3, 4]).repeat(1, 134)[:, :400]


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("i3d") / "i3d_torchscript.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer torch would rather have another format
        torch.jit.script(Means()).save(str(path))
    return path


def test_code_of_another_file_is_not_run(script, tmp_path):
    with pytest.raises(ModelError, match="not the published I3D"):
        load_i3d(script)
    with pytest.raises(ModelError, match="countervid models pull i3d"):
        load_i3d(tmp_path)
    assert load_i3d(script.parent, pin=sha256(script)) is not None


def test_a_clip_too_short_for_the_network_is_refused(script):
    network = load_i3d(script, pin=sha256(script))
    with pytest.raises(ValueError, match="at least 10 frames, got 9"):
        i3d_features(network, torch.zeros(3, 9, 224, 224))
    assert i3d_features(network, torch.zeros(3, 10, 224, 224)).shape == (400,)


def cut(factual, edited, sizes, eyes=EYES):
    start = 0
    for size in sizes:
        part = slice(start, start + size)
        yield Window(start=start, frames={"factual": factual[part], "counterfactual": edited[part]}, eyes=eyes)
        start += size


def test_the_distance_of_a_pair_is_of_its_first_frames(script):
    network = load_i3d(script, pin=sha256(script))
    eyes = Eyes(folders={"i3d": str(script)})
    eyes.get("i3d", lambda _: network)
    black = torch.zeros(30, 3, 32, 32)
    grey = black + 0.5
    grey[24:] = 1  # after what is looked at
    found = measured(["i3d-distance"], cut(black, grey, [7, 20, 3], eyes))
    assert found == {"i3d-distance": pytest.approx(400.0)}  # -1 against 0, 400 times
    short = measured(["i3d-distance"], cut(black[:9], grey[:9], [9], eyes))
    assert math.isnan(short["i3d-distance"])


def test_without_its_weights_it_says_what_to_get():
    with pytest.raises(ModelError, match=r"code that runs as it is read.*countervid models pull i3d"):
        measured(["i3d-distance"], cut(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32), [1]))


@pytest.fixture(scope="module")
def people():
    """Clips of four people, each young and old."""
    pairs = []
    for seed in range(4):
        person = sample_person(20 + seed)
        states = [person.counterfactual({"age": age}).attributes for age in ("young", "old")]
        pairs.append([pictures(render_clip(person, frames=4, size=64, attributes=state)) for state in states])
    return pairs


def test_any_windows_give_the_distance_of_the_whole(people):
    young, old = people[0]
    whole = measured(["video-distance"], cut(young, old, [4]))["video-distance"]
    parts = measured(["video-distance"], cut(young, old, [1, 2, 1]))["video-distance"]
    assert whole > 0 and parts == pytest.approx(whole, rel=1e-4)


def test_frames_in_disorder_are_another_video(people):
    """Their mean is the same: only what is seen of change tells."""
    young, _ = people[0]
    still, flickering = young[[0, 0, 0, 2, 2, 2]], young[[0, 2, 0, 2, 0, 2]]
    assert measured(["video-distance"], cut(still, still, [6]))["video-distance"] == 0
    assert measured(["video-distance"], cut(still, flickering, [6]))["video-distance"] > 1e-3


def test_sets_of_the_same_people_are_nearer_than_of_others(people):
    def moments(clips):
        found = Moments()
        for clip in clips:
            vector = ClipVector("factual")
            for window in cut(clip, clip, [len(clip)]):
                vector.update(window)
            found.add(vector.vector[None])
        return found

    with torch.inference_mode():
        young, old = (moments([pair[state] for pair in people]) for state in (0, 1))
        darker = moments([0.3 * pair[0] for pair in people])
    assert young.mean.shape == (384,)
    assert set_distance(young, young) == pytest.approx(0, abs=1e-6)
    assert 0 < set_distance(young, old) < set_distance(young, darker)
