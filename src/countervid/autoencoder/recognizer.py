"""Who is the same person in two shots: the identity networks, as the face pipeline asks them (`face/persons.py`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from countervid import models
from countervid.autoencoder.faces import CROPS, FaceNetworks
from countervid.autoencoder.identity import IdentityNet
from countervid.face.align import Framing

BUNDLED = (0.85, 0.5)
"""`same` and `other` of the miniature's identity network.

Measured on 48 rendered people that it has not seen, three takes each in other places and light. Means of three frames
of two takes of one person have a cosine of 0.96 in the median, of two people 0.01. From 0.85 on two takes are one
person: 2.1 % of people then fall in two, 0.6 % of pairs of people are taken for one. A single frame below 0.5 of its
track is somebody else: 0.1 % of a take's own frames are, and 94 % of other people's.
"""

ARCFACE = (0.4, 0.15)
"""The same of the published one: a little stricter than what is usual in verification (0.3). Not measured here."""


@dataclass
class IdentityRecognizer:
    """A recognizer for `FacePipeline`; see `face.persons.Recognizer` for its fields."""

    name: str
    network: Callable[[Tensor], Tensor]
    size: int
    framing: Framing
    same: float
    other: float
    device: torch.device = torch.device("cpu")

    @torch.inference_mode()
    def __call__(self, crops: Tensor) -> Tensor:
        # One crop at a time: with larger batches, other kernels round differently.
        return torch.cat([self.network(crop[None].to(self.device)).cpu() for crop in crops])


def recognizer_of(networks: FaceNetworks, device: torch.device | str = "cpu") -> IdentityRecognizer:
    """The recognizer that an autoencoder's own identity network makes."""
    name, bounds = ("identity", BUNDLED) if isinstance(networks.identity, IdentityNet) else ("arcface", ARCFACE)
    return IdentityRecognizer(
        name, networks.identity, networks.size, networks.framing, *bounds, device=torch.device(device)
    )


def bundled_recognizer() -> IdentityRecognizer | None:
    """The recognizer of the bundled identity network, on the CPU, or None if there are no weights."""
    if "identity" not in models.available():
        return None
    network = IdentityNet.from_folder(models.bundled("identity")).eval()
    size, framing = CROPS["miniature"]
    return IdentityRecognizer("identity", network, size, framing, *BUNDLED)
