"""Where a clip is cut: the first frame of each shot, found as the frames come, a few frames behind.

Each frame is reduced to a small picture. At a **hard cut** every picture before differs from every picture after, and
by more than neighbouring pictures around it differ: after the best local displacement, so that motion counts little,
and after a common gain and offset, so that light counts little. One bright frame is no cut, for the pictures before and
after it are alike; a whipped pan is none, for each of its frames differs as much from the next. A **dissolve** is one
boundary, in its middle: its pictures are mixtures of two that are not alike. A **fade** through black or white is one
boundary, where a picture comes back, if it is another than the one that went.

Comparing over a neighbourhood follows Yuan et al., A Formal Study of Shot Boundary Detection (IEEE TCSVT 2007); a
dissolve as a mixture follows Hampapur, Jain and Weymouth (Production Model Based Digital Video Segmentation, 1995).
`benchmarks/shots.py` measures it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

Picture = npt.NDArray[np.float32]

_SIDE = 32  # pixels of the small picture, both ways
_BLOCK = 8  # pixels of the blocks that are looked for in another picture,
_SEARCH = 6  # and how far: a fifth of the frame
_AROUND = 5  # pictures on each side of a boundary that are compared: what lasts less is a flash
_CALM = 4  # of them, those whose differences from each other are held against the difference across
_MIXED = (0.15, 0.85)  # shares of the second picture that count as a mixture


@dataclass(frozen=True, kw_only=True)
class CutConfig:
    blank: float = 3.0  # levels of 255: a picture whose contrast is below shows nothing
    plain: float = 0.15  # least difference pixel by pixel: below it nothing else is looked at
    hard: float = 0.4  # least difference across a cut, in deviations of the picture's brightness
    isolation: float = 2.3  # how much larger it is than what is usual around it;
    clear: float = 0.8  # a difference from which on nothing is left of a picture, so that
    clear_isolation: float = 1.45  # less is asked: cuts between shaken or noisy shots
    edge_isolation: float = (
        4.0  # more, within three frames of the clip's ends or a blank picture: little is known there
    )
    dissolved: float = 0.6  # least difference of the pictures at the ends of a dissolve; a slow pan mixes pictures, too
    mixture: float = 0.4  # most that a mixture of two pictures leaves unexplained, of their difference
    reaches: tuple[int, ...] = (13, 8, 4)  # frames to either side of a dissolve's middle; the first that fits decides
    shortest: int = 3  # frames of a shot; what is shorter belongs to the next one


class CutDetector:
    """Finds the boundaries of a clip whose frames come in windows."""

    def __init__(self, config: CutConfig | None = None) -> None:
        self.config = config or CutConfig()
        self.length = 0  # frames seen
        self.decided = 0  # all boundaries up to this frame are known
        self._pictures: dict[int, Picture] = {}  # normalised, of the last frames
        self._blank: set[int] = set()
        self._hard: list[int] = []  # of the last frames
        self._tested = 1  # next frame to be tested for a hard cut
        self._last = 0  # first frame of the shot under way
        self._dissolved = -(10**9)  # where the last dissolve was
        self._known: dict[tuple[int, int], float] = {}  # differences that were computed

    @property
    def lookahead(self) -> int:
        """Frames after a boundary that must be seen before it is decided."""
        return max(*self.config.reaches, _AROUND) + 1

    def update(self, frames: Tensor) -> list[int]:
        """Take the next frames `(F, H, W, 3)` uint8; returns the boundaries that are now known, ascending."""
        for frame in frames.cpu().numpy():
            small = cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
            grey = small.mean(-1)
            deviation = float(grey.std())
            if deviation < self.config.blank:
                self._blank.add(self.length)
            self._pictures[self.length] = (small - grey.mean()) / max(deviation, 1.0)
            self.length += 1
        return self._decide(self.length - self.lookahead)

    def finish(self) -> list[int]:
        """The boundaries among the last frames."""
        return self._decide(self.length)

    def _decide(self, stop: int) -> list[int]:
        while self._tested + _AROUND <= self.length or (stop == self.length and self._tested < self.length):
            if self._is_hard(self._tested):
                self._hard.append(self._tested)
            self._tested += 1
        found = []
        for t in range(max(self.decided, 1), stop):
            hard = t in self._hard and (t >= self._last + self.config.shortest or self._last == 0)
            dissolved = not hard and self._is_dissolve(t)
            if hard or dissolved or self._is_return(t):
                found.append(t)
                self._last = t
                self._dissolved = t if dissolved else self._dissolved
        if stop > self.decided:
            self.decided = stop
            old = stop - 2 * self.lookahead
            keep = {min((i for i in self._blank), default=old) - 1} if self._blank else set()
            self._pictures = {i: p for i, p in self._pictures.items() if i >= old or i in keep}
            self._known = {pair: d for pair, d in self._known.items() if pair[0] >= old}
            self._hard = [t for t in self._hard if t >= old]
        return found

    def _is_hard(self, t: int) -> bool:
        config = self.config
        before = [i for i in range(max(0, t - _AROUND), t) if i not in self._blank]
        after = [i for i in range(t, min(self.length, t + _AROUND)) if i not in self._blank]
        if t - 1 in self._blank or t in self._blank or self._plain(t - 1, t) < config.plain:
            return False
        usual = [self._usual_change(before[-_CALM:]), self._usual_change(after[:_CALM])]
        calm = max((value for value in usual if value is not None), default=0.0)
        across = np.inf
        # The nearest first: the pictures around a mere flash are found to be alike before many are compared.
        for i, j in sorted(((i, j) for i in before for j in after), key=lambda pair: pair[1] - pair[0]):
            across = min(across, self._difference(i, j))
            if across < max(config.hard, config.clear_isolation * calm):
                return False
        isolation = config.clear_isolation if across >= config.clear else config.isolation
        if min(len(before), len(after)) < _CALM:
            isolation = config.edge_isolation
        return across >= isolation * calm

    def _usual_change(self, numbers: list[int]) -> float | None:
        """The median difference of neighbours among a few pictures: a flash among them counts for nothing."""
        changes = [self._difference(i, j) for i, j in zip(numbers[:-1], numbers[1:], strict=True)]
        return float(np.median(changes)) if changes else None

    def _is_return(self, t: int) -> bool:
        """Whether a picture comes back after blank frames, and is another."""
        if t in self._blank or t - 1 not in self._blank:
            return False
        last = t - 1
        while last in self._blank:
            last -= 1
        self._blank = {i for i in self._blank if i > t}
        if last not in self._pictures:
            return False
        after = [j for j in range(t, min(self.length, t + 5)) if j not in self._blank]
        calm = self._usual_change(after) or 0.0  # of a dark or flat picture, noise
        return min(self._difference(last, j) for j in after) > max(self.config.hard, self.config.isolation * calm)

    def _is_dissolve(self, t: int) -> bool:
        """Whether the pictures around `t` are mixtures of an earlier and a later one, as much of either there."""
        config = self.config
        if t < self._dissolved + 2 * max(config.reaches):
            return False  # the rest of it
        start = max([self._last, *(cut for cut in self._hard if cut <= t), *(i + 1 for i in self._blank if i < t)])
        stop = min([self.length, *(cut for cut in self._hard if cut > t), *(i for i in self._blank if i >= t)])
        for reach in config.reaches:
            first, last = max(start, t - reach), min(stop, t + reach) - 1
            if min(t - first, last + 1 - t) < min(config.reaches):
                return False
            if self._plain(first, last) < 2 * config.plain:
                continue
            shares, left = mixtures(*(self._pictures[i] for i in range(first, last + 1)))
            mixed = (shares > _MIXED[0]) & (shares < _MIXED[1])
            apart = self._difference(first, last)
            explained = left.max() < config.mixture * min(apart, 1.25)
            if explained and mixed.sum() >= 3 and np.diff(shares).min() > -0.05:
                return bool(shares[t - first - 1] < 0.5 <= shares[t - first]) and apart > config.dissolved
        return False

    def _plain(self, i: int, j: int) -> float:
        return float(np.abs(self._pictures[i] - self._pictures[j]).mean())

    def _difference(self, i: int, j: int) -> float:
        if (i, j) not in self._known:
            self._known[i, j] = difference(self._pictures[i], self._pictures[j])
        return self._known[i, j]


def difference(a: Picture, b: Picture) -> float:
    """How much of one picture is not in the other, in deviations: the mean over the worse half of the blocks.

    Each block of one is looked for in the other, up to `_SEARCH` pixels away; the larger of both directions counts.
    """
    return max(_unmatched(a, b), _unmatched(b, a))


def mixtures(*pictures: Picture) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Each picture as a mixture of the first and the last: the last's share, and what is left over, in deviations."""
    flat = np.stack(pictures).reshape(len(pictures), -1)
    ends = flat[[0, -1]]
    weights = flat @ ends.T @ np.linalg.pinv(ends @ ends.T)
    left = np.sqrt(np.square(flat - weights @ ends).mean(1))
    weights = np.maximum(weights, 0)
    return weights[:, 1] / np.maximum(weights.sum(1), 1e-9), left


def _unmatched(a: Picture, b: Picture) -> float:
    padded = cv2.copyMakeBorder(b, _SEARCH, _SEARCH, _SEARCH, _SEARCH, cv2.BORDER_REPLICATE)
    least = []
    for y in range(0, _SIDE, _BLOCK):
        for x in range(0, _SIDE, _BLOCK):
            room = padded[y : y + _BLOCK + 2 * _SEARCH, x : x + _BLOCK + 2 * _SEARCH]
            least.append(cv2.matchTemplate(room, a[y : y + _BLOCK, x : x + _BLOCK], cv2.TM_SQDIFF).min())
    apart = np.sqrt(np.maximum(least, 0) / (3 * _BLOCK**2))
    return float(np.sort(apart)[len(apart) // 2 :].mean())
