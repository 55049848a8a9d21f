"""Stage `text-to-image`: a Stable Diffusion of the phantom world, for the text-guided editors.

A small `UNet2DConditionModel` on the latents of the VAE and the words of the CLIP. It learns velocities
(arXiv:2202.00512). Half of every batch are the true counterfactuals of the other half, under the same noise and their
own words: what differs between the two is then what the words say.

The mean of likely faces has fewer wrinkles than any of them. So some of the pictures that the velocities imply are
decoded and looked at as well: a linear layer on the identity encoder's maps, solved beforehand on pictures that went
through the VAE, must read the attributes off them. The examiner, which measures, and the CLIP, which a critic sees
through, have no part in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from countervid.autoencoder.classifier import AttributeClassifier, fit
from countervid.autoencoder.codec import VAE
from countervid.autoencoder.identity import IdentityNet
from countervid.causal.graph import CausalGraph
from countervid.causal.language import describe
from countervid.clip.sheets import write_rows
from countervid.files.whole import replacing, write_whole
from countervid.metrics.examiner import Examiner
from countervid.models.device import device_of
from countervid.models.folder import WEIGHTS
from countervid.phantom.captions import caption, caption_of
from countervid.phantom.dataset import PhantomFrames, decode
from countervid.phantom.scm import DOMAINS
from countervid.training.crops import images, states
from countervid.training.loop import LoopConfig
from countervid.training.miniature.base import Built, Figures, Stage, balanced

FACE = ("age", "gender", "beard", "bald")  # what the published graph speaks of
UNTOLD = 0.1  # share of the batch without words, for guidance
CAPTIONS = 4  # for each state of each person
GUIDANCE, STEPS = 4.0, 20  # of all that is drawn here
JUDGED = 192  # prompts that the examiner judges, at most
TRAIN_STEPS = 1000
BETAS = (0.00085, 0.012)  # of Stable Diffusion, scaled linearly
LOOKED = 8  # pictures of a batch that are looked at
LOOKED_BELOW = 0.7  # of the noise levels; above, nothing of a face can be seen yet
LOOKED_WEIGHT = 0.06
SHOWN = (
    "He is young, he has beard.",
    "a bald old man with a white beard",
    "She is old.",
    "a smiling young woman with red hair",
    "a man wearing glasses and a hat",
    "He is young, he is bald.",
)


@dataclass(frozen=True)
class Known:
    """What is learnt from, computed once."""

    latents: Tensor  # (2, N, c, 16, 16) float16: crops as they are, and mirrored
    words: Tensor  # (states * CAPTIONS + 1, 77, D) float16: the last is of no words
    state: Tensor  # (N,) int64: the state of attributes that a crop shows


def network(channels: int, width: int) -> Any:
    """The U-Net for latents of so many channels and words of such a width: 4.1 M parameters at 8 and 192."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16, in_channels=channels, out_channels=channels, layers_per_block=1,
        block_out_channels=(64, 96, 104), norm_num_groups=8, attention_head_dim=(2, 4, 4),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width, use_linear_projection=True,
    )  # fmt: skip


def scheduler() -> Any:
    """Stable Diffusion's noise, seen by DDIM; its config is what the pipeline's folder gets."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=TRAIN_STEPS, beta_start=BETAS[0], beta_end=BETAS[1], beta_schedule="scaled_linear",
        prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip


class Words:
    """The bundled CLIP's text half: sentences to what the U-Net attends to."""

    def __init__(self, folder: Path) -> None:
        from transformers import CLIPTokenizer

        from countervid.autoencoder.stable_diffusion import text_half

        self.tokenizer = CLIPTokenizer.from_pretrained(folder)
        self.model: Any = text_half(folder)

    @torch.no_grad()
    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """`(n, 77, D)`: the last hidden states after the final norm, padding among them, as Stable Diffusion has it."""
        tokens = self.tokenizer(
            list(sentences), padding="max_length", truncation=True, max_length=77, return_tensors="pt"
        )
        states: Tensor = self.model(tokens["input_ids"]).last_hidden_state
        return states


def sayings(attributes: Mapping[str, str], rng: np.random.Generator, graphs: Sequence[CausalGraph]) -> list[str]:
    """Ways to say of somebody what is so: as people do, and as each graph's prompts do. `CAPTIONS` of them."""
    said = [describe({name: attributes[name] for name in graph.variables}, graph) for graph in graphs]
    return said + [caption(attributes, rng).text for _ in range(CAPTIONS - len(said))]


@torch.no_grad()
def known(frames: PhantomFrames, models: Path) -> Known:
    """Latents and words of a data set, kept beside it under a name that tells which weights made them."""
    marks = "".join(hashlib.sha256((models / n / WEIGHTS).read_bytes()).hexdigest() for n in ("vae", "clip"))
    people = frames.column("person")
    marks += f"{len(frames)} {int(people[0])} {int(people[-1])}"
    path = frames.folder / f"text-to-image-{hashlib.sha256(marks.encode()).hexdigest()[:16]}.safetensors"
    table = states(frames)
    if not path.exists():
        vae, words = VAE.from_folder(models / "vae"), Words(models / "clip")
        latents: list[list[Tensor]] = [[], []]
        for rows in torch.arange(len(frames)).split(64):
            pictures = images(frames, rows)
            for kept, seen in zip(latents, (pictures, pictures.flip(3)), strict=True):
                kept.append(vae.encode(seen).half().contiguous(memory_format=torch.contiguous_format))
        rng, graphs = np.random.default_rng(0), [CausalGraph.load(name) for name in ("phantom", "face")]
        codes = frames.column("attributes")[table[:, 0, 0]]
        texts = [text for code in codes for text in sayings(decode(code), rng, graphs)] + [""]
        told = torch.cat([words(texts[start : start + 256]).half() for start in range(0, len(texts), 256)])
        with replacing(path) as partial:
            save_file({"latents": torch.stack([torch.cat(part) for part in latents]), "words": told}, partial)
    stored = load_file(path)
    state = torch.empty(len(frames), dtype=torch.long)
    state[table.flatten()] = torch.arange(len(table)).repeat_interleave(table[0].numel())
    return Known(stored["latents"], stored["words"], state)


class Look(nn.Module):
    """How badly the published attributes can be read off what latents show."""

    def __init__(self, frames: PhantomFrames, latents: Tensor, models: Path) -> None:
        super().__init__()
        self.vae = VAE.from_folder(models / "vae")
        self.identity = IdentityNet.from_folder(models / "identity")
        self.requires_grad_(False)
        self.labels = torch.stack([frames.attribute(name) for name in FACE], dim=1)
        with torch.no_grad():
            features = torch.cat([self.features(part.float()) for part in latents.split(64)])
        variables = {name: DOMAINS[name] for name in FACE}
        self.reader: AttributeClassifier = fit(variables, features, self.labels, decay=1e-2)

    def features(self, latents: Tensor) -> Tensor:
        """What the identity encoder sees of latents `(n, c, h, w)` once decoded, `(n, D)`."""
        h = self.identity.trunk(self.vae.decode(latents).to(memory_format=torch.channels_last))
        return torch.cat([h.mean((2, 3)), h.amax((2, 3))], dim=1)

    def forward(self, latents: Tensor, rows: Tensor) -> Tensor:
        """Mean cross-entropy of latents that should show what the crops `rows` do."""
        return self.reader.loss(self.features(latents), self.labels.to(latents.device)[rows.to(latents.device)])


def build(frames: PhantomFrames, batch: int, models: Path) -> Built:
    seen = known(frames, models)
    net = network(seen.latents.shape[2], seen.words.shape[2])
    pairs, noises = frames.pairs, scheduler()
    look = Look(frames, seen.latents[0], models)
    signal = noises.alphas_cumprod.sqrt()

    def loss(generator: torch.Generator) -> Mapping[str, Tensor]:
        half = batch // 2
        rows = pairs[torch.randint(len(pairs), (half,), generator=generator)].T.flatten()
        mirrored = torch.randint(2, (half,), generator=generator).repeat(2)
        t = torch.randint(TRAIN_STEPS, (half,), generator=generator)
        looked = min(LOOKED, half)
        t[:looked] = (LOOKED_BELOW * t[:looked]).long()
        t = t.repeat(2)
        x = seen.latents[mirrored, rows].float()
        noise = torch.randn(half, *x.shape[1:], generator=generator).repeat(2, 1, 1, 1)
        told = seen.state[rows] * CAPTIONS + torch.randint(CAPTIONS, (2 * half,), generator=generator)
        told[torch.rand(2 * half, generator=generator) < UNTOLD] = len(seen.words) - 1
        noisy, velocity = noises.add_noise(x, noise, t), noises.get_velocity(x, noise, t)
        # Of each pair of a picture and its counterfactual one is looked at, by turns.
        turns = torch.arange(looked) + half * (torch.arange(looked) % 2)
        share = signal[t[turns]][:, None, None, None]
        device = device_of(net)
        noisy, t, words, velocity, share = (v.to(device) for v in (noisy, t, seen.words[told].float(), velocity, share))
        guess = net(noisy.to(memory_format=torch.channels_last), t, encoder_hidden_states=words).sample
        apart = F.mse_loss(guess, velocity)
        clean = share * noisy[turns] - (1 - share.square()).sqrt() * guess[turns]
        unread = look.to(device)(clean, rows[turns])
        return {"loss": apart + LOOKED_WEIGHT * unread, "velocity": apart, "unread": unread}

    return net, loss


@torch.no_grad()
def drawn(net: Any, words: Words, vae: VAE, prompts: Sequence[str], generator: torch.Generator) -> Tensor:
    """Pictures `(n, 3, 128, 128)` in [-1, 1] of prompts, drawn with `GUIDANCE` in `STEPS` steps."""
    told, untold = words(prompts), words([""]).expand(len(prompts), -1, -1)
    steps = scheduler()
    steps.set_timesteps(STEPS)
    x = torch.randn(len(prompts), net.config.in_channels, 16, 16, generator=generator)
    for t in steps.timesteps:
        without, with_words = net(
            x.repeat(2, 1, 1, 1), t, encoder_hidden_states=torch.cat([untold, told])
        ).sample.chunk(2)
        x = steps.step(without + GUIDANCE * (with_words - without), t, x).prev_sample
    return vae.decode(x).clamp(-1, 1)


@torch.no_grad()
def evaluate(model: nn.Module, frames: PhantomFrames, models: Path) -> Figures:
    """Whether what is drawn shows what the prompt says, as the examiner sees it; balanced accuracy.

    Prompts are of unseen people's attributes: the graph's own, and captions that state the attribute asked about.
    """
    words, vae, examiner = (
        Words(models / "clip"),
        VAE.from_folder(models / "vae"),
        Examiner.from_folder(models / "examiner"),
    )
    rng, graph = np.random.default_rng(2), CausalGraph.load("face")
    judged = min(JUDGED, len(frames) // 3)
    anybody = [{name: str(rng.choice(values)) for name, values in DOMAINS.items()} for _ in range(judged)]
    for somebody in anybody:
        if somebody["gender"] == "woman":  # a bearded woman is nobody the world has seen
            somebody |= {"beard": "no", "moustache": "no"}
    figures: Figures = {}
    generator = torch.Generator().manual_seed(0)
    for way in ("graph's prompt", "caption"):
        said = [{name: who[name] for name in FACE} for who in anybody]
        if way == "caption":
            prompts = [caption_of(states, rng, who).text for states, who in zip(said, anybody, strict=True)]
        else:
            prompts = [describe(states, graph) for states in said]
        pictures = torch.cat([drawn(model, words, vae, prompts[i : i + 32], generator) for i in range(0, judged, 32)])
        seen = examiner(pictures)
        for name in FACE:
            truth = torch.tensor([DOMAINS[name].index(who[name]) for who in anybody])
            figures[f"{name}, {way} (%)"] = balanced(seen[name].argmax(1) == truth, truth)
    figures["velocity, mean squared error"] = _error(model, frames, models)
    return figures


@torch.no_grad()
def _error(net: Any, frames: PhantomFrames, models: Path) -> float:
    seen, noises = known(frames, models), scheduler()
    generator = torch.Generator().manual_seed(1)
    errors = []
    for rows in torch.arange(len(frames))[:: max(1, len(frames) // 256)].split(64):
        x = seen.latents[0, rows].float()
        noise = torch.randn(x.shape, generator=generator)
        t = torch.randint(TRAIN_STEPS, (len(rows),), generator=generator)
        words = seen.words[seen.state[rows] * CAPTIONS].float()
        guess = net(noises.add_noise(x, noise, t), t, encoder_hidden_states=words).sample
        errors.append((guess - noises.get_velocity(x, noise, t)).square().flatten(1).mean(1))
    return float(torch.cat(errors).mean())


@torch.no_grad()
def sheet(model: nn.Module, frames: PhantomFrames, path: Path, models: Path) -> None:
    """Prompts down, seeds across: the same noise for every prompt."""
    seeds = min(8, len(frames) // 16)
    words, vae = Words(models / "clip"), VAE.from_folder(models / "vae")
    rows = {prompt: drawn(model, words, vae, [prompt] * seeds, torch.Generator().manual_seed(5)) for prompt in SHOWN}
    write_rows(path, rows)


def save(model: nn.Module, folder: Path, frames: PhantomFrames) -> None:
    """Write a pipeline's folder. The VAE and the text encoder are those that are bundled: see `stable_diffusion.py`."""
    from transformers import CLIPTokenizer

    from countervid.models import bundled

    del frames
    halved: Any = deepcopy(model).half()
    halved.save_pretrained(folder / "unet")
    scheduler().save_pretrained(folder / "scheduler")
    CLIPTokenizer.from_pretrained(bundled("clip")).save_pretrained(folder / "tokenizer")
    library = "countervid"
    vae = {"_class_name": "MiniatureVAE", "model": "vae"}
    write_whole(folder / "vae" / "config.json", json.dumps(vae, indent=2) + "\n")
    text = {"architectures": ["MiniatureTextEncoder"], "model": "clip"}
    write_whole(folder / "text_encoder" / "config.json", json.dumps(text, indent=2) + "\n")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "vae": [library, "MiniatureVAE"],
        "text_encoder": [library, "MiniatureTextEncoder"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
    }
    write_whole(folder / "model_index.json", json.dumps(index, indent=2) + "\n")


STAGE = Stage(
    name="text-to-image",
    summary="Stable Diffusion of the phantom world",
    loop=LoopConfig(steps=4500, lr=1e-3, warmup=200, ema=0.9995),
    batch=32,
    build=build,
    evaluate=evaluate,
    save=save,
    sheet=sheet,
    needs=("vae", "clip", "identity", "examiner"),
    weights="unet/diffusion_pytorch_model.safetensors",
)
