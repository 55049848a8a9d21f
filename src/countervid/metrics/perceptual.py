"""Distance between pictures as a network sees them: LPIPS, and the same in the layers of the bundled examiner.

Layers are maps `(N, C, h, w)`, each position scaled to unit length over its channels; the squared difference is
weighted, summed over channels, and averaged over positions (Zhang et al., CVPR 2018, eq. 1). LPIPS's networks do not
come with countervid. The examiner does: it shares no weights with any editor, and has seen nothing but rendered people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn
from torch.nn import functional

from countervid.errors import ModelError
from countervid.metrics.base import About, Window
from countervid.metrics.effectiveness import examiner_of
from countervid.metrics.published import require
from countervid.metrics.streaming import mean_over_frames
from countervid.models import sha256
from countervid.models.download import RELEASES

_EPSILON = 1e-10  # where a position of a layer is all zeros
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # LPIPS v0.1, of pictures in -1..1
_STAGES = (1, 4, 7, 9, 11)  # after these layers of the trunk
_CHANNELS = (64, 192, 384, 256, 256)
_EXAMINED = (2, 5, 7, 9)  # ends of the examiner's resolutions, 1/2 to 1/16
_EXAMINED_SIDE = 128  # px: what the examiner was trained on
_TOGETHER = 8  # frames: bounds the memory that layers take


def layer_distance(
    one: Sequence[Tensor],
    two: Sequence[Tensor],
    weights: Sequence[Tensor] | None = None,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """LPIPS from given layers: `(N,)`; with `size` the spatial flavour, a map `(N, *size)`, whose mean CSVC takes.

    The mean over positions of each layer, summed over layers; or each layer's map, bilinearly enlarged, summed. The
    two agree nearly, for enlarging moves a mean a little.

    Args:
        one, two: Layers `(N, C, h, w)` of two batches of pictures.
        weights: For each layer one number a channel, `(1, C, 1, 1)`, not negative; 1 by default.
        size: Height and width of the map, px.

    >>> up, right = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1), torch.tensor([3.0, 0.0]).view(1, 2, 1, 1)
    >>> layer_distance([up, up], [right, up]).item()
    2.0
    """
    total: Tensor | None = None
    for number, (a, b) in enumerate(zip(one, two, strict=True)):
        apart = (_unit(a) - _unit(b)).square()
        weighted = apart if weights is None else apart * weights[number]
        maps = weighted.sum(dim=1, keepdim=True)
        if size is None:
            part = maps.mean(dim=(1, 2, 3))
        else:
            part = functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)[:, 0]
        total = part if total is None else total + part
    if total is None:
        raise ValueError("`one` and `two` hold no layers. Give those of a network, first to last.")
    return total


def lpips_input(pictures: Tensor) -> Tensor:
    """Pictures `(N, 3, H, W)` in -1..1 as LPIPS feeds them to its networks.

    >>> lpips_input(torch.zeros(1, 3, 1, 1)).flatten()
    tensor([0.0655, 0.1964, 0.4178])
    """
    shift, scale = (pictures.new_tensor(values).view(1, 3, 1, 1) for values in (_SHIFT, _SCALE))
    return (pictures - shift) / scale


class LPIPS(nn.Module):
    """AlexNet's five stages and LPIPS v0.1's weights of them, from the two published files.

    Args:
        alexnet: State of torchvision's AlexNet; its classifier is left out.
        linear: State of LPIPS's linear layers.

    Raises:
        ModelError: They are states of something else.
    """

    def __init__(self, alexnet: Mapping[str, Tensor], linear: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(),
            nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(),
            nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        prefix = "features."
        state = {name.removeprefix(prefix): value for name, value in alexnet.items() if name.startswith(prefix)}
        try:
            self.features.load_state_dict(state)
            for stage, channels in enumerate(_CHANNELS):
                self.register_buffer(f"weights_{stage}", linear[f"lin{stage}.model.1.weight"].view(1, channels, 1, 1))
        except (RuntimeError, KeyError) as error:
            raise ModelError(
                f"These are not the weights of AlexNet and of LPIPS v0.1 ({str(error).splitlines()[0]}). "
                "Get them with `countervid models pull lpips`."
            ) from None
        self.requires_grad_(False)

    def stages(self, pictures: Tensor) -> list[Tensor]:
        """The five layers that are compared, of pictures `(N, 3, H, W)` in 0..1, both sides at least 31 px."""
        kept, x = [], lpips_input(pictures * 2 - 1)
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in _STAGES:
                kept.append(x)
        return kept

    def forward(self, one: Tensor, two: Tensor, *, spatial: bool = False) -> Tensor:
        """The distance of each pair of pictures, `(N,)`; `spatial`: the mean of the map, as CSVC has it."""
        weights = [getattr(self, f"weights_{stage}") for stage in range(len(_CHANNELS))]
        size = (one.shape[-2], one.shape[-1]) if spatial else None
        distance = layer_distance(self.stages(one), self.stages(two), weights, size)
        return distance.mean(dim=(1, 2)) if spatial else distance

    @classmethod
    def from_folder(cls, folder: str | Path) -> LPIPS:
        """From a folder with the two files as they were published, checked by their SHA-256.

        Raises:
            ModelError: One is missing, or is another file.
        """
        states = []
        for file in RELEASES["lpips"].files:
            path = Path(folder) / file.name
            if not path.is_file():
                raise ModelError(
                    f"`{path}` is missing. Get it with `countervid models pull lpips`, or from {file.url}."
                )
            if sha256(path) != file.sha256:
                raise ModelError(f"`{path}` is not the published file (its SHA-256 differs). Delete it, pull it again.")
            try:
                states.append(torch.load(path, map_location="cpu", weights_only=True))
            except (UnpicklingError, RuntimeError, EOFError, OSError) as error:
                raise ModelError(f"`{path}` cannot be read ({str(error).splitlines()[0]}).") from None
        return cls(*states)


def examined(window: Window, clip: str) -> list[Tensor]:
    """Four layers of the examiner, of whole frames with a short side of at most 128 px, once a window and clip.

    Raises:
        ModelError: The examiner's weights are missing or damaged.
    """

    def look() -> list[Tensor]:
        frames = window.frames[clip].to(window.eyes.device)
        shrink = _EXAMINED_SIDE / min(frames.shape[-2:])
        if shrink < 1:
            size = [round(side * shrink) for side in frames.shape[-2:]]
            frames = functional.interpolate(frames, size=size, mode="area")
        kept, x = [], (frames * 2 - 1).contiguous(memory_format=torch.channels_last)
        for number, layer in enumerate(list(examiner_of(window).trunk)[: _EXAMINED[-1] + 1]):
            x = layer(x)
            if number in _EXAMINED:
                kept.append(x)
        return kept

    found: list[Tensor] = window.once("examiner's layers", clip, look)
    return found


def _unit(layer: Tensor) -> Tensor:
    unit: Tensor = layer / (layer.norm(dim=1, keepdim=True) + _EPSILON)
    return unit


def _perceptual(window: Window, other: str) -> Tensor:
    return layer_distance(examined(window, "counterfactual"), examined(window, other)) / len(_EXAMINED)


def _lpips(window: Window, other: str) -> Tensor:
    require(window.eyes, "lpips", "lpips")
    model: LPIPS = window.eyes.get("lpips", LPIPS.from_folder)
    pairs = zip(
        *(window.frames[clip].to(window.eyes.device).split(_TOGETHER) for clip in ("counterfactual", other)),
        strict=True,
    )
    return torch.cat([model(one, two) for one, two in pairs])


mean_over_frames(
    "perceptual", _perceptual, About(
        title="Perceptual distance", better="lower", low=0.0, high=4.0,
        source="Zhang et al., CVPR 2018, eq. 1, in the layers of the bundled examiner instead of AlexNet's, unweighted",
        formula="mean over frames, layers and positions of the squared distance of unit-length features",
        weights="`examiner`, bundled (Apache-2.0)",
    )
)  # fmt: skip
mean_over_frames(
    "lpips", _lpips, About(
        title="LPIPS", better="lower", low=0.0, source="Zhang et al., CVPR 2018; v0.1, AlexNet",
        formula="mean over frames of the sum over five stages of the mean weighted squared distance of unit-length "
        "features",
        weights=f"`lpips`: `countervid models pull lpips` ({RELEASES['lpips'].licence})",
    )
)  # fmt: skip
