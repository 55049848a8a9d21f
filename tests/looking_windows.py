"""A rendered person who ages, and tiny networks of the real classes: what tests of metrics that look share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from countervid import models
from countervid.metrics.base import Asked, Eyes, Window
from countervid.phantom.world import render_clip, sample_person
from rendered_windows import EYES, pictures, squares, windows

FRAMES = 6
ASKED = Asked(
    factual={"age": "young"},
    do={"age": "old"},
    counterfactual={"age": "old"},
    prompt="He is old.",
    factual_prompt="He is young.",
)


@lru_cache
def aged() -> tuple[Mapping[str, Tensor], np.ndarray]:
    """A young man and the same grown old, `(F, 3, 128, 128)`, 0..1, and the squares of the young one's face."""
    person = sample_person(3)
    young = person.counterfactual({"age": "young", "gender": "man"}).attributes
    old = person.counterfactual({"age": "old", "gender": "man"}).attributes
    clips = [render_clip(person, frames=FRAMES, size=128, attributes=state) for state in (young, old)]
    return {"factual": pictures(clips[0]), "truth": pictures(clips[1])}, squares(clips[0])


def looked(
    edit: str | Tensor,
    *,
    size: int = FRAMES,
    faceless: Sequence[int] = (),
    tracked: bool = True,
    asked: Asked | None = ASKED,
    eyes: Eyes = EYES,
) -> list[Window]:
    """That clip in windows, with the edit being a clip of it or other frames; some frames without a face."""
    clips, quads = aged()
    triple = {**clips, "counterfactual": clips[edit] if isinstance(edit, str) else edit}
    found = []
    for window in windows(triple, quads, size=size, asked=asked, eyes=eyes):
        rows = torch.tensor([i for i in range(len(window)) if window.start + i not in faceless], dtype=torch.long)
        faces = {name: crops[rows] for name, crops in window.faces.items()}
        found.append(
            Window(
                start=window.start,
                frames=window.frames,
                faces=faces if tracked else {},
                rows=rows if tracked else None,
                asked=asked,
                eyes=eyes,
            )
        )
    return found


def tiny_dino(folder: Path) -> Path:
    """A DINOv2 of two layers, as transformers saves it."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(folder)
    return folder


def tiny_aesthetic(folder: Path) -> Path:
    """The bundled CLIP's tower with an invented head of three linear layers, laid out as the published predictor."""
    from transformers import CLIPModel, CLIPVisionModelWithProjection

    bundled = CLIPModel.from_pretrained(models.bundled("clip"), dtype=torch.float32)
    config = bundled.config.vision_config
    config.projection_dim = width = bundled.config.projection_dim
    tower = CLIPVisionModelWithProjection(config)
    tower.vision_model.load_state_dict(bundled.vision_model.state_dict())
    tower.visual_projection.load_state_dict(bundled.visual_projection.state_dict())
    tower.save_pretrained(folder)
    path = folder / "model.safetensors"
    seeded = torch.Generator().manual_seed(0)
    shapes = {0: (10, width), 2: (9, 10), 10: (1, 9)}  # 10 comes after 2 as a number, and before it as a word
    head = {}
    for index, shape in shapes.items():
        head[f"layers.{index}.weight"] = torch.randn(shape, generator=seeded)
        head[f"layers.{index}.bias"] = torch.randn(shape[0], generator=seeded)
    save_file(load_file(path) | head, path, metadata={"format": "pt"})
    return folder
