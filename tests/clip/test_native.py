"""Videos of more than SDR BT.709 of 8 bits are written in their own coding, and change only where they were edited."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from countervid.clip import Clip
from countervid.clip.clip import zip_clips
from countervid.clip.colour import RgbReader, light_of, plane
from countervid.clip.native import NativeFrames, native_of
from countervid.clip.video import Upright, VideoSource

HEIGHT, WIDTH, FRAMES = 64, 96, 7
STAMPS = [0, 40, 80, 130, 160, 250, 280]  # 1/1000 s
MASTERING = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(6000000,50):max-cll=600,200"
INSIDE = np.s_[16:48, 24:64]

# Encoder, pixel format, (matrix, primaries, transfer, range)
CODINGS: dict[str, tuple[str, str, tuple[int, int, int, int]]] = {
    "pq": ("libx265", "yuv420p10le", (9, 9, 16, 1)), "hlg": ("libx265", "yuv420p10le", (9, 9, 18, 1)),
    "bt2020 4:2:2 12 bits": ("libx265", "yuv422p12le", (9, 9, 15, 1)), "p3": ("libx264", "yuv420p", (1, 12, 1, 1)),
    "p3 full": ("libx264", "yuv420p", (1, 12, 1, 2)), "709 4:4:4 10 bits": ("libx265", "yuv444p10le", (1, 1, 1, 1)),
    "untagged 10 bits": ("libx264", "yuv420p10le", (2, 2, 2, 0)),
}  # fmt: skip
NOT_KEPT = {
    "ictcp": ("libx265", "yuv444p10le", (14, 9, 16, 1)), "rgb": ("libx265", "gbrp10le", (0, 12, 13, 2)),
    "constant luminance": ("libx265", "yuv420p10le", (10, 9, 14, 1)),
    "ycgco": ("libx265", "yuv420p10le", (8, 9, 14, 1)),
}  # fmt: skip


def make(
    path: Path, coding: str = "pq", frames: int = FRAMES, side: tuple[int, int] = (HEIGHT, WIDTH),
    params: str = "", upright: Upright | None = None, sound: bool = False, aspect: Fraction | None = None,
) -> Path:  # fmt: skip
    """A video of soft moving colours, coded finely."""
    codec, layout, tags = {**CODINGS, **NOT_KEPT}[coding]
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25)
        (stream.height, stream.width), stream.pix_fmt = side, layout
        stream.options = {"crf": "8", "preset": "veryfast"}
        if codec == "libx265":
            stream.options |= {"x265-params": f"log-level=none:pools=none:asm=sse4.2:{params}"}
        context = stream.codec_context
        context.time_base = stream.time_base = Fraction(1, 1000)
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = tags
        if upright is not None:
            stream.set_display_matrix(upright.matrix())
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        voice = output.add_stream("aac", rate=16_000, layout="mono") if sound else None
        for number in range(frames):
            frame = av.VideoFrame(stream.width, stream.height, layout)
            for index in range(3):
                samples = plane(frame, index)
                y, x = np.mgrid[: samples.shape[0], : samples.shape[1]]
                wave = np.sin(x / (9 + index) + number / 3) + np.cos(y / (7 + index) - index)
                middle, reach = ((0.42, 0.05), (0.5, 0.012), (0.5, 0.015))[index]
                samples[...] = ((middle + reach * wave) * (256 << (frame.format.components[0].bits - 8))).round()
            frame.pts, frame.time_base = STAMPS[number], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if voice is not None:
            for first in range(0, 4800, 960):
                tone = np.sin((first + np.arange(960)) / 8).astype(np.float32)[None] / 3
                block = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
                block.sample_rate, block.pts = 16_000, first
                output.mux(voice.encode(block))
            output.mux(voice.encode(None))
    return path


def decoded(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def planes(frame: Any) -> list[np.ndarray]:
    return [plane(frame, index).astype(int) for index in range(3)]


@contextmanager
def native(clip: Clip) -> Iterator[tuple[VideoSource, NativeFrames]]:
    source = native_of(clip._source)
    assert source is not None
    with NativeFrames(source) as frames:
        yield source, frames


def to_encoder(clip: Clip, size: int = 3) -> list[Any]:
    with native(clip) as (_, frames):
        return [
            frames.edited(start + offset, pixels.numpy())
            for start, window in clip.windows(size)
            for offset, pixels in enumerate(window)
        ]


def painted(_: int, frames: Tensor) -> Tensor:
    frames[:, INSIDE[0], INSIDE[1]] = (frames[:, INSIDE[0], INSIDE[1]].float() * 0.8 + 30).to(torch.uint8)  # in place
    return frames


@pytest.mark.parametrize("coding", CODINGS)
def test_an_edit_of_nothing_gives_the_encoder_the_samples_of_the_file(coding: str, tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", coding)
    given = to_encoder(Clip.read(path).mapped(lambda _, frames: frames.clone(), 2))
    assert len(given) == FRAMES
    for frame, own in zip(given, decoded(path), strict=True):
        assert frame.format.name == own.format.name
        for found, wanted in zip(planes(frame), planes(own), strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("coding", CODINGS)
def test_an_edit_changes_samples_only_where_it_is(coding: str, tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", coding)
    clip = Clip.read(path)
    edited = clip.mapped(painted, 2)
    wanted, reader = edited.frames.numpy(), RgbReader()
    for number, (frame, own) in enumerate(zip(to_encoder(edited), decoded(path), strict=True)):
        for found, before in zip(planes(frame), planes(own), strict=True):
            down, across = HEIGHT // found.shape[0], WIDTH // found.shape[1]
            there = np.s_[16 // down : 48 // down, 24 // across : 64 // across]
            assert (found[there] != before[there]).mean() > 0.1
            found[there] = before[there]
            np.testing.assert_array_equal(found, before)
        frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range = CODINGS[coding][2]
        error = np.abs(reader.read(frame)[INSIDE].astype(int) - wanted[number][INSIDE])
        assert error.mean() < 1.5
        assert np.percentile(error, 99) <= 6  # where chroma is subsampled, it passes into the picture around


def test_written_files_have_the_tags_light_times_and_sound_of_their_source(tmp_path: Path) -> None:
    path = make(tmp_path / "a.mp4", "pq", params=f"hdr10=1:repeat-headers=1:{MASTERING}", sound=True)
    clip = Clip.read(path)
    before = decoded(path)
    assert light_of(before[0]).mastering and light_of(before[0]).max_cll == 600
    for name in ("b.mp4", "b.mov", "b.mkv"):
        result = clip.mapped(painted, 4).write(tmp_path / name)
        after = decoded(result)
        assert light_of(after[0]) == light_of(before[0])
        for frame in after:
            assert frame.format.name == "yuv420p10le"
            tags = (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range)
            assert tags == (9, 9, 16, 1)
        read = Clip.read(result)
        np.testing.assert_allclose(read.times, clip.times, atol=1e-9)
        assert read.duration == pytest.approx(clip.duration, abs=1e-3)
        assert read.has_audio
        with av.open(str(result)) as written, av.open(str(path)) as source:
            assert written.streams.video[0].codec_context.name == "hevc"
            assert name == "b.mkv" or written.streams.video[0].codec_context.codec_tag == "hvc1"
            sounds = [[bytes(p) for p in container.demux(audio=0) if p.size] for container in (written, source)]
        assert sounds[0] == sounds[1]


@pytest.mark.parametrize("coding", ["pq", "hlg", "p3"])
def test_a_result_that_is_read_again_shows_the_edit_and_the_source_around(coding: str, tmp_path: Path) -> None:
    clip = Clip.read(make(tmp_path / "a.mp4", coding))
    edited = clip.mapped(painted, 4)
    result = Clip.read(edited.write(tmp_path / "b.mp4", crf=8))
    assert [note for note in result.notes if "own colour" in note] == [n for n in clip.notes if "own colour" in n]
    error = (result.frames.int() - edited.frames.int()).abs().float()
    assert error[:, INSIDE[0], INSIDE[1]].mean() < 3
    outside = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    outside[12:52, 20:68] = False
    assert error[:, outside].mean() < 1.5 and error[:, outside].max() < 16  # what the codec leaves


@pytest.mark.parametrize("coding", ["pq", "p3"])
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_the_same_clip_gives_the_same_bytes(coding: str, suffix: str, tmp_path: Path) -> None:
    clip = Clip.read(make(tmp_path / "a.mp4", coding))
    written = [clip.mapped(painted, size).write(tmp_path / f"{size}{suffix}") for size in (1, 4)]
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in written}
    assert len(digests) == 1


def test_frames_are_decoded_once_for_several_files_and_again_only_where_they_were_not_read(tmp_path: Path) -> None:
    clip = Clip.read(make(tmp_path / "a.mp4", "pq"))
    edited, twice = clip.mapped(painted, 3), clip.mapped(lambda _, frames: frames // 2, 2)
    looked: list[int] = []
    note = clip._source.log.look_at  # type: ignore[attr-defined]
    clip._source.log.look_at = lambda number, frame: (looked.append(number), note(number, frame))  # type: ignore[attr-defined]
    with edited.writer(tmp_path / "b.mp4") as first, twice.writer(tmp_path / "c.mp4") as second:
        for _, (one, other) in zip_clips([edited, twice], 2):
            first(one)
            second(other)
    assert looked == list(range(FRAMES))
    held = edited.frames
    looked.clear()
    with edited.writer(tmp_path / "d.mp4") as add:
        add(held)
    assert looked == list(range(FRAMES))
    assert (tmp_path / "d.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_few_frames_of_a_large_window_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Clip.read(make(tmp_path / "a.mp4", "hlg")).mapped(painted, 4)
    wanted = [planes(frame) for frame in to_encoder(clip, 1)]
    monkeypatch.setattr("countervid.clip.native._HELD_BYTES", 1)
    monkeypatch.setattr("countervid.clip.native._HELD_FRAMES", 2)
    with native(clip) as (_, frames):
        for number, pixels in enumerate(clip.frames.numpy()):
            for found, before in zip(planes(frames.edited(number, pixels)), wanted[number], strict=True):
                np.testing.assert_array_equal(found, before)
            assert len(frames._held) <= 2


def test_frames_of_another_coding_than_the_first_are_converted_whole(tmp_path: Path) -> None:
    parts = [make(tmp_path / f"{coding}.ts", coding, frames=4) for coding in ("pq", "hlg")]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    clip = Clip.read(path)
    assert len(clip) == 8 and {frame.color_trc for frame in decoded(path)} == {16, 18}
    read, given = clip.frames.numpy().astype(int), to_encoder(clip)
    for number, frame in enumerate(given):
        frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range = 9, 9, 16, 1
        assert np.abs(RgbReader().read(frame) - read[number]).mean() < 1.0


ORIENTATIONS = [Upright(bool(n & 4), bool(n & 2), bool(n & 1)) for n in range(8)]


@pytest.mark.parametrize("upright", ORIENTATIONS, ids=lambda upright: "".join("xtmf"[bool(v)] for v in upright))
def test_turned_files_stay_turned(upright: Upright, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8)
    np.testing.assert_array_equal(upright.undo(upright.apply(pixels)), pixels)
    path = make(tmp_path / "a.mp4", "hlg", frames=3, upright=upright, aspect=Fraction(4, 3))
    clip = Clip.read(path)
    assert clip._source.upright == upright  # type: ignore[attr-defined]
    edited = clip.mapped(lambda _, frames: torch.cat([frames[:, :20] // 2, frames[:, 20:]], dim=1))
    for frame, own in zip(to_encoder(edited), decoded(path), strict=True):
        stored = upright.undo(np.broadcast_to(np.arange(clip.height)[:, None, None] < 20, (clip.height, clip.width, 1)))
        np.testing.assert_array_equal(planes(frame)[0] != planes(own)[0], stored[..., 0])
    result = Clip.read(edited.write(tmp_path / "b.mp4"))
    assert (result.height, result.width) == (clip.height, clip.width)
    assert result._source.aspect == clip._source.aspect
    assert (result.frames.int() - edited.frames.int()).abs().float().mean() < 2.5
    matrices = [
        struct.unpack("=9i", bytes(decoded(p)[0].side_data["DISPLAYMATRIX"]))
        for p in (path, tmp_path / "b.mp4")
        if upright != Upright()
    ]
    assert len(set(matrices)) <= 1


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_short_clips_are_written(frames: int, tmp_path: Path) -> None:
    clip = Clip.read(make(tmp_path / "a.mov", "709 4:4:4 10 bits")).first(frames)
    result = Clip.read(clip.write(tmp_path / "b.mp4"))
    np.testing.assert_allclose(result.times, clip.times)
    assert result.duration == pytest.approx(clip.duration)
    assert result._source.coded.layout == "yuv444p10le"  # type: ignore[attr-defined]


def test_what_cannot_be_kept_is_written_as_sdr(tmp_path: Path) -> None:
    clip = Clip.read(make(tmp_path / "a.mp4", "pq"))
    wide = clip.mapped(lambda _, frames: torch.cat([frames, frames], dim=2), size=(HEIGHT, 2 * WIDTH))
    for number, written in enumerate(
        [wide.write(tmp_path / "b.mp4"), Clip.from_frames(clip.frames).write(tmp_path / "c.mp4")]
    ):
        frame = decoded(written)[0]
        assert (frame.format.name, frame.colorspace, frame.color_primaries, frame.color_trc) == ("yuv420p", 1, 1, 1)
        assert frame.width == (2 * WIDTH, WIDTH)[number]
    lossless = Clip.read(clip.write(tmp_path / "d.mp4", lossless=True))
    assert torch.equal(lossless.frames, clip.frames)
    assert native_of(Clip.read(make(tmp_path / "e.mp4", "bt2020 4:2:2 12 bits"))._source) is not None


def test_a_run_is_told_how_a_file_is_read_and_written(tmp_path: Path) -> None:
    read, written = Clip.read(make(tmp_path / "a.mp4", "pq")).notes
    assert read == "HDR (PQ, BT.2020) read as SDR BT.709: tone-mapped, reference white 203 cd/m2."
    assert "written in the file's own colour and 10 bits (HEVC)" in written and "Comparisons" in written
    (written,) = Clip.read(make(tmp_path / "b.mp4", "709 4:4:4 10 bits")).notes
    assert "10 bits (HEVC)" in written
    assert "8 bits (H.264)" in Clip.read(make(tmp_path / "c.mp4", "p3")).notes[1]
    thin = Clip.read(make(tmp_path / "d.mp4", "p3", side=(14, WIDTH)))
    assert thin.notes[1] == "Results are written as SDR BT.709 of 8 bits." and native_of(thin._source) is None
    for coding in NOT_KEPT:
        other = Clip.read(make(tmp_path / "f.mp4", coding))
        assert other.notes[1] == thin.notes[1] and native_of(other._source) is None
        frame = decoded(other.write(tmp_path / "g.mp4"))[0]
        assert (frame.format.name, frame.colorspace, frame.color_trc) == ("yuv420p", 1, 1)
    plain = Clip.from_frames(torch.zeros(2, 16, 16, 3, dtype=torch.uint8)).write(tmp_path / "e.mp4")
    assert Clip.read(plain).notes == [] and native_of(Clip.read(plain)._source) is None
