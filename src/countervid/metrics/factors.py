"""Minimality by factors: what a picture shows besides the intervention, held against the true counterfactual.

For a factor g, err_g = mean over frames of d(g(f(x)), g(y)), where g is read off both pictures by the same estimator,
so that its bias cancels. The reference is the truth and not the source: ageing may move a landmark, and by this much.
`factors.relative` divides each by what it is between two clips that have nothing to do with each other (`SPREADS`), so
that factors of different units can be ranked and averaged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from countervid.face import align, parse
from countervid.face.landmarks import MEAN_FACE, LandmarkNet, NetLandmarks, interocular
from countervid.metrics.base import About, Need, Window, register
from countervid.metrics.effectiveness import examined
from countervid.metrics.identity import faces

# Made by `python benchmarks/factors.py 24`: 24 people of the test split, 4 frames of 256 px each.
SPREADS: dict[str, float] = {
    "factors.attributes": 0.4190,
    "factors.background": 0.1909,
    "factors.background_light": 0.1621,
    "factors.identity": 0.9633,
    "factors.landmarks": 0.1925,
    "factors.light": 0.1484,
    "factors.occluder": 0.2024,
    "factors.pose": 0.2166,
    "factors.surroundings": 0.1906,
}
"""What an unrelated clip scores."""
NOISE: dict[str, float] = {
    "factors.attributes": 0.0003,
    "factors.background": 0.0030,
    "factors.background_light": 0.0001,
    "factors.identity": 0.0003,
    "factors.landmarks": 0.0023,
    "factors.light": 0.0007,
    "factors.occluder": 0.0021,
    "factors.pose": 0.0023,
    "factors.surroundings": 0.0017,
}
"""What the truth scores when it is rendered anew, with other film grain and at twice the size, averaged down."""

_CELLS = 4  # a side: shading coarser than a quarter of the picture is light, finer is what it falls on
_COVERED = 1 / 16  # of a cell, from which on its mean says something


def shading_error(edited: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """How far the light on a surface is off: mean difference of 4 x 4 cells' mean colours, `(F,)`, 0..1.

    Each cell counts as much as the mask covers it. A frame whose mask is empty is NaN.

    Args:
        edited, truth: `(F, 3, H, W)`, 0..1.
        mask: `(F, H, W)` bool: where the surface is, in both.

    >>> x = torch.full((1, 3, 16, 16), 0.5)
    >>> round(shading_error(x + 0.1, x, torch.ones(1, 16, 16, dtype=torch.bool)).item(), 6)
    0.1
    """
    weight = mask[:, None].to(edited.dtype)
    covered = functional.adaptive_avg_pool2d(weight, _CELLS)
    means = [functional.adaptive_avg_pool2d(clip * weight, _CELLS) for clip in (edited, truth)]
    apart = (means[0] - means[1]).abs().mean(1, keepdim=True)  # times the cover: each cell's weight is in it
    counts = covered >= _COVERED
    error: Tensor = (apart * counts).sum((1, 2, 3)) / (covered * counts).sum((1, 2, 3))
    return error


def masked_error(edited: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference of each frame under a mask, `(F,)`, 0..1; NaN where the mask is empty.

    Args:
        edited, truth: `(F, 3, H, W)`, 0..1.
        mask: `(F, H, W)` bool.

    >>> masked_error(torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool)).item()
    1.0
    """
    error: Tensor = ((edited - truth).abs().mean(1) * mask).sum((1, 2)) / mask.sum((1, 2))
    return error


def landmark_error(edited: npt.ArrayLike, truth: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Mean distance of 68 landmarks, in distances between the true eyes, `(F,)`.

    Args:
        edited, truth: `(F, 68, 2)`, in one picture's coordinates.

    >>> landmark_error(MEAN_FACE[None] + [0.2, 0.0], MEAN_FACE[None])  # its eyes are 2 apart
    array([0.1])
    """
    moved = np.linalg.norm(np.asarray(edited, np.float64) - np.asarray(truth, np.float64), axis=-1).mean(-1)
    return np.asarray(moved / interocular(truth))


def pose(landmarks: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Where a head is turned, from its landmarks in a picture, `(F, 3)`: yaw, pitch and roll, each as a length.

    Yaw and pitch are the nose tip's place across and along the face, from midway between eyes and mouth, in distances
    between the eyes; roll is the angle of the eyes' line in radians. They rise and fall with the true angles and are
    not equal to them; pitch is told least well, because noses differ in length.

    Args:
        landmarks: `(F, 68, 2)`, pixels or fractions of a square.

    >>> pose(MEAN_FACE[None])[0, [0, 2]].round(6).tolist()  # it looks straight ahead
    [0.0, 0.0]
    """
    left, right, nose, *corners = np.moveaxis(align.five_points(landmarks), -2, 0)
    across = right - left
    length = np.hypot(*across.T)
    along = np.stack([-across[:, 1], across[:, 0]], -1)
    offset = nose - ((left + right) / 2 + (corners[0] + corners[1]) / 2) / 2
    places = [(offset * axis).sum(-1) / length**2 for axis in (across, along)]
    return np.stack([*places, np.arctan2(across[:, 1], across[:, 0])], -1)


def pose_error(edited: npt.ArrayLike, truth: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Euclidean distance of `pose`, `(F,)`: landmarks `(F, 68, 2)` of edit and truth.

    >>> pose_error(MEAN_FACE[None], MEAN_FACE[None])
    array([0.])
    """
    return np.asarray(np.linalg.norm(pose(edited) - pose(truth), axis=-1))


def attribute_error(edited: Mapping[str, Tensor], truth: Mapping[str, Tensor], kept: Mapping[str, str]) -> Tensor:
    """How far the examiner's readings of kept attributes are apart, `(F,)`, 0..1: mean total variation distance.

    Args:
        edited, truth: Variable -> log-probabilities `(F, values)`.
        kept: The attributes that must stay; those the examiner does not know are left out.

    >>> sure, other = torch.tensor([[0.0, -100.0]]), torch.tensor([[-100.0, 0.0]])
    >>> attribute_error({"age": sure}, {"age": other}, {"age": "old"}).item()
    1.0
    """
    known = [name for name in kept if name in truth]
    if not known:
        return torch.full((len(next(iter(truth.values()))),), math.nan)
    return torch.stack([(edited[n].exp() - truth[n].exp()).abs().sum(1) / 2 for n in known]).mean(0)


_SOURCE = "ours; the axiom is Monteiro et al. 2023 (arXiv:2303.01274)"
_BUNDLED = "{} (bundled, Apache-2.0)"


def _about(title: str, formula: str, unit: str = "", weights: str = "", high: float = math.inf) -> About:
    return About(
        title=title, better="lower", low=0, high=high, unit=unit, formula=formula, source=_SOURCE, weights=weights
    )


class _Errors:
    """Means of factors' errors over the frames in which they are defined."""

    about: ClassVar[Mapping[str, About]]

    def __init__(self) -> None:
        self._sums = dict.fromkeys(self.about, 0.0)
        self._counts = dict.fromkeys(self.about, 0)

    def add(self, name: str, errors: Tensor | npt.NDArray[np.float64]) -> None:
        errors = torch.as_tensor(errors, dtype=torch.float64)
        known = errors[errors.isfinite()]
        self._sums[name] += float(known.sum())
        self._counts[name] += len(known)

    def compute(self) -> Mapping[str, float]:
        return {name: self._sums[name] / n if n else math.nan for name, n in self._counts.items()}


@register
class FaceFactors(_Errors):
    """Factors of the face's square, read by the bundled landmark network, parser and identity encoder."""

    needs: ClassVar[frozenset[Need]] = frozenset({"truth", "face"})
    about: ClassVar[Mapping[str, About]] = {
        "factors.landmarks": _about(
            "Landmarks off the truth's", "mean over 68 points of |g(f(x)) - g(y)|", "eye distances",
            _BUNDLED.format("landmarks"),
        ),
        "factors.pose": _about(
            "Pose off the truth's", "|g(f(x)) - g(y)|, g: nose tip across and along the face, angle of the eyes' line",
            "eye distances", _BUNDLED.format("landmarks"),
        ),
        "factors.identity": _about(
            "Identity off the truth's", "1 - cos(g(f(x)), g(y))", "", _BUNDLED.format("identity"), 2,
        ),
        "factors.light": _about(
            "Light on the skin off the truth's", "mean over 4 x 4 cells of |mean colour of f(x) - of y|, where both "
            "show skin", "", _BUNDLED.format("parser"), 1,
        ),
        "factors.surroundings": _about(
            "What is behind the head, in the face's square, off the truth's",
            "mean of |f(x) - y| where the parser sees background in y", "", _BUNDLED.format("parser"), 1,
        ),
        "factors.relative": _about(
            "Minimality by factors: 0 is the truth, 1 an unrelated clip",
            "mean over landmarks, pose, identity, light and surroundings of err / spread of the world",
            "", _BUNDLED.format("landmarks, identity, parser"),
        ),
    }  # fmt: skip

    def update(self, window: Window) -> None:
        if not window.faces or not len(window.faces["truth"]):
            return
        edited, truth = window.faces["counterfactual"], window.faces["truth"]
        points = landmarks(window, "counterfactual"), landmarks(window, "truth")
        self.add("factors.landmarks", landmark_error(*points))
        self.add("factors.pose", pose_error(*points))
        cosine = functional.cosine_similarity(faces(window, "counterfactual"), faces(window, "truth"))
        self.add("factors.identity", (1 - cosine).clamp_min(0))
        labels = parsed(window, "counterfactual"), parsed(window, "truth")
        skin = (labels[0] == parse.SKIN) & (labels[1] == parse.SKIN)
        self.add("factors.light", shading_error(edited, truth, skin.to(truth.device)))
        self.add("factors.surroundings", masked_error(edited, truth, (labels[1] == parse.BACKGROUND).to(truth.device)))

    def compute(self) -> Mapping[str, float]:
        found = dict(super().compute())
        known = [found[name] / SPREADS[name] for name in found if name in SPREADS and not math.isnan(found[name])]
        return found | {"factors.relative": sum(known) / len(known) if known else math.nan}


@register
class WorldFactors(_Errors):
    """Factors of the whole frame, under the masks that only a renderer knows."""

    needs: ClassVar[frozenset[Need]] = frozenset({"truth", "world"})
    about: ClassVar[Mapping[str, About]] = {
        "factors.background": _about(
            "Background off the truth's", "mean of |f(x) - y| where y shows neither person nor occluder", high=1,
        ),
        "factors.background_light": _about(
            "Light on the background off the truth's", "mean over 4 x 4 cells of |mean colour of f(x) - of y| where y "
            "shows background", high=1,
        ),
        "factors.occluder": _about(
            "What passes before the face, off the truth's", "mean of |f(x) - y| under the true mask of the occluder, "
            "over the frames that have one", high=1,
        ),
    }  # fmt: skip

    def update(self, window: Window) -> None:
        if window.world is None:
            return
        edited, truth = window.frames["counterfactual"], window.frames["truth"]
        for name, mask in (("background", window.world.background), ("occluder", window.world.occluder)):
            if mask is None:
                continue
            if mask.shape != (len(truth), *truth.shape[2:]):
                raise ValueError(
                    f"The world's mask of the {name} is {tuple(mask.shape)}, the truth's frames are "
                    f"{tuple(truth.shape)}. Render both at one size, frame for frame."
                )
            mask = mask.to(truth.device)
            self.add(f"factors.{name}", masked_error(edited, truth, mask))
            if name == "background":
                self.add("factors.background_light", shading_error(edited, truth, mask))


@register
class AttributeFactor(_Errors):
    """The attributes that the graph keeps, as the examiner reads them frame by frame."""

    needs: ClassVar[frozenset[Need]] = frozenset({"truth", "face", "attributes"})
    about: ClassVar[Mapping[str, About]] = {
        "factors.attributes": _about(
            "Kept attributes off the truth's", "mean over kept attributes of the total variation distance of the "
            "examiner's reading of f(x) and of y", "", _BUNDLED.format("examiner"), 1,
        ),
    }  # fmt: skip

    def update(self, window: Window) -> None:
        if window.asked is None or not window.faces or not len(window.faces["truth"]):
            return
        said = examined(window, "counterfactual"), examined(window, "truth")
        self.add("factors.attributes", attribute_error(*said, window.asked.kept))


def landmarks(window: Window, clip: str) -> npt.NDArray[np.float64]:
    """68 landmarks of a clip's face crops, `(n, 68, 2)`, pixels of the crop.

    The network looks once, where alignment puts a plain face: on 30 rendered people the points are off by 0.027 of the
    eyes' distance in the median, and by 0.026 after a second look at twice the cost.
    """

    def look() -> npt.NDArray[np.float64]:
        model = window.eyes.get("landmarks", LandmarkNet.from_folder)
        crops = window.faces[clip]
        plain = align.five_points(MEAN_FACE)[None]
        start = align.to_square(plain, align.quads(plain, smooth=False, framing=align.PORTRAIT)) * crops.shape[-1] - 0.5
        finder = NetLandmarks(model, passes=1)
        return finder(crops.permute(0, 2, 3, 1) * 255, np.zeros((len(crops), 4)), np.repeat(start, len(crops), 0))

    found: npt.NDArray[np.float64] = window.once("landmarks", clip, look)
    return found


def parsed(window: Window, clip: str) -> Tensor:
    """What each pixel of a clip's face crops shows, `(n, S, S)` uint8, as in `countervid.face.parse.LABELS`."""

    def look() -> Tensor:
        net = window.eyes.get("parser", parse.ParserNet.from_folder)
        return parse.NetParser(net)(window.faces[clip].permute(0, 2, 3, 1) * 255)

    found: Tensor = window.once("parser", clip, look)
    return found
