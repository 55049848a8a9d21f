"""Sound from one container to another: packets untouched, or as AAC where the container cannot hold them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from typing import Any

import av

from countervid.clip.container import opened
from countervid.clip.sources import Audio

_log = logging.getLogger(__name__)


class AudioCarrier:
    """Feeds the sound's packets into an output in step with its pictures, so that nothing piles up in the muxer."""

    def __init__(self, packets: Iterator[Any], tracks: dict[int, Any], audio: Audio | None, output: Any) -> None:
        """Use `AudioCarrier.opened`."""
        self._packets, self._tracks, self._output = packets, tracks, output
        self._end = None if audio is None else audio.end
        self._waiting: Any = None

    @staticmethod
    @contextmanager
    def opened(audio: Audio | None, output: Any) -> Iterator[AudioCarrier]:
        """Add the sound's streams to an output that has not begun to write; carries nothing where there is no sound."""
        with ExitStack() as stack:
            if audio is None:
                yield AudioCarrier(iter(()), {}, None, output)
                return
            container = stack.enter_context(opened(audio.path))
            streams = [s for s in container.streams.audio if s.codec_context is not None]
            tracks = {s.index: _track(s, output) for s in streams}
            yield AudioCarrier(_on_one_clock(container.demux(streams), audio), tracks, audio, output)

    def carry(self, until: Fraction | None) -> None:
        """Pass on what sounds up to `until` seconds of the clip; all the rest with None."""
        while True:
            packet = self._waiting if self._waiting is not None else next(self._packets, None)
            self._waiting = None
            if packet is None:
                break
            at = None if packet.dts is None else packet.dts * packet.time_base
            if at is not None and self._end is not None and at >= self._end:
                continue
            if at is not None and until is not None and at > until:
                self._waiting = packet
                return
            self._tracks[packet.stream.index].carry(packet, self._output)


def _on_one_clock(packets: Iterator[Any], audio: Audio) -> Iterator[Any]:
    """The packets with times that count from the clip's time 0, also where the file's clock starts again."""
    counts: dict[int, int] = {}
    for packet in packets:
        if packet.dts is not None:
            stream = packet.stream_index
            number = counts[stream] = counts.get(stream, -1) + 1
            added = [seconds for first, seconds in audio.moved.get(stream, ()) if first <= number]
            shift = round((audio.origin - (added[-1] if added else 0)) / packet.time_base)
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.dts -= shift
        yield packet


def _track(stream: Any, output: Any) -> Any:
    if stream.codec_context.name in output.supported_codecs:
        return _Copied(output.add_stream_from_template(stream))
    _log.warning("sound in %s does not fit into %s: converted to AAC", stream.codec_context.name, output.format.name)
    return _Converted(output.add_stream("aac", rate=stream.codec_context.sample_rate or 48_000))


class _Copied:
    def __init__(self, target: Any) -> None:
        self._target = target

    def carry(self, packet: Any, output: Any) -> None:
        if packet.dts is None:
            return  # the mark of the stream's end
        packet.stream = self._target
        output.mux(packet)


class _Converted:
    def __init__(self, target: Any) -> None:
        self._target = target
        self._resampler = av.AudioResampler(format="fltp", layout=target.layout, rate=target.rate)

    def carry(self, packet: Any, output: Any) -> None:
        at_end = packet.dts is None
        for decoded in packet.decode():
            for frame in self._resampler.resample(decoded):
                output.mux(self._target.encode(frame))
        if at_end:
            for frame in self._resampler.resample(None):
                output.mux(self._target.encode(frame))
            output.mux(self._target.encode(None))
