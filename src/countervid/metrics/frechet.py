"""Fréchet distance between sets of vectors, such as FVD: how far apart two sets of videos are, as a feature sees them.

It is of sets and never of a pair: between one clip and another it is their squared distance alone, which the metrics
`i3d-distance` and `video-distance` give under that name. Features of single videos are in `videos`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from countervid.errors import ConfigError

ADVISED = 256  # clips in each set, by the common implementation's maintainer; papers take 2048


class Moments:
    """Mean and covariance of vectors that come in parts, in double precision; memory does not grow with their number.

    Attributes:
        count: How many there were.
        mean: `(D,)`; undefined before the first.

    >>> moments = Moments()
    >>> moments.add(torch.tensor([[0.0, 0.0]]))
    >>> moments.add(torch.tensor([[2.0, 4.0]]))
    >>> moments.mean.tolist(), moments.covariance.tolist()
    ([1.0, 2.0], [[2.0, 4.0], [4.0, 8.0]])
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self._scatter = torch.zeros(0, 0, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Add vectors `(n, D)`, n at least 1.

        Raises:
            ValueError: They are not as long as those before, or not finite.
        """
        if features.ndim != 2 or not len(features) or (self.count and features.shape[1] != len(self.mean)):
            expected = len(self.mean) if self.count else "D"
            raise ValueError(f"`features` must be (n, {expected}), got {tuple(features.shape)}. One row a video.")
        if not features.isfinite().all():
            raise ValueError("`features` hold NaN or infinity. Leave videos without a feature out, and say how many.")
        features = features.detach().to("cpu", torch.float64)
        mean = features.mean(dim=0)
        centred = features - mean
        scatter = centred.T @ centred
        if not self.count:
            self.count, self.mean, self._scatter = len(features), mean, scatter
            return
        total, away = self.count + len(features), mean - self.mean  # Chan et al. 1979, pairwise update
        self._scatter += scatter + torch.outer(away, away) * (self.count * len(features) / total)
        self.mean = self.mean + away * (len(features) / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """`(D, D)`, divisor n - 1; zeros for one vector."""
        return self._scatter / max(self.count - 1, 1)


def frechet(one: Moments, two: Moments) -> float:
    """|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2), at least 0 (Dowson and Landau 1982).

    tr (S1 S2)^1/2 is the sum of the square roots of the eigenvalues of S1^1/2 S2 S1^1/2, which is symmetric and has no
    negative ones but for rounding. Deviation: the reference takes `scipy.linalg.sqrtm` of S1 S2, which can explode
    with fewer vectors than dimensions; where it does not, both agree to 1e-6.

    >>> one, two = Moments(), Moments()
    >>> one.add(torch.tensor([[0.0, 0.0], [2.0, 0.0]]))
    >>> two.add(torch.tensor([[3.0, 4.0], [5.0, 4.0]]))
    >>> round(frechet(one, two), 9)
    25.0
    """
    root = _root(one.covariance)
    common = torch.linalg.eigvalsh(root @ two.covariance @ root).clamp_min(0).sqrt().sum()
    spread = one.covariance.trace() + two.covariance.trace() - 2 * common
    return max(0.0, float((one.mean - two.mean).square().sum() + spread))


def frechet_distance(one: Tensor, two: Tensor) -> float:
    """The same of all vectors at once, `(N, D)` and `(M, D)`; of one vector against one, their squared distance.

    >>> frechet_distance(torch.zeros(1, 3), torch.ones(1, 3))
    3.0
    """
    moments = []
    for features in (one, two):
        moments.append(Moments())
        moments[-1].add(features)
    return frechet(*moments)


def set_distance(one: Moments, two: Moments) -> float:
    """The Fréchet distance between two sets of videos: FVD where the features are I3D's.

    Raises:
        ConfigError: A set holds fewer than two videos.
    """
    if min(one.count, two.count) < 2:
        raise ConfigError(
            f"A Fréchet distance is of sets, got {one.count} and {two.count} videos. Give at least 2 of each "
            f"({ADVISED} and more for FVD), or take `i3d-distance` or `video-distance` of a pair."
        )
    return frechet(one, two)


def _root(symmetric: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(symmetric)
    root: Tensor = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    return root
