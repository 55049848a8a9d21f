"""When the frames of a file appear: stamps listed from its packets, without decoding them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def audio_start(container: Any) -> Fraction | None:
    """Seconds at which the earliest sound begins; None without sound."""
    starts = [
        Fraction((s.start_time or 0) * s.time_base) for s in container.streams.audio if s.codec_context is not None
    ]
    return min(starts) if starts else None


def list_packets(
    container: Any, stream: Any, path: Path, watch: Callable[[Any], None] | None = None
) -> list[int | None]:
    """Time stamps of the frames to be shown, in order; None each where the file has none. Notices a cut-off file.

    Args:
        watch: Called with each packet of the stream.
    """
    stamps: list[int | None] = []
    promised = int(stream.frames)
    seen, end, key_seen = 0, 0.0, False
    for packet in container.demux():
        if packet.size == 0:
            continue  # the marks for flushing decoders at the end of each stream
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None and packet.time_base:
            end = max(end, float((stamp + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index != stream.index:
            continue
        if watch is not None:
            watch(packet)
        seen += 1
        key_seen = key_seen or packet.is_keyframe
        if key_seen and not packet.is_discard:  # nothing can be decoded before the first key frame
            stamps.append(stamp)
        if seen > MAX_FRAMES:
            raise ClipError(f"`{path}` has more than {MAX_FRAMES} frames. Cut it into parts.")
    if not stamps:
        raise ClipError(f"`{path}` holds no frames: it is empty, or was cut off at its very beginning. Get it again.")
    name = container.format.name
    short = "mp4" in name and seen < promised
    if container.duration and ("matroska" in name or "mp4" in name):
        promised_end = (container.duration + (container.start_time or 0)) / av.time_base
        short = short or end < promised_end - max(1.0, 0.02 * promised_end)
    if short:
        raise ClipError(
            f"`{path}` is cut off: it holds {seen} frames up to {end:.1f} s, and its header promises more. "
            "Get it again."
        )
    return stamps


def increasing(listing: Sequence[int | None], rate: Fraction, time_base: Fraction) -> list[int]:
    """Strictly increasing stamps in units of `time_base`; counted from the frame rate where the file has none."""
    if any(stamp is None for stamp in listing):
        return [round(index / rate / time_base) for index in range(len(listing))]
    stamps: list[int] = []
    for stamp in sorted(stamp for stamp in listing if stamp is not None):  # packets come in decoding order
        stamps.append(max(stamp, stamps[-1] + 1) if stamps else stamp)  # two frames at one time: one tick apart
    return stamps


def steady(nominal: Fraction, stamps: Sequence[int], time_base: Fraction) -> Fraction:
    """The file's own frame rate where its stamps agree with it (they may be rounded); their mean where they do not."""
    if len(stamps) < 2:
        return nominal
    mean = (len(stamps) - 1) / ((stamps[-1] - stamps[0]) * time_base)
    return nominal if abs(mean / nominal - 1) < Fraction(1, 50) else mean.limit_denominator(1001)
