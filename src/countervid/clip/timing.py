"""What the packets of a file say of times, listed without decoding them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from countervid.clip.sources import MAX_FRAMES
from countervid.errors import ClipError

# Codecs of which one packet is one shown frame, so that listing the packets counts the frames without decoding.
ONE_PACKET_ONE_FRAME = frozenset(
    "av1 dnxhd ffv1 ffvhuff flv1 h264 hevc huffyuv mjpeg mpeg1video mpeg2video mpeg4 png prores qtrle rawvideo "
    "theora utvideo vp9".split()
)
AHEAD = 10  # seconds: a longer jump ahead is another recording, in containers whose clock may be set anew
_RESETTABLE = 0x0200  # FFmpeg's AVFMT_TS_DISCONT: MPEG transport and program streams, and their kin
_JITTER = Fraction(1, 20)  # seconds that a packet of sound may come early


@dataclass
class Run:
    """A stretch of one stream of sound in which the clock runs on, in seconds of the file."""

    packet: int  # packets of the stream before it
    frame: int  # packets of the picture before it
    start: Fraction
    end: Fraction
    ahead: bool = False  # follows a jump ahead; else one back


@dataclass
class Listing:
    """Time stamps of a file's pictures, in ticks of `time_base`, and the runs of its sound."""

    time_base: Fraction
    resettable: bool = False  # a container whose clock may be set anew: a long jump ahead is not one long frame
    stamps: list[int | None] = field(default_factory=list)  # of the frames to be shown, in the order of decoding
    restarts: bool = False  # the picture's clock jumps back or far ahead: only decoding tells the order of showing
    last: int | None = None  # ticks that the last frame is shown
    sound: dict[int, list[Run]] = field(default_factory=dict)  # by stream
    counts: dict[int, int] = field(default_factory=dict)  # packets of each stream of sound


def list_packets(container: Any, stream: Any, path: Path, watch: Callable[[Any], None] | None = None) -> Listing:
    """Time stamps of the frames to be shown, and the runs of the sound.

    Args:
        container, stream, path: The file, open, and its video.
        watch: Called with each packet of the video.

    Raises:
        ClipError: The file holds no frames, too many, or fewer than its header promises.
    """
    listing = Listing(Fraction(stream.time_base), bool(container.format.flags & _RESETTABLE))
    promised = int(stream.frames)
    seen, end, key_seen = 0, 0.0, False
    decoded: int | None = None
    key: int | None = None
    latest, shown_for = None, 0
    for packet in container.demux():
        if packet.size == 0:
            continue  # the marks for flushing decoders at the end of each stream
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None and packet.time_base:
            end = max(end, float((stamp + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index != stream.index:
            if packet.stream.type == "audio" and stamp is not None:
                _list_sound(listing, packet, stamp, seen)
            continue
        if watch is not None:
            watch(packet)
        seen += 1
        key_seen = key_seen or packet.is_keyframe
        if key_seen and not packet.is_discard:  # nothing can be decoded before the first key frame
            listing.stamps.append(stamp)
            if stamp is not None and (latest is None or stamp >= latest):
                latest, shown_for = stamp, packet.duration or 0
        if packet.dts is not None:
            jump = 0 if decoded is None else packet.dts - decoded
            far = listing.resettable and jump * listing.time_base > AHEAD
            listing.restarts = listing.restarts or jump < 0 or far
            decoded = packet.dts
        if packet.is_keyframe and packet.pts is not None:  # decoding times may be made up, these are not
            listing.restarts = listing.restarts or (key is not None and packet.pts < key)
            key = packet.pts
        if seen > MAX_FRAMES:
            raise ClipError(f"`{path}` has more than {MAX_FRAMES} frames. Cut it into parts.")
    if not listing.stamps:
        raise ClipError(f"`{path}` holds no frames: it is empty, or was cut off at its very beginning. Get it again.")
    name = container.format.name
    short = "mp4" in name and seen < promised
    if container.duration and ("matroska" in name or "mp4" in name):
        start = 0 if "matroska" in name else container.start_time or 0  # Matroska's duration often counts from 0
        promised_end = (container.duration + start) / av.time_base
        short = short or end < promised_end - max(1.0, 0.02 * promised_end)
    if short:
        raise ClipError(
            f"`{path}` is cut off: it holds {seen} frames up to {end:.1f} s, and its header promises more. "
            "Get it again."
        )
    if latest is not None and not listing.restarts:
        listing.last = _last(container, stream, latest, shown_for)
    return listing


def _list_sound(listing: Listing, packet: Any, stamp: int, frames: int) -> None:
    runs = listing.sound.setdefault(packet.stream_index, [])
    number = listing.counts.get(packet.stream_index, 0)
    listing.counts[packet.stream_index] = number + 1
    start = Fraction(stamp * packet.time_base)
    end = start + (packet.duration or 0) * packet.time_base
    if len(runs) > 1 and runs[-1].end - runs[-1].start < 1:
        expected = runs[-2].end + (runs[-1].end - runs[-1].start)
        if abs(start - expected) < _JITTER:  # the clock is back where it was: a few wrong stamps, no restart
            runs.pop()
    if not runs or start < runs[-1].end - _JITTER and end < runs[-1].end:
        runs.append(Run(number, frames, start, end))
    elif listing.resettable and start - runs[-1].end > AHEAD:
        runs.append(Run(number, frames, start, end, ahead=True))
    runs[-1].end = max(runs[-1].end, end)


def _last(container: Any, stream: Any, latest: int, shown_for: int) -> int | None:
    """Ticks that the last frame is shown, from the best that the file says; None where it says nothing.

    Durations of packets in mp4 are those between decoding times, so that the track's own end comes first there. In
    Matroska blocks have durations of showing; where they have none, FFmpeg and mkvmerge write a tag with the track's.
    """
    name, end = container.format.name, None
    if "mp4" in name and stream.duration is not None:
        end = (stream.start_time or 0) + stream.duration
        if shown_for and abs(end - latest - shown_for) * stream.time_base < Fraction(1, 500):
            end = None  # the same, but for the rounding of edit lists to 1/600 or 1/1000 s
    elif "matroska" in name and "DURATION" in stream.metadata:
        seconds = _seconds(stream.metadata["DURATION"])
        if seconds is not None:
            start = stream.start_time or 0 if "_STATISTICS_WRITING_APP" in stream.metadata else 0  # mkvmerge's
            end = start + round(seconds / stream.time_base)
            if shown_for and abs(end - latest - shown_for) > 1:
                end = None  # a tag that was copied from another file
    elif not shown_for and container.duration and len(container.streams) == 1:
        end = round(Fraction(container.duration + (container.start_time or 0), av.time_base) / stream.time_base)
    if end is not None and end > latest:
        return int(end - latest)
    return shown_for or None


def _seconds(text: str) -> Fraction | None:
    """`00:01:02.5` in seconds."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except ValueError:
        return None


def audio_start(container: Any) -> Fraction | None:
    """Seconds at which the earliest sound begins; None without sound."""
    starts = [
        Fraction((s.start_time or 0) * s.time_base) for s in container.streams.audio if s.codec_context is not None
    ]
    return min(starts) if starts else None


def steady(nominal: Fraction, stamps: Sequence[int], time_base: Fraction) -> Fraction:
    """The file's own frame rate where its stamps agree with it (they may be rounded); their mean where they do not."""
    if len(stamps) < 2:
        return nominal
    mean = (len(stamps) - 1) / ((stamps[-1] - stamps[0]) * time_base)
    return nominal if abs(mean / nominal - 1) < Fraction(1, 50) else mean.limit_denominator(1001)
