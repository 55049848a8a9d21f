"""Language models of this machine: real classes of `transformers` with random weights, at a toy size."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import countervid.chat.transformers as module
from countervid.chat.base import BudgetError, ChatConfig, Message, load_chat
from countervid.errors import CallError, ConfigError, MissingExtraError, ModelError

SENTENCES = ["USER: what is the hair colour? ASSISTANT: brown, no beard.", "An old man smiles. Is she young? yes no"]
SIZE = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
STOPS = [1, *range(3, 40)]  # the Llama's: many, so that some answers end
ENDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
SEEING = (
    "{% for m in messages %}{{ m['role'].upper() }}: {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}PICTURE{% else %}{{ c['text'] }}{% endif %}{% endfor %} {% endfor %}ASSISTANT:"
)
READING = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system here') }}"
    "{% endif %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}[assistant] "
)


def tokenizer(*special: str, template: str | None = None):
    """One that knows every byte, the commonest pairs of the sentences, and begins each text with <s>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    names = ["<s>", "</s>", "<pad>", *special]
    made.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(vocab_size=300, special_tokens=names, initial_alphabet=letters, show_progress=False),
    )
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=list(special), chat_template=template,
    )  # fmt: skip


def save_llava(folder: Path) -> Path:
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessorPil,
        LlavaNextProcessor,
    )

    words = tokenizer("<image>")
    grid = [[32, 64], [64, 32], [64, 64]]
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=grid
    )
    LlavaNextProcessor(
        images, words, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=SEEING.replace("PICTURE", "<image>"),
    ).save_pretrained(folder)  # fmt: skip
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**SIZE, image_size=32, patch_size=8, projection_dim=16),
        text_config=LlamaConfig(**SIZE, **ENDS, vocab_size=len(words), max_position_embeddings=512),
        image_token_id=words.convert_tokens_to_ids("<image>"), image_grid_pinpoints=grid,
    )  # fmt: skip
    return save(LlavaNextForConditionalGeneration, config, folder)


def save_qwen(folder: Path) -> Path:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessorPil

    kinds = ("vision_start", "vision_end", "image_pad", "video_pad")
    template = SEEING.replace("PICTURE", "<|vision_start|><|image_pad|><|vision_end|>")
    words = tokenizer(*(f"<|{kind}|>" for kind in kinds), template=template)
    words.save_pretrained(folder)
    Qwen2VLImageProcessorPil(patch_size=4, size={"shortest_edge": 256, "longest_edge": 1024}).save_pretrained(folder)
    start, end, image, video = (words.convert_tokens_to_ids(f"<|{kind}|>") for kind in kinds)
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
    heads = {"num_key_value_heads": 2, "max_position_embeddings": 512, "rope_parameters": rope}
    config = Qwen2VLConfig(
        text_config={**SIZE, **ENDS, **heads, "vocab_size": len(words)},
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "mlp_ratio": 2},
        image_token_id=image, video_token_id=video, vision_start_token_id=start, vision_end_token_id=end,
    )  # fmt: skip
    return save(Qwen2VLForConditionalGeneration, config, folder)


def save_llama(folder: Path) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer(template=READING)
    words.save_pretrained(folder)
    config = LlamaConfig(**SIZE, **ENDS, vocab_size=len(words), max_position_embeddings=128)
    return save(LlamaForCausalLM, config, folder)


def save(kind, config, folder: Path) -> Path:
    """Weights large enough that words and pictures matter to the answer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(config)
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape)
    if folder.name == "llama":
        model.generation_config.eos_token_id = STOPS
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("chat")
    return {
        "llava": save_llava(root / "llava"), "qwen": save_qwen(root / "qwen"), "llama": save_llama(root / "llama"),
    }  # fmt: skip


def chat(folder: Path, **settings):
    return load_chat(f"transformers:{folder}", ChatConfig(**{"max_tokens": 12, "device": "cpu", **settings}))


def picture(seed: int, height: int = 64, width: int = 64) -> Tensor:
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


CONVERSATIONS = [
    [Message("user", "Is she young?", [picture(0)])],
    [Message("system", "Say yes or no."), Message("user", "brown hair?", [picture(1, 40, 64), picture(2, 64, 30)])],
    [Message("user", "What is the colour of a beard that nobody sees?")],
    [Message("user", "Old?", [picture(3)]), Message("assistant", "no"), Message("user", "And she?")],
    [Message("user", "yes")],
]


@pytest.mark.parametrize("kind", ["llava", "qwen"])
def test_a_batch_answers_as_each_alone(folders, kind, monkeypatch):
    monkeypatch.setattr(module, "_BATCH", 2)  # so that five conversations are several batches of both kinds
    asked = chat(folders[kind])
    assert asked.sees
    alone = [asked.complete(turns) for turns in CONVERSATIONS]
    together = asked.complete_many(CONVERSATIONS)
    assert [(r.text, r.tokens_in, r.tokens_out) for r in together] == [
        (r.text, r.tokens_in, r.tokens_out) for r in alone
    ]
    assert len({reply.text for reply in alone}) == 5  # it does tell them apart
    assert asked.account.calls == 10 and asked.account.failures == []
    assert asked.account.tokens_in == 2 * sum(reply.tokens_in for reply in alone)
    assert asked.account.tokens_out == 2 * sum(reply.tokens_out for reply in alone)
    assert asked.account.seconds == pytest.approx(sum(reply.seconds for reply in [*alone, *together]))
    assert asked.account.cost is None  # a machine of one's own has no price


@pytest.mark.parametrize("kind", ["llava", "qwen"])
def test_the_picture_reaches_the_model(folders, kind):
    asked, seen = chat(folders[kind], max_tokens=1), []
    asked.model.model.lm_head.register_forward_hook(lambda layer, given, out: seen.append(out.clone()))
    for number in (0, 0, 1):
        asked.complete([Message("user", "hair?", [picture(number)])])
    assert torch.equal(seen[0], seen[1]) and not torch.allclose(seen[0], seen[2], atol=1e-2)


def test_pictures_are_scaled_down_to_the_side_never_up(folders):
    large, small, seen = picture(0, 96, 64), picture(1, 20, 30), []
    scaled = torch.from_numpy(np.array(Image.fromarray(large.numpy()).resize((32, 48), Image.Resampling.BICUBIC)))
    for shown, side in ((large, 48), (scaled, 512), (large, 512), (small, 48), (small, 512)):
        asked = chat(folders["llava"], side=side, max_tokens=1)
        asked.model.model.lm_head.register_forward_hook(lambda layer, given, out: seen.append(out.clone()))
        asked.complete([Message("user", "hair?", [shown])])
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])
    assert torch.equal(seen[3], seen[4])
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8, got \(3, 8, 8\) torch.uint8"):
        asked.complete([Message("user", "hair?", [torch.zeros(3, 8, 8, dtype=torch.uint8)])])


def test_tokens_are_counted_as_the_model_reads_them(folders):
    asked = chat(folders["llava"])
    reply = asked.complete([Message("user", "hair?", [picture(0)])])
    # 64 x 64 px are four tiles of 4 x 4 patches, a token at the end of each of 8 lines, and the whole of 4 x 4.
    assert reply.tokens_in == len(tokenizer("<image>")("USER: <image>hair? ASSISTANT:").input_ids) - 1 + 64 + 8 + 16
    assert asked.account.to_json() | {"seconds": 0} == {
        "calls": 1, "tokens_in": reply.tokens_in, "tokens_out": reply.tokens_out, "cost_usd": None, "seconds": 0,
        "failures": [],
    }  # fmt: skip


def greedy(folder: Path, text: str, longest: int) -> list[int]:
    """The likeliest token, again and again, without cache, batch or padding."""
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder)
    ids = tokenizer()(text, add_special_tokens=False).input_ids
    found: list[int] = []
    while len(found) < longest and not set(found) & set(STOPS):
        found.append(int(model(torch.tensor([ids + found])).logits[0, -1].argmax()))
    return found


def test_a_model_without_eyes_reads_and_refuses_pictures(folders):
    asked = chat(folders["llama"], max_tokens=40)
    questions = ["yes", "Is she young?", "no", "beard", "An old man smiles", "colour"]
    replies = asked.complete_many([[Message("user", question)] for question in questions])
    assert not asked.sees and asked.name == f"transformers:{folders['llama']}"
    for question, reply in zip(questions, replies, strict=True):
        text = f"<s>[user] {question}\n[assistant] "  # the template's <s> is the only one
        expected = greedy(folders["llama"], text, 40)
        assert reply.tokens_in == len(tokenizer()(text, add_special_tokens=False).input_ids)
        assert reply.tokens_out == len(expected)
        assert reply.text == tokenizer().decode(expected, skip_special_tokens=True).strip()
    assert len({reply.tokens_out for reply in replies}) > 2 and max(reply.tokens_out for reply in replies) > 1
    with pytest.raises(CallError, match="takes no pictures"):
        asked.complete([Message("user", "hair?", [picture(0)])])
    assert asked.account.calls == len(questions)


def test_sampling_is_repeatable_and_leaves_the_global_seed_alone(folders):
    plain, asked = chat(folders["llava"]), chat(folders["llava"], temperature=1.5, top_p=0.95)
    before = torch.get_rng_state()
    together = [reply.text for reply in asked.complete_many(CONVERSATIONS)]
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(1)
    assert together == [asked.complete(turns).text for turns in CONVERSATIONS]
    assert together != [reply.text for reply in plain.complete_many(CONVERSATIONS)]


def test_a_budget_admits_all_of_a_batch_or_none(folders):
    asked = chat(folders["llava"], max_calls=3)
    with pytest.raises(BudgetError, match="budget of 3 calls"):
        asked.complete_many(CONVERSATIONS)
    assert asked.account.calls == 0
    asked.complete_many(CONVERSATIONS[:3])
    with pytest.raises(BudgetError):
        asked.complete(CONVERSATIONS[4])
    assert asked.account.calls == 3


def test_without_a_template_the_words_are_plain(folders, tmp_path):
    shutil.copytree(folders["llava"], tmp_path / "plain")
    (tmp_path / "plain" / "chat_template.jinja").unlink()
    asked = chat(tmp_path / "plain")
    assert asked.model.prompt(CONVERSATIONS[1]) == (
        "SYSTEM: Say yes or no. USER: <image>\n<image>\nbrown hair? ASSISTANT:"
    )
    assert asked.complete(CONVERSATIONS[1]).tokens_out > 0


def test_a_call_that_fails_says_why_in_one_line(folders):
    asked = chat(folders["llama"], max_tokens=100)
    with pytest.raises(CallError, match="refuses this .no system here") as system:
        asked.complete([Message("system", "Be kind."), Message("user", "yes")])
    with pytest.raises(CallError, match="tokens and an answer of 100 are more than the 128") as long:
        asked.complete([Message("user", "yes " * 40)])
    assert asked.account.failures == [str(system.value), str(long.value)]
    assert all("\n" not in text for text in asked.account.failures)
    assert asked.complete([Message("user", "yes")]).tokens_out > 0  # one failed call is not the end
    seeing = chat(folders["llava"])
    with pytest.raises(CallError, match="cannot answer"):
        seeing.complete([Message("user", "an <image> too many", [picture(0)])])


def spoil(folder: Path, how: str) -> None:
    """Do to a model's folder what happens to folders."""
    from safetensors.torch import load_file, save_file

    config = json.loads((folder / "config.json").read_text())
    if how == "no weights":
        (folder / "model.safetensors").unlink()
    elif how == "cut weights":
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    elif how == "a weight less":
        weights = load_file(folder / "model.safetensors")
        del weights[next(name for name in weights if name.endswith("lm_head.weight"))]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    elif how == "no tokenizer":
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
    elif how == "unknown kind":
        (folder / "config.json").write_text(json.dumps(config | {"model_type": "oracle"}))
    elif how == "other kind":
        (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
    elif how == "no config":
        (folder / "config.json").unlink()
    elif how == "gone":
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    "how, says",
    [
        ("no weights", "no file named model.safetensors"),
        ("cut weights", "is no language model that can be had here"),
        ("a weight less", "lacks 1 of its weights, such as lm_head.weight"),
        ("no tokenizer", "it has no tokenizer"),
        ("unknown kind", "oracle"),
        ("other kind", "is no language model that can be had here"),
        ("no config", "is no language model that can be had here"),
        ("gone", "There is no folder"),
    ],
)
@pytest.mark.parametrize("kind", ["llava", "llama"])
def test_a_broken_folder_says_so_in_one_line(folders, tmp_path, kind, how, says):
    shutil.copytree(folders[kind], tmp_path / "model")
    spoil(tmp_path / "model", how)
    with pytest.raises(ModelError, match=says) as caught:
        chat(tmp_path / "model")
    assert "\n" not in str(caught.value) and str(tmp_path / "model") in str(caught.value)


def test_a_hubs_name_without_a_network_says_so(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="countervid/none` is no folder here.*is there a network") as caught:
        load_chat("transformers:countervid/none")
    assert "\n" not in str(caught.value)


def test_pictures_that_only_torchvision_prepares_name_it(folders, tmp_path):
    shutil.copytree(folders["llava"], tmp_path / "model")
    path = tmp_path / "model" / "processor_config.json"
    values = json.loads(path.read_text())
    values["image_processor"]["image_processor_type"] = "Sam2ImageProcessor"  # `transformers` has no other
    path.write_text(json.dumps(values))
    with pytest.raises(MissingExtraError, match="torchvision, which is not here") as caught:
        chat(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_an_unknown_device_is_named(folders):
    with pytest.raises(ConfigError, match="abacus"):
        chat(folders["llama"], device="abacus")
