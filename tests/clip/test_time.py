"""Times: what a file says of when its frames appear, and for how long, is what the result says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from conftest import moving_picture
from countervid.clip import Clip
from countervid.errors import ClipError, OutputError

MakeVideo = Callable[..., Path]
CLOCK = 90_000


def write_part(
    path: Path, frames: Tensor, *, video: str, audio: str | None, start: float = 0, hertz: int = 500
) -> Path:
    """A recording of 25 frames a second with a click in the sound at each tenth frame, beginning at `start` seconds."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(video, rate=25)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.bit_rate = 2_000_000
        sound = output.add_stream(audio, rate=48_000, layout="mono") if audio else None
        wave = clicks(len(frames) / 25)
        for index, pixels in enumerate(frames.numpy()):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = round(start * 25) + index, Fraction(1, 25)
            output.mux(stream.encode(frame))
            if sound is not None:
                piece = wave[None, index * 1920 : (index + 1) * 1920]
                heard = av.AudioFrame.from_ndarray(piece, format="s16", layout="mono")
                heard.sample_rate, heard.time_base = 48_000, Fraction(1, 48_000)
                heard.pts = round(start * 48_000) + index * 1920
                output.mux(sound.encode(heard))
        output.mux(stream.encode(None))
        if sound is not None:
            output.mux(sound.encode(None))
    return path


def clicks(seconds: float) -> np.ndarray:
    """Silence with 5 ms of a tone at 0.2 s, 0.6 s, 1.0 s ... `(samples,)` int16 at 48 kHz."""
    wave = np.zeros(round(seconds * 48_000), dtype=np.int16)
    tone = (np.sin(np.arange(240) * 0.4) * 20_000).astype(np.int16)
    for start in range(9_600, len(wave) - 240, 19_200):
        wave[start : start + 240] = tone
    return wave


def heard_at(path: Path, track: int = 0) -> list[float]:
    """Seconds at which clicks begin, as a player hears them."""
    times: list[float] = []
    with av.open(str(path)) as container:
        for frame in container.decode(audio=track):
            loud = np.abs(frame.to_ndarray().astype(np.float64)).max(0)
            loud = loud > 0.25 * (32_768 if "s16" in frame.format.name else 1)
            for sample in np.flatnonzero(loud):
                time = float(frame.pts * frame.time_base) + sample / frame.sample_rate
                if not times or time > times[-1] + 0.1:
                    times.append(time)
    return times


def packets_end(path: Path) -> tuple[Fraction, Fraction | None]:
    """(end of the last shown packet, end of the video stream), in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.size]
        last = max(packets, key=lambda p: p.pts)
        end = None if stream.duration is None else ((stream.start_time or 0) + stream.duration) * stream.time_base
        return (last.pts + last.duration) * last.time_base, end


# The last frame


gaps = st.lists(st.sampled_from([90, 1001, 3003, 3600, 3600, 3600, 45_000, 900_000]), min_size=1, max_size=12)


@settings(max_examples=12, deadline=None)
@given(start=st.sampled_from([0, 0, 5, 3600, CLOCK]), gaps=gaps)
def test_nothing_moves(tmp_path_factory: pytest.TempPathFactory, start: int, gaps: Sequence[int]) -> None:
    stamps = np.cumsum([start, *gaps])
    frames = moving_picture(len(gaps), 16, 16)
    clip = Clip.from_frames(frames, times=[s / CLOCK for s in stamps[:-1]], end=stamps[-1] / CLOCK)
    assert clip.duration == pytest.approx((stamps[-1] - start) / CLOCK, abs=1e-9)
    folder = tmp_path_factory.mktemp("times")
    for name in ("a.mp4", "a.mov", "folder"):
        back = Clip.read(clip.write(folder / name))
        np.testing.assert_allclose(back.times * CLOCK, stamps[:-1], atol=1e-6)
        assert back.duration * CLOCK == pytest.approx(stamps[-1] - start, abs=1e-6)
    written = clip.write(folder / "a.mkv")
    rounded = np.round(stamps / 90).astype(int)  # 1/1000 s, but no two frames at one time
    for index in range(1, len(rounded)):
        rounded[index] = max(rounded[index], rounded[index - 1] + 1)
    back = Clip.read(written)
    np.testing.assert_allclose(back.times * 1000, rounded[:-1], atol=1e-6)
    assert back.duration * 1000 == pytest.approx(rounded[-1] - rounded[0], abs=1e-6)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_the_last_frame_is_shown_as_long_as_it_was(tmp_path: Path, suffix: str) -> None:
    clip = Clip.from_frames(moving_picture(8, 32, 32), times=[i / 25 for i in range(8)], end=2.0)
    path = clip.write(tmp_path / f"a.{suffix}")
    packet, stream = packets_end(path)
    assert Clip.read(path).duration == 2.0
    assert stream in (None, 2)  # Matroska has no durations of streams
    if suffix == "mkv":
        assert packet == 2
    again = Clip.read(path).mapped(lambda _, frames: 255 - frames).write(tmp_path / f"b.{suffix}")
    assert Clip.read(again).duration == 2.0 and len(Clip.read(again)) == 8


def test_a_gif_keeps_its_last_delay(tmp_path: Path) -> None:
    images = [Image.fromarray(f.numpy()) for f in moving_picture(3, 16, 16)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=[100, 300, 1200])
    clip = Clip.read(tmp_path / "a.gif")
    assert clip.times.tolist() == [0, 0.1, 0.4] and clip.duration == pytest.approx(1.6)
    for name in ("b.gif", "b.mp4", "b.mkv", "folder"):
        assert Clip.read(clip.write(tmp_path / name)).duration == pytest.approx(1.6), name


def test_the_first_frames_end_where_the_next_would_begin(tmp_path: Path) -> None:
    clip = Clip.from_frames(moving_picture(6, 16, 16), times=[0, 0.1, 0.5, 0.6, 2, 3], end=9)
    part = clip.first(3)
    assert part.duration == pytest.approx(0.6)
    assert Clip.read(part.write(tmp_path / "a.mp4")).duration == pytest.approx(0.6)


def test_an_end_must_follow_the_last_time() -> None:
    frames = moving_picture(2, 16, 16)
    with pytest.raises(ClipError, match="later than the last"):
        Clip.from_frames(frames, times=[0, 1], end=1)
    with pytest.raises(ClipError, match="goes with `times`"):
        Clip.from_frames(frames, 25, end=1)


def test_a_thousand_frames_a_second_are_the_most_for_matroska(tmp_path: Path) -> None:
    near = Clip.from_frames(moving_picture(3, 16, 16), times=[0, 0.0002, 0.0004])
    np.testing.assert_allclose(Clip.read(near.write(tmp_path / "a.mkv")).times, [0, 0.001, 0.002])
    fast = Clip.from_frames(moving_picture(1, 16, 16).expand(200, -1, -1, -1), 4000)
    with pytest.raises(OutputError, match="1000 times a second"):
        fast.write(tmp_path / "b.mkv")
    assert len(Clip.read(fast.write(tmp_path / "b.mp4"))) == 200


# Clocks that start again


JOINS = [("ts", "libx264", "aac"), ("ts", "mpeg2video", "mp2"), ("mpg", "mpeg2video", "mp2"), ("mkv", "libx264", "aac")]


@pytest.mark.parametrize(
    ("suffix", "video", "audio", "start"),
    [*((*join, 0) for join in JOINS), *((*join, 40_000) for join in JOINS[:3])],  # in Matroska hours are one long frame
)
def test_joined_recordings_come_out_in_order_and_in_step(
    tmp_path: Path, suffix: str, video: str, audio: str, start: float
) -> None:
    first, second = moving_picture(25, 48, 48), 255 - moving_picture(20, 48, 48)
    one = write_part(tmp_path / f"1.{suffix}", first, video=video, audio=audio)
    two = write_part(tmp_path / f"2.{suffix}", second, video=video, audio=audio, start=start)
    joined = tmp_path / f"joined.{suffix}"
    joined.write_bytes(one.read_bytes() + two.read_bytes())
    clip = Clip.read(joined)
    assert len(clip) == 45 and "joined" in clip.notes[0]
    steps = np.diff(clip.times)
    assert steps.min() > 0.03 and np.delete(steps, 24).max() < 0.05 and steps[24] < 0.15  # the sound of 1 is longer
    brightness = clip.frames[:, :8, :8].float().mean((1, 2, 3))
    assert (brightness[:25] < 127).all() and (brightness[25:] > 127).all()
    heard = heard_at(clip.write(tmp_path / "out.mp4"))
    expected = [clip.times[i] for i in (5, 15, 30, 40)]  # a click with each tenth frame of its own recording
    np.testing.assert_allclose(heard, expected, atol=0.012)  # FFmpeg's MP2 encoder begins 10 ms late


@pytest.mark.parametrize(
    ("order", "expected"), [("sa", [30, 40]), ("asa", [5, 15, 55, 65]), ("aba", [5, 15, 30, 40, 55, 65])]
)
def test_parts_without_sound_leave_a_gap(tmp_path: Path, order: str, expected: list[int]) -> None:
    frames = moving_picture(25, 48, 48)
    parts = {
        "a": write_part(tmp_path / "a.ts", frames, video="libx264", audio="aac"),
        "b": write_part(tmp_path / "b.ts", frames, video="libx264", audio="aac", start=7000),
        "s": write_part(tmp_path / "s.ts", frames, video="libx264", audio=None),
    }
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(parts[part].read_bytes() for part in order))
    clip = Clip.read(joined)
    assert len(clip) == 25 * len(order)
    np.testing.assert_allclose(heard_at(clip.write(tmp_path / "out.mp4")), clip.times[expected], atol=5e-3)


@pytest.mark.parametrize(
    ("name", "shift", "options"),
    [
        ("cut.mp4", Fraction(-1, 2), {}),  # an edit list begins between two key frames
        ("late.mp4", Fraction(7, 10), {}),  # an edit list begins with a pause
        ("pieces.mp4", Fraction(0), {"movflags": "frag_keyframe+empty_moov"}),
        ("a.mkv", Fraction(0), {}),
        ("a.ts", Fraction(7, 10), {}),
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_what_a_player_shows_and_plays_comes_back(
    tmp_path: Path, name: str, shift: Fraction, options: dict[str, str], suffix: str
) -> None:
    whole = write_part(tmp_path / "whole.mp4", moving_picture(50, 48, 48), video="libx264", audio="aac")
    source = tmp_path / name
    with av.open(str(whole)) as read, av.open(str(source), "w", container_options=options) as output:
        copies = {s.index: output.add_stream_from_template(s) for s in read.streams}
        for packet in read.demux():
            if packet.size:
                packet.pts += round(shift / packet.time_base)
                packet.dts += round(shift / packet.time_base)
                packet.stream = copies[packet.stream_index]
                output.mux(packet)
    with av.open(str(source)) as container:
        shown = np.array([float(f.pts * f.time_base) for f in container.decode(video=0)])
    clip = Clip.read(source)
    moved = clip.times[0] - shown[0]
    np.testing.assert_allclose(clip.times, shown + moved, atol=1e-4)
    result = clip.write(tmp_path / f"out.{suffix}")
    back = Clip.read(result)
    rounding = 1.1e-3 if suffix == "mkv" else 1e-4
    np.testing.assert_allclose(back.times, clip.times, atol=rounding)
    assert back.duration == pytest.approx(clip.duration, abs=rounding)
    np.testing.assert_allclose(heard_at(result), np.array(heard_at(source)) + moved, atol=1.6e-3)


def test_a_clock_of_33_bits_may_run_over(tmp_path: Path) -> None:
    seconds = (1 << 33) // CLOCK + 1  # FFmpeg's first stamp is at 1.4 s
    part = write_part(tmp_path / "a.ts", moving_picture(25, 48, 48), video="libx264", audio="aac", start=seconds - 2)
    clip = Clip.read(part)
    assert len(clip) == 25
    np.testing.assert_allclose(np.diff(clip.times), 0.04, atol=1e-3)
    heard = heard_at(clip.write(tmp_path / "out.mp4"))
    np.testing.assert_allclose(heard, clip.times[[5, 15]], atol=5e-3)


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([0, 40, 80, 80, 80, 200, 240], [0, 40, 80, 120, 160, 200, 240]),  # stands still
        ([0, 40, 80, 79, 160, 200], [0, 40, 80, 120, 160, 200]),  # one late frame
        ([0, 40, 80, 0, 40, 80], [0, 40, 80, 120, 160, 200]),  # starts again
        ([500, 540, 580, 200, 240, 280, 320], [0, 40, 80, 120, 160, 200, 240]),  # jumps back
        ([0, 40, 80, 3_600_000, 3_600_040], [0, 40, 80, 3_600_000, 3_600_040]),  # an hour of one picture
    ],
)
def test_stamps_that_do_not_increase(tmp_path: Path, stamps: list[int], expected: list[int]) -> None:
    """Motion JPEG in Matroska with its blocks' times as given, in milliseconds."""
    clip = Clip.read(raw_matroska(tmp_path / "a.mkv", stamps))
    np.testing.assert_allclose(clip.times * 1000 - clip.times[0] * 1000, np.array(expected), atol=0.01)
    values = clip.frames[:, 8, 8, 0].float()
    assert (values.diff() > 5).all()  # in the order of the file
    back = Clip.read(clip.write(tmp_path / "b.mp4"))
    np.testing.assert_allclose(back.times, clip.times, atol=1e-4)


def raw_matroska(path: Path, stamps: Sequence[int]) -> Path:
    """Grey pictures that grow brighter, one a block, with any times in milliseconds: a Matroska file by hand."""

    def element(name: bytes, data: bytes) -> bytes:
        return name + (len(data) | 1 << 56).to_bytes(8, "big") + data

    def number(name: bytes, value: int) -> bytes:
        return element(name, value.to_bytes(8, "big"))

    header = element(b"\x1a\x45\xdf\xa3", element(b"\x42\x82", b"matroska") + number(b"\x42\x87", 4))
    info = element(b"\x15\x49\xa9\x66", number(b"\x2a\xd7\xb1", 1_000_000))
    size = element(b"\xe0", number(b"\xb0", 16) + number(b"\xba", 16))
    kind = number(b"\xd7", 1) + number(b"\x73\xc5", 1) + number(b"\x83", 1) + element(b"\x86", b"V_MJPEG")
    tracks = element(b"\x16\x54\xae\x6b", element(b"\xae", kind + number(b"\x23\xe3\x83", 40_000_000) + size))
    clusters = b""
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 16, 16, "yuvj420p", Fraction(1, 25)
    for index, stamp in enumerate(stamps):
        picture = np.full((16, 16, 3), 30 + 20 * index, dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj420p")
        frame.pts = index
        data = b"".join(bytes(p) for p in encoder.encode(frame))
        block = element(b"\xa3", b"\x81\x00\x00\x80" + data)
        clusters += element(b"\x1f\x43\xb6\x75", number(b"\xe7", stamp) + block)
    path.write_bytes(header + element(b"\x18\x53\x80\x67", info + tracks + clusters))
    return path


def test_a_file_without_times_is_counted(tmp_path: Path) -> None:
    part = write_part(tmp_path / "a.h264", moving_picture(10, 48, 48), video="libx264", audio=None)
    clip = Clip.read(part)
    np.testing.assert_allclose(np.diff(clip.times), 0.04, atol=1e-6)
    assert len(clip) == 10
