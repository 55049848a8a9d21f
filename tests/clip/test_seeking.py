"""Decoding that begins in the middle of a file gives what decoding from its start gives, and costs little."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from conftest import moving_picture
from countervid.clip import Clip
from countervid.clip.seeking import DECODED

COUNT, GROUP = 40, 8
X264 = f"keyint={GROUP}:min-keyint=4:scenecut=0:bframes=3"
X265 = f"{X264}:log-level=none:asm=sse4.2"  # newer instructions: libx265 writes where it must not
G = {"g": str(GROUP)}

# name -> codec, pixel format, options, whether decoding may begin in the middle
FILES: dict[str, tuple[str, str, dict[str, str], bool]] = {
    "closed.mp4": ("libx264", "yuv420p", {"x264-params": X264}, True),
    "closed.mkv": ("libx264", "yuv420p", {"x264-params": X264}, True),
    "open.mp4": ("libx264", "yuv420p", {"x264-params": f"{X264}:open-gop=1"}, True),
    "open.ts": ("libx264", "yuv420p", {"x264-params": f"{X264}:open-gop=1"}, True),
    "refreshed.mp4": ("libx264", "yuv420p", {"x264-params": f"keyint={GROUP}:intra-refresh=1"}, False),
    "raw.h264": ("libx264", "yuv420p", {"x264-params": X264}, False),  # no stamps
    "made-up.avi": ("libx264", "yuv420p", {"x264-params": X264}, False),  # AVI has no stamps for B-frames
    "open-hevc.mp4": ("libx265", "yuv420p", {"x265-params": f"{X265}:open-gop=1"}, True),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {**G, "lag-in-frames": "8", "deadline": "realtime", "cpu-used": "8"}, True),
    "vp8.webm": ("libvpx", "yuv420p", {**G, "deadline": "realtime"}, True),
    "mpeg4.avi": ("mpeg4", "yuv420p", {**G, "bf": "2"}, True),
    "mpeg4.mp4": ("mpeg4", "yuv420p", {**G, "bf": "2"}, True),
    "mpeg2.mpg": ("mpeg2video", "yuv420p", {**G, "bf": "2"}, True),
    "each.avi": ("mjpeg", "yuvj420p", {}, True),
    "ffv1.mkv": ("ffv1", "yuv420p", G, True),
    "flash.flv": ("flv", "yuv420p", G, False),
    "colours.gif": ("gif", "rgb8", {}, False),
}


def write(path: Path, codec: str, pix_fmt: str, options: dict[str, str], stamps: list[int] | None = None) -> Path:
    noise = torch.randint(-20, 20, (COUNT, 32, 48, 3), generator=torch.Generator().manual_seed(0))
    frames = (moving_picture(COUNT, 32, 48).int() + noise).clamp(0, 255).to(torch.uint8)
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.options = 48, 32, pix_fmt, options
        stream.codec_context.time_base = Fraction(1, 25)
        for index, pixels in enumerate(frames.numpy()):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = stamps[index] if stamps else index, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Clip, Tensor]]:
    """`read(name)`: the clip and all of its frames, decoded from the start."""
    made: dict[str, tuple[Clip, Tensor]] = {}

    def of(name: str) -> tuple[Clip, Tensor]:
        if name not in made:
            codec, pix_fmt, options, _ = FILES[name]
            if codec not in av.codecs_available:
                pytest.skip(f"this PyAV has no {codec}")
            clip = Clip.read(write(tmp_path_factory.mktemp("files") / name, codec, pix_fmt, options))
            made[name] = clip, clip.frames
        return made[name]

    return of


def decoded(clip: Clip, run: Callable[[], object]) -> int:
    """Frames that something decodes."""
    assert clip.source is not None
    before = DECODED[clip.source]
    run()
    return DECODED[clip.source] - before


@pytest.mark.parametrize("name", FILES)
def test_windows_from_anywhere_are_slices_of_the_whole(read: Callable[[str], tuple[Clip, Tensor]], name: str) -> None:
    clip, whole = read(name)
    assert len(whole) == COUNT

    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, COUNT - 1), st.integers(1, 12))
    def check(start: int, size: int) -> None:
        pieces = list(clip.windows(size, start))
        assert [at for at, _ in pieces] == list(range(start, COUNT, size))
        assert torch.equal(torch.cat([piece for _, piece in pieces]), whole[start:])

    check()
    # A group of frames and its leading pictures at most, where the file allows it.
    most = GROUP + 4 if FILES[name][3] else COUNT
    for start in range(0, COUNT, 3):
        assert decoded(clip, lambda at=start: next(clip.windows(1, at))) <= min(most, start + 1)  # type: ignore[misc]
    if not FILES[name][3]:
        assert decoded(clip, lambda: next(clip.windows(1, COUNT - 1))) == COUNT


@pytest.mark.parametrize("name", ["open.mp4", "refreshed.mp4", "each.avi"])
def test_frames_by_number_cost_what_they_need(read: Callable[[str], tuple[Clip, Tensor]], name: str) -> None:
    clip, whole = read(name)

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=6).map(sorted))
    def check(indices: list[int]) -> None:
        assert torch.equal(clip.frames_at(indices), whole[indices])

    check()
    assert decoded(clip, lambda: clip.frames_at([0, 1, 2, COUNT - 1])) <= (COUNT if name == "refreshed.mp4" else 16)
    assert decoded(clip, lambda: clip.frames_at(range(COUNT))) == COUNT


def test_a_map_computes_only_the_windows_that_hold_a_wanted_frame(tiny_clip: Clip, tiny_frames: Tensor) -> None:
    asked: list[int] = []

    def invert(start: int, frames: Tensor) -> Tensor:
        asked.append(start)
        return 255 - frames

    clip = tiny_clip.mapped(invert, window=3)
    assert torch.equal(clip.frames_at([1, 2, 2, 10]), 255 - tiny_frames[[1, 2, 2, 10]])
    assert asked == [0, 9]
    assert torch.equal(clip.first(11).frames_at([10]), 255 - tiny_frames[[10]])


@pytest.mark.parametrize("indices", [[], [3, 2], [-1], [12], [0, 12]])
def test_numbers_that_are_not_there_are_refused(tiny_clip: Clip, indices: list[int]) -> None:
    with pytest.raises(ValueError, match="must ascend within"):
        tiny_clip.frames_at(indices)


def test_frames_that_an_edit_list_hides_are_not_counted(tmp_path: Path) -> None:
    """Frames before time 0 are coded but not shown: the muxer writes an edit list that leaves them out."""
    path = write(tmp_path / "a.mp4", "libx264", "yuv420p", {"x264-params": X264}, [i - 3 for i in range(COUNT)])
    clip = Clip.read(path)
    whole = clip.frames
    assert len(clip) == COUNT - 3
    for start in range(0, len(clip), 3):
        assert torch.equal(next(clip.windows(4, start))[1], whole[start : start + 4])
    assert decoded(clip, lambda: next(clip.windows(1, len(clip) - 1))) <= GROUP + 4


def test_stamps_that_begin_again_are_decoded_from_the_start(tmp_path: Path) -> None:
    one = write(tmp_path / "a.ts", "libx264", "yuv420p", {"x264-params": X264})
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one.read_bytes() * 2)
    try:
        clip = Clip.read(joined)
        whole = clip.frames
    except Exception as error:
        assert "joined.ts" in str(error)
        return
    for start in (0, 7, COUNT - 1, COUNT, COUNT + 9, 2 * COUNT - 1):
        assert torch.equal(next(clip.windows(1, start))[1], whole[start : start + 1])
