"""The miniature's networks at a toy size with random weights: real classes, real folders, no skill."""

import json
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage import data

from countervid.autoencoder.classifier import fit
from countervid.autoencoder.codec import VAE, VAEConfig
from countervid.autoencoder.config import AutoencoderConfig, UNetConfig
from countervid.autoencoder.identity import IdentityConfig, IdentityNet
from countervid.autoencoder.model import DiffusionAutoencoder
from countervid.models.folder import save_model

VARIABLES = {
    "age": ("young", "old"),
    "gender": ("woman", "man"),
    "beard": ("no", "yes"),
    "bald": ("no", "yes"),
    "hair_colour": ("black", "brown", "blond", "red", "grey"),
}


def save_tiny_models(root: Path) -> Path:
    """Write `vae`, `identity` and `dva` (with `classifier`) below `root`; the same bytes every time."""
    generator = torch.Generator().manual_seed(0)

    def shaken(module):
        """Layers that start at zero would leave the condition without effect."""
        for parameter in module.parameters():
            parameter.data += 0.08 * torch.randn(parameter.shape, generator=generator)
        return module

    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = VAE(VAEConfig(channels=4, widths=(8, 8, 16), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1)))
        identity = IdentityNet(IdentityConfig(widths=(8, 8, 8, 16), blocks=(1, 1, 1, 1)))
        unet = UNetConfig(
            size=16, in_channels=4, model_channels=8, channel_multipliers=(1, 2), residual_blocks=1,
            attention_resolutions=(), heads=1, embed_channels=16, condition_channels=16, norm_groups=4, dropout=0.0,
        )  # fmt: skip
        autoencoder = DiffusionAutoencoder(AutoencoderConfig(unet=unet, identity_channels=128, clip=False))
    save_model(root / "vae", shaken(vae), vae.config)
    save_model(root / "identity", identity, identity.config)
    shaken(autoencoder).save_pretrained(root / "dva")
    people = torch.nn.functional.normalize(torch.randn(200, 128, generator=generator), dim=1)
    labels = torch.stack([torch.randint(len(v), (200,), generator=generator) for v in VARIABLES.values()], 1)
    fit(VARIABLES, people, labels, iterations=20).save_pretrained(root / "dva" / "classifier")
    return root


def astronaut_frames(frames: int = 12, size: int = 160) -> torch.Tensor:
    """A virtual camera over scikit-image's photograph of an astronaut, `(F, size, size, 3)` uint8."""
    picture = data.astronaut()
    out = np.empty((frames, size, size, 3), dtype=np.uint8)
    for index in range(frames):
        scale = size / (260 + 12 * np.sin(index / 9))
        shift = np.array([[scale, 0, scale * (-95 + 6 * np.sin(index / 6))], [0, scale, scale * 4 * np.cos(index / 7)]])
        out[index] = cv2.warpAffine(picture, shift, (size, size), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
    return torch.from_numpy(out)


def save_tiny_clip(folder: Path) -> Path:
    """A CLIP of `transformers`' class with random weights; it spells words letter by letter and reads 40 of them."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz-."
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = CLIPConfig(
            text_config={**size, **ends, "vocab_size": len(words), "max_position_embeddings": 40},
            vision_config={**size, "image_size": 32, "patch_size": 8},
            projection_dim=12,
        )
        CLIPModel(config).save_pretrained(folder)
    return folder
