"""Stage `clip`: pictures and sentences of the phantom world in one space, as `transformers`' CLIP.

Two losses on every batch. Captions of many words are held against all pictures, and each is to be near those it is true
of (a sigmoid for every pair, arXiv:2303.15343: one caption is true of many people). And for every attribute a sentence
for each of its values, in words drawn anew, is to be told from the others: what reading without training asks.

A vision transformer learns slowly from few pictures. Its patches lie where the identity encoder's map at a sixteenth of
the crop has its places, so they are asked to know what that map knows (distillation, arXiv:1503.02531).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from countervid.autoencoder.identity import IdentityBlock, IdentityNet
from countervid.clip.sheets import write_rows
from countervid.embeddings.contrastive import Contrastive
from countervid.embeddings.templates import TEMPLATES
from countervid.files.whole import write_whole
from countervid.models.device import device_of
from countervid.phantom.captions import OPENINGS, Caption, caption, caption_of, sayable
from countervid.phantom.dataset import ATTRIBUTES, PhantomFrames, decode
from countervid.phantom.scm import DOMAINS
from countervid.training.crops import draw, images, weather
from countervid.training.loop import LoopConfig
from countervid.training.miniature.base import Built, Figures, Stage, balanced

SIZE = 128  # of a crop, pixels
PATCH = 16
PATCHES = (SIZE // PATCH) ** 2
WIDTH = 192
DIMENSIONS = 128  # of the common space
LONGEST = 77  # tokens, as in every CLIP
PIECES = 1024  # of words, at most
HALF = (0.5, 0.5, 0.5)  # mean and spread that bring [0, 1] to [-1, 1]
DISTILLED = 1.0  # weight of what the patches know
MASKED_SHARE = 0.75  # of the steps see half of the patches, which costs half (arXiv:2212.00794)
SHOWN = (
    "an elderly bearded man",
    "a hairless person",
    "a young woman with red hair",
    "a clean-shaven gentleman with glasses",
    "a smiling lady wearing lipstick",
    "someone wearing a hat",
)
VALUES = tuple((name, value) for name in ATTRIBUTES for value in DOMAINS[name])
SPELLING = " ".join(chr(code) for code in (*range(33, 127), *range(192, 256)))  # any letter may end a word


def make_tokenizer() -> Any:
    """Byte-pair encoding learnt from captions, as a `CLIPTokenizer`; it spells what it does not know."""
    from transformers import CLIPTokenizer

    rng = np.random.default_rng(0)
    anybody = ({name: str(rng.choice(values)) for name, values in DOMAINS.items()} for _ in range(4000))
    corpus = [caption(attributes, rng).text for attributes in anybody]
    corpus += [SPELLING, *(template.format("face") for template in TEMPLATES)]
    learnt = CLIPTokenizer().train_new_from_iterator(corpus, PIECES, show_progress=False)
    learnt.model_max_length = LONGEST
    return learnt


class ClipTraining(nn.Module):
    """The CLIP, and what is thrown away after training: a bias, and the head that tells what the patches know."""

    def __init__(self, teacher: IdentityNet) -> None:
        from transformers import CLIPConfig, CLIPModel

        super().__init__()
        self.tokenizer = make_tokenizer()
        tower = {
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_attention_heads": WIDTH // 32,
            "hidden_act": "gelu",
        }
        ends = {"bos_token_id": self.tokenizer.bos_token_id, "eos_token_id": self.tokenizer.eos_token_id}
        self.net: Any = CLIPModel(
            CLIPConfig(
                text_config={
                    **tower, **ends, "num_hidden_layers": 4, "vocab_size": len(self.tokenizer),
                    "max_position_embeddings": LONGEST, "pad_token_id": ends["eos_token_id"],
                },
                vision_config={**tower, "num_hidden_layers": 6, "image_size": SIZE, "patch_size": PATCH},
                projection_dim=DIMENSIONS,
                logit_scale_init_value=2.3,
            )
        )  # fmt: skip
        self.bias = nn.Parameter(torch.tensor(-4.0))
        self.teacher = teacher
        self.level = [i for i, layer in enumerate(teacher.trunk) if isinstance(layer, IdentityBlock)][-2] + 1
        self.head = nn.Linear(WIDTH, teacher.config.widths[-2])

    def sentences(self, texts: Sequence[str]) -> Tensor:
        """Unit features `(n, D)`."""
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        # No mask: attention is causal and the sentence is read off its first end, so padding is never seen.
        features = self.net.get_text_features(input_ids=tokens["input_ids"].to(device_of(self.net)))
        return F.normalize(features.pooler_output, dim=1)

    def pictures(self, x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Unit features `(B, D)` of crops, and their patches `(B, P, W)`: those `seen` `(B, P)`, or all."""
        vision = self.net.vision_model
        h = vision.embeddings(x)
        if seen is not None:
            places = F.pad(seen + 1, (1, 0))  # the first is no patch
            h = h.gather(1, places[..., None].expand(-1, -1, h.shape[2]))
        h = vision.encoder(inputs_embeds=vision.pre_layrnorm(h)).last_hidden_state
        features = self.net.visual_projection(vision.post_layernorm(h[:, 0]))
        return F.normalize(features, dim=1), h[:, 1:]

    def unlearnt(self, x: Tensor, patches: Tensor, seen: Tensor | None = None) -> Tensor:
        """How far the patches are from knowing the teacher's map of crops `x`, in units of its variance."""
        with torch.no_grad():
            wanted = self.teacher.trunk[: self.level](x.to(memory_format=torch.channels_last))
            wanted = F.layer_norm(wanted.flatten(2).transpose(1, 2), wanted.shape[1:2])
            if seen is not None:
                wanted = wanted.gather(1, seen[..., None].expand(-1, -1, wanted.shape[2]))
        return F.mse_loss(self.head(patches), wanted)


def build(frames: PhantomFrames, batch: int, models: Path) -> Built:
    teacher = IdentityNet.from_folder(models / "identity")
    model = ClipTraining(teacher)
    clear = torch.nonzero(frames.column("occluded") == 0).flatten()
    codes = frames.column("attributes").long()

    def loss(generator: torch.Generator) -> Mapping[str, Tensor]:
        rows = draw(batch, clear, generator)
        rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
        said = [caption(decode(codes[row]), rng, _openings(rng)) for row in rows[: batch // 2]]
        values = [caption_of({name: value}, rng, openings=_openings(rng)) for name, value in VALUES]
        device = device_of(model)
        x = images(frames, rows)
        x = torch.where(torch.rand(batch, 1, 1, 1, generator=generator) < 0.5, x.flip(3), x)
        x = weather(x, generator).to(device)
        part = torch.rand(batch, PATCHES, generator=generator).argsort(1)[:, : PATCHES // 2].to(device)
        shown_patches = part if torch.rand((), generator=generator) < MASKED_SHARE else None
        seen, patches = model.pictures(x, shown_patches)
        told = model.sentences([one.text for one in (*said, *values)])
        scale = model.net.logit_scale.exp().clamp(max=100)
        true = holds(said, codes[rows]).to(device)
        logits = scale * seen @ told[: len(said)].T + model.bias
        pairs = F.softplus(torch.where(true, -logits, logits)).sum(1).mean()
        guessed = (scale * seen @ told[len(said) :].T).split([len(DOMAINS[name]) for name in ATTRIBUTES], 1)
        shown = codes[rows]
        bald, colour = ATTRIBUTES.index("bald"), ATTRIBUTES.index("hair_colour")
        shown[:, colour] = shown[:, colour].masked_fill(shown[:, bald] == DOMAINS["bald"].index("yes"), -100)
        shown = shown.to(device)
        zero_shot = torch.stack([F.cross_entropy(guess, shown[:, i]) for i, guess in enumerate(guessed)]).mean()
        unlearnt = model.unlearnt(x, patches, shown_patches)
        return {
            "loss": pairs / 4 + 3 * zero_shot + DISTILLED * unlearnt,
            "pairs": pairs,
            "zero_shot": zero_shot,
            "patches": unlearnt,
            "scale": scale,
        }

    return model, loss


def _openings(rng: np.random.Generator) -> Sequence[str]:
    return TEMPLATES if rng.random() < 0.3 else OPENINGS


def holds(said: Sequence[Caption], codes: Tensor) -> Tensor:
    """Which captions are true of whom: bool `(people, captions)` for attribute codes `(people, attributes)`."""
    wanted = torch.full((len(said), len(ATTRIBUTES)), -1)
    for row, one in zip(wanted, said, strict=True):
        for name, value in one.states.items():
            row[ATTRIBUTES.index(name)] = DOMAINS[name].index(value)
    return ((wanted[None] == codes[:, None]) | (wanted[None] < 0)).all(2)


@torch.no_grad()
def evaluate(model: nn.Module, frames: PhantomFrames, models: Path) -> Figures:
    """Reading without training: balanced accuracy per attribute, frames without an occluder.

    "every wording" takes a value's mean feature over many ways to say it; "one wording" one way at a time.
    """
    del models
    assert isinstance(model, ClipTraining)
    clip = contrastive(model)
    clear = torch.nonzero(frames.column("occluded") == 0).flatten()
    seen = torch.cat([F.normalize(clip.images(images(frames, rows)), dim=1) for rows in clear.split(64)])
    rng = np.random.default_rng(1)
    ways = {(name, value): sorted({caption_of({name: value}, rng).text for _ in range(16)}) for name, value in VALUES}
    figures: Figures = {}
    single: list[float] = []
    for name in ATTRIBUTES:
        known = torch.ones(len(clear), dtype=torch.bool)
        if name == "hair_colour":
            known = torch.tensor(["hair_colour" in sayable(decode(c)) for c in frames.column("attributes")[clear]])
        truth = frames.attribute(name)[clear][known]
        told = [F.normalize(clip.texts(ways[name, value]), dim=1) for value in DOMAINS[name]]
        means = torch.stack([F.normalize(one.mean(0), dim=0) for one in told])
        figures[f"{name}, every wording (%)"] = balanced((seen[known] @ means.T).argmax(1) == truth, truth)
        for _ in range(20):
            chosen = torch.stack([one[int(rng.integers(len(one)))] for one in told])
            single.append(balanced((seen[known] @ chosen.T).argmax(1) == truth, truth))
    figures["one wording, mean (%)"] = float(np.mean(single))
    figures["one wording, worst of 200 (%)"] = min(single)
    return figures


def contrastive(model: ClipTraining) -> Contrastive:
    return Contrastive(model.net, model.tokenizer, mean=HALF, std=HALF)


def save(model: nn.Module, folder: Path, frames: PhantomFrames) -> None:
    """Write what `CLIPModel`, `CLIPTokenizer` and `CLIPImageProcessor` load; weights in half precision."""
    del frames
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".") as place:
        halved: Any = deepcopy(model).half()
        halved.save_pretrained(place)
        make_tokenizer().save_pretrained(place)
        settings = {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": SIZE},
            "crop_size": {"height": SIZE, "width": SIZE},
            "image_mean": HALF,
            "image_std": HALF,
            "resample": 3,  # bicubic
        }
        write_whole(Path(place) / "preprocessor_config.json", json.dumps(settings, indent=2) + "\n")
        for file in Path(place).iterdir():
            file.chmod(0o644)
            file.replace(folder / file.name)


@torch.no_grad()
def sheet(model: nn.Module, frames: PhantomFrames, path: Path, models: Path) -> None:
    """For some sentences, the eight unseen crops that lie nearest, of different people."""
    del models
    assert isinstance(model, ClipTraining)
    clip = contrastive(model)
    rows = frames.factual[:: int(frames.column("take").max()) + 1]
    pictures = images(frames, rows)
    seen = torch.cat([F.normalize(clip.images(part), dim=1) for part in pictures.split(64)])
    told = F.normalize(clip.texts(SHOWN), dim=1)
    write_rows(path, {text: pictures[(seen @ one).topk(8).indices] for text, one in zip(SHOWN, told, strict=True)})


def network(model: nn.Module) -> nn.Module:
    assert isinstance(model, ClipTraining)
    net: nn.Module = model.net
    return net


STAGE = Stage(
    name="clip",
    summary="pictures and sentences in one space, CLIP's classes",
    loop=LoopConfig(steps=6000, lr=1e-3, warmup=200, weight_decay=0.05),
    batch=64,
    build=build,
    evaluate=evaluate,
    save=save,
    sheet=sheet,
    needs=("identity",),
    network=network,
)
