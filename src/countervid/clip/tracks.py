"""All that a video file holds beside its picture, from one container to another: sound, subtitles, chapters, files."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av

from countervid.clip.container import opened, video_stream
from countervid.clip.labels import Cover, label, mime_type
from countervid.clip.sound import CopiedSound, EncodedSound, choose_coding, named_layout
from countervid.clip.sources import Source, Tracks
from countervid.errors import ClipError

_log = logging.getLogger(__name__)

_TEXT = frozenset(("subrip", "srt", "ass", "ssa", "webvtt", "mov_text", "text"))
_TEXT_OF = {"mp4": "mov_text", "mov": "mov_text", "matroska": "subrip"}
_NAMES = {"matroska": "mkv"}


@dataclass
class Plan:
    """What becomes of the tracks of a file in a container."""

    copied: list[Any] = field(default_factory=list)
    encoded: list[Any] = field(default_factory=list)
    retold: list[Any] = field(default_factory=list)  # subtitles in another form of text
    attached: list[tuple[str, str, bytes]] = field(default_factory=list)  # name, type, content
    cover: bytes | None = None
    lost: list[str] = field(default_factory=list)  # sentences


def lost_in(source: Source, muxer: str | None) -> list[str]:
    """What a source's file holds and a container of this kind does not, a sentence each.

    Args:
        source: Where the clip comes from.
        muxer: mp4, mov or matroska; None for what holds pictures alone.
    """
    tracks = source.tracks
    if tracks is None:
        return []
    with opened(tracks.path) as container:
        if muxer is None:
            kinds = sorted({str(s.type) for s in container.streams if s.type != "video"})
            said = {"audio": "sound", "subtitle": "subtitles", "attachment": "attached files", "data": "data"}
            names = [said.get(kind, kind) for kind in kinds]
            return [f"Left out, as a GIF or a folder of pictures holds none: {', '.join(names)}."] if names else []
        return plan_tracks(container, tracks, muxer).lost


def plan_tracks(container: Any, tracks: Tracks, muxer: str) -> Plan:
    """Decide for every stream but the picture: copied, coded anew, attached, or left out with a sentence."""
    plan, name = Plan(), _NAMES.get(muxer, muxer)
    picture = video_stream(container, tracks.path)
    numbers: dict[str, int] = {}
    for stream in container.streams:
        if stream.index == picture.index:
            trial = _trial(stream.metadata, stream, muxer)
            plan.lost += [f"The picture's track loses {what} in {name}." for what in trial]
            continue
        kind = str(stream.type)
        numbers[kind] = number = numbers.get(kind, 0) + 1
        codec = stream.codec_context.name if stream.codec_context is not None else getattr(stream, "name", None)
        what = f"{kind.capitalize()} track {number} ({codec or 'unknown'})"
        if kind == "video" and stream.disposition & av.stream.Disposition.attached_pic:
            image = _first_packet(tracks, stream.index)
            if muxer == "matroska" and image:
                mime, suffix = mime_type(image)
                title = "cover" if not any(kept[1].startswith("image/") for kept in plan.attached) else f"cover{number}"
                plan.attached.append((stream.metadata.get("filename", f"{title}.{suffix}"), mime, image))
            elif plan.cover is None and image and Cover.fits(image):
                plan.cover = image
            else:
                plan.lost.append(f"An attached picture does not fit into {name} and is left out.")
        elif kind == "attachment":
            if muxer == "matroska":
                kept = (stream.name or f"file{number}", stream.mimetype or "application/octet-stream", stream.data)
                plan.attached.append(kept)
            else:
                plan.lost.append(f"The attached file `{stream.name}` does not fit into {name} and is left out.")
        elif kind == "audio" and stream.codec_context is not None and stream.codec_context.sample_rate:
            if _fits(stream, muxer):
                plan.copied.append(stream)
            else:
                coding = choose_coding(stream.codec_context, muxer)
                plan.encoded.append(stream)
                plan.lost.append(f"Sound in {codec} does not fit into {name}: track {number} is converted to {coding}.")
            plan.lost += [f"{what} loses {said} in {name}." for said in _trial(stream.metadata, stream, muxer)]
        elif kind == "subtitle" and stream.codec_context is not None and _fits(stream, muxer):
            plan.copied.append(stream)
        elif kind == "subtitle" and codec in _TEXT:
            plan.retold.append(stream)
            if codec in ("ass", "ssa"):
                plan.lost.append(f"{what} keeps its text in {name}, and loses its styles.")
        elif kind == "data" and ("timecode" in stream.metadata or stream.discard == av.stream.Discard.all):
            pass  # the muxer writes time codes and the list of chapters itself
        elif kind == "data" and muxer != "matroska" and _keeps_data(stream, muxer):
            plan.copied.append(stream)
        elif kind == "video":
            plan.lost.append(f"Another track of pictures ({codec or 'unknown'}) is left out: the first is the clip.")
        else:
            plan.lost.append(f"{what} does not fit into {name} and is left out.")
    return plan


@cache
def _warn(path: Path, sentence: str) -> None:
    """Once a process, however many files are written of one."""
    _log.warning("%s: %s", path, sentence)


class _Paper:
    """Takes a track's labels, to see which are lost."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}
        self.disposition = 0


def _trial(metadata: Mapping[str, str], stream: Any, muxer: str) -> list[str]:
    return label(stream, _Paper(), muxer)


def _fits(stream: Any, muxer: str) -> bool:
    """Whether the container takes the stream as it is: its header is written, on trial."""
    try:
        with av.open(io.BytesIO(), mode="w", format=muxer) as trial:
            _copy_stream(stream, trial)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def _keeps_data(stream: Any, muxer: str) -> bool:
    """Whether data are still known for what they are when they are read back: a packet is written, on trial."""
    file = io.BytesIO()
    try:
        with av.open(file, mode="w", format=muxer) as trial:
            packet = av.Packet(bytes(8))
            packet.stream, packet.time_base = trial.add_stream_from_template(stream), stream.time_base
            packet.pts, packet.dts, packet.duration = 0, 0, 1
            trial.mux(packet)
        file.seek(0)
        with av.open(file) as back:
            return stream.name is not None and any(s.name == stream.name for s in back.streams.data)
    except (av.FFmpegError, ValueError):
        return False


def _copy_stream(stream: Any, output: Any) -> Any:
    target = output.add_stream_from_template(stream)
    if stream.type == "audio":
        layout = named_layout(stream.codec_context)
        if layout != stream.codec_context.layout.name:
            target.codec_context.layout = layout
    return target


def _first_packet(tracks: Tracks, index: int) -> bytes:
    with opened(tracks.path) as container:
        return bytes(next(iter(container.demux(container.streams[index]))))


class _Copied:
    def __init__(self, target: Any) -> None:
        self._target = target

    def convert(self, packet: Any) -> Iterator[Any]:
        packet.stream = self._target
        yield packet

    def end(self) -> Iterator[Any]:
        return iter(())


class _Retold:
    """Subtitles decoded, and written in another form of text."""

    def __init__(self, source: Any, codec: str, output: Any) -> None:
        self._decoder = source.codec_context
        self._decoder.open(strict=False)
        self.target = output.add_stream(codec)
        self.target.codec_context.time_base = self.target.time_base = Fraction(1, 1000)
        self.target.codec_context.subtitle_header = self._decoder.subtitle_header

    def convert(self, packet: Any) -> Iterator[Any]:
        try:
            text = self._decoder.decode2(packet)
        except av.InvalidDataError:
            return
        if text is None or not len(text):
            return  # between two texts
        result = self.target.codec_context.encode_subtitle(text)
        result.time_base = packet.time_base
        result.pts = result.dts = packet.pts
        result.duration = packet.duration or 0
        result.stream = self.target
        yield result

    def end(self) -> Iterator[Any]:
        return iter(())


class TrackCarrier:
    """Feeds tracks into an output in step with its pictures, so that nothing piles up in the muxer."""

    def __init__(self, packets: Iterator[Any], ways: Mapping[int, Any], tracks: Tracks | None, output: Any) -> None:
        """Use `TrackCarrier.opened`."""
        self._packets, self._ways, self._output = packets, ways, output
        self._end = None if tracks is None else tracks.end
        self._waiting: Any = None
        self.cover: Cover | None = None

    @staticmethod
    @contextmanager
    def opened(tracks: Tracks | None, output: Any, picture: Any) -> Iterator[TrackCarrier]:
        """Add a file's tracks to an output that has not begun to write; none where there is no file.

        Args:
            tracks: What is carried.
            output: The container to write.
            picture: Its stream of pictures, which gets the labels of the source's.
        """
        with ExitStack() as stack:
            if tracks is None:
                yield TrackCarrier(iter(()), {}, None, output)
                return
            container = stack.enter_context(opened(tracks.path))
            muxer, demuxer = output.format.name, container.format.name
            plan = plan_tracks(container, tracks, muxer)
            for sentence in plan.lost:
                _warn(tracks.path, sentence)
            source = video_stream(container, tracks.path)
            label(source, picture, muxer)
            ways: dict[int, Any] = {}
            for stream in sorted([*plan.copied, *plan.encoded, *plan.retold], key=lambda s: s.index):
                target, way = _way(stream, plan, output, muxer, demuxer)
                label(stream, target, muxer)
                ways[stream.index] = way
            for name, mime, content in plan.attached:
                output.add_attachment(name, mime, content)
            output.set_chapters(_chapters(container.chapters(), tracks))
            read = [s for s in container.streams if s.index in ways or (tracks.parts and s.index == source.index)]
            packets = _on_one_clock(container.demux(read), tracks, source.index) if ways else iter(())
            carrier = TrackCarrier(packets, ways, tracks, output)
            if plan.cover is not None:
                carrier.cover = Cover(plan.cover)
                output.metadata.update(carrier.cover.metadata)
            try:
                yield carrier
            except BaseException:
                stack.pop_all().close()  # what fails while the output is written is no fault of the file that is read
                raise

    def carry(self, until: Fraction | None) -> None:
        """Pass on what begins up to `until` seconds of the clip; all the rest, and the ends of tracks, with None."""
        while True:
            packet = self._waiting if self._waiting is not None else next(self._packets, None)
            self._waiting = None
            if packet is None:
                break
            at = packet.dts * packet.time_base
            if self._end is not None and at >= self._end:
                continue
            if until is not None and at > until:
                self._waiting = packet
                return
            if self._end is not None and packet.stream.type == "subtitle" and packet.duration:
                packet.duration = min(packet.duration, int((self._end - at) / packet.time_base))
            self._output.mux(list(self._ways[packet.stream_index].convert(packet)))
        if until is None:
            for way in self._ways.values():
                self._output.mux(list(way.end()))


def _way(stream: Any, plan: Plan, output: Any, muxer: str, demuxer: str) -> tuple[Any, Any]:
    """The output's stream for one of the source's, and what turns packets of the one into those of the other."""
    if stream in plan.encoded:
        way: Any = EncodedSound(stream, choose_coding(stream.codec_context, muxer), output)
        return way.target, way
    if stream in plan.retold:
        way = _Retold(stream, _TEXT_OF[muxer], output)
        return way.target, way
    target = _copy_stream(stream, output)
    return target, CopiedSound(stream, target, muxer, demuxer) if stream.type == "audio" else _Copied(target)


def _on_one_clock(packets: Iterator[Any], tracks: Tracks, picture: int) -> Iterator[Any]:
    """Packets with times that count from the clip's time 0, also where the file's clock starts again."""
    counts: dict[int, int] = {}
    for packet in _read(packets, tracks):
        if packet.size == 0:
            continue  # the mark of a stream's end
        if packet.dts is None:
            packet.dts = packet.pts
        index = packet.stream_index
        number = counts[index] = counts.get(index, -1) + 1
        if index == picture or packet.dts is None:
            continue
        if packet.stream.type == "audio":
            added = _added(tracks.moved.get(index, ()), number)
        else:
            added = _added(tracks.parts, counts.get(picture, 0))
        shift = round((tracks.origin - added) / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts -= shift
        yield packet


def _read(packets: Iterator[Any], tracks: Tracks) -> Iterator[Any]:
    try:
        yield from packets
    except av.FFmpegError as error:
        raise ClipError(
            f"`{tracks.path}` is damaged or cut off in its sound or its subtitles. Get it again."
        ) from error


def _added(parts: Sequence[tuple[int, Fraction]], number: int) -> Fraction:
    """Seconds that are added to packet number `number`."""
    passed = [seconds for first, seconds in parts if first <= number]
    return passed[-1] if passed else Fraction(0)


def _chapters(chapters: Sequence[Any], tracks: Tracks) -> list[Any]:
    """Chapters on the clip's clock, and none that begins after its end."""
    kept = []
    for chapter in chapters:
        base = chapter["time_base"]
        start, end = (chapter[name] * base - tracks.origin for name in ("start", "end"))
        if tracks.end is not None:
            end = min(end, tracks.end)
        if end > max(start, 0) or (end >= start >= 0 and tracks.end is None):
            scale = Fraction(1, 1_000_000)
            times = {"start": round(max(start, Fraction(0)) / scale), "end": round(end / scale), "time_base": scale}
            kept.append({**chapter, **times})
    return kept
