"""Minimality: nothing moves beyond the intervention and its effects. Here, where nobody knows the truth.

Three views. In words, as CSVC does (arXiv:2506.14404): both clips are described, leaving out what may change, and the
descriptions are compared as sentence embeddings. In pixels and in features: what differs outside the face square, where
no attribute lies. Against a known truth, `truth.spill` says it better.

CSVC leaves every attribute of its graph out of the descriptions, causes that should have stayed included, so an edit
that changes them goes unpunished. `minimality.text` leaves out the intervened attributes and their effects alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from countervid.causal.graph import CausalGraph
from countervid.causal.language import describe
from countervid.chat.answers import without_thoughts
from countervid.chat.base import Chat, Message, load_chat
from countervid.errors import ModelError
from countervid.metrics.base import About, Asked, Eyes, Need, Window, register
from countervid.metrics.effectiveness import Votes
from countervid.metrics.judged import PUBLISHED_FRAMES, published_picture
from countervid.metrics.vision import clip_eyes

PUBLISHED_EXCLUSIONS = ("age", "gender", "beard", "bald", "hair_colour")
"""What CSVC's descriptions leave out, whatever the intervention: all of its graph, and hair of any kind."""
LONGEST = 256  # word pieces that all-MiniLM-L6-v2 reads; what follows is cut, as sentence-transformers does


def textual(factual: Tensor, edited: Tensor) -> Tensor:
    """Cosine of the sentence embeddings of two descriptions, -1..1: 1 says the same.

    Args:
        factual, edited: `(..., D)`; leading dimensions are broadcast.

    Returns:
        `(...)`. CSVC reports the mean over clips and interventions.

    >>> textual(torch.tensor([3.0, 4.0]), torch.tensor([[6.0, 8.0], [4.0, -3.0]])).tolist()
    [1.0, 0.0]
    """
    return F.cosine_similarity(factual, edited, dim=-1)


def outside(factual: Tensor, edited: Tensor, inside: Tensor) -> float:
    """Mean absolute difference of the pixels that lie outside a region, 0..1; NaN where there are none.

    Args:
        factual, edited: `(F, 3, H, W)`, 0..1.
        inside: `(F, H, W)` bool, the region that may change.

    >>> x, y = torch.zeros(1, 3, 2, 2), torch.tensor([[[[1.0, 0.5], [0.0, 0.0]]] * 3])
    >>> outside(x, y, torch.tensor([[[True, False], [False, False]]])).__round__(4)
    0.1667
    """
    total, pixels = _outside(factual, edited, inside)
    return total / pixels if pixels else math.nan


def _outside(factual: Tensor, edited: Tensor, inside: Tensor) -> tuple[float, int]:
    difference = (edited - factual).abs().mean(1)
    return float(difference[~inside].double().sum()), int((~inside).sum())


def may_change(do: Sequence[str], graph: CausalGraph) -> tuple[str, ...]:
    """The intervened attributes and their effects, in the graph's order: what a description should leave out.

    >>> may_change(["age"], CausalGraph.load("face"))
    ('age', 'beard', 'bald')
    >>> may_change(["bald"], CausalGraph.load("face"))
    ('bald',)
    """
    free = {*do, *graph.descendants(*do)}
    return tuple(name for name in graph.variables if name in free)


class Describer(Protocol):
    """Says in words what a picture shows."""

    name: str

    def describe(self, picture: Tensor, leave_out: Sequence[str]) -> str:
        """A description of `(H, W, 3)` uint8 RGB that does not speak of the attributes named."""
        ...


class ChatDescriber:
    """A language model with eyes, asked for a description.

    Args:
        chat: Who is asked.
    """

    def __init__(self, chat: Chat) -> None:
        self.chat, self.name = chat, chat.name

    def describe(self, picture: Tensor, leave_out: Sequence[str]) -> str:
        reply = self.chat.complete([Message("user", instruction(leave_out), [picture])])
        return without_thoughts(reply.text).strip()


def instruction(leave_out: Sequence[str]) -> str:
    """What a describer is told."""
    silent = ", ".join(_spoken(name) for name in leave_out)
    return (
        "Describe this picture in detail: the person, expression, pose, clothing, background and light. "
        f"Leave out every reference to the following: {silent}. Answer with the description alone."
    )


def _spoken(name: str) -> str:
    words = {
        "gender": "gender (he, she, man, woman and the like)",
        "bald": "baldness",
        "hair_colour": "hair of any kind",
    }
    return words.get(name, name.replace("_", " "))


class SentenceEncoder:
    """Sentence embeddings by a BERT of `transformers`: mean over the tokens, unit length.

    Equal to sentence-transformers' all-MiniLM-L6-v2 (Apache-2.0, 384 numbers) given its folder.
    """

    def __init__(self, model: Any, tokenizer: Any, device: torch.device) -> None:
        self.model, self.tokenizer = model.eval().requires_grad_(False).to(device), tokenizer
        self.longest = min(LONGEST, int(model.config.max_position_embeddings))

    @classmethod
    def from_folder(cls, folder: str | Path, device: torch.device | None = None) -> SentenceEncoder:
        """The model of a folder; nothing is fetched.

        Raises:
            ModelError: It holds no such model.
        """
        from transformers import AutoModel, AutoTokenizer

        try:
            model = AutoModel.from_pretrained(str(folder), local_files_only=True, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"`{folder}` holds no sentence encoder ({reason.rstrip('.')}). Give the folder of "
                "sentence-transformers/all-MiniLM-L6-v2."
            ) from None
        return cls(model, tokenizer, device or torch.device("cpu"))

    @torch.no_grad()
    def __call__(self, sentences: Sequence[str]) -> Tensor:
        """Embeddings `(n, D)` of unit length, on the CPU."""
        tokens = self.tokenizer(
            list(sentences), padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        ).to(self.model.device)
        states = self.model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None].to(states.dtype)
        mean = (states * mask).sum(1) / mask.sum(1).clamp_min(1e-9)
        return F.normalize(mean, dim=-1).cpu()


def templated(said: Mapping[str, str], graph: CausalGraph, leave_out: Sequence[str]) -> str:
    """A description from attributes alone, where no language model looks.

    Args:
        said: What the examiner read; names and values unknown to the graph are passed over.
        graph: Whose words are used.
        leave_out: What is not spoken of.

    >>> templated({"age": "old", "gender": "man", "beard": "yes"}, CausalGraph.load("face"), ["age"])
    'He has beard.'
    """
    known = {k: v for k, v in said.items() if k in graph.variables and v in graph.variables[k].values}
    spoken = describe(known, graph, without=leave_out)
    return spoken if spoken.strip(".") else "This person is here."


_TEXT_WEIGHTS = (
    "`describer`: a language model that sees (`describer=openai:MODEL` or `transformers:FOLDER`); `sentences`: the "
    "folder of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0). Without them a template of what the bundled "
    "`examiner` reads, embedded by the bundled `clip`: another scale"
)
_COSINE = "cos(e(description of x), e(description of f(x)))"


@register
class TextualMinimality:
    """Descriptions of both clips without what may change, compared."""

    about: ClassVar[Mapping[str, About]] = {
        "minimality.text": About(
            title="Likeness of descriptions without the intervened attributes and their effects",
            better="higher", low=-1.0, high=1.0, formula=f"{_COSINE}; left out: do and its descendants",
            source="CSVC (arXiv:2506.14404), with its graph taken at its word", weights=_TEXT_WEIGHTS,
        ),
        "minimality.text_csvc": About(
            title="Likeness of descriptions without any attribute of the published graph",
            better="higher", low=-1.0, high=1.0, formula=f"{_COSINE}; left out: age, gender, beard, hair, baldness",
            source="CSVC (arXiv:2506.14404), as published", weights=_TEXT_WEIGHTS,
        ),
    }  # fmt: skip
    needs: ClassVar[frozenset[Need]] = frozenset({"face", "attributes"})
    undefined: ClassVar[Mapping[str, str]] = dict.fromkeys(about, "no face was seen to describe")

    def __init__(self) -> None:
        self._votes = {"factual": Votes(), "counterfactual": Votes()}
        self._pictures: dict[str, Tensor] = {}
        self._eyes: Eyes | None = None
        self._asked: Asked | None = None

    def update(self, window: Window) -> None:
        self._eyes, self._asked = window.eyes, window.asked
        if "describer" not in window.eyes.folders:
            for clip, votes in self._votes.items():
                votes.update(window, clip)
        elif window.start <= PUBLISHED_FRAMES["minimality"]:  # the last frame of clips that are shorter
            row = min(PUBLISHED_FRAMES["minimality"] - window.start, len(window) - 1)
            for clip in self._votes:
                frame = window.frames[clip][row].permute(1, 2, 0).cpu()
                self._pictures[clip] = (frame * 255).round().to(torch.uint8)

    def compute(self) -> dict[str, float]:
        if self._eyes is None or self._asked is None:
            return {}
        graph = self._asked.graph or CausalGraph.load("phantom")
        do = [name for name in self._asked.do if name in graph.variables]
        free = {"text": may_change(do, graph), "text_csvc": PUBLISHED_EXCLUSIONS}
        found = {}
        for name, leave_out in free.items():
            said = [self._described(clip, name, leave_out, graph) for clip in self._votes]
            vectors = None if None in said else _embedded([text for text in said if text is not None], self._eyes)
            found[f"minimality.{name}"] = math.nan if vectors is None else float(textual(*vectors))
        return found

    def _described(self, clip: str, name: str, leave_out: Sequence[str], graph: CausalGraph) -> str | None:
        assert self._eyes is not None
        if "describer" in self._eyes.folders:
            describer = self._eyes.get("describer", lambda model: ChatDescriber(load_chat(model)))
            picture = self._pictures[clip]
            text: str = describer.describe(
                published_picture(picture[None], 0) if name == "text_csvc" else picture, leave_out
            )
            return text
        said = self._votes[clip].values()
        return templated(said, graph, [name for name in leave_out if name in graph.variables]) if said else None


def _embedded(sentences: Sequence[str], eyes: Eyes) -> Tensor:
    if "sentences" in eyes.folders:
        found: Tensor = eyes.get("sentences", lambda folder: SentenceEncoder.from_folder(folder, eyes.device))(
            sentences
        )
        return found
    return clip_eyes(eyes, metric="minimality.text").texts(sentences).cpu()


@register
class Outside:
    """What differs outside the face square."""

    about: ClassVar[Mapping[str, About]] = {
        "minimality.outside": About(
            title="Difference outside the face square",
            better="lower", low=0.0, high=1.0, formula="mean of |f(x) - x| over pixels outside the face square",
            source="minimality axiom, Monteiro et al. (ICLR 2023); the region is this package's",
        ),
    }  # fmt: skip
    needs: ClassVar[frozenset[Need]] = frozenset({"face"})
    undefined: ClassVar[Mapping[str, str]] = dict.fromkeys(about, "the face square fills every frame")

    def __init__(self) -> None:
        self._total, self._pixels = 0.0, 0

    def update(self, window: Window) -> None:
        if window.square is not None:
            total, pixels = _outside(window.frames["factual"], window.frames["counterfactual"], window.square)
            self._total, self._pixels = self._total + total, self._pixels + pixels

    def compute(self) -> dict[str, float]:
        return {"minimality.outside": self._total / self._pixels if self._pixels else math.nan}


@register
class Background:
    """What looks different outside the face square, to a CLIP."""

    about: ClassVar[Mapping[str, About]] = {
        "minimality.background": About(
            title="Likeness of what surrounds the face square, to CLIP",
            better="higher", low=-1.0, high=1.0,
            formula="mean over t of cos(clip(x_t), clip(f(x)_t)), both with the face square painted grey",
            source="minimality by features; the region is this package's",
            weights="`clip`, bundled (Apache-2.0); or any folder that transformers' CLIPModel loads",
        ),
    }  # fmt: skip
    needs: ClassVar[frozenset[Need]] = frozenset({"face"})

    def __init__(self) -> None:
        self._cosines: list[Tensor] = []

    def update(self, window: Window) -> None:
        if window.square is None:
            return
        hidden = window.square[:, None]
        eyes = clip_eyes(window.eyes, metric="minimality.background")
        before, after = (
            eyes.images(torch.where(hidden, 0.5, window.frames[clip]) * 2 - 1) for clip in ("factual", "counterfactual")
        )
        self._cosines.append(F.cosine_similarity(before, after, dim=-1).cpu())

    def compute(self) -> dict[str, float]:
        return {"minimality.background": float(torch.cat(self._cosines).mean()) if self._cosines else math.nan}
