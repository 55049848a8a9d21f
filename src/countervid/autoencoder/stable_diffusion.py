"""The miniature's parts in the classes that `diffusers`' pipelines expect.

The bundled text-to-image model is a folder that `StableDiffusionPipeline.from_pretrained` loads. Its latents are those
of the bundled VAE and its words those of the bundled CLIP, which lie beside it: their folders in the pipeline hold a
config that names these classes, and no second copy of the weights. `diffusers` asks the package itself for them, and
takes no package that was not imported: `import countervid` first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTextModel, PreTrainedModel
from transformers.utils import logging

from countervid import models
from countervid.autoencoder.codec import VAE

__all__ = [
    "MiniatureTextEncoder",
    "MiniatureVAE",
    "ModelMixin",
    "PreTrainedModel",
]  # diffusers looks for its bases here

CERTAIN = -30.0  # logarithm of a variance that is nought: the VAE's latents are deterministic


class _Encoder(nn.Module):
    """Mean and log-variance `(B, 2c, h, w)` of latents."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor) -> Tensor:
        mean = self.vae.encode(images)
        return torch.cat([mean, torch.full_like(mean, CERTAIN)], dim=1)


class _Decoder(nn.Module):
    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        return self.vae.decode(latents)


class MiniatureVAE(AutoencoderKL):  # type: ignore[misc]
    """The bundled VAE behind the interface of `AutoencoderKL`: crops in [-1, 1], latents of unit deviation."""

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        model: str = "vae",
        latent_channels: int = 8,
        block_out_channels: tuple[int, ...] = (12, 24, 64, 128),  # a level more than halvings, as pipelines count them
        sample_size: int = 128,
        scaling_factor: float = 1.0,
        shift_factor: float | None = None,
        force_upcast: bool = True,
    ) -> None:
        ModelMixin.__init__(self)
        vae = VAE.from_folder(models.bundled(model))
        self.encoder, self.decoder = _Encoder(vae), _Decoder(vae)
        self.quant_conv = self.post_quant_conv = None
        self.use_slicing = self.use_tiling = False

    @classmethod
    def from_pretrained(cls, folder: str | Path, torch_dtype: torch.dtype | None = None, **_: Any) -> MiniatureVAE:
        """The VAE that `config.json` names. Other arguments of `diffusers` say how files are read, and none is."""
        vae: MiniatureVAE = cls.from_config(cls.load_config(folder))
        vae.to(torch_dtype or torch.float32).eval()
        return vae


def text_half(folder: Path, dtype: torch.dtype = torch.float32) -> CLIPTextModel:
    """The text encoder of a whole CLIP's folder."""
    logging.disable_progress_bar()  # our own say what is going on
    return CLIPModel.from_pretrained(folder, dtype=dtype).text_model.eval().requires_grad_(False)


class MiniatureTextEncoder(CLIPTextModel):  # type: ignore[misc]
    """The text half of the bundled CLIP."""

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype | None = None, **_: Any) -> CLIPTextModel:
        """The text half of the bundled CLIP, as a `CLIPTextModel`; `folder` is only where the pipeline looks."""
        return text_half(models.bundled("clip"), dtype or torch.float32)
