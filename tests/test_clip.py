"""`Clip`: what goes in comes out; what cannot be read or written is said in one line and leaves nothing behind."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import wave
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from conftest import moving_picture
from countervid.clip import Clip
from countervid.errors import ClipError, CountervidError, OutputError

MakeVideo = Callable[..., Path]


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * torch.log10(((a.float() - b.float()) / 255).square().mean() + 1e-12))


def audio_packets(path: Path) -> list[tuple[Fraction, bytes]]:
    """(time, bytes) of every packet of sound."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(container.streams.audio) if p.dts is not None]
        return [(p.pts * p.time_base, bytes(p)) for p in packets]


# Round trips


@pytest.mark.parametrize("name", ["lossless.mp4", "lossless.mkv", "folder"])
@pytest.mark.parametrize("shape", [(5, 48, 64), (3, 33, 17), (1, 16, 16), (2, 1, 1)])
def test_lossless_forms_return_every_value(tmp_path: Path, name: str, shape: tuple[int, int, int]) -> None:
    noise = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    Clip.from_frames(noise).write(tmp_path / name, lossless=True)
    back = Clip.read(tmp_path / name)
    assert torch.equal(back.frames, noise)
    np.testing.assert_allclose(back.times, np.arange(shape[0]) / 25, atol=1e-9)


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (48, 63), (47, 64), (1, 1), (2, 3)])
def test_h264_keeps_odd_sizes_and_looks_the_same(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = moving_picture(6, *size)
    Clip.from_frames(frames).write(tmp_path / "a.mp4")
    back = Clip.read(tmp_path / "a.mp4")
    assert (len(back), back.height, back.width) == (6, *size)
    assert psnr(back.frames, frames) > 34  # crf 16; what is lost is mostly colour, at edges


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 90)])
def test_colours_survive_the_matrix_and_the_range(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    frames = torch.tensor(colour, dtype=torch.uint8).expand(2, 32, 32, 3).contiguous()
    Clip.from_frames(frames).write(tmp_path / "a.mp4", crf=4)
    assert (Clip.read(tmp_path / "a.mp4").frames.int() - frames.int()).abs().max() <= 3  # 8-bit YCbCr, limited range


def test_lower_crf_is_nearer_to_the_source(tmp_path: Path, tiny_clip: Clip) -> None:
    quality = [
        psnr(Clip.read(tiny_clip.write(tmp_path / f"{c}.mp4", crf=c)).frames, tiny_clip.frames) for c in (4, 20, 40)
    ]
    assert quality[0] > quality[1] > quality[2]


def test_gif_keeps_count_times_and_identical_frames(tmp_path: Path) -> None:
    frames = moving_picture(4, 20, 30)[[0, 0, 1, 2, 3, 3]]  # writers like to merge equal neighbours
    Clip.from_frames(frames, times=[0, 0.1, 0.15, 0.4, 0.5, 0.6]).write(
        tmp_path / "a.gif", metadata={"synthetic": "yes"}
    )
    back = Clip.read(tmp_path / "a.gif")
    np.testing.assert_allclose(back.times, [0, 0.1, 0.15, 0.4, 0.5, 0.6], atol=1e-9)
    assert psnr(back.frames, frames) > 28  # 256 colours a frame
    assert "synthetic" in back.metadata["comment"]


def test_variable_frame_times_survive_files_folders_and_maps(tmp_path: Path, tiny_frames: Tensor) -> None:
    times = [0, 0.04, 0.05, 0.3, 0.31, 1, 1.5, 1.501, 2, 2.25, 7, 7.125]
    clip = Clip.from_frames(tiny_frames, times=times)
    for name in ("a.mp4", "folder", "b.mov"):
        np.testing.assert_allclose(Clip.read(clip.write(tmp_path / name)).times, clip.times, atol=1e-9)
    again = Clip.read(tmp_path / "a.mp4").mapped(lambda start, frames: 255 - frames)
    np.testing.assert_allclose(Clip.read(again.write(tmp_path / "c.mp4")).times, clip.times, atol=1e-9)
    np.testing.assert_allclose(clip.times, times, atol=1 / 90_000)


def test_ntsc_rate_stays_exact(tmp_path: Path, tiny_frames: Tensor) -> None:
    back = Clip.read(Clip.from_frames(tiny_frames, 30_000 / 1001).write(tmp_path / "a.mp4"))
    np.testing.assert_allclose(back.times, np.arange(12) * 1001 / 30_000, rtol=1e-12)
    assert back.fps == pytest.approx(30_000 / 1001, rel=1e-12)


def test_metadata_reaches_the_container(tmp_path: Path, tiny_clip: Clip) -> None:
    marks = {"synthetic": "yes", "countervid:do": "age=old", "comment": "grown old, naïve"}
    for name in ("a.mp4", "b.mkv", "folder"):
        back = Clip.read(tiny_clip.write(tmp_path / name, metadata=marks))
        assert marks.items() <= back.metadata.items()


def test_same_clip_gives_the_same_bytes(tmp_path: Path, tiny_clip: Clip) -> None:
    first, second = (tiny_clip.write(tmp_path / f"{i}.mp4").read_bytes() for i in range(2))
    assert first == second


# What is read


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
@pytest.mark.parametrize("flip", [False, True])
def test_display_matrix_is_applied(make_video: MakeVideo, rotation: int, flip: bool) -> None:
    frames = moving_picture(3, 32, 48)
    clip = Clip.read(make_video(frames, rotation=rotation, flip=flip))
    shown = torch.rot90(frames, k=rotation // 90, dims=(1, 2))  # FFmpeg's and numpy's angles both turn to the left
    candidates = [shown.flip(2), shown.flip(1)] if flip else [shown]
    assert (clip.height, clip.width) == tuple(shown.shape[1:3])
    assert max(psnr(clip.frames, c) for c in candidates) > 32
    assert psnr(clip.frames, candidates[0]) > 32 or flip


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [
        ("libx264", "yuv420p10le", "mp4"),
        ("libx264", "gray", "mp4"),
        ("ffv1", "gray16le", "mkv"),
        ("ffv1", "yuva444p", "mkv"),
        ("png", "rgba", "mov"),
        ("mjpeg", "yuvj420p", "avi"),
        ("mpeg4", "yuv420p", "avi"),
        ("libvpx", "yuv420p", "webm"),
        ("libvpx-vp9", "yuv420p", "webm"),
        ("mpeg2video", "yuv420p", "ts"),
        ("rawvideo", "rgb24", "nut"),
    ],
)
def test_formats_become_rgb8(make_video: MakeVideo, codec: str, pix_fmt: str, suffix: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    frames = moving_picture(10, 48, 64)
    if "gray" in pix_fmt:
        weights = torch.tensor([0.299, 0.587, 0.114])
        frames = (frames.float() @ weights).round().to(torch.uint8)[..., None].expand(-1, -1, -1, 3).contiguous()
    options = {"qscale": "2", "b": "4M"} if codec not in ("libx264", "ffv1", "png", "rawvideo") else None
    clip = Clip.read(make_video(frames, f"a.{suffix}", codec=codec, pix_fmt=pix_fmt, options=options))
    assert len(clip) == 10
    assert clip.frames.shape == frames.shape
    assert (
        psnr(clip.frames, frames) > 29
    )  # the worst of these codecs at these settings; a wrong range or matrix is < 25
    np.testing.assert_allclose(np.diff(clip.times), 0.04, atol=1e-3)


def test_transparency_is_laid_over_black(tmp_path: Path) -> None:
    rgba = np.full((4, 4, 4), 200, dtype=np.uint8)
    rgba[:2, :, 3], rgba[2:, :, 3] = 0, 255
    Image.fromarray(rgba).save(tmp_path / "0.png")
    frames = Clip.read(tmp_path).frames[0]
    assert frames[:2].max() == 0
    assert frames[2:].min() == 200


def test_folders_are_read_in_natural_order_and_upright(tmp_path: Path) -> None:
    for value in (1, 2, 10):
        Image.new("L", (6, 4), value * 20).save(tmp_path / f"frame{value}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_text("not a picture")
    assert Clip.read(tmp_path).frames[:, 0, 0, 0].tolist() == [20, 40, 200]
    sideways = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn to the right
    Image.new("RGB", (8, 4)).save(sideways, exif=exif)
    assert (Clip.read(sideways).height, Clip.read(sideways).width) == (8, 4)
    assert Clip.read(sideways).frames.shape == (1, 8, 4, 3)


def test_sixteen_bit_grey_pictures_keep_their_upper_bits(tmp_path: Path) -> None:
    Image.fromarray(np.full((3, 3), 0x8123, dtype=np.uint16)).save(tmp_path / "a.png")
    assert Clip.read(tmp_path).frames.unique().tolist() == [0x81]


# Windows


@pytest.mark.parametrize("size", [1, 5, 12, 40])
def test_windows_agree_with_the_whole(make_video: MakeVideo, tiny_frames: Tensor, size: int) -> None:
    for clip in (Clip.read(make_video(tiny_frames)), Clip.from_frames(tiny_frames)):
        pieces = list(clip.windows(size))
        assert [start for start, _ in pieces] == list(range(0, 12, size))
        assert torch.equal(torch.cat([piece for _, piece in pieces]), clip.frames)


@pytest.mark.parametrize("start", [0, 1, 5, 11, 12])
def test_windows_may_begin_anywhere(make_video: MakeVideo, tiny_frames: Tensor, tmp_path: Path, start: int) -> None:
    memory = Clip.from_frames(tiny_frames)
    folder = Clip.read(memory.write(tmp_path / "folder"))
    file = Clip.read(make_video(tiny_frames))
    for clip in (memory, folder, file, memory.mapped(lambda _, frames: frames, 5), memory.first(12), folder.first(7)):
        pieces = list(clip.windows(4, start))
        assert [at for at, _ in pieces] == list(range(start, len(clip), 4))
        joined = torch.cat([piece for _, piece in pieces]) if pieces else torch.empty(0, 48, 64, 3, dtype=torch.uint8)
        assert torch.equal(joined, clip.frames[start:])


def test_mapped_sees_its_own_windows_however_it_is_read(tiny_clip: Clip, tiny_frames: Tensor) -> None:
    calls: list[tuple[int, int]] = []

    def invert(start: int, frames: Tensor) -> Tensor:
        calls.append((start, len(frames)))
        return 255 - frames

    mapped = tiny_clip.mapped(invert, window=5)
    assert calls == []
    assert [len(piece) for _, piece in mapped.windows(4)] == [4, 4, 4]
    assert calls == [(0, 5), (5, 5), (10, 2)]
    assert torch.equal(mapped.frames, 255 - tiny_frames)
    wider = tiny_clip.mapped(lambda _, frames: torch.cat([frames, frames], dim=2), size=(48, 128))
    assert wider.frames.shape == (12, 48, 128, 3)
    with pytest.raises(ValueError, match="must return"):
        _ = tiny_clip.mapped(lambda _, frames: frames[:1]).frames


def test_memory_does_not_grow_with_length(make_video: MakeVideo) -> None:
    """A map over 600 frames of 0.4 MB may hold a few windows, not the clip."""
    import psutil

    path = make_video(moving_picture(2, 288, 480).repeat(300, 1, 1, 1), options={"preset": "ultrafast"})
    clip, held = Clip.read(path).mapped(lambda _, frames: 255 - frames), []
    for _start, _frames in clip.windows(8):
        held.append(psutil.Process().memory_info().rss)
    assert len(held) == 75
    assert max(held) - held[0] < 160e6  # a few windows, the decoder and its threads; all frames together are 249 MB


def test_digest_is_of_the_content(tmp_path: Path, tiny_frames: Tensor) -> None:
    clip, same = Clip.from_frames(tiny_frames), Clip.from_frames(tiny_frames.clone())
    assert clip.digest() == same.digest()
    assert clip.digest() != Clip.from_frames(tiny_frames.flip(0)).digest()
    assert clip.digest() != Clip.from_frames(tiny_frames, 24).digest()
    first, second = clip.write(tmp_path / "a.mp4"), clip.write(tmp_path / "b.mp4")
    assert Clip.read(first).digest() == Clip.read(second).digest()
    assert (
        Clip.read(clip.write(tmp_path / "f")).digest()
        != Clip.read(clip.mapped(lambda _, x: 255 - x).write(tmp_path / "g")).digest()
    )


# Sound


@pytest.mark.parametrize("codec", ["aac", "libmp3lame", "libopus", "flac"])
def test_sound_is_carried_packet_for_packet(tmp_path: Path, make_video: MakeVideo, codec: str) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    source = make_video(moving_picture(25, 32, 32), "talk.mkv", audio=codec)
    before = audio_packets(source)
    clip = Clip.read(source)
    assert clip.has_audio
    after = audio_packets(clip.mapped(lambda _, frames: 255 - frames).write(tmp_path / "out.mp4"))
    assert [data for _, data in after] == [data for _, data in before]
    # Matroska rounds to 1 ms; nothing may drift.
    assert max(abs(a - b) for (a, _), (b, _) in zip(after, before, strict=True)) <= Fraction(1, 500)


def test_the_first_frames_come_with_their_sound_and_no_more(tmp_path: Path, make_video: MakeVideo) -> None:
    whole, count = Clip.read(make_video(moving_picture(25, 32, 32), "talk.mp4", audio="aac")), 10
    part = whole.first(count)
    assert torch.equal(part.frames, whole.frames[:count])
    assert [start for start, _ in part.windows(4)] == [0, 4, 8]
    assert part.times.tolist() == whole.times[:count].tolist() and part.digest() != whole.digest()
    assert whole.first(len(whole)) is whole
    heard = audio_packets(part.write(tmp_path / "part.mp4"))
    assert 10 < len(heard) < len(audio_packets(whole.write(tmp_path / "whole.mp4")))
    assert max(time for time, _ in heard) < whole.times[count]
    with pytest.raises(ClipError, match="at least 1 frame"):
        whole.first(0)


def test_sound_keeps_its_distance_to_the_pictures(tmp_path: Path, make_video: MakeVideo) -> None:
    frames = moving_picture(25, 32, 32)
    source = make_video(frames, "talk.ts", audio="aac", stamps=list(range(10, 35)))  # MPEG-TS starts late, at 1.4 s
    first, second = Clip.read(source), Clip.read(Clip.read(source).write(tmp_path / "out.mp4"))
    np.testing.assert_allclose(first.times, second.times, atol=1e-4)
    gap = [c.times[0] - float(audio_packets(p)[0][0]) for c, p in ((second, tmp_path / "out.mp4"),)][0]
    with av.open(str(source)) as container:
        starts = {s.type: s.start_time * s.time_base for s in container.streams}
    assert gap == pytest.approx(float(starts["video"] - starts["audio"]), abs=2e-3)


def test_sound_that_mp4_cannot_hold_becomes_aac(
    tmp_path: Path, make_video: MakeVideo, caplog: pytest.LogCaptureFixture
) -> None:
    source = make_video(moving_picture(25, 32, 32), "talk.avi", codec="mpeg4", audio="adpcm_ms")
    out = Clip.read(source).write(tmp_path / "out.mp4")
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        seconds = sum(f.samples for f in container.decode(audio=0)) / 48_000
    assert seconds == pytest.approx(1.0, abs=0.15)
    assert "AAC" in caplog.text


# Wrong input


def damaged_files(folder: Path, make_video: MakeVideo) -> dict[str, Path]:
    frames = moving_picture(50, 64, 96)
    whole = make_video(frames, options={"crf": "4"}).read_bytes()
    front = make_video(frames, options={"crf": "4"}, container_options={"movflags": "faststart"}).read_bytes()
    mkv = make_video(frames, "a.mkv", options={"crf": "4", "g": "10"}, stamps=list(range(0, 150, 3))).read_bytes()
    contents = {
        "empty.mp4": b"",
        "text.mp4": b"This is not a video.\n" * 100,
        "text.txt": b"This is not a video.\n" * 100,
        "noise.mp4": np.random.default_rng(0).bytes(20_000),
        "half.mp4": whole[: len(whole) // 2],
        "half-front.mp4": front[: len(front) // 2],
        "half.mkv": mkv[: len(mkv) // 2],
        "playlist.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        "playlist.mp4": b"ffconcat version 1.0\nfile /etc/hostname\n",
        "broken.png": b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
    }
    paths = {}
    for name, content in contents.items():
        paths[name] = folder / name
        paths[name].write_bytes(content)
    paths["sound.wav"] = folder / "sound.wav"
    with wave.open(str(paths["sound.wav"]), "wb") as sound:
        sound.setnchannels(1), sound.setsampwidth(2), sound.setframerate(8000)
        sound.writeframes(b"\0\0" * 8000)
    paths["nothing here"] = folder / "nothing here"
    (folder / "no pictures").mkdir()
    (folder / "no pictures" / "readme.txt").write_text("none")
    paths["no pictures"] = folder / "no pictures"
    (folder / "mixed").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "mixed" / "0.png")
    Image.new("RGB", (4, 6)).save(folder / "mixed" / "1.png")
    paths["mixed"] = folder / "mixed"
    return paths


def test_wrong_input_is_one_line_that_names_the_file(tmp_path: Path, make_video: MakeVideo) -> None:
    for name, path in damaged_files(tmp_path, make_video).items():
        with pytest.raises(ClipError) as caught:
            Clip.read(path)
        message = str(caught.value)
        assert name in message and "\n" not in message and len(message) < 400, message
    hints = {"empty.mp4": "empty", "sound.wav": "no video", "mixed": "differ in size", "half-front.mp4": "cut off"}
    for name, hint in hints.items():
        with pytest.raises(ClipError, match=hint):
            Clip.read(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["http://127.0.0.1:9/a.mp4", "concat:a.mp4|b.mp4", "lavfi:testsrc", "pipe:0", "%d.png"]
)
def test_only_local_files_are_opened(name: str) -> None:
    with pytest.raises(ClipError, match="does not exist"):
        Clip.read(name)


def test_a_playlist_in_disguise_does_not_reach_other_files(tmp_path: Path, make_video: MakeVideo) -> None:
    real = make_video(moving_picture(3, 32, 32))
    disguised = tmp_path / "clip.mp4"
    disguised.write_text(f"ffconcat version 1.0\nfile {real}\n")
    with pytest.raises(ClipError):
        Clip.read(disguised)


def test_damage_in_the_middle_is_said_and_leaves_no_output(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(moving_picture(20, 64, 64), "a.mov", codec="png", pix_fmt="rgb24")
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    with pytest.raises(ClipError, match=r"a\.mov"):
        Clip.read(path).write(tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


def test_absurd_sizes_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    Image.new("1", (1, 1)).save(tmp_path / "bomb.png")
    data = bytearray((tmp_path / "bomb.png").read_bytes())
    for width in (12_000, 2_000_000):
        data[16:24] = struct.pack(">II", width, 12_000)  # IHDR
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        (tmp_path / "bomb.png").write_bytes(data)
        with pytest.raises(ClipError, match="at most"):
            Clip.read(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("frames", "keywords"),
    [
        (torch.zeros(2, 4, 4, 3), {}),
        (torch.zeros(0, 4, 4, 3, dtype=torch.uint8), {}),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), {}),
        (torch.zeros(2, 4, 4, 3, dtype=torch.uint8), {"fps": 0}),
        (torch.zeros(2, 4, 4, 3, dtype=torch.uint8), {"times": [0.0]}),
        (torch.zeros(2, 4, 4, 3, dtype=torch.uint8), {"times": [1.0, 0.5]}),
    ],
)
def test_frames_that_make_no_clip(frames: Tensor, keywords: dict[str, object]) -> None:
    with pytest.raises(ClipError):
        Clip.from_frames(frames, **keywords)  # type: ignore[arg-type]


# Writing: whole or not at all


def test_outputs_that_cannot_be_written(tmp_path: Path, tiny_clip: Clip) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.doc").write_text("x")
    for name in ("a.xyz", "missing/a.mp4", "file/a.mp4", "file", "full", "missing/folder"):
        with pytest.raises(OutputError) as caught:
            tiny_clip.write(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(OutputError, match="crf"):
        tiny_clip.write(tmp_path / "a.mp4", crf=99)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "full"]
    assert (tmp_path / "full" / "thesis.doc").exists()


def test_a_folder_of_frames_may_be_written_again(tmp_path: Path, tiny_clip: Clip) -> None:
    tiny_clip.write(tmp_path / "frames")
    tiny_clip.mapped(lambda _, frames: 255 - frames).write(tmp_path / "frames")
    assert torch.equal(Clip.read(tmp_path / "frames").frames, 255 - tiny_clip.frames)
    assert [p.name for p in tmp_path.iterdir()] == ["frames"]


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "frames"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ClipError])
def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, tiny_clip: Clip, name: str, error: type[BaseException]
) -> None:
    tiny_clip.write(tmp_path / name)
    before = Clip.read(tmp_path / name).digest()

    def stop(start: int, frames: Tensor) -> Tensor:
        if start > 4:
            raise error("stop")
        return frames

    with pytest.raises(error):
        tiny_clip.mapped(stop, window=4).write(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert Clip.read(tmp_path / name).digest() == before


@pytest.mark.skipif(os.name != "posix", reason="needs limits on the size of files")
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on file size stands in for the full disk: the same failure of the same write."""
    script = """
import resource, signal, sys, torch
from countervid.clip import Clip
from countervid.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
frames = torch.randint(0, 256, (12, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for name in ("a.mp4", "a.mkv", "a.gif", "frames"):
    try:
        Clip.from_frames(frames).write(f"{sys.argv[1]}/{name}", crf=1)
    except OutputError as error:
        assert "disk is full" in str(error), error
    else:
        raise AssertionError(name)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_progress_counts_to_the_end(tmp_path: Path, tiny_clip: Clip) -> None:
    seen: list[tuple[int, int]] = []
    tiny_clip.write(tmp_path / "a.mp4", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 12) for i in range(1, 13)]


def test_a_clip_may_be_written_over_its_own_source(tmp_path: Path, tiny_clip: Clip) -> None:
    path = tiny_clip.write(tmp_path / "a.mp4", lossless=True)
    Clip.read(path).mapped(lambda _, frames: 255 - frames).write(path, lossless=True)
    assert torch.equal(Clip.read(path).frames, 255 - tiny_clip.frames)
    assert issubclass(ClipError, CountervidError)


def test_frames_at_hand_give_the_file_that_the_clip_gives(tmp_path: Path, tiny_clip: Clip, tiny_frames: Tensor) -> None:
    for name in ("a.mp4", "a.mkv", "a.gif", "folder"):
        whole, added = tmp_path / f"whole-{name}", tmp_path / f"added-{name}"
        tiny_clip.write(whole)
        with tiny_clip.writer(added) as add:
            for start, stop in ((0, 5), (5, 6), (6, 12)):
                assert not added.exists()
                add(tiny_frames[start:stop])
        if whole.suffix in (".mp4", ".gif"):  # mkv holds a random number
            assert whole.read_bytes() == added.read_bytes()
        assert torch.equal(Clip.read(whole).frames, Clip.read(added).frames)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "folder"])
def test_frames_that_do_not_come_leave_no_file(tmp_path: Path, tiny_clip: Clip, tiny_frames: Tensor, name: str) -> None:
    with pytest.raises(ClipError, match="broken"), tiny_clip.writer(tmp_path / name) as add:
        add(tiny_frames[:5])
        raise ClipError("broken")
    with pytest.raises(ValueError, match="lacks 5 of 12 frames"), tiny_clip.writer(tmp_path / name) as add:
        add(tiny_frames[:7])
    assert not list(tmp_path.iterdir())
