"""Minimality in words against the published cosines; outside the face square against cases known by construction."""

import doctest
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from chat.server import serve
from countervid.causal.graph import CausalGraph
from countervid.chat.base import ChatConfig, load_chat
from countervid.errors import ModelError
from countervid.metrics import minimality
from countervid.metrics.base import Asked, Eyes, measured
from countervid.metrics.minimality import (
    ChatDescriber,
    SentenceEncoder,
    instruction,
    may_change,
    templated,
    textual,
)
from countervid.phantom.world import render_clip, sample_person
from rendered_windows import EYES, pictures, squares, windows

PHANTOM = CausalGraph.load("phantom")
# CSVC's cosine on embeddings.safetensors, clip by clip, an intervention a column
COSINES = [
    [0.8467893600463867, 0.8679501414299011, 0.8296293616294861, 0.7974669933319092],
    [0.7914528250694275, 0.7588114738464355, 0.8786731958389282, 0.8830464482307434],
    [0.7531095743179321, 0.866141140460968, 0.7256413102149963, 0.746038019657135],
]
MINIMALITY = 0.8120625019073486


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A BERT of `transformers`' class with random weights, which spells words letter by letter."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    letters = "abcdefghijklmnopqrstuvwxyz,."
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=64,
        )  # fmt: skip
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clips():
    person = sample_person(2_000_003)
    outcome = person.counterfactual({"age": "old"})
    young, old = (
        render_clip(person, frames=5, size=128, attributes=state) for state in (person.attributes, outcome.attributes)
    )
    asked = Asked(factual=outcome.factual, do={"age": "old"}, counterfactual=outcome.attributes, graph=PHANTOM)
    return pictures(young), pictures(old), squares(young), asked


def scores(clips, edited, names, *, eyes=EYES, size=3, inside=None):
    young, _, where, asked = clips
    parts = windows({"factual": young, "counterfactual": edited}, where, size=size, asked=asked, eyes=eyes)
    if inside is not None:
        parts = (replace(one, square=inside[one.start : one.start + len(one)]) for one in parts)
    return measured(names, parts, ("face", "attributes"))


def test_doctests():
    assert doctest.testmod(minimality).failed == 0


def test_published_cosines():
    golden = load_file(Path(__file__).parent / "goldens" / "embeddings.safetensors")
    found = textual(golden["factual_descriptions"][:, None], golden["counterfactual_descriptions"])
    np.testing.assert_allclose(found.numpy(), COSINES, atol=1e-5)
    assert float(found.mean()) == pytest.approx(MINIMALITY, abs=1e-5)


def test_only_the_intervention_and_its_effects_may_change():
    assert set(may_change(["gender"], PHANTOM)) == {"gender", "beard", "bald", "moustache", "lipstick"}
    assert may_change(["hat"], PHANTOM) == ("hat",)
    assert "gender" not in may_change(["beard"], PHANTOM)  # a cause, which CSVC lets pass


def test_a_template_says_what_may_not_change():
    said = {"age": "old", "gender": "man", "beard": "yes", "bald": "no", "hat": "yes", "unheard_of": "yes"}
    text = templated(said, PHANTOM, ["age", "beard"])
    assert "hat" in text and "He" in text and "old" not in text and "beard" not in text
    neutral = templated(said, PHANTOM, minimality.PUBLISHED_EXCLUSIONS)
    assert "hat" in neutral and "He" not in neutral
    assert templated({"age": "old"}, PHANTOM, ["age"]) != ""


def test_sentences_are_the_mean_of_their_tokens(bert):
    encoder = SentenceEncoder.from_folder(bert)
    both = encoder(["a man", "an old woman with a hat, and a long beard"])
    assert both.shape == (2, 16)
    np.testing.assert_allclose(both.norm(dim=1), 1, rtol=1e-5)
    tokens = encoder.tokenizer("a man", return_tensors="pt")
    mean = encoder.model(**tokens).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(both[0], mean / mean.norm(), atol=1e-5)  # padding does not count
    long = " ".join("abcdefghijklmnopqrstuvwxyz") + " "
    np.testing.assert_allclose(encoder([long * 3]), encoder([long * 9]), atol=1e-6)  # what is too long is cut


def test_a_folder_without_an_encoder_is_one_line(tmp_path):
    with pytest.raises(ModelError, match="holds no sentence encoder") as caught:
        SentenceEncoder.from_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_textual_minimality_offline(clips, bert):
    young, old, _, _ = clips
    for eyes in (EYES, Eyes(folders={"sentences": str(bert)})):
        assert scores(clips, young, ["minimality.text"], eyes=eyes)["minimality.text"] == pytest.approx(1, abs=1e-5)
    eyes = Eyes(folders={"sentences": str(bert)})
    person = sample_person(2_000_003)
    hatted = pictures(render_clip(person, frames=5, size=128, attributes={**person.attributes, "hat": "yes"}))
    found = {name: scores(clips, edit, ["minimality"], eyes=eyes)["minimality.text"] for name, edit in
             (("old", old), ("hatted", hatted))}  # fmt: skip
    assert found["old"] > found["hatted"]  # age was asked for, the hat was not


def test_a_language_model_describes_both_clips(clips, bert):
    young, old, _, _ = clips

    def answer(messages, seen):
        return "a bright room" if seen[0].shape[0] == 512 else "a dark room with a plant"

    with serve(answer) as server:
        chat = load_chat("openai:any", ChatConfig(url=server.url))
        eyes = Eyes(folders={"sentences": str(bert), "describer": "openai:any"})
        eyes.get("describer", lambda name: ChatDescriber(chat))
        found = scores(clips, old, ["minimality.text", "minimality.text_csvc"], eyes=eyes, size=2)
        assert found["minimality.text"] == pytest.approx(1, abs=1e-5)
        bodies = [json.dumps(request.body) for request in server.requests]
        shown = [request.pictures[0] for request in server.requests]
    assert len(bodies) == 4
    assert all("beard" in body and "baldness" in body for body in bodies)
    assert "gender" not in bodies[0] and "gender" in bodies[2]  # gender may not change with age
    np.testing.assert_array_equal(shown[0], (young[4].permute(1, 2, 0) * 255).round().numpy())  # the fifth frame, RGB
    assert shown[2].shape == (512, 512, 3)  # as published: squeezed, red and blue exchanged
    assert shown[2].mean((0, 1)).argmax() == 2 - shown[0].mean((0, 1)).argmax()


@pytest.mark.usefixtures("alone")
def test_an_instruction_names_what_is_left_out():
    text = instruction(["age", "hair_colour"])
    assert "age, hair of any kind" in text and "beard" not in text


def test_what_moves_inside_the_square_does_not_count(clips):
    young = clips[0]
    inside = torch.zeros(5, 128, 128, dtype=torch.bool)
    inside[:, 32:96, 32:96] = True
    edited = young.clone()
    edited[:, :, 40:80, 40:80] = 1 - edited[:, :, 40:80, 40:80]
    names = ["minimality.outside", "minimality.background"]
    found = scores(clips, edited, names, inside=inside)
    assert found["minimality.outside"] == 0 and found["minimality.background"] == pytest.approx(1, abs=1e-5)
    edited = young.clone()
    edited[:, :, :32] = 1 - edited[:, :, :32]
    found = scores(clips, edited, names, inside=inside)
    pixels = 128 * 128 - 64 * 64
    moved = float((edited - young).abs().mean(1).sum()) / (5 * pixels)
    assert found["minimality.outside"] == pytest.approx(moved, rel=1e-5)
    assert found["minimality.background"] < 0.999
    for size in (1, 5):
        assert scores(clips, edited, names, inside=inside, size=size) == pytest.approx(found, abs=1e-5)


def test_a_square_that_fills_the_frame_leaves_nothing_outside(clips):
    everything = torch.ones(5, 128, 128, dtype=torch.bool)
    found = scores(clips, clips[0], ["minimality.outside"], inside=everything)
    assert math.isnan(found["minimality.outside"])
