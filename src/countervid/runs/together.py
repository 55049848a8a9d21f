"""Several clips of one length as one: windows side by side, lazily."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from countervid.clip import Clip
from countervid.errors import ClipError


def together(
    function: Callable[..., Tensor], first: Clip, *others: Clip, window: int = 32, size: tuple[int, int] | None = None
) -> Clip:
    """A lazy clip of `function(frames of first, frames of the others ...)`; times and sound are the first clip's.

    Args:
        function: Takes one `(f, H, W, 3)` uint8 tensor a clip, gives `(f, H', W', 3)` uint8.
        first, others: Clips of one length; their sizes may differ.
        window: Frames a call.
        size: `(height, width)` of what the function returns, when it is not the first clip's.

    Raises:
        ClipError: The clips differ in length.
    """
    for other in others:
        if len(other) != len(first):
            raise ClipError(f"The clips have {len(first)} and {len(other)} frames. Cut them to one length.")
    expected = -1
    running: list[Iterator[tuple[int, Tensor]]] = []

    def combine(start: int, frames: Tensor) -> Tensor:
        nonlocal expected, running
        if start != expected:  # a new pass, or passes that take turns
            running = [other.windows(window, start) for other in others]
        expected = start + len(frames)
        return function(frames, *(next(windows)[1] for windows in running))

    return first.mapped(combine, window, size=size)


def remembered(source: Clip, derived: Clip, most_bytes: int = 256 << 20, window: int = 32) -> Clip:
    """`derived`, whose frames are kept after the first pass if they are few; else it is computed in every pass.

    Args:
        source: What `derived` was made from: same frames, times, sound and size.
        derived: A lazy clip that is dear to compute.
        most_bytes: No more than this is kept; 256 MiB are 55 s of 256 px video, or 1.7 s of 1080p.
    """
    if len(source) * source.height * source.width * 3 > most_bytes:
        return derived
    kept: dict[int, Tensor] = {}
    running: Iterator[tuple[int, Tensor]] = iter(())

    def recall(start: int, frames: Tensor) -> Tensor:
        nonlocal running
        while start not in kept:
            item = next(running, None)
            if item is None:  # the first pass, or the last one was broken off: what it found is kept
                running = derived.windows(window)
            else:
                kept[item[0]] = item[1]
        return kept[start]

    return source.mapped(recall, window)
