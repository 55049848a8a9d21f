"""A clip as H.264, or in the coding of its file, in mp4, mov or mkv, with its sound."""

from __future__ import annotations

import math
import platform
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.video.reformatter import ColorRange, Colorspace

from countervid.clip.colour import SCALING, padded_plane
from countervid.clip.labels import kept_metadata
from countervid.clip.native import NativeFrames, native_of
from countervid.clip.sources import Pictures, Source, durations, rounded
from countervid.clip.subsampled import from_rgb, from_rgb_coefficients
from countervid.clip.tracks import TrackCarrier
from countervid.errors import OutputError

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}

# x264's AVX-512 code gives other bytes from one run to the next; with older instructions the same come each time.
SAME_BYTES = {"x264-params": "asm=sse4.2"} if platform.machine().lower() in ("x86_64", "amd64") else {}

_MATROSKA = Fraction(1, 1000)  # FFmpeg writes its times so


def _in_milliseconds(source: Source) -> tuple[list[int], int]:
    stamps, last = rounded(source, _MATROSKA)
    if stamps[-1] * _MATROSKA > source.stamps[-1] * source.time_base + Fraction(1, 20):
        raise OutputError(
            "The frames follow each other more than 1000 times a second, and mkv keeps times to 1/1000 s. "
            "Write .mp4 or .mov."
        )
    return stamps, last


class _VideoTrack:
    """Muxes the packets of the pictures so that an mp4 track ends when its last frame ends.

    There a track is as long as its packets' decoding times say: until the last of them, which with B-frames is not the
    last shown. So the last packet gets what is missing up to the end, and the first is decoded early enough for it.
    """

    def __init__(self, output: Any, stamps: Sequence[int], end: int | None) -> None:
        """`end` is None for containers that keep the time for which each frame is shown."""
        self._output, self._stamps, self._end = output, stamps, end
        self._held: Any = None
        self._first = end is not None

    def mux(self, packets: Any, last: bool = False) -> None:
        for packet in packets:
            if self._first and packet.dts is not None:
                self._first = False
                delay = bisect_right(self._stamps, 2 * self._stamps[0] - packet.dts) - 1  # frames of reordering
                most = self._stamps[-1] - self._stamps[max(0, len(self._stamps) - 1 - delay)]
                packet.dts = min(packet.dts, self._stamps[0] - most)
            if self._held is not None:
                self._output.mux(self._held)
            self._held = packet
        if last and self._held is not None:
            if self._end is not None:
                self._held.duration = self._end - self._held.pts
            self._output.mux(self._held)


def _frame(pixels: np.ndarray, layout: str) -> Any:
    """A picture `(H, W, 3)` uint8 in the pixel format `layout`; YCbCr is BT.709 in limited range."""
    if layout == "yuv420p":
        frame = av.VideoFrame(pixels.shape[1], pixels.shape[0], layout)
        from_rgb(pixels, from_rgb_coefficients(), *(padded_plane(frame, i) for i in range(3)))
        frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.MPEG
        return frame
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    if layout == "rgb24":
        return frame
    return frame.reformat(
        format=layout,
        src_color_range=ColorRange.JPEG,
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=SCALING,
    )


def write_video(
    source: Source,
    partial: Path,
    container: str,
    crf: int,
    lossless: bool,
    metadata: Mapping[str, str],
) -> Pictures:
    """Write what is sent in, a frame at a time; finished with the source's last one."""
    even = source.width % 2 == 0 and source.height % 2 == 0
    # 4:2:0 shares one colour among four pixels, so it has no odd sizes; 4:4:4 has.
    layout = "rgb24" if lossless else "yuv420p" if even else "yuv444p"
    # A fixed number of threads: x264's output depends on it, and must not depend on the machine.
    quality = {"preset": "veryfast", "qp": "0"} if lossless else {"preset": "fast", "crf": str(crf)}
    time_base = _MATROSKA if container == "matroska" else source.time_base
    stamps, last = (source.stamps, source.last) if time_base == source.time_base else _in_milliseconds(source)
    shown_for = durations(stamps, source.rate, time_base, last)
    # Own names of metadata survive in mp4 only with this flag; with the index first, browsers can start at once.
    flags = {"movflags": "use_metadata_tags+faststart"} if container in ("mp4", "mov") else {}
    if flags:
        if stamps[0] > 0:  # else FFmpeg leaves out the pause before the first frame where B-frames are decoded before 0
            flags["movflags"] += "+negative_cts_offsets"
        # When each track begins is counted in the movie's own ticks; these hold the stamps exactly.
        scale = math.lcm(time_base.denominator, 90_000)
        flags["movie_timescale"] = str(scale if scale < 1 << 31 else 90_000)
    origin = None if lossless else native_of(source)
    with ExitStack() as stack:
        native = None if origin is None else stack.enter_context(NativeFrames(origin))
        output = stack.enter_context(
            av.open(f"file:{partial.absolute()}", mode="w", format=container, container_options=flags)
        )
        output.metadata.update({**kept_metadata(source.metadata), **metadata})
        if native is None:
            stream = output.add_stream("libx264rgb" if lossless else "libx264", rate=source.rate)
            stream.width, stream.height, stream.pix_fmt = source.width, source.height, layout
            stream.options = quality
        else:
            stream = native.add_stream(output, crf, len(stamps))
        if stream.codec_context.name != "libx265":
            stream.options |= {"threads": "4", **SAME_BYTES}
        stream.codec_context.time_base = stream.time_base = time_base
        stream.codec_context.flags |= Flags.frame_duration  # else packets of B-frames have none
        if (aspect := source.aspect if native is None else native.aspect) is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if native is None and not lossless:
            stream.codec_context.color_range = ColorRange.MPEG
            for tag in ("colorspace", "color_primaries", "color_trc"):
                setattr(stream.codec_context, tag, 1)  # BT.709 (ITU-T H.273)
        track = _VideoTrack(output, stamps, stamps[-1] + shown_for[-1] if flags else None)
        with TrackCarrier.opened(source.tracks, output, stream) as rest:
            for index in range(len(source.stamps)):
                pixels = yield
                frame = _frame(pixels, layout) if native is None else native.edited(index, pixels)
                frame.pts, frame.time_base, frame.duration = stamps[index], time_base, shown_for[index]
                track.mux(stream.encode(frame))
                rest.carry(until=stamps[index] * time_base)
            track.mux(stream.encode(None), last=True)
            rest.carry(until=None)
    if rest.cover is not None:
        rest.cover.fill(partial)
