"""A clip as H.264 in mp4, mov or mkv, with its sound."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from pathlib import Path

import av
from av.video.reformatter import ColorRange, Colorspace

from countervid.clip.audio import AudioCarrier
from countervid.clip.colour import SCALING
from countervid.clip.sources import Pictures, Source, durations

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}

# x264's AVX-512 code gives other bytes from one run to the next; with older instructions the same come each time.
_SAME_BYTES = {"x264-params": "asm=sse4.2"} if platform.machine().lower() in ("x86_64", "amd64") else {}


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
    # Own names of metadata survive in mp4 only with this flag; with the index first, browsers can start at once.
    flags = {"movflags": "use_metadata_tags+faststart"} if container in ("mp4", "mov") else {}
    if flags:
        # When each track begins is counted in the movie's own ticks; these hold the stamps exactly.
        scale = math.lcm(source.time_base.denominator, 90_000)
        flags["movie_timescale"] = str(scale if scale < 1 << 31 else 90_000)
    with av.open(f"file:{partial.absolute()}", mode="w", format=container, container_options=flags) as output:
        output.metadata.update(metadata)
        stream = output.add_stream("libx264rgb" if lossless else "libx264", rate=source.rate)
        stream.width, stream.height, stream.pix_fmt = source.width, source.height, layout
        stream.options = {**quality, "threads": "4", **_SAME_BYTES}
        stream.codec_context.time_base = stream.time_base = source.time_base
        if source.aspect is not None:
            stream.codec_context.sample_aspect_ratio = source.aspect
        if not lossless:
            stream.codec_context.color_range = ColorRange.MPEG
            for tag in ("colorspace", "color_primaries", "color_trc"):
                setattr(stream.codec_context, tag, 1)  # BT.709 (ITU-T H.273)
        shown_for = durations(source.stamps, source.rate, source.time_base, source.last)
        with AudioCarrier.opened(source.audio, output) as sound:
            for index in range(len(source.stamps)):
                pixels = yield
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                if not lossless:
                    frame = frame.reformat(
                        format=layout,
                        src_color_range=ColorRange.JPEG,
                        dst_colorspace=Colorspace.ITU709,
                        dst_color_range=ColorRange.MPEG,
                        interpolation=SCALING,
                    )
                frame.pts, frame.time_base = source.stamps[index], source.time_base
                frame.duration = shown_for[index]
                output.mux(stream.encode(frame))
                sound.carry(until=source.stamps[index] * source.time_base)
            output.mux(stream.encode(None))
            sound.carry(until=None)
