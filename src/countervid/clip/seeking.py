"""Decoding that begins at a key frame in the middle of a file, and gives what decoding from its start gives."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from countervid.clip.container import opened, video_stream
from countervid.clip.pictures import packet_decoder
from countervid.clip.sources import MAX_PIXELS
from countervid.clip.timing import ONE_PACKET_ONE_FRAME
from countervid.errors import ClipError

# Codecs whose key frames set everything anew that decoding depends on.
_SEEKABLE = ONE_PACKET_ONE_FRAME - {"flv1"} | {"vp8"}
_EARLIER = 1  # key frames further back that are tried where the nearest is none that decoding can begin at


class KeyFrame(NamedTuple):
    """A packet that decoding may begin with; times in ticks of the stream."""

    number: int  # of the frame, in the order of showing
    shown: int
    decoded: int  # the time of showing, where the file does not say


@dataclass
class KeyPackets:
    """The key frames of a file, collected as its packets are listed."""

    keys: list[tuple[int, int]] = field(default_factory=list)  # times of showing and of decoding
    ordered: bool = True  # whether frames are shown in the order of their stamps, as far as the packets tell

    def add(self, packet: Any) -> None:
        """Take note of a packet of the video, in the order of the file."""
        shown = packet.pts
        if shown is None or (packet.is_keyframe and self.keys and shown <= self.keys[-1][0]):
            self.ordered = False
        elif packet.is_keyframe and not packet.is_discard:
            self.keys.append((shown, shown if packet.dts is None else packet.dts))
        elif len(self.keys) > 1 and shown <= self.keys[-2][0]:
            self.ordered = False  # leading pictures reach back into the group of frames before theirs, never beyond


@dataclass
class SeekTable:
    """Frame numbers by presentation stamp, and the key frames to begin at.

    Frames are known by their stamps: where one is missed after a key frame, decoding begins at an earlier one, and at
    the file's start from then on where that does not help.
    """

    stamps: Sequence[int]  # of the frames in the order of showing, strictly increasing, as the decoder gives them
    keys: Sequence[KeyFrame]  # in the order of showing
    reliable: bool = True  # until a frame is missed

    @staticmethod
    def of(codec: str, packets: KeyPackets, stamps: Sequence[int | None]) -> SeekTable | None:
        """The table of a file, or None where its stamps or its codec do not let decoding begin in the middle.

        Args:
            codec: FFmpeg's name of the codec, whoever decodes it.
            packets: Its key frames.
            stamps: Of the frames, as listed or decoded; in any order.
        """
        known = sorted(stamp for stamp in stamps if stamp is not None)
        distinct = all(sooner < later for sooner, later in zip(known, known[1:], strict=False))
        if codec not in _SEEKABLE or not packets.ordered or not distinct or len(known) < len(stamps):
            return None
        numbers = {stamp: number for number, stamp in enumerate(known)}
        keys = sorted(KeyFrame(numbers[shown], shown, decoded) for shown, decoded in packets.keys if shown in numbers)
        return SeekTable(array("q", known), keys[1:]) if len(keys) > 1 else None  # the first is the file's start

    def before(self, number: int) -> list[KeyFrame]:
        """Key frames to begin at for a frame, the best first; none where only the file's start serves."""
        if not self.reliable:
            return []
        at = bisect_right(self.keys, number, key=lambda key: key.number)
        return list(reversed(self.keys[max(0, at - 1 - _EARLIER) : at]))


class _MissedError(Exception):
    """A frame did not appear where it should."""


DECODED = Counter[Path]()
"""Frames decoded in this process, by file: what passes over clips have cost."""


def decode(path: Path) -> Iterator[Any]:
    """Every frame of the file's video, in the order of showing."""
    with opened(path) as container:
        stream = _decoder(container, path)
        decoded = packet_decoder(stream)
        for packet in container.demux(stream):
            for frame in decoded(packet):
                DECODED[path] += 1
                yield frame


def decode_from(path: Path, table: SeekTable | None, start: int) -> Iterator[Any]:
    """The frames from number `start` on, in the order of showing; the same that decoding from the file's start gives.

    Args:
        path: The file.
        table: Its key frames; None decodes from the file's start.
        start: Number of the first frame.
    """
    keys = [] if table is None else table.before(start)
    for key in keys:
        assert table is not None
        try:
            for number, frame in _decode_at(path, table, key):
                if number >= start:
                    yield frame
                    start = number + 1
            return
        except (_MissedError, ClipError):
            continue
    if table is not None and keys:
        table.reliable = False
    yield from islice(decode(path), start, None)


def _decode_at(path: Path, table: SeekTable, key: KeyFrame) -> Iterator[tuple[int, Any]]:
    """Frames with their numbers, from a key frame on, each at its place.

    Raises:
        _MissedError: A frame is missing, in excess or flagged as damaged.
    """
    with opened(path) as container:
        stream = _decoder(container, path)
        decoded, number = packet_decoder(stream), key.number
        for packet in _packets_from(container, stream, key):
            for frame in decoded(packet):
                DECODED[path] += 1
                if number == key.number and frame.pts is not None and frame.pts < key.shown:
                    continue  # leading pictures refer to frames before the key frame
                if number == len(table.stamps) or frame.pts != table.stamps[number] or frame.is_corrupt:
                    raise _MissedError
                yield number, frame
                number += 1
        if number < len(table.stamps):
            raise _MissedError


def _packets_from(container: Any, stream: Any, key: KeyFrame) -> Iterator[Any]:
    """The stream's packets from a key frame's on."""
    # Demuxers take what they are asked for as a time of showing or of decoding; some land behind it then.
    for asked in (key.shown, key.decoded):
        container.seek(asked, stream=stream)
        begun = False
        for packet in container.demux(stream):
            begun = begun or packet.pts == key.shown
            if begun:
                yield packet
            elif packet.is_keyframe and packet.pts is not None and packet.pts > key.shown:
                break
        if begun:
            return
    raise _MissedError


def _decoder(container: Any, path: Path) -> Any:
    stream = video_stream(container, path)
    stream.thread_type = "AUTO"
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    return stream
