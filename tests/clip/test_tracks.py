"""Tracks: sound, subtitles, chapters, covers and metadata of a file are in the result, or the clip says what is not."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from conftest import moving_picture
from countervid.clip import Clip
from countervid.clip.sources import Tracks
from countervid.clip.tracks import TrackCarrier

COVER = io.BytesIO()
Image.fromarray(moving_picture(1, 48, 48)[0].numpy()).save(COVER, "JPEG")


def tone(rate: int, channels: int, seconds: float = 1.0) -> np.ndarray:
    """A swelling tone of its own pitch in each channel, with some noise: `(channels, samples)` float64 within +-0.5."""
    time = np.arange(round(rate * seconds)) / rate
    pitch = 110.0 * (1 + np.arange(channels))[:, None]
    pitch[3:4] = 40  # the fourth channel of 5.1 is for the bass alone
    noise = np.random.default_rng(0).standard_normal((channels, len(time))) * 0.01
    return 0.3 * np.sin(2 * np.pi * pitch * time) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time)) + noise


def write_source(
    path: Path,
    codecs: Sequence[str],
    *,
    rate: int = 48_000,
    layout: str = "stereo",
    frames: int = 25,
    delay: float = 0.0,
    seconds: float = 1.0,
    labels: Sequence[dict[str, str]] = (),
    dispositions: Sequence[Disposition] = (),
    subtitles: str | None = None,
    chapters: Sequence[tuple[float, float, str]] = (),
    metadata: dict[str, str] | None = None,
    cover: bool = False,
    attachment: bytes | None = None,
) -> Path:
    """A video with tracks of sound, and whatever else a container holds."""
    video = {".avi": "mpeg4", ".mpg": "mpeg2video"}.get(path.suffix, "libx264")
    with av.open(str(path), "w") as output:
        output.metadata.update(metadata or {})
        picture = output.add_stream(video, rate=25)
        picture.width = picture.height = 32
        picture.pix_fmt = "yuv420p"
        tracks = [output.add_stream(codec, rate=rate, layout=layout) for codec in codecs]
        for track, texts in zip(tracks, labels, strict=False):
            track.metadata.update(texts)
        for track, disposition in zip(tracks, dispositions, strict=False):
            track.disposition = int(disposition)
        text = output.add_stream(subtitles) if subtitles else None
        if text is not None:
            text.codec_context.time_base = text.time_base = Fraction(1, 1000)
            text.codec_context.subtitle_header = ASS_HEADER
            text.metadata["language"] = "fra"
        if attachment is not None:
            output.add_attachment("font.ttf", "application/x-truetype-font", attachment)
        if cover:
            output.add_attachment("cover.jpg", "image/jpeg", COVER.getvalue())
        milliseconds = Fraction(1, 1000)
        output.set_chapters(
            [
                {"id": i, "start": round(a * 1000), "end": round(b * 1000), "time_base": milliseconds, "metadata": text}
                for i, (a, b, text) in enumerate((a, b, {"title": name}) for a, b, name in chapters)
            ]
        )
        for index, pixels in enumerate(moving_picture(frames, 32, 32).numpy()):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            output.mux(picture.encode(frame))
            for line, (start, end) in TEXTS.items():
                if text is not None and round(start * 25) == index:
                    said = av.subtitles.subtitle.SubtitleSet.create(f"0,0,Default,,0,0,0,,{line}".encode(), 0, 300)
                    packet = text.codec_context.encode_subtitle(said)
                    packet.pts = packet.dts = round(start * 1000)
                    packet.duration, packet.time_base, packet.stream = round((end - start) * 1000), milliseconds, text
                    output.mux(packet)
        output.mux(picture.encode(None))
        for track in tracks:
            wave = tone(rate, track.codec_context.layout.nb_channels, seconds)
            packed = (wave.T.reshape(1, -1) * 32_767).astype(np.int16)
            heard = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
            heard.sample_rate, heard.pts, heard.time_base = rate, round(delay * rate), Fraction(1, rate)
            output.mux(track.encode(heard))
            output.mux(track.encode(None))
    return path


ASS_HEADER = (
    b"[Script Info]\r\nScriptType: v4.00+\r\nPlayResX: 384\r\nPlayResY: 288\r\n\r\n[V4+ Styles]\r\n"
    b"Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, "
    b"Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, "
    b"MarginR, MarginV, Encoding\r\nStyle: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,"
    b"10,10,10,1\r\n\r\n[Events]\r\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\r\n"
)
TEXTS = {"hello": (0.0, 0.3), "naïve world": (0.4, 0.8)}


def hear(path: Path, track: int = 0) -> tuple[str, int, float, np.ndarray]:
    """(layout, rate, seconds at which it begins, `(channels, samples)` in +-1) as decoded."""
    pieces, start = [], None
    with av.open(str(path)) as container:
        stream = container.streams.audio[track]
        resampler = av.AudioResampler(format="dbl")
        for frame in container.decode(stream):
            start = float(frame.pts * frame.time_base) if start is None else start
            channels = frame.layout.nb_channels
            for piece in resampler.resample(frame):
                pieces.append(np.frombuffer(bytes(piece.planes[0]), dtype=np.float64)[: piece.samples * channels])
        layout, rate = stream.codec_context.layout.name, stream.codec_context.sample_rate
    assert start is not None
    return layout, rate, start, np.concatenate(pieces).reshape(-1, channels).T


def lag(before: np.ndarray, after: np.ndarray, most: int) -> int:
    """Samples by which `after` is late, by cross-correlation of their first channels."""
    length = min(before.shape[1], after.shape[1])
    size = 1 << (2 * length).bit_length()
    product = np.fft.rfft(after[0, :length], size) * np.conj(np.fft.rfft(before[0, :length], size))
    correlation = np.fft.irfft(product, size)
    return max(range(-most, most + 1), key=lambda shift: correlation[shift])


def rewritten(source: Path, name: str) -> Path:
    return Clip.read(source).mapped(lambda _, frames: 255 - frames).write(source.parent / name)


def tracks_of(path: Path) -> list[tuple[str, str, str, Disposition]]:
    """(kind, language, title, disposition) of every track but the pictures."""
    with av.open(str(path)) as container:
        tracks = [s for s in container.streams if s.type in ("audio", "subtitle")]
        titles = [s.metadata.get("title", s.metadata.get("name", "")) for s in tracks]
        return [
            (s.type, s.metadata.get("language", "und"), title, s.disposition)
            for s, title in zip(tracks, titles, strict=True)
        ]


# Sound that is copied


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        *(("mkv", codec) for codec in ("aac", "libmp3lame", "libopus", "flac", "ac3", "alac", "pcm_s16le")),
        *(("mp4", codec) for codec in ("aac", "libmp3lame", "libopus", "alac")),
        *(("ts", codec) for codec in ("aac", "mp2")),
        *(("avi", codec) for codec in ("aac", "pcm_s16le")),
        *(("mov", codec) for codec in ("pcm_s16be", "pcm_u8", "alac")),
    ],
)  # fmt: skip
def test_sound_is_heard_as_it_was(tmp_path: Path, suffix: str, codec: str) -> None:
    source = write_source(tmp_path / f"a.{suffix}", [codec])
    _, rate, start, before = hear(source)
    with av.open(str(source)) as container:
        first = float(container.streams.video[0].start_time * container.streams.video[0].time_base)
    clip = Clip.read(source)
    for target in ("mp4", "mov", "mkv"):
        _, rate_after, start_after, after = hear(rewritten(source, f"b.{target}"))
        assert rate_after == rate and after.shape[0] == before.shape[0]
        late = lag(before, after, 3000)
        length = min(before.shape[1], after.shape[1] - late) - max(0, -late)
        one, two = (x[:, max(0, s) :][:, :length] for x, s in ((before, -late), (after, late)))
        lossy = "AAC" in " ".join(clip.lost_in(f".{target}"))
        assert length > 0.97 * before.shape[1]
        assert np.sqrt(((one - two) ** 2).mean()) < 0.03 if lossy else np.abs(one - two).max() < 1e-4
        moved = (start_after + late / rate - clip.times[0]) - (start - first)  # of the sound against the picture
        assert abs(moved) < 0.002, (target, moved)


# Sound that is coded anew


@pytest.mark.parametrize(
    ("suffix", "codec", "rate", "layout"),
    [
        ("avi", "pcm_u8", 11_025, "mono"),
        ("avi", "adpcm_ms", 48_000, "stereo"),
        ("avi", "pcm_u8", 44_100, "stereo"),
        ("avi", "pcm_mulaw", 8_000, "mono"),
        ("mov", "pcm_u8", 48_000, "5.1"),
        ("mov", "pcm_s8", 48_000, "7.1"),
        ("mov", "pcm_u8", 48_000, "5.1(side)"),
        ("mov", "pcm_s8", 37_800, "stereo"),
        ("mov", "pcm_s8", 192_000, "mono"),
    ],
)
def test_sound_coded_anew_keeps_channels_level_and_time(
    tmp_path: Path, suffix: str, codec: str, rate: int, layout: str
) -> None:
    source = write_source(tmp_path / f"a.{suffix}", [codec], rate=rate, layout=layout)
    _, _, start, before = hear(source)
    out = rewritten(source, "b.mp4")
    assert "does not fit into mp4" in Clip.read(source).lost_in(".mp4")[0]
    layout_after, rate_after, start_after, after = hear(out)
    assert layout_after == {"5.1(side)": "5.1"}.get(layout, layout)  # AAC has one name for both
    assert rate_after == {37_800: 32_000, 192_000: 96_000}.get(rate, rate)
    assert after.shape[0] == before.shape[0]
    level = np.sqrt((after**2).mean(1) / (before**2).mean(1))
    np.testing.assert_allclose(level, 1, atol=0.05)  # 3 dB are 1.41
    grid = np.arange(0.1, 0.9, 1 / 8000)  # both on one clock
    heard = [
        np.interp(grid, begin + np.arange(wave.shape[1]) / r, wave[0])
        for begin, wave, r in ((start, before, rate), (start_after, after, rate_after))
    ]
    assert abs(lag(heard[0][None], heard[1][None], 200)) <= 16  # 2 ms


def test_editing_containers_get_lossless_sound(tmp_path: Path) -> None:
    source = write_source(tmp_path / "a.avi", ["adpcm_ms"])
    before = hear(source)[3]
    for name, codec in (("b.mkv", "flac"), ("b.mov", "pcm_s16le")):
        out = rewritten(source, name)
        with av.open(str(out)) as container:
            assert container.streams.audio[0].codec_context.name == codec
        np.testing.assert_array_equal(hear(out)[3][:, : before.shape[1]], before)


@pytest.mark.parametrize(("delay", "seconds"), [(0.0, 2.0), (0.5, 1.0), (0.0, 0.4)])
@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "aac"), ("mov", "pcm_s8")])
def test_sound_may_begin_late_and_end_when_it_likes(
    tmp_path: Path, delay: float, seconds: float, suffix: str, codec: str
) -> None:
    source = write_source(tmp_path / f"a.{suffix}", [codec], delay=delay, seconds=seconds)
    wave = tone(48_000, 1, seconds)[0]
    for target in ("mp4", "mkv"):
        _, rate, start, after = hear(rewritten(source, f"b.{target}"))
        assert delay - 0.025 < start < delay + 0.003  # an encoder's run-in may be heard, as silence
        assert start + after.shape[1] / rate == pytest.approx(delay + seconds, abs=0.05)
        grid = np.arange(delay + 0.05, delay + seconds - 0.05, 1 / 8000)
        expected = np.interp(grid, delay + np.arange(len(wave)) / 48_000, wave)
        heard = np.interp(grid, start + np.arange(after.shape[1]) / rate, after[0])
        assert abs(lag(expected[None], heard[None], 200)) <= 16  # 2 ms


# Labels, subtitles, chapters, covers, metadata


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(
        tmp_path_factory.mktemp("rich") / "rich.mkv",
        ["aac", "libopus"],
        labels=[{"language": "eng", "title": "Talk"}, {"language": "deu", "title": "Kommentar"}],
        dispositions=[Disposition.default | Disposition.original, Disposition.comment],
        subtitles="subrip",
        chapters=[(0, 0.4, "One"), (0.4, 1, "Zwei ä")],
        metadata={"title": "A talk", "artist": "Somebody", "comment": "of old"},
        cover=True,
        attachment=b"not really a font",
    )


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_labels_subtitles_chapters_and_metadata_survive(tmp_path: Path, rich: Path, suffix: str) -> None:
    clip = Clip.read(rich)
    path = clip.mapped(lambda _, frames: frames).write(tmp_path / f"a.{suffix}", metadata={"comment": "edited"})
    default, kinds = Disposition.default, tracks_of(path)
    german = "ger" if suffix == "mov" else "deu"  # QuickTime's own list of languages
    assert [kind[:3] for kind in kinds] == [
        ("audio", "eng", "Talk"), ("audio", german, "Kommentar"), ("subtitle", "fra", ""),
    ]  # fmt: skip
    assert kinds[0][3] & default and not kinds[1][3] & default
    if suffix != "mov":
        assert kinds[1][3] == Disposition.comment
    with av.open(str(path)) as container:
        metadata = {name.lower(): text for name, text in container.metadata.items()}
        assert {"title": "A talk", "artist": "Somebody", "comment": "edited"}.items() <= metadata.items()
        chapters = [
            (float(c["start"] * c["time_base"]), float(c["end"] * c["time_base"]), c["metadata"]["title"])
            for c in container.chapters()
        ]
        assert chapters == [(0, 0.4, "One"), (0.4, 1, "Zwei ä")]
        covers = [s for s in container.streams.video if s.disposition & Disposition.attached_pic]
        assert len(covers) == 1
        texts = container.streams.subtitles[0]
        said = {}
        cover = None
        for packet in container.demux(texts, *covers):
            if packet.stream is texts and packet.size > 2:
                times = (float(packet.pts * packet.time_base), float((packet.pts + packet.duration) * packet.time_base))
                said[bytes(packet)[0 if suffix == "mkv" else 2 :].decode()] = times
            elif packet.size and packet.stream is not texts:
                cover = bytes(packet)
        assert cover == COVER.getvalue()
        assert said.keys() == TEXTS.keys()
        for line, times in TEXTS.items():
            np.testing.assert_allclose(said[line], times, atol=0.002)
        files = [s.data for s in container.streams.attachments]
    assert files == ([b"not really a font"] if suffix == "mkv" else [])
    lost = " ".join(clip.lost_in(f".{suffix}"))
    assert ("font.ttf" in lost) == (suffix != "mkv")
    assert ("comment" in lost) == (suffix == "mov") and ("opus" in lost) == (suffix == "mov")


def test_what_holds_pictures_alone_says_so(rich: Path) -> None:
    for suffix in (".gif", ""):
        assert "sound" in Clip.read(rich).lost_in(suffix)[0] and "subtitles" in Clip.read(rich).lost_in(suffix)[0]
    assert Clip.from_frames(moving_picture(2, 16, 16)).lost_in(".gif") == []


def test_text_goes_back_and_forth(tmp_path: Path, rich: Path) -> None:
    there = rewritten(rich, "there.mp4")
    back = Clip.read(there).write(tmp_path / "back.mkv")
    with av.open(str(back)) as container:
        assert [bytes(p).decode() for p in container.demux(subtitles=0) if p.size] == list(TEXTS)
    assert [kind[:3] for kind in tracks_of(back)] == [kind[:3] for kind in tracks_of(rich)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_first_frames_take_their_subtitles_and_chapters(tmp_path: Path, rich: Path, suffix: str) -> None:
    path = Clip.read(rich).first(15).write(tmp_path / f"a.{suffix}")  # 0.6 s
    with av.open(str(path)) as container:
        ends: list[Any] = [float(c["end"] * c["time_base"]) for c in container.chapters()]
        assert ends == [0.4, 0.6]
        texts = [p for p in container.demux(subtitles=0) if p.size > 2]
        assert [float(p.pts * p.time_base) for p in texts] == pytest.approx([0, 0.4], abs=0.002)
        assert float((texts[1].pts + texts[1].duration) * texts[1].time_base) == pytest.approx(0.6, abs=0.002)


def test_stills_of_subtitles_that_do_not_fit_are_named(tmp_path: Path) -> None:
    source = write_source(tmp_path / "a.mkv", ["aac"], subtitles="ass")
    assert Clip.read(source).lost_in(".mkv") == []
    lost = Clip.read(source).lost_in(".mp4")
    assert lost == ["Subtitle track 1 (ssa) keeps its text in mp4, and loses its styles."] or "ass" in lost[0]
    with av.open(str(rewritten(source, "b.mp4"))) as container:
        texts = [bytes(p)[2:].decode() for p in container.demux(subtitles=0) if p.size > 2]
    assert texts == list(TEXTS)


def test_a_folder_keeps_metadata(tmp_path: Path, rich: Path) -> None:
    back = Clip.read(Clip.read(rich).write(tmp_path / "frames"))
    assert back.metadata["title"] == "A talk" and back.metadata["artist"] == "Somebody"


def test_data_that_would_lose_their_name_are_left_out_and_named(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.ts"), "w") as output:
        picture = output.add_stream("libx264", rate=25)
        picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
        data = output.add_data_stream("klv")
        for index, pixels in enumerate(moving_picture(5, 32, 32).numpy()):
            output.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            packet = av.Packet(b"\x06\x0e\x2b\x34" + bytes(20))
            packet.pts, packet.dts, packet.time_base, packet.stream = index, index, Fraction(1, 25), data
            output.mux(packet)
        output.mux(picture.encode(None))
    clip = Clip.read(tmp_path / "a.ts")
    for suffix in ("mp4", "mov", "mkv"):
        assert clip.lost_in(f".{suffix}") == [f"Data track 1 (klv) does not fit into {suffix} and is left out."]
        assert len(Clip.read(clip.write(tmp_path / f"b.{suffix}"))) == 5


def test_what_fails_in_writing_is_no_fault_of_the_source(tmp_path: Path, rich: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        picture = output.add_stream("libx264", rate=25)
        picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
        tracks = Tracks(rich, Fraction(0), sound=True)
        with pytest.raises(OSError, match="No space left"), TrackCarrier.opened(tracks, output, picture):
            raise OSError(28, "No space left on device")


# Files as people have them

CASES = Path(__file__).parents[1] / "cases"


@pytest.mark.parametrize(("name", "rate"), [("cam.avi", 11_025), ("adpcm.mkv", 48_000)])
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_one_channel_stays_one_at_its_level(tmp_path: Path, name: str, rate: int, suffix: str) -> None:
    before = hear(CASES / name)[3]
    _, rate_after, _, after = hear(Clip.read(CASES / name).write(tmp_path / f"a.{suffix}"))
    assert (after.shape[0], rate_after) == (1, rate)
    inner = slice(1500, before.shape[1] - 1500)
    assert abs(20 * np.log10(after[0, inner].std() / before[0, inner].std())) < 0.3  # dB


@pytest.mark.parametrize("name", ["two.mkv", "two.mp4"])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_two_languages_and_subtitles(tmp_path: Path, name: str, suffix: str) -> None:
    clip = Clip.read(CASES / name)
    path = clip.write(tmp_path / f"a.{suffix}")
    kinds = [("audio", "eng", ""), ("audio", "deu", "Kommentar"), ("subtitle", "fra", "")]
    assert [kind[:3] for kind in tracks_of(path)] == kinds and clip.lost_in(f".{suffix}") == []
    np.testing.assert_allclose(Clip.read(path).times, clip.times, atol=6e-4)
    assert Clip.read(path).duration == pytest.approx(clip.duration, abs=1e-3)
    for track in (0, 1):
        before, after = hear(CASES / name, track)[3], hear(path, track)[3]
        late = lag(before, after, 100)
        length = min(before.shape[1], after.shape[1]) - abs(late)
        difference = before[:, max(0, -late) :][:, :length] - after[:, max(0, late) :][:, :length]
        assert abs(late) <= 48 and np.abs(difference).max() < 1e-6
