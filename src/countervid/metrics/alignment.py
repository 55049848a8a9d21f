"""How well frames fit a sentence, a reference picture, or people's taste: V2VBench's and CSVC's alignment scores.

Functions take features, one row a frame, of any length; rows of NaN are left out. ViCLIP's network is not here: its
weights are a pickled checkpoint of a model that no kept package builds; give its features to `video_text_alignment`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from countervid.embeddings.contrastive import CLIP_MEAN, CLIP_STD
from countervid.errors import ModelError
from countervid.metrics import vision
from countervid.metrics.base import About, Asked, Need, Window, register
from countervid.metrics.published import PUBLISHED, require
from countervid.metrics.temporal import Consistency, unit

VICLIP_FRAMES = 8  # every third of V2VBench's 24


def text_alignment(frames: Tensor, text: Tensor, scale: float = 100.0) -> float:
    """How well frames fit a sentence: mean over t of scale * cos(text, f_t), not clamped; -scale..scale.

    CLIP text alignment, and with its own features PickScore.

    Args:
        frames: `(F, D)`, projected features; a row of NaN is left out.
        text: `(D,)` or `(1, D)`.
        scale: exp(logit_scale) of the model; 100 for CLIP ViT-L/14.

    >>> text_alignment(torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([1.0, 0.0]))
    50.0
    """
    cosine = unit(frames) @ unit(text.reshape(-1))
    return scale * _mean(cosine)


def image_alignment(frames: Tensor, reference: Tensor) -> float:
    """How well a clip fits a reference picture r and itself: V2VBench's DINO image alignment, 0..1.

    0.4 max_t c_t + 0.3 mean_t s_t + 0.3 min_t s_t; c_t = max(0, cos(f_t, r)), s_t = max(0, cos(f_t, f_t+1)).

    Args:
        frames: `(F, D)`.
        reference: `(D,)` or `(1, D)`.

    >>> image_alignment(torch.eye(2)[[0, 0]], torch.eye(2)[0])
    1.0
    """
    steady = Consistency()
    steady.update(frames)
    return _image_alignment(_nearest(frames, reference), steady)


def direction(before: Tensor, after: Tensor, text_before: Tensor, text_after: Tensor) -> float:
    """Whether pictures changed as the sentence did: mean over t of cos(f'_t - f_t, text' - text), -1..1.

    CLIP directional similarity (StyleGAN-NADA, arXiv:2108.00946, eq. 2), on features of length 1. A frame that did not
    change counts 0.

    Args:
        before, after: `(F, D)`, projected features of the factual and the edited frames.
        text_before, text_after: `(D,)`.

    >>> x, y = torch.eye(3)[[0, 0]], torch.eye(3)[[1, 1]]
    >>> round(direction(x, y, x[0], y[0]), 6), direction(x, x, x[0], y[0])
    (1.0, 0.0)
    """
    change = unit(after) - unit(before)
    wanted = unit(text_after) - unit(text_before)
    lengths = change.norm(dim=-1) * wanted.norm()
    cosine = (change @ wanted) / lengths.clamp_min(1e-9)  # of a change that is none: 0
    return _mean(cosine)


def aesthetic(features: Tensor, weight: Tensor, bias: Tensor) -> float:
    """Mean over frames of a linear reading of unit CLIP features, about 0..10 (LAION aesthetic predictor).

    Args:
        features: `(F, D)`, projected.
        weight, bias: `(1, D)` and `(1,)`; `folded` makes them of the published layers.

    >>> aesthetic(torch.tensor([[2.0, 0.0]]), torch.tensor([[3.0, 1.0]]), torch.tensor([4.0]))
    7.0
    """
    return _mean((unit(features) @ weight.to(torch.float64).T + bias.to(torch.float64)).squeeze(-1))


def folded(layers: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Linear layers with nothing between them, as one: weight and bias, in double precision.

    The published aesthetic head is five such layers (its dropouts do nothing after training).

    >>> folded([(torch.full((2, 3), 1.0), torch.ones(2)), (torch.full((1, 2), 2.0), torch.zeros(1))])
    (tensor([[4., 4., 4.]], dtype=torch.float64), tensor([4.], dtype=torch.float64))
    """
    weight, bias = (part.to(torch.float64) for part in layers[0])
    for next_weight, next_bias in layers[1:]:
        matrix = next_weight.to(torch.float64)
        weight, bias = matrix @ weight, matrix @ bias + next_bias.to(torch.float64)
    return weight, bias


def viclip_frames(count: int) -> list[int]:
    """Which 8 frames of a clip ViCLIP sees: every third of 24 as in V2VBench, otherwise evenly from the first.

    >>> viclip_frames(24)
    [0, 3, 6, 9, 12, 15, 18, 21]
    >>> viclip_frames(4)
    [0, 0, 1, 1, 2, 2, 3, 3]
    """
    return [index * count // VICLIP_FRAMES for index in range(VICLIP_FRAMES)]


def video_text_alignment(clip: Tensor, text: Tensor) -> float:
    """ViCLIP text alignment: the cosine of a clip's feature and a sentence's, `(D,)` each; -1..1.

    >>> video_text_alignment(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 5.0]))
    0.7071067811865475
    """
    return float(unit(clip.reshape(-1)) @ unit(text.reshape(-1)))


def _nearest(frames: Tensor, reference: Tensor) -> float:
    cosine = unit(frames) @ unit(reference.reshape(-1))
    known = cosine[cosine.isfinite()]
    return float(known.max().clamp_min(0)) if len(known) else float("nan")


def _image_alignment(nearest: float, steady: Consistency) -> float:
    return 0.4 * nearest + 0.3 * steady.mean + 0.3 * steady.lowest


def _mean(values: Tensor) -> float:
    known = values[values.isfinite()]
    return float(known.mean()) if len(known) else float("nan")


def _asked(window: Window) -> Asked:
    assert window.asked is not None  # `needs` says so
    return window.asked


class _Text:
    """Frames against the prompt, streamed: the sum over frames of what one frame scores."""

    needs: ClassVar[frozenset[Need]] = frozenset({"prompt"})
    about: ClassVar[Mapping[str, About]]
    eyes: ClassVar[str] = "clip"
    preprocessing: ClassVar[vision.Preprocessing] = "own"

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._text: Tensor | None = None
        self._scale = 1.0

    def update(self, window: Window) -> None:
        if self._text is None:
            model = vision.clip_eyes(window.eyes, self.eyes, next(iter(self.about)))
            self._text, self._scale = vision.sentence(model, _asked(window).prompt), vision.scale(model)
        self._rows.append(vision.projected(window, "counterfactual", self.preprocessing, self.eyes))

    def compute(self) -> Mapping[str, float]:
        if self._text is None:
            return dict.fromkeys(self.about, float("nan"))
        return dict.fromkeys(self.about, text_alignment(torch.cat(self._rows), self._text, self._scale))


_CLIP_WEIGHTS = f"bundled miniature on face crops; {PUBLISHED['clip'].terms('clip')}, on whole frames"
_TEXT = "mean over t of exp(logit_scale) cos(text, f_t)"


@register
class ClipText(_Text):
    """CLIP text alignment, pictures prepared as the model's own processor does."""

    about = {
        "clip.text": About(
            title="CLIP text alignment", better="higher", low=-100, high=100, formula=_TEXT,
            source="V2VBench, clip_text_alignment", weights=_CLIP_WEIGHTS,
        )
    }  # fmt: skip


@register
class ClipTextOfCsvc(_Text):
    """The same of pictures as CSVC feeds them. Its code measures against the first prompt, before any steering."""

    preprocessing = "csvc"
    about = {
        "clip.text_csvc": About(
            title="CLIP text alignment, CSVC's preprocessing", better="higher", low=-100, high=100, formula=_TEXT,
            source="CSVC (arXiv:2506.14404), its code: bilinear to the model's size, not normalised",
            weights=_CLIP_WEIGHTS,
        )
    }  # fmt: skip


@register
class PickScore(_Text):
    """The same formula with a CLIP that was trained on people's choices (arXiv:2305.01569)."""

    eyes = "pickscore"
    about = {
        "pickscore": About(
            title="PickScore", better="higher", low=-100, high=100, formula=_TEXT,
            source="V2VBench, pick_score (arXiv:2305.01569)", weights=PUBLISHED["pickscore"].terms("pickscore"),
        )
    }  # fmt: skip


@register
class ClipDirection:
    """Needs the factual sentence too (`Asked.factual_prompt`); NaN without."""

    needs: ClassVar[frozenset[Need]] = frozenset({"prompt"})
    about: ClassVar[Mapping[str, About]] = {
        "clip.direction": About(
            title="CLIP directional similarity", better="higher", low=-1, high=1,
            formula="mean over t of cos(f'_t - f_t, text' - text)",
            source="StyleGAN-NADA (arXiv:2108.00946), eq. 2", weights=_CLIP_WEIGHTS,
        )
    }  # fmt: skip

    undefined: ClassVar[Mapping[str, str]] = {"clip.direction": "the clip as it is was not said in words, or no face"}

    def __init__(self) -> None:
        self._rows: tuple[list[Tensor], list[Tensor]] = ([], [])
        self._texts: tuple[Tensor, Tensor] | None = None

    def update(self, window: Window) -> None:
        asked = _asked(window)
        if not asked.factual_prompt:
            return
        if self._texts is None:
            model = vision.clip_eyes(window.eyes)
            self._texts = vision.sentence(model, asked.factual_prompt), vision.sentence(model, asked.prompt)
        for rows, clip in zip(self._rows, ("factual", "counterfactual"), strict=True):
            rows.append(vision.projected(window, clip))

    def compute(self) -> Mapping[str, float]:
        if self._texts is None:
            return {"clip.direction": float("nan")}
        before, after = (torch.cat(rows) for rows in self._rows)
        return {"clip.direction": direction(before, after, *self._texts)}


@register
class DinoImageAlignment:
    """The reference picture is the truth's first frame."""

    needs: ClassVar[frozenset[Need]] = frozenset({"truth"})
    about: ClassVar[Mapping[str, About]] = {
        "dino.image_alignment": About(
            title="DINO image alignment to the truth's first frame", better="higher", low=0, high=1,
            formula="0.4 max_t c_t + 0.3 mean_t s_t + 0.3 min_t s_t",
            source="V2VBench, dino_image_alignment", weights=PUBLISHED["dino"].terms("dino"),
        )
    }  # fmt: skip

    def __init__(self) -> None:
        self._reference: Tensor | None = None
        self._nearest = float("nan")
        self._steady = Consistency()

    def update(self, window: Window) -> None:
        name = "dino.image_alignment"
        rows = vision.dino(window, "counterfactual", name)
        if self._reference is None:
            self._reference = vision.dino(window, "truth", name)[0]
            self._nearest = _nearest(rows, self._reference)
        self._nearest = max(self._nearest, _nearest(rows, self._reference))
        self._steady.update(rows)

    def compute(self) -> Mapping[str, float]:
        return {"dino.image_alignment": _image_alignment(self._nearest, self._steady)}


@register
class Aesthetic:
    """LAION's aesthetic predictor, of whole frames."""

    needs: ClassVar[frozenset[Need]] = frozenset()
    about: ClassVar[Mapping[str, About]] = {
        "aesthetic": About(
            title="Aesthetic score", better="higher", low=0, high=10, formula="mean over t of w . f_t / |f_t| + b",
            source="V2VBench, aesthetic_score; LAION aesthetic predictor 2",
            weights=PUBLISHED["aesthetic"].terms("aesthetic"),
        )
    }  # fmt: skip

    def __init__(self) -> None:
        self._sum = 0.0
        self._frames = 0

    def update(self, window: Window) -> None:
        require(window.eyes, "aesthetic", "aesthetic")
        vision_model, weight, bias = window.eyes.get("aesthetic", lambda folder: _load_aesthetic(folder, window))
        size = int(vision_model.config.image_size)
        frames = window.frames["counterfactual"].to(window.eyes.device)
        features = vision_model(vision.own_input(frames, size, size, CLIP_MEAN, CLIP_STD)).image_embeds.cpu()
        self._sum += aesthetic(features, weight, bias) * len(window)
        self._frames += len(window)

    def compute(self) -> Mapping[str, float]:
        return {"aesthetic": self._sum / self._frames if self._frames else float("nan")}


def _load_aesthetic(folder: str | Path, window: Window) -> tuple[Any, Tensor, Tensor]:
    """CLIP's tower, and the head's layers folded into one; the folder holds both in one file.

    Raises:
        ModelError: It does not.
    """
    from transformers import CLIPVisionModelWithProjection

    path = Path(folder) / "model.safetensors"
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"`{path}` cannot be read ({error}). Download the aesthetic predictor again.") from None
    names = [match[1] for key in state if (match := re.fullmatch(r"((?:layers\.\d+|predictor))\.weight", key))]
    names.sort(key=lambda name: int(name.rpartition(".")[2]) if "." in name else 0)
    if not names:
        raise ModelError(
            f"`{path}` holds no head (`layers.0.weight` ...). {PUBLISHED['aesthetic'].terms('aesthetic')}."
        )
    weight, bias = folded([(state[f"{name}.weight"], state[f"{name}.bias"]) for name in names])
    tower = vision.loaded(
        lambda: CLIPVisionModelWithProjection.from_pretrained(str(folder), local_files_only=True), folder, "CLIP tower"
    )
    return tower.to(window.eyes.device).eval(), weight, bias
