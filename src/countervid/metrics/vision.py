"""What CLIP and DINO see of a window's pictures: one row a frame, each computed once, whoever asks first.

The bundled CLIP is a miniature that has seen 128 px face crops and nothing else, so it looks at the face crops, and at
whole frames only where nobody tracked a face. Weights that the user names look at whole frames, as published.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from countervid.embeddings.contrastive import Contrastive
from countervid.errors import ModelError
from countervid.metrics.base import Eyes, Window
from countervid.metrics.published import require

Preprocessing = Literal["own", "csvc"]  # the model's own, or CSVC's: squeezed, bilinear, not normalised

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DINO_SIDE, DINO_CROP = 256, 224  # px: V2VBench's, the processor's default


def own_input(pictures: Tensor, side: int, crop: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pictures as a vision model's own processor makes them: short side bicubic, middle square, normalised.

    Antialiased along the rows first, then along the columns, rounded to 8 bits after each, as Pillow does.

    Args:
        pictures: `(n, 3, H, W)`, 0..1, of 8 bits.
        side: Of the short side before cropping, px; the long one is cut to whole pixels.
        crop: Side of the middle square, px.
        mean, std: Per channel.

    >>> own_input(torch.full((1, 3, 20, 30), 0.2), 8, 8, (0.2,) * 3, (0.5,) * 3).abs().max().item() < 1e-6
    True
    """
    height, width = pictures.shape[2:]
    short = min(height, width)
    tall, wide = int(side * height / short), int(side * width / short)
    for shape in ((height, wide), (tall, wide)):
        if shape != tuple(pictures.shape[2:]):
            resized = functional.interpolate(pictures, size=shape, mode="bicubic", align_corners=False, antialias=True)
            pictures = (resized * 255).round().clamp(0, 255) / 255
    top, left = (tall - crop) // 2, (wide - crop) // 2
    middle = pictures[:, :, top : top + crop, left : left + crop]
    normal: Tensor = (middle - middle.new_tensor(mean)[:, None, None]) / middle.new_tensor(std)[:, None, None]
    return normal


def csvc_input(pictures: Tensor, size: int) -> Tensor:
    """Pictures `(n, 3, H, W)`, 0..1, as CSVC feeds CLIP: both sides bilinear to `size`, not normalised.

    >>> csvc_input(torch.full((1, 3, 20, 30), 0.5), 8).unique()
    tensor([0.5000])
    """
    return functional.interpolate(pictures, size=(size, size), mode="bilinear", align_corners=False)


def clip_eyes(eyes: Eyes, name: str = "clip", metric: str = "clip") -> Contrastive:
    """The CLIP of that name.

    Raises:
        ModelError: There is none, or it is something else.
    """
    require(eyes, name, metric)
    found: Contrastive = eyes.get(name, lambda folder: Contrastive.from_pretrained(folder, device=eyes.device))
    return found


def pooled(window: Window, clip: str, preprocessing: Preprocessing = "own") -> Tensor:
    """CLIP's pooled output, normed and before the projection: `(len(window), W)`, NaN without a picture."""
    return _seen(window, clip, "clip", preprocessing)[0]


def projected(window: Window, clip: str, preprocessing: Preprocessing = "own", name: str = "clip") -> Tensor:
    """CLIP's features in the space of its sentences: `(len(window), D)`, NaN without a picture."""
    return _seen(window, clip, name, preprocessing)[1]


def _seen(window: Window, clip: str, name: str, preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    def look() -> tuple[Tensor, Tensor]:
        model = clip_eyes(window.eyes, name)
        crops = name == "clip" and name not in window.eyes.folders and window.rows is not None
        pictures = (window.faces if crops else window.frames)[clip].to(window.eyes.device)
        if not len(pictures):
            widths = model.model.vision_embed_dim, model.model.projection_dim
            return torch.full((len(window), widths[0]), torch.nan), torch.full((len(window), widths[1]), torch.nan)
        if preprocessing == "own":
            pixels = own_input(pictures, model.size, model.size, model.mean, model.std)
        else:
            pixels = csvc_input(pictures, model.size)
        before = model.model.vision_model(pixel_values=pixels).pooler_output
        rows = before.cpu(), model.model.visual_projection(before).cpu()
        return (window.every(rows[0]), window.every(rows[1])) if crops else rows

    found: tuple[Tensor, Tensor] = window.once(f"{name} {preprocessing}", clip, look)
    return found


def sentence(clip: Contrastive, text: str) -> Tensor:
    """Features `(D,)` of a sentence, cut where the model stops reading, with a warning."""
    longest = clip.longest
    count = len(clip.tokenizer(text)["input_ids"])
    if count > longest:
        warnings.warn(
            f'The prompt "{text[:40]}..." takes {count} tokens, CLIP reads {longest}: the rest is left out.',
            stacklevel=2,
        )
    tokens = clip.tokenizer(text, truncation=True, max_length=longest, return_tensors="pt").to(clip.model.device)
    features: Tensor = clip.model.get_text_features(
        input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
    ).pooler_output
    return features[0].cpu()


def scale(clip: Contrastive) -> float:
    """What a CLIP multiplies cosines by: exp(logit_scale), 100 for the published one."""
    return float(clip.model.logit_scale.exp())


def dino(window: Window, clip: str, metric: str) -> Tensor:
    """DINOv2's pooled class token of whole frames, `(len(window), W)`.

    Raises:
        ModelError: No weights are given, or they are something else.
    """

    def look() -> Tensor:
        require(window.eyes, "dino", metric)
        model = window.eyes.get("dino", _load_dino)
        frames = window.frames[clip].to(window.eyes.device)
        pixels = own_input(frames, DINO_SIDE, DINO_CROP, IMAGENET_MEAN, IMAGENET_STD)
        rows: Tensor = model(pixel_values=pixels).pooler_output.cpu()
        return rows

    found: Tensor = window.once("dino", clip, look)
    return found


def _load_dino(folder: str | Path) -> Any:
    from transformers import Dinov2Model

    return loaded(
        lambda: Dinov2Model.from_pretrained(str(folder), local_files_only=os.path.isdir(folder)), folder, "DINOv2"
    )


def loaded(load: Callable[[], Any], folder: str | Path, what: str) -> Any:
    """What `load` gives, quietly, in single precision.

    Raises:
        ModelError: The folder holds something else, or nothing.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return load().to(torch.float32)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ModelError(f"`{folder}` is no {what} that can be had here ({reason}). Give a folder of it.") from None
