"""From packets to whole pictures: transparency that only libvpx decodes, interlaced frames made progressive, damage."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import av
from av.filter import Graph

from countervid.clip.colour import Colour

_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own decoders leave the alpha channel out
_NAMED = 20  # damaged frames that a note names


def packet_decoder(stream: Any) -> Callable[[Any], Sequence[Any]]:
    """What turns a stream's packets, the empty last one too, into frames."""
    tags = {name.lower(): text for name, text in stream.metadata.items()}
    name = _WITH_ALPHA.get(stream.codec_context.codec.canonical_name)
    if name is None or tags.get("alpha_mode") != "1":
        return lambda packet: packet.decode()
    context = av.CodecContext.create(name, "r")
    context.options = stream.codec_context.options
    return lambda packet: context.decode(packet if packet.size else None)


def progressive(frames: Iterable[Any]) -> Iterator[Any]:
    """Frames in which those marked as interlaced are deinterlaced (bwdif), one for one; the others as they are.

    A deinterlaced frame depends on the frame before it and the one after.
    """
    graph: Graph | None = None
    waiting = deque[tuple[Any, Any]]()  # stamps of the frames that are in the filter
    before: Any = None
    skipped, shape = 0, (0, 0, "")
    for frame in frames:
        if graph is None and not frame.interlaced_frame:
            before = frame
            yield frame
            continue
        if graph is None or (frame.width, frame.height, frame.format.name) != shape:
            if graph is not None:
                yield from _pulled(graph, waiting, skipped, end=True)
            shape = (frame.width, frame.height, frame.format.name)
            same = before is not None and (before.width, before.height, before.format.name) == shape
            graph, skipped = _deinterlacer(frame), int(same)
            if same:  # already given out: only for what the next one takes of it
                waiting.append((before.pts, before.time_base))
                graph.push(before)
        waiting.append((frame.pts, frame.time_base))
        graph.push(frame)
        for result in _pulled(graph, waiting):
            if skipped:
                skipped -= 1
                continue
            yield result
    if graph is not None:
        yield from _pulled(graph, waiting, skipped, end=True)


def _deinterlacer(frame: Any) -> Graph:
    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format.name, time_base=frame.time_base),
        graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced"),
        graph.add("buffersink"),
    ).configure()
    return graph


def _pulled(graph: Graph, waiting: deque[tuple[Any, Any]], skipped: int = 0, end: bool = False) -> Iterator[Any]:
    if end:
        graph.push(None)
    while waiting:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        frame.pts, frame.time_base = waiting.popleft()
        if skipped:
            skipped -= 1
        else:
            yield frame


class FrameLog:
    """What the frames of a file turned out to be while they were decoded."""

    def __init__(self) -> None:
        self._damaged = set[int]()
        self._interlaced = False
        self._colours: dict[str, None] = {}
        self._last: Colour | None = None

    def look_at(self, number: int, frame: Any) -> None:
        """Take note of a decoded frame."""
        if frame.is_corrupt:
            self._damaged.add(number)
        self._interlaced = self._interlaced or bool(frame.interlaced_frame)
        if (colour := Colour.of(frame)) != self._last:
            self._last = colour
            if (note := colour.note) is not None:
                self._colours[note] = None

    def notes(self, count: int) -> list[str]:
        """A sentence for each thing that a run must say; `count` is the number of frames of the file."""
        notes = [f"{note}." for note in self._colours]
        if self._interlaced:
            notes.append("Interlaced frames are deinterlaced (bwdif), one picture a frame, and written progressive.")
        if self._damaged:
            names = [str(number) for number in sorted(self._damaged)]
            named = ", ".join(names[:_NAMED]) + (" ..." if len(names) > _NAMED else "")
            verb = "is" if len(names) == 1 else "are"
            notes.append(
                f"{len(names)} of {count} frames {verb} damaged: {named}. "
                "What follows may show it up to the next key frame."
            )
        return notes
