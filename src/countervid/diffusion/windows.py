"""Long clips in pieces: windows that overlap, so that each goes on from where the one before it ended."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Frames `start` to `stop` of a clip; the first `held` of them belong to the window before."""

    start: int
    stop: int
    held: int

    @property
    def own(self) -> range:
        """The frames that this window decides."""
        return range(self.start + self.held, self.stop)


def windows(count: int, size: int, overlap: int) -> list[Window]:
    """Windows of about one length, at most `size`, that cover `count` frames and share `overlap` with the one before.

    Every frame is decided by exactly one window.
    """
    if count <= size:
        return [Window(0, count, 0)]
    fresh = size - overlap
    number = math.ceil((count - overlap) / fresh)
    edges = [overlap + round(i * (count - overlap) / number) for i in range(number + 1)]
    edges[0] = 0
    return [Window(max(0, a - overlap), b, min(a, overlap)) for a, b in zip(edges, edges[1:], strict=False)]
