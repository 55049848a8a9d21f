"""The published prompt optimisers, on tiny models of their classes with random weights."""

from pathlib import Path

import pytest
import torch

from countervid.chat.optimisers import VPO, Promptist, _clean
from countervid.errors import CallError, ModelError

PROMPT = "a young woman with a beard"
TEMPLATE = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}[assistant] "


def tokenizer(template: str | None = None):
    """One that spells text byte by byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = ["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", chat_template=template)


def save(model, folder: Path, template: str | None = None) -> Path:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    tokenizer(template).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[type, Path]:
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    root = tmp_path_factory.mktemp("optimisers")
    words = {"vocab_size": 257, "bos_token_id": 0, "eos_token_id": 0}
    llama = LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=1024,
        **words,
    )  # fmt: skip
    gpt2 = GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=256, **words)
    return {
        VPO: save(LlamaForCausalLM(llama), root / "vpo", TEMPLATE),
        Promptist: save(GPT2LMHeadModel(gpt2), root / "promptist"),
    }


@pytest.mark.parametrize("kind", [VPO, Promptist])
def test_a_seed_decides_what_is_written(folders, kind):
    before = torch.get_rng_state()
    optimiser = kind(folders[kind], device="cpu")
    first = optimiser(PROMPT)
    assert isinstance(first, str) and first and first == " ".join(first.split())
    assert optimiser(PROMPT) == kind(folders[kind], device="cpu", seed=0)(PROMPT) == first
    assert any(kind(folders[kind], device="cpu", seed=seed)(PROMPT) != first for seed in (1, 2, 3))
    assert optimiser("an old man") != first  # the prompt is read
    assert torch.equal(before, torch.get_rng_state())


def given(optimiser) -> list[tuple[str, int]]:
    """A list that the next calls fill: the text that the model starts from, and how many are worked on at once."""
    seen: list[tuple[str, int]] = []

    def look(model, args, named):
        ids = named["input_ids"]
        if ids.shape[1] > 1:  # later steps are shown their last token alone
            seen.append((tokenizer().decode(ids[0]), len(ids)))

    optimiser.model.model.register_forward_pre_hook(look, with_kwargs=True)
    return seen


def test_vpo_is_told_its_rules_in_the_models_own_template(folders):
    optimiser = VPO(folders[VPO], device="cpu")
    seen = given(optimiser)
    optimiser(f"  {PROMPT} {{0}} ")
    ((text, at_once),) = seen
    assert at_once == 1
    assert text.startswith("[user] ") and text.endswith("[assistant] ") and f"Request: {PROMPT} {{0}}\n" in text
    for rule in ("Harmless", "Aligned", "Helpful", "face only", "three phrases at most", "length", "prompt alone"):
        assert rule in text


def test_promptist_goes_on_from_its_word_with_eight_beams(folders):
    optimiser = Promptist(folders[Promptist], device="cpu")
    seen = given(optimiser)
    optimiser(f" {PROMPT} ")
    assert seen == [(f"{PROMPT} Rephrase:", 8)]


@pytest.mark.parametrize("kind, longest", [(VPO, 30), (Promptist, 75)])
def test_a_model_that_says_nothing_returns_the_prompt(folders, kind, longest):
    optimiser, ids = kind(folders[kind], device="cpu"), []
    optimiser.model.model.register_forward_pre_hook(lambda m, a, named: ids.append(1), with_kwargs=True)
    optimiser(PROMPT)
    assert 1 < len(ids) <= longest
    optimiser.model.model.lm_head.register_forward_hook(
        lambda layer, given, logits: torch.where(torch.arange(logits.shape[-1]) == 0, 0.0, -1e4).expand_as(logits)
    )  # the end is all it says
    assert optimiser(PROMPT) == PROMPT


@pytest.mark.parametrize("kind", [VPO, Promptist])
def test_what_cannot_be_had_is_one_line(folders, kind, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    published = {VPO: "CCCCCC/VPO-5B", Promptist: "microsoft/Promptist"}[kind]
    with pytest.raises(ModelError, match=f"`{published}` is no folder here.*is there a network") as hub:
        kind()
    with pytest.raises(ModelError, match="There is no folder") as gone:
        kind(tmp_path / "gone")
    with pytest.raises(CallError, match="say it shorter") as long:
        kind(folders[kind], device="cpu")("beard " * 200)
    assert all("\n" not in str(error.value) for error in (hub, gone, long))


def test_promptist_without_a_tokenizer_asks_for_that_of_gpt2(folders, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folders[Promptist] / name).read_bytes())
    with pytest.raises(ModelError, match="no tokenizer, and that of `gpt2` could not be had"):
        Promptist(tmp_path)
    monkeypatch.chdir(tmp_path)
    tokenizer().save_pretrained("gpt2")  # a folder of that name serves as well
    assert Promptist(tmp_path, device="cpu")(PROMPT) == Promptist(folders[Promptist], device="cpu")(PROMPT)


def test_words_are_cleaned():
    assert _clean('  "an old\n man,  smiling" ') == "an old man, smiling"
    assert _clean("“grey hair”") == "grey hair"
    assert _clean("a man's beard") == "a man's beard"
    assert _clean('""') == ""
