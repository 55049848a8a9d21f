"""What an autoencoder looks at faces with: the networks and the crop that its weights were trained on.

Published weights see crops of 256 px in FFHQ's square and diffuse their pixels; the miniature sees 128 px in a wider
square and diffuses latents. Above this file nobody asks which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from countervid.autoencoder.codec import VAE, Codec, PixelCodec
from countervid.autoencoder.encoders import PARSER_CLASSES, FaceParser, IdentityNetwork, LandmarkNetwork
from countervid.autoencoder.identity import IdentityNet
from countervid.errors import ModelError
from countervid.face import parse
from countervid.face.align import FFHQ, PORTRAIT, Framing, quads, to_square
from countervid.face.landmarks import MEAN_FACE, LandmarkNet, NetLandmarks
from countervid.face.parse import NetParser, ParserNet
from countervid.models.folder import model_kind

CROPS = {"paper-256": (256, FFHQ), "miniature": (128, PORTRAIT)}
"""Side in pixels and framing of the crops that each system sees, by the name of its training preset."""

_JAW = 17  # of the 68 landmarks, the first trace the jaw and are not part of the pose
_REGIONS = {
    "background": parse.BACKGROUND, "left_eye": parse.EYES, "right_eye": parse.EYES, "glasses": parse.GLASSES,
    "upper_lip": parse.LIPS, "lower_lip": parse.LIPS, "necklace": parse.CLOTHES, "cloth": parse.CLOTHES,
    "hair": parse.HAIR, "hat": parse.HAT,
}  # fmt: skip
"""Classes of the published parser by the names of ours; the others are skin."""


@dataclass(frozen=True)
class FaceNetworks:
    """The networks around an autoencoder.

    Attributes:
        size: Side of the crops, pixels.
        framing: How much of the head a crop holds.
        codec: Between crops `(B, 3, S, S)` in [-1, 1] and what is diffused.
        identity: Crops -> identity vectors `(B, D)`, unit length.
        pose: Crops, and the landmarks `(B, 68, 2)` that the face pipeline found in them as fractions of the crop ->
            poses `(B, L)`.
        parser: Labels crops; None: the bundled one.
        landmarker: Finds the landmarks; None: the bundled one.
    """

    size: int
    framing: Framing
    codec: Codec
    identity: Callable[[Tensor], Tensor]
    pose: Callable[[Tensor, Tensor], Tensor]
    parser: parse.FaceParser | None = None
    landmarker: NetLandmarks | None = None


class CelebAParser:
    """The published parser as the face pipeline wants one: its nineteen classes by the names of ours."""

    name = FaceParser.kind

    def __init__(self, network: FaceParser) -> None:
        self.network = network
        regions = [_REGIONS.get(name, parse.SKIN) for name in PARSER_CLASSES]
        self._regions = torch.tensor(regions, dtype=torch.uint8)

    @torch.inference_mode()
    def __call__(self, crops: Tensor) -> Tensor:
        device = next(self.network.parameters()).device
        # One crop at a time: with larger batches, other kernels round differently.
        labels = [
            self._regions[self.network(crop[None].permute(0, 3, 1, 2).to(device).float() / 127.5 - 1).cpu()]
            for crop in crops
        ]
        return torch.cat(labels) if labels else torch.zeros(crops.shape[:3], dtype=torch.uint8)


def load_networks(folders: Mapping[str, Path], device: torch.device) -> FaceNetworks:
    """The networks in `folders`, by role: `identity` always; `landmarks`, `parser`, and for the miniature `vae`.

    Raises:
        ModelError: A folder is missing, damaged, or of the other kind than `identity`.
    """
    if "identity" not in folders:
        raise ModelError(f"There is no network that tells who it is among {', '.join(folders) or 'no folders'}.")
    if model_kind(folders["identity"]) == IdentityNetwork.kind:
        return _published(folders, device)
    return _miniature(folders, device)


def _published(folders: Mapping[str, Path], device: torch.device) -> FaceNetworks:
    missing = [role for role in ("landmarks", "parser") if role not in folders]
    if missing:
        raise ModelError(
            f"`{folders['identity'].parent}` holds published weights without {' and '.join(missing)}. "
            "Import them again: `countervid models import`."
        )
    identity: IdentityNetwork = IdentityNetwork.from_pretrained(folders["identity"]).to(device)
    landmarks: LandmarkNetwork = LandmarkNetwork.from_pretrained(folders["landmarks"]).to(device)
    parser: FaceParser = FaceParser.from_pretrained(folders["parser"]).to(device)

    def pose(images: Tensor, _: Tensor) -> Tensor:
        points: Tensor = landmarks(images)
        return points

    return FaceNetworks(*CROPS["paper-256"], PixelCodec(), identity, pose, CelebAParser(parser))


def _miniature(folders: Mapping[str, Path], device: torch.device) -> FaceNetworks:
    if "vae" not in folders:
        raise ModelError(f"`{folders['identity'].parent}` holds no `vae`, whose latents are diffused.")
    found: dict[str, Any] = {}
    if "parser" in folders:
        found["parser"] = NetParser(ParserNet.from_folder(folders["parser"]).to(device))
    if "landmarks" in folders:
        found["landmarker"] = NetLandmarks(LandmarkNet.from_folder(folders["landmarks"]).to(device))
    vae = VAE.from_folder(folders["vae"]).to(device)
    identity = IdentityNet.from_folder(folders["identity"]).to(device)

    def pose(images: Tensor, landmarks: Tensor) -> Tensor:
        if not landmarks.numel():
            landmarks = _landmarks_of(images, found.get("landmarker"))
        return landmarks[:, _JAW:].flatten(1)

    return FaceNetworks(*CROPS["miniature"], vae, identity, pose, **found)


def _landmarks_of(images: Tensor, landmarker: NetLandmarks | None) -> Tensor:
    """Landmarks `(B, 68, 2)`, fractions of the crop, of crops `(B, 3, S, S)` that come from a file without theirs."""
    if landmarker is None:
        raise ModelError("Crops without landmarks need the network `landmarks`, which is not among these networks.")
    usual = to_square(MEAN_FACE[None], quads(MEAN_FACE[None], smooth=False, framing=PORTRAIT))
    crops = ((images.permute(0, 2, 3, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
    size = images.shape[-1]
    points = landmarker(crops, np.zeros((len(crops), 4)), np.repeat(usual, len(crops), 0) * size - 0.5)
    return torch.from_numpy((points + 0.5) / size).to(images)
