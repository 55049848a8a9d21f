"""A track of sound from one container to another: its packets as they are, or coded anew where they do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.packet import PacketSideData

_SKIP_SAMPLES = 11  # FFmpeg's AV_PKT_DATA_SKIP_SAMPLES: samples to drop at the start and at the end, little endian
_DEFAULT_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
# The channel configurations of AAC (ISO/IEC 14496-3, table 1.19) that keep their names; side speakers count as back.
_AAC_LAYOUTS = {name: name for name in ("mono", "stereo", "3.0", "4.0", "5.0", "5.1")} | {
    "5.0(side)": "5.0",
    "5.1(side)": "5.1",
}
_UNHEARD = Fraction(3, 1000)  # seconds at the start of a packet's sound that may be lost with an encoder's run-in
_AAC_BITS = 96_000  # a second and channel: hard to tell from the source
_LOSSLESS = {"flac": "FLAC", "pcm_s16le": "PCM", "pcm_s32le": "PCM", "pcm_f32le": "PCM"}


@dataclass(frozen=True)
class Coding:
    """How a track is coded anew."""

    codec: str
    format: str  # of samples
    layout: str
    rate: int

    @property
    def lossless(self) -> bool:
        return self.codec in _LOSSLESS

    def __str__(self) -> str:
        return f"{_LOSSLESS[self.codec]} (lossless)" if self.lossless else "AAC"


def named_layout(context: Any) -> str:
    """The channel layout; the usual one of their number where the file names none (PCM in AVI and Matroska)."""
    name, count = str(context.layout.name), int(context.layout.nb_channels)
    return _DEFAULT_LAYOUTS.get(count, name) if name == f"{count} channels" or count == 1 else name


def choose_coding(context: Any, muxer: str) -> Coding:
    """Lossless where whole samples come out of the decoder and the container is for editing; AAC for playing.

    Args:
        context: The decoder of the track.
        muxer: FFmpeg's name of the container: mp4, mov or matroska.
    """
    kind = (context.format.name if context.format else "fltp").removesuffix("p")
    layout, rate = named_layout(context), int(context.sample_rate or 48_000)
    if context.name.startswith(("pcm_f32", "pcm_f64", "pcm_f16", "pcm_f24")) and muxer != "mp4":
        return Coding("pcm_f32le", "flt", layout, rate)
    whole = kind in ("u8", "s16", "s32")
    if layout in _AAC_LAYOUTS and (muxer == "mp4" or not whole):
        rates = av.Codec("aac", "w").audio_rates or [48_000]
        return Coding("aac", "fltp", _AAC_LAYOUTS[layout], min(rates, key=lambda known: abs(known - rate)))
    deep = kind not in ("u8", "s16")
    if muxer == "mov":
        return Coding("pcm_s32le" if deep else "pcm_s16le", "s32" if deep else "s16", layout, rate)
    return Coding("flac", "s32" if deep else "s16", layout, rate)


class CopiedSound:
    """Packets as they are, with times to the sample."""

    def __init__(self, source: Any, target: Any, muxer: str, demuxer: str) -> None:
        context = source.codec_context
        self._target = target
        self._rate, self._size = int(context.sample_rate or 0), int(context.frame_size or 0)
        if context.name == "alac" and len(context.extradata or b"") >= 16:
            self._size = int.from_bytes(context.extradata[12:16], "big")  # of the decoder's configuration
        # Times rounded to 1/1000 s or so; AVI counts whole frames.
        self._coarse = bool(self._rate and self._size) and Fraction(1, self._rate) < source.time_base <= Fraction(
            1, 500
        )
        self._padding = _opus_padding(context) if context.name in ("opus", "libopus") else self._size
        # Matroska has no times below 0 but for what its codec delay covers, which other containers do not state.
        self._from_zero = muxer == "matroska" and "matroska" not in demuxer and "opus" not in context.name
        self._next: int | None = None
        self._earliest: int | None = None
        self._before: int | None = None

    def convert(self, packet: Any) -> Iterator[Any]:
        """The packets to mux for one that was read; its times count from the clip's time 0."""
        if packet.pts is None:
            packet.pts = packet.dts
        if self._coarse:
            self._refine(packet)
        if self._earliest is not None and packet.pts < self._earliest:  # a clock that stands still
            packet.pts = self._earliest
        self._earliest = packet.pts + max(1, packet.duration or 0) if self._coarse else packet.pts + 1
        if not packet.duration and self._before is not None:
            packet.duration = packet.pts - self._before  # else the last packet would last no time, and not be heard
        packet.dts = self._before = packet.pts
        if self._from_zero and packet.pts < 0:
            if self._size and packet.pts + (packet.duration or 0) <= _UNHEARD / packet.time_base:
                # An encoder's run-in: it sets up the decoder, and none of it is heard.
                data = PacketSideData(_SKIP_SAMPLES, 10)  # type: ignore[call-arg]  # not in its stub
                data.update(bytes(4) + self._size.to_bytes(4, "little") + bytes(2))
                packet.set_sidedata(data)
            packet.pts = packet.dts = 0
        packet.stream = self._target
        yield packet

    def _refine(self, packet: Any) -> None:
        """Times of whole samples in place of rounded ones: frames of sound follow one another without a gap."""
        base, rate = packet.time_base, self._rate
        seconds = packet.pts * base
        exact = round(seconds * rate)
        if self._next is None and abs(seconds + Fraction(self._padding, rate)) <= base:
            exact = -self._padding
        elif self._next is not None and abs(seconds - Fraction(self._next, rate)) <= base * 3 / 2:
            exact = self._next
        duration = (packet.duration or 0) * base
        whole = not duration or abs(duration - Fraction(self._size, rate)) <= base * 3 / 2
        packet.time_base = Fraction(1, rate)
        packet.pts = exact
        packet.duration = self._size if whole else round(duration * rate)
        self._next = exact + packet.duration

    def end(self) -> Iterator[Any]:
        return iter(())


def _opus_padding(context: Any) -> int:
    """Samples at 48 kHz before the sound begins, from the head of the stream (RFC 7845, 5.1)."""
    head = context.extradata or b""
    return int.from_bytes(head[10:12], "little") if head[:8] == b"OpusHead" else 312


class EncodedSound:
    """Decoded, and coded anew with the same channels, level and, where the codec has it, sample rate."""

    def __init__(self, source: Any, coding: Coding, output: Any) -> None:
        self._source = source
        self.target = output.add_stream(coding.codec, rate=coding.rate, layout=coding.layout)
        self.target.codec_context.format = coding.format
        if coding.codec == "aac":
            channels = self.target.codec_context.layout.nb_channels
            self.target.codec_context.bit_rate = min(_AAC_BITS, 6 * coding.rate) * channels  # the most that AAC has
        self._layout = named_layout(source.codec_context)
        self._resampler = av.AudioResampler(format=coding.format, layout=coding.layout, rate=coding.rate)

    def convert(self, packet: Any) -> Iterator[Any]:
        """The packets to mux for one that was read."""
        try:
            frames = packet.decode()
        except av.InvalidDataError:
            return  # damaged sound is a gap; the next packet has its own time
        for frame in frames:
            yield from self._encode(frame)

    def _encode(self, frame: Any) -> Iterator[Any]:
        if frame is not None and frame.layout.name != self._layout and frame.layout.nb_channels > 1:
            frame = _with_layout(frame, self._layout)
        for piece in self._resampler.resample(frame):
            if piece is not None:
                yield from self.target.encode(piece)

    def end(self) -> Iterator[Any]:
        try:
            rest = self._source.codec_context.decode(None)
        except (av.InvalidDataError, av.EOFError):
            rest = []
        for frame in [*rest, None]:
            yield from self._encode(frame)
        yield from self.target.encode(None)


def _with_layout(frame: Any, layout: str) -> Any:
    """The same samples under a named layout, where the file named none and the resampler would guess."""
    if frame.layout.name != f"{frame.layout.nb_channels} channels":
        return frame
    named = av.AudioFrame(format=frame.format.name, layout=layout, samples=frame.samples)
    for mine, its in zip(named.planes, frame.planes, strict=True):
        mine.update(bytes(its)[: mine.buffer_size].ljust(mine.buffer_size, b"\0"))
    named.pts, named.time_base, named.sample_rate = frame.pts, frame.time_base, frame.sample_rate
    return named
