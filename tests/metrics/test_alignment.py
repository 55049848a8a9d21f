"""Alignment with sentences, pictures and taste: recorded answers, the real model by hand, and what must hold."""

import doctest
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from countervid.embeddings.contrastive import CLIP_MEAN, CLIP_STD, Contrastive
from countervid.errors import ModelError
from countervid.metrics import alignment, vision
from countervid.metrics.alignment import direction, folded, image_alignment, text_alignment, video_text_alignment
from countervid.metrics.base import Asked, Eyes, measured
from looking_windows import ASKED, aged, looked, tiny_aesthetic, tiny_dino

GOLDEN = Path(__file__).parent / "goldens" / "embeddings.safetensors"
PROMPT, TRUTH = ("prompt",), ("prompt", "truth")


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


def test_examples_in_docstrings_hold():
    assert doctest.testmod(alignment, extraglobs={"torch": torch}).failed == 0


def test_agrees_with_the_golden(golden):
    assert text_alignment(golden["frames"], golden["text"], 100.0) == pytest.approx(31.60771942138672, abs=1e-5)
    assert image_alignment(golden["frames"], golden["reference"]) == pytest.approx(0.5119153821468354, abs=1e-5)


def test_frames_without_features_are_left_out(golden):
    frames, text, reference = golden["frames"], golden["text"], golden["reference"]
    gaps = torch.cat([frames[:3], torch.full((2, frames.shape[1]), torch.nan)])
    assert text_alignment(gaps, text) == pytest.approx(text_alignment(frames[:3], text))
    assert image_alignment(gaps, reference) == pytest.approx(image_alignment(frames[:3], reference))
    assert math.isnan(text_alignment(gaps[3:], text))


def test_alignment_is_not_clamped():
    assert text_alignment(torch.tensor([[-1.0, 0.0]]), torch.tensor([1.0, 0.0])) == -100


def test_direction_ignores_what_both_clips_share():
    generator = torch.Generator().manual_seed(0)
    axis, other = torch.eye(8)[0], torch.eye(8)[1]
    before = torch.nn.functional.normalize(torch.randn(5, 8, generator=generator), dim=1)
    assert direction(before, before + 0.01 * axis, other, other + 0.01 * axis) > 0.8
    assert direction(before, before - 0.01 * axis, other, other + 0.01 * axis) < -0.8
    assert direction(before, before, other, axis) == 0


def test_layers_fold_into_one():
    generator = torch.Generator().manual_seed(0)
    sizes = [(6, 5), (4, 6), (1, 4)]
    layers = [(torch.randn(n, m, generator=generator), torch.randn(n, generator=generator)) for n, m in sizes]
    x = torch.randn(7, 5, generator=generator, dtype=torch.float64)
    wanted = x
    for weight, bias in layers:
        wanted = torch.nn.functional.linear(wanted, weight.double(), bias.double())
    weight, bias = folded(layers)
    torch.testing.assert_close(x @ weight.T + bias, wanted)


def test_a_video_is_as_near_to_a_text_as_their_angle():
    assert video_text_alignment(torch.tensor([3.0, 0.0]), torch.tensor([-1.0, 0.0])) == -1


def test_text_alignment_is_what_the_model_itself_says():
    clip = Contrastive.from_pretrained(Eyes().get("clip", str))
    window = looked("truth")[0]
    crops = window.faces["counterfactual"]
    tokens = clip.tokenizer([ASKED.prompt], return_tensors="pt")
    with torch.inference_mode():
        logits = clip.model(pixel_values=(crops - 0.5) / 0.5, **tokens).logits_per_image
        squeezed = clip.model(pixel_values=crops, **tokens).logits_per_image
    found = measured(["clip.text", "clip.text_csvc"], [window], PROMPT)
    assert found["clip.text"] == pytest.approx(float(logits.mean()), abs=1e-4)
    assert found["clip.text_csvc"] == pytest.approx(float(squeezed.mean()), abs=1e-4)


def test_the_truth_fits_the_prompt_better_than_doing_nothing():
    names = ["clip.text", "clip.direction"]
    nothing, right = (measured(names, looked(edit, size=4), PROMPT) for edit in ("factual", "truth"))
    assert right["clip.text"] > nothing["clip.text"]
    assert right["clip.direction"] > 0.3 and nothing["clip.direction"] == 0


def test_without_a_prompt_nothing_is_said_of_it():
    assert measured(["clip.text", "clip.direction"], looked("truth", asked=None)) == {}
    silent = Asked(factual={}, do={}, counterfactual={}, prompt="He is old.")
    found = measured(["clip.direction"], looked("truth", asked=silent), PROMPT)
    assert math.isnan(found["clip.direction"])


def test_a_long_prompt_is_cut_with_a_warning():
    clip = Contrastive.from_pretrained(Eyes().get("clip", str))
    long = "old man with a beard " * 40
    with pytest.warns(UserWarning, match=r"takes \d+ tokens, CLIP reads 77: the rest is left out"):
        cut = vision.sentence(clip, long)
    with pytest.warns(UserWarning):
        longer = vision.sentence(clip, long + "and a hat")
    assert torch.equal(cut, longer)
    tokens = clip.tokenizer(long, truncation=True, max_length=77, return_tensors="pt")
    assert tokens["input_ids"].shape == (1, 77)


@pytest.mark.parametrize(
    ("metric", "hub"),
    [("pickscore", "yuvalkirstain/PickScore_v1"), ("aesthetic", "shunk031/"), ("dino.image_alignment", "dinov2-base")],
)
def test_what_is_missing_is_said(metric, hub):
    with pytest.raises(ModelError, match=f"`{metric}` needs weights that do not come with countervid.*{hub}"):
        measured([metric], looked("truth"), TRUTH)


def test_pickscore_is_text_alignment_with_other_weights_on_whole_frames():
    folder = str(Eyes().get("clip", str))
    found = measured(["pickscore"], looked("truth", eyes=Eyes(folders={"pickscore": folder})), PROMPT)
    usual = measured(["clip.text"], looked("truth", tracked=False), PROMPT)
    assert found["pickscore"] == pytest.approx(usual["clip.text"], abs=1e-5)


def test_the_aesthetic_head_reads_its_layers_in_order(tmp_path):
    folder = tiny_aesthetic(tmp_path / "aesthetic")
    eyes = Eyes(folders={"aesthetic": str(folder)})
    state = load_file(folder / "model.safetensors")
    clip = Contrastive.from_pretrained(Eyes().get("clip", str), device=torch.device("cpu"))
    pixels = vision.own_input(aged()[0]["truth"], 128, 128, CLIP_MEAN, CLIP_STD)
    with torch.inference_mode():
        h = torch.nn.functional.normalize(clip.model.get_image_features(pixel_values=pixels).pooler_output, dim=1)
        for index in (0, 2, 10):
            h = torch.nn.functional.linear(h, state[f"layers.{index}.weight"], state[f"layers.{index}.bias"])
    found = measured(["aesthetic"], looked("truth", size=4, eyes=eyes))
    assert found["aesthetic"] == pytest.approx(float(h.mean()), abs=1e-4)


def test_a_head_that_is_none_is_said(tmp_path):
    eyes = Eyes(folders={"aesthetic": str(Eyes().get("clip", str))})
    with pytest.raises(ModelError, match="holds no head"):
        measured(["aesthetic"], looked("truth", eyes=eyes))
    with pytest.raises(ModelError, match=r"model.safetensors` cannot be read"):
        measured(["aesthetic"], looked("truth", eyes=Eyes(folders={"aesthetic": str(tmp_path)})))


def test_image_alignment_looks_at_the_truths_first_frame(tmp_path):
    eyes = Eyes(folders={"dino": str(tiny_dino(tmp_path / "dino"))})
    whole = looked("factual", eyes=eyes)
    with torch.inference_mode():
        rows = vision.dino(whole[0], "counterfactual", "")
        reference = vision.dino(whole[0], "truth", "")[0]
    wanted = pytest.approx(image_alignment(rows, reference), abs=1e-6)
    for size in (6, 2):
        windows = looked("factual", size=size, eyes=eyes)
        assert measured(["dino.image_alignment"], windows, ("truth",))["dino.image_alignment"] == wanted
