"""Weights that metrics look with and that do not come with `countervid`: whose they are, where, on what terms.

Nothing here fetches anything: whoever wants such a number downloads the folder and names it, on the command line as
`--weights NAME=FOLDER`, in Python as `Eyes(folders={NAME: FOLDER})`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from countervid.errors import ModelError
from countervid.metrics.base import Eyes


@dataclass(frozen=True, kw_only=True)
class Published:
    """Somebody's weights, by the name that `Eyes` knows them under."""

    what: str
    hub: str  # where its authors put it, as the model hub spells it
    licence: str
    holds: str  # what must be in the folder

    def terms(self, name: str) -> str:
        """One line for a table: what it is, where it is, under which terms, how to name it."""
        return f"`{name}`: {self.what}, {self.hub} ({self.licence}); a folder with {self.holds}"


_CLIP_FILES = "config, tokenizer and safetensors, as transformers saves them"

PUBLISHED: Mapping[str, Published] = {
    "clip": Published(what="CLIP ViT-L/14", hub="openai/clip-vit-large-patch14", licence="MIT", holds=_CLIP_FILES),
    "dino": Published(
        what="DINOv2 ViT-B/14",
        hub="facebook/dinov2-base",
        licence="Apache-2.0",
        holds="config and safetensors, as transformers saves them",
    ),
    "aesthetic": Published(
        what="LAION aesthetic predictor 2 on CLIP ViT-L/14",
        hub="shunk031/aesthetics-predictor-v2-sac-logos-ava1-l14-linearMSE",
        licence="head: Apache-2.0, CLIP: MIT; the hub's card states none",
        holds="config.json and model.safetensors",
    ),
    "pickscore": Published(
        what="PickScore on CLIP ViT-H/14",
        hub="yuvalkirstain/PickScore_v1",
        licence="MIT code; the hub's card states none for the weights",
        holds=f"{_CLIP_FILES}; its tokenizer and preprocessor are those of laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    ),
    "dover": Published(
        what="DOVER, both branches and heads",
        hub="teowu/DOVER",
        licence="MIT by the hub's card; later versions of its code: S-Lab License 1.0, non-commercial",
        holds="DOVER.pth, as `countervid models pull dover` fetches it",
    ),
    "lpips": Published(
        what="LPIPS v0.1 on AlexNet",
        hub="`countervid models pull lpips`",
        licence="BSD-2-Clause; AlexNet: BSD-3-Clause",
        holds="alexnet-owt-7be5be79.pth and alex.pth",
    ),
    "i3d": Published(
        what="I3D on Kinetics-400 as TorchScript, which is code that runs as it is read",
        hub="`countervid models pull i3d`",
        licence="Apache-2.0 weights; the file states none",
        holds="i3d_torchscript.pt",
    ),
}


def require(eyes: Eyes, name: str, metric: str) -> None:
    """Nothing, where weights of that name are given or bundled.

    Raises:
        ModelError: They are not; says what they are, where, on what terms.
    """
    if not eyes.has(name):
        raise ModelError(
            f"`{metric}` needs weights that do not come with countervid: {PUBLISHED[name].terms(name)}. "
            f"Download them and name their folder (`--weights {name}=FOLDER`), or leave `{metric}` out."
        )
