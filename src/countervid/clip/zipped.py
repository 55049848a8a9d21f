"""Clips of one length side by side, and clips computed from several; what they have in common is decoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee

import torch
from torch import Tensor

from countervid.clip.sources import DerivedSource, MappedSource, Source, frames_by_windows, regroup

_Reader = tuple[int, int]  # 0 for whoever passes over them, else the reading source, and which of its inputs


@dataclass(frozen=True, eq=False)
class ZippedSource(DerivedSource):
    """Frames computed from those of several sources at the same place; all but the pictures is the first one's."""

    base: Source
    others: Sequence[Source]
    function: Callable[..., Tensor]
    window: int
    size: tuple[int, int]

    @property
    def height(self) -> int:
        return self.size[0]

    @property
    def width(self) -> int:
        return self.size[1]

    def compute(self, *frames: Tensor) -> Tensor:
        """A window of this source, of the inputs' windows."""
        result = self.function(*frames)
        wanted = (len(frames[0]), self.height, self.width, 3)
        if tuple(result.shape) != wanted or result.dtype != torch.uint8:
            raise ValueError(f"The function must return {wanted} uint8, got {tuple(result.shape)} {result.dtype}.")
        return result.cpu()

    def windows(self, size: int, start: int = 0) -> Iterator[tuple[int, Tensor]]:
        for first, (frames,) in zip_windows([self], size, start):
            yield first, frames

    def frames_at(self, indices: Sequence[int]) -> Tensor:
        return frames_by_windows(self, indices, self.window)


def zip_windows(sources: Sequence[Source], size: int, start: int = 0) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """Pass over several sources in step: `(index of the first, one (f, H, W, 3) uint8 a source)`.

    A source that several of them are computed from is read, and a map that several of them share is computed, once.
    Of each, no more frames are held than the longest window has that somebody asks it for.

    Args:
        sources: Of one length.
        size: Frames a window.
        start: Number of the first frame.
    """
    order = _readers_first(sources)
    # Who reads a source, how many frames at a time, and from which frame on.
    asked: dict[int, dict[_Reader, tuple[int, int]]] = {id(source): {} for source in order}
    for place, source in enumerate(sources):
        asked[id(source)][0, place] = size, start
    begins: dict[int, int] = {}
    for source in order:  # a map always sees the same windows
        first = min(first for _, first in asked[id(source)].values())
        begins[id(source)] = first - first % _window(source)
        for place, other in enumerate(_inputs(source)):
            asked[id(other)][id(source), place] = _window(source), begins[id(source)]
    parts: dict[_Reader, Iterator[tuple[int, Tensor]]] = {}
    for source in reversed(order):
        begin, readers = begins[id(source)], asked[id(source)]
        inputs = [parts[id(source), place] for place in range(len(_inputs(source)))]
        longest = max(window for window, _ in readers.values())
        pieces = _computed(source, inputs) if inputs else (frames for _, frames in source.windows(longest, begin))
        copies = tee(pieces, len(readers)) if len(readers) > 1 else (pieces,)
        for copy, (reader, (window, first)) in zip(copies, readers.items(), strict=True):
            parts[reader] = regroup(copy, window, first, first - begin)
    for windows in zip(*(parts[0, place] for place in range(len(sources))), strict=True):
        yield windows[0][0], tuple(frames for _, frames in windows)


def _readers_first(sources: Sequence[Source]) -> list[Source]:
    """The sources and all that they are computed from, each once and after all that read it."""
    found: dict[int, Source] = {}

    def visit(source: Source) -> None:
        if id(source) not in found:
            for other in reversed(_inputs(source)):
                visit(other)
            found[id(source)] = source

    for source in reversed(sources):
        visit(source)
    return list(reversed(found.values()))


def _inputs(source: Source) -> list[Source]:
    if isinstance(source, ZippedSource):
        return [source.base, *source.others]
    return [source.base] if isinstance(source, MappedSource) else []


def _window(source: Source) -> int:
    return source.window if isinstance(source, (MappedSource, ZippedSource)) else 1


def _computed(source: Source, inputs: Sequence[Iterator[tuple[int, Tensor]]]) -> Iterator[Tensor]:
    for parts in zip(*inputs, strict=True):
        start, frames = parts[0][0], [part for _, part in parts]
        if isinstance(source, MappedSource):
            yield source.compute(start, frames[0])
        elif isinstance(source, ZippedSource):
            yield source.compute(*frames)
