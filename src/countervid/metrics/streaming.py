"""Numbers that are means over a clip's frames, fed window by window."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor

from countervid.metrics.base import About, Need, Window, register

Score = Callable[[Window, str], Tensor]  # of the counterfactual against the clip of that name: one number a frame


class Mean:
    """The mean of numbers that come in parts.

    >>> import torch
    >>> mean = Mean()
    >>> mean.add(torch.tensor([1.0, 2.0]))
    >>> mean.add(torch.tensor([6.0]))
    >>> mean.value
    3.0
    """

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, values: Tensor) -> None:
        """Add numbers of any shape; the sum runs in double precision."""
        self._sum += float(values.double().sum())
        self._count += values.numel()

    @property
    def value(self) -> float:
        """Their mean; NaN where there were none."""
        return self._sum / self._count if self._count else math.nan


class FrameMean:
    """The mean over frames of a score that each frame has alone. Subclasses are made by `mean_over_frames`."""

    about: ClassVar[Mapping[str, About]]
    needs: ClassVar[frozenset[Need]]
    score: ClassVar[Score]
    against: ClassVar[str]

    def __init__(self) -> None:
        self._mean = Mean()

    def update(self, window: Window) -> None:
        self._mean.add(type(self).score(window, self.against))

    def compute(self) -> Mapping[str, float]:
        return dict.fromkeys(self.about, self._mean.value)


def mean_over_frames(name: str, score: Score, about: About) -> None:
    """Register the mean over frames of a score, against the factual clip and, as `name.truth`, against the truth.

    Args:
        name: What the first is called.
        score: Of a window and the name of the other clip, `(frames,)`.
        about: Of the first; the second has "to the truth" in its title.
    """
    to_truth = dataclasses.replace(about, title=f"{about.title} to the truth")
    families: tuple[tuple[str, str, About, frozenset[Need]], ...] = (
        ("factual", name, about, frozenset()),
        ("truth", f"{name}.truth", to_truth, frozenset({"truth"})),
    )
    for against, called, means, needs in families:
        body: dict[str, Any] = {
            "about": {called: means}, "needs": needs, "score": staticmethod(score), "against": against
        }  # fmt: skip
        register(type(f"FrameMean_{called}", (FrameMean,), body))
