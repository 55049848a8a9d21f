"""Video files as clips, through PyAV: listed once, decoded window by window, shown upright as RGB."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from torch import Tensor

from countervid.clip.images import over_black
from countervid.clip.sources import MAX_FRAMES, MAX_PIXELS, Audio, digest_of_files
from countervid.errors import ClipError

# Demuxers that fetch other files or addresses, read devices, or turn any text into a picture.
_REFUSED_FORMATS = frozenset(
    "adf alsa applehttp asf_o ass bin concat dash fbdev ffmetadata hls idf image2 image2pipe imf kmsgrab lavfi oss "
    "rtp rtsp sap sdp srt tty txd video4linux2,v4l2 webm_dash_manifest webvtt x11grab xbin".split()
)
# Codecs of which one packet is one shown frame, so that listing the packets counts the frames without decoding.
_ONE_PACKET_ONE_FRAME = frozenset(
    "av1 dnxhd ffv1 ffvhuff flv1 h264 hevc huffyuv mjpeg mpeg1video mpeg2video mpeg4 png prores qtrle rawvideo "
    "theora utvideo vp9".split()
)
# The matrix between YCbCr and RGB (ITU-T H.273, MatrixCoefficients) -> swscale's name for it.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
# Exact rounding, chroma interpolated at full resolution, the same bytes on every machine.
SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT


class Upright(NamedTuple):
    """How a stored picture becomes the one shown: rows and columns swapped first, then mirrored."""

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """`(H, W, 3)` as stored -> as shown."""
        if self.transpose:
            pixels = pixels.swapaxes(0, 1)
        if self.mirror_x:
            pixels = pixels[:, ::-1]
        if self.mirror_y:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A container of a local file, or a `ClipError` that says why not, also for errors while it is read."""
    try:
        formats = ",".join(sorted(av.formats_available - _REFUSED_FORMATS))
        # `file:` and the whitelists: neither a name nor the file's content may lead to another file or to the network.
        limits = {"protocol_whitelist": "file", "format_whitelist": formats}
        with av.open(
            f"file:{path.resolve()}", mode="r", container_options=limits, metadata_errors="replace"
        ) as container:
            yield container
    except PermissionError as error:
        raise ClipError(f"`{path}` may not be read. Change its permissions.") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        if path.is_file() and path.stat().st_size == 0:
            raise ClipError(f"`{path}` is empty (0 bytes). Get the file again.") from error
        raise ClipError(
            f"`{path}` is not a video that can be read: no known format, or cut off, or damaged. "
            "Check that it plays, or get it again."
        ) from error


@dataclass(frozen=True, eq=False)
class VideoSource:
    """The first video stream of a file, and all of its sound."""

    path: Path
    height: int
    width: int
    stamps: Sequence[int]
    time_base: Fraction
    rate: Fraction
    metadata: Mapping[str, str]
    audio: Audio | None
    aspect: Fraction | None  # of a pixel, as shown; None for square ones
    upright: Upright

    @staticmethod
    def probe(path: Path) -> VideoSource:
        """List a file's packets and decode its first frame.

        Raises:
            ClipError: Not a video, no video stream, cut off, damaged or too large.
        """
        with opened(path) as container:
            stream = _video_stream(container, path)
            listing = _list_packets(container, stream, path)
            rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
            aspect, codec = stream.sample_aspect_ratio, stream.codec_context.name
            metadata = {name.lower(): text for name, text in container.metadata.items()}  # Matroska shouts
            time_base, audio_start = Fraction(stream.time_base), _audio_start(container)
            muxer = container.format.name
        first = next(_decoded(path), None)
        if first is None:
            raise ClipError(f"`{path}` holds no frame that can be decoded. Get the file again.")
        upright = _upright(first)
        width, height = (first.height, first.width) if upright.transpose else (first.width, first.height)
        if codec not in _ONE_PACKET_ONE_FRAME or muxer == "avi" or first.interlaced_frame:
            listing = [frame.pts for frame in _decoded(path)]
        stamps = _increasing(listing, rate, time_base)
        rate = _steady(rate, stamps, time_base)
        start = stamps[0] * time_base
        # Time 0 of the clip is where the file begins, so that sound keeps its distance to the pictures.
        origin = start if start < 0 or audio_start is None else max(Fraction(0), min(start, audio_start))
        shift = origin // time_base
        if aspect in (None, 0, 1):
            aspect = None
        elif upright.transpose:
            aspect = 1 / aspect
        return VideoSource(
            path=path,
            height=height,
            width=width,
            stamps=[stamp - shift for stamp in stamps],
            time_base=time_base,
            rate=rate,
            metadata=metadata,
            audio=None if audio_start is None else Audio(path, shift * time_base),
            aspect=aspect,
            upright=upright,
        )

    def windows(self, size: int) -> Iterator[tuple[int, Tensor]]:
        start, held = 0, list[np.ndarray]()
        for frame in _decoded(self.path):
            if start + len(held) == len(self.stamps):
                raise ClipError(f"`{self.path}` changed while it was being read. Keep the file still.")
            pixels = self.upright.apply(to_rgb(frame))
            if pixels.shape != (self.height, self.width, 3):
                raise ClipError(
                    f"`{self.path}` changes its size: frame {start + len(held)} is {pixels.shape[1]} x "
                    f"{pixels.shape[0]}, the first is {self.width} x {self.height}. Convert it to one size."
                )
            held.append(pixels)
            if len(held) == size:
                yield start, torch.from_numpy(np.stack(held))
                start, held = start + size, []
        if start + len(held) < len(self.stamps):
            raise ClipError(
                f"`{self.path}` is damaged: {start + len(held)} of {len(self.stamps)} frames can be decoded. "
                "Get the file again, or convert what is left of it."
            )
        if held:
            yield start, torch.from_numpy(np.stack(held))

    def digest(self) -> str:
        return digest_of_files([self.path])


def to_rgb(frame: Any) -> np.ndarray:
    """A decoded frame of any pixel format as `(H, W, 3)` RGB uint8; transparency is laid over black."""
    matrix = _MATRICES.get(int(frame.colorspace))
    if matrix is None:  # untagged: what players assume
        matrix = Colorspace.ITU709 if frame.height >= 720 else Colorspace.ITU601
    full = int(frame.color_range) == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    transparent = frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
    rgb = frame.reformat(
        format="rgba" if transparent else "rgb24",
        src_colorspace=matrix,
        src_color_range=ColorRange.JPEG if full or frame.format.is_rgb else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=SCALING,
    ).to_ndarray()
    return over_black(rgb) if transparent else rgb


def _video_stream(container: Any, path: Path) -> Any:
    cover = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover]
    if not streams:
        kind = "sound but no video" if container.streams.audio else "no video"
        raise ClipError(f"`{path}` holds {kind}. Give a file with pictures in it.")
    stream = streams[0]
    if stream.codec_context is None:
        raise ClipError(f"`{path}` is coded in a way that this build of FFmpeg cannot decode. Convert it to H.264.")
    if stream.width * stream.height > MAX_PIXELS:
        raise ClipError(
            f"`{path}` has frames of {stream.width} x {stream.height}; at most {MAX_PIXELS} pixels are read. "
            "Scale it down."
        )
    return stream


def _audio_start(container: Any) -> Fraction | None:
    """Seconds at which the earliest sound begins; None without sound."""
    starts = [
        Fraction((s.start_time or 0) * s.time_base) for s in container.streams.audio if s.codec_context is not None
    ]
    return min(starts) if starts else None


def _list_packets(container: Any, stream: Any, path: Path) -> list[int | None]:
    """Time stamps of the frames to be shown, in order; None each where the file has none. Notices a cut-off file."""
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


def _increasing(listing: Sequence[int | None], rate: Fraction, time_base: Fraction) -> list[int]:
    """Strictly increasing stamps in units of `time_base`; counted from the frame rate where the file has none."""
    if any(stamp is None for stamp in listing):
        return [round(index / rate / time_base) for index in range(len(listing))]
    stamps: list[int] = []
    for stamp in sorted(stamp for stamp in listing if stamp is not None):  # packets come in decoding order
        stamps.append(max(stamp, stamps[-1] + 1) if stamps else stamp)  # two frames at one time: one tick apart
    return stamps


def _steady(nominal: Fraction, stamps: Sequence[int], time_base: Fraction) -> Fraction:
    """The file's own frame rate where its stamps agree with it (they may be rounded); their mean where they do not."""
    if len(stamps) < 2:
        return nominal
    mean = (len(stamps) - 1) / ((stamps[-1] - stamps[0]) * time_base)
    return nominal if abs(mean / nominal - 1) < Fraction(1, 50) else mean.limit_denominator(1001)


def _decoded(path: Path) -> Iterator[Any]:
    """Every frame of the file's video, in the order of showing."""
    with opened(path) as container:
        stream = _video_stream(container, path)
        stream.thread_type = "AUTO"
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        yield from container.decode(stream)


def _upright(frame: Any) -> Upright:
    """What the frame's display matrix asks for, to the nearest quarter turn.

    The matrix (ISO/IEC 14496-12, 8.3.2) maps x' = a x + c y, y' = b x + d y in 16.16 fixed point, rows (a b u)(c d v).
    """
    try:
        data = bytes(frame.side_data[av.sidedata.sidedata.Type.DISPLAYMATRIX])
    except KeyError:
        return Upright()
    a, b, _, c, d = struct.unpack("=5i", data[:20])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Upright(False, a < 0, d < 0)
    return Upright(True, c < 0, b < 0)
