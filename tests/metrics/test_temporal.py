"""Consistency over time against recorded answers, the models' own processors, and cases made by hand."""

import doctest
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from countervid.embeddings.contrastive import CLIP_MEAN, CLIP_STD, Contrastive
from countervid.errors import ModelError
from countervid.metrics import published, temporal, vision
from countervid.metrics.base import Eyes, catalogue, measured
from countervid.metrics.published import PUBLISHED
from countervid.metrics.temporal import Consistency, consistency
from looking_windows import aged, looked, tiny_dino

GOLDEN = Path(__file__).parent / "goldens" / "embeddings.safetensors"
WHOLE, FIRST_THREE = 0.5598617672920227, 0.9285019040107727  # recorded with the file, tolerance 1e-5


@pytest.mark.parametrize("module", [temporal, vision, published], ids=lambda module: module.__name__)
def test_examples_in_docstrings_hold(module):
    assert doctest.testmod(module, extraglobs={"torch": torch}).failed == 0


def test_agrees_with_the_golden():
    frames = load_file(GOLDEN)["frames"]
    assert consistency(frames) == pytest.approx(WHOLE, abs=1e-5)
    assert consistency(frames[:3]) == pytest.approx(FIRST_THREE, abs=1e-5)
    rows = torch.nn.functional.normalize(frames, dim=1)
    cosines = (rows[:-1] * rows[1:]).sum(1)
    assert float(cosines.min()) < 0 and float(cosines.mean()) < WHOLE - 0.01  # the golden has a cut: the clamp shows


@given(st.integers(1, 9), st.lists(st.integers(0, 8), max_size=3))
def test_windows_of_any_size_give_what_the_whole_gives(size, missing):
    frames = torch.randn(9, 5, generator=torch.Generator().manual_seed(1))
    frames[missing] = torch.nan
    meter = Consistency()
    for start in range(0, 9, size):
        meter.update(frames[start : start + size])
    rows = (frames / frames.norm(dim=1, keepdim=True)).double().numpy()
    pairs = [max(0.0, float(a @ b)) for a, b in zip(rows, rows[1:], strict=False) if np.isfinite(a @ b)]
    assert meter.mean == pytest.approx(np.mean(pairs) if pairs else math.nan, abs=1e-6, nan_ok=True)
    assert meter.lowest == pytest.approx(min(pairs, default=math.nan), abs=1e-6, nan_ok=True)


def test_one_frame_has_no_consistency():
    assert math.isnan(consistency(torch.ones(1, 3)))
    with pytest.raises(ValueError, match="one row a frame"):
        consistency(torch.ones(3))


@pytest.mark.parametrize(("height", "width"), [(300, 400), (400, 300), (97, 61), (224, 224)])
def test_pictures_are_prepared_as_the_processor_does(height, width):
    from PIL import Image
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    generator = torch.Generator().manual_seed(2)
    blocks = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 12, generator=generator), size=(height, width))
    bytes_ = (blocks * 255).round()
    image = Image.fromarray(bytes_[0].permute(1, 2, 0).to(torch.uint8).numpy())
    wanted = CLIPImageProcessorPil(image_mean=CLIP_MEAN, image_std=CLIP_STD)(image, return_tensors="pt").pixel_values
    found = vision.own_input(bytes_ / 255, 224, 224, CLIP_MEAN, CLIP_STD)
    assert found.shape == wanted.shape == (1, 3, 224, 224)
    spread = torch.tensor(CLIP_STD)[:, None, None]
    apart = ((found - wanted).abs() * spread * 255).round()
    assert float(apart.max()) <= 1 and float(apart.mean()) < 0.01  # Pillow's weights have 22 bits


def test_clip_consistency_is_of_the_pooled_output_before_the_projection():
    clip = Contrastive.from_pretrained(Eyes().get("clip", str))
    window = looked("truth")[0]
    crops = window.faces["counterfactual"]
    with torch.inference_mode():
        rows = clip.model.vision_model(pixel_values=(crops - 0.5) / 0.5).pooler_output  # 128 px: nothing to resize
        squeezed = clip.model.vision_model(pixel_values=crops).pooler_output
    found = measured(["clip.consistency", "clip.consistency_csvc"], [window])
    assert found["clip.consistency"] == pytest.approx(consistency(rows), abs=1e-6)
    assert found["clip.consistency_csvc"] == pytest.approx(consistency(squeezed), abs=1e-6)
    assert found["clip.consistency"] != found["clip.consistency_csvc"]


@pytest.mark.parametrize("names", [["clip.consistency", "clip.consistency_csvc"]])
def test_windows_agree_with_the_whole(names):
    whole = measured(names, looked("truth"))
    parts = measured(names, looked("truth", size=2))
    assert parts == pytest.approx(whole, abs=1e-5)


def test_a_cut_is_seen_and_a_still_is_perfect():
    clips, _ = aged()
    names = ["clip.consistency"]
    still = measured(names, looked(clips["factual"][:1].repeat(6, 1, 1, 1), tracked=False))
    cut = measured(names, looked(torch.cat([clips["factual"][:3], clips["truth"][3:].flip(1, 3)]), tracked=False))
    usual = measured(names, looked("factual", tracked=False))
    assert still["clip.consistency"] == pytest.approx(1, abs=1e-6)
    assert cut["clip.consistency"] < usual["clip.consistency"]


def test_a_frame_without_a_face_is_left_out():
    found = measured(["clip.consistency"], looked("truth", size=3, faceless=(3, 4, 5)))
    alone = measured(["clip.consistency"], looked("truth", size=3)[:1])
    assert found["clip.consistency"] == pytest.approx(alone["clip.consistency"], abs=1e-6)


def test_weights_that_the_user_names_see_whole_frames(tmp_path):
    folder = str(Eyes().get("clip", str))
    named = measured(["clip.consistency"], looked("truth", eyes=Eyes(folders={"clip": folder})))
    frames = measured(["clip.consistency"], looked("truth", tracked=False))
    crops = measured(["clip.consistency"], looked("truth"))
    assert named == frames and named != crops


def test_dino_needs_weights_and_says_which():
    with pytest.raises(ModelError, match=r"`dino.consistency` needs weights .* facebook/dinov2-base \(Apache-2.0\)"):
        measured(["dino.consistency"], looked("truth"))


def test_dino_reads_a_folder(tmp_path):
    from transformers import Dinov2Model
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    folder = tiny_dino(tmp_path / "dino")
    window = looked("truth", eyes=Eyes(folders={"dino": str(folder)}))[0]
    processor = BitImageProcessorPil(
        size={"shortest_edge": 256}, crop_size=224, image_mean=vision.IMAGENET_MEAN, image_std=vision.IMAGENET_STD
    )
    images = list((window.frames["counterfactual"] * 255).round().to(torch.uint8))
    with torch.inference_mode():
        pixels = processor(images, return_tensors="pt").pixel_values
        rows = Dinov2Model.from_pretrained(folder).eval()(pixel_values=pixels).pooler_output
    assert measured(["dino.consistency"], [window])["dino.consistency"] == pytest.approx(consistency(rows), abs=1e-3)


def test_a_folder_of_something_else_is_said(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    eyes = Eyes(folders={"dino": str(tmp_path)})
    with pytest.raises(ModelError, match="is no DINOv2 that can be had here"):
        measured(["dino.consistency"], looked("truth", eyes=eyes))


def test_every_number_says_what_it_is_and_needs():
    known = catalogue()
    for name in ("clip.consistency", "clip.text", "dino.consistency", "aesthetic", "pickscore", "dino.image_alignment"):
        about = known[name]
        assert about.formula and about.source and about.better == "higher"
    assert all(entry.licence and entry.hub and entry.holds for entry in PUBLISHED.values())
    assert PUBLISHED["dino"].terms("dino") in known["dino.consistency"].weights
