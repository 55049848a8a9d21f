"""CLIP (arXiv:2103.00020) by folder or hub name, differentiable in the picture.

Weights are those of `transformers`: any `CLIPModel` folder loads. Pictures are prepared here, not by its image
processor, which needs torchvision and would cut the gradient.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from countervid.errors import ConfigError, ModelError
from countervid.models.finite import check_finite
from countervid.models.quiet import quiet_libraries

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_BATCH = 64  # sentences at a time


class Contrastive:
    """A CLIP: features of pictures and of sentences, `(n, D)` each, of any length."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
        device: torch.device | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False).to(device or torch.device("cpu"))
        self.tokenizer = tokenizer
        self.size = int(model.config.vision_config.image_size)
        self.longest = int(model.config.text_config.max_position_embeddings)
        self.mean, self.std = tuple(mean), tuple(std)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, device: torch.device | None = None) -> Contrastive:
        """The model of a folder, or of a hub's name (fetched by `transformers` if it is not in its cache).

        Raises:
            ModelError: There is none, or it is something else.
        """
        from transformers import CLIPModel, CLIPTokenizer

        local = os.path.isdir(name)
        try:
            with quiet_libraries():
                model = CLIPModel.from_pretrained(str(name), local_files_only=local, dtype=torch.float32)
                tokenizer = CLIPTokenizer.from_pretrained(str(name), local_files_only=local)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"`{name}` is no CLIP that can be had here ({reason.rstrip('.')}). Give a folder that `transformers` "
                "loads with CLIPModel.from_pretrained."
            ) from None
        check_finite(model.state_dict(), name)
        statistics: dict[str, Sequence[float]] = {}
        settings = Path(name) / "preprocessor_config.json"
        if settings.is_file():
            values = json.loads(settings.read_text(encoding="utf-8"))
            statistics = {
                key: values[entry] for key, entry in (("mean", "image_mean"), ("std", "image_std")) if entry in values
            }
        return cls(model, tokenizer, device=device, **statistics)

    def images(self, x: Tensor) -> Tensor:
        """Features `(B, D)` of pictures `(B, 3, H, W)` in [-1, 1]; gradients reach the pictures."""
        features: Tensor = self.model.get_image_features(
            pixel_values=clip_input(x, self.size, self.mean, self.std)
        ).pooler_output
        return features

    @torch.no_grad()
    def texts(self, sentences: Sequence[str]) -> Tensor:
        """Features `(n, D)` of sentences.

        Raises:
            ConfigError: A sentence is longer than the model reads.
        """
        found = []
        for start in range(0, len(sentences), _BATCH):
            part = list(sentences[start : start + _BATCH])
            tokens = self.tokenizer(part, padding=True, return_tensors="pt")
            lengths = tokens["attention_mask"].sum(1)
            if int(lengths.max()) > self.longest:
                longest = part[int(lengths.argmax())]
                raise ConfigError(
                    f'The text "{longest[:40]}..." takes {int(lengths.max())} tokens, CLIP reads {self.longest}. '
                    "Say it shorter."
                )
            tokens = tokens.to(self.model.device)
            features = self.model.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            )
            found.append(features.pooler_output)
        return torch.cat(found)


def clip_input(
    x: Tensor, size: int = 224, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD
) -> Tensor:
    """Pictures `(B, 3, H, W)` in [-1, 1] as CLIP takes them: bicubic, not antialiased, middle square, normalised."""
    height, width = x.shape[2:]
    scale = size / min(height, width)
    shape = (round(height * scale), round(width * scale))
    x = F.interpolate((x + 1) / 2, size=shape, mode="bicubic", align_corners=False)
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    x = x[:, :, top : top + size, left : left + size]
    normal: Tensor = (x - x.new_tensor(mean)[:, None, None]) / x.new_tensor(std)[:, None, None]
    return normal
