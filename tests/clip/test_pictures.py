"""What becomes of a decoded picture: transparency, interlaced fields, animations, damage."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from countervid.clip import Clip


def moving(frames: int = 12, height: int = 64, width: int = 64) -> np.ndarray:
    """A bright bar that moves 4 pixels a frame, `(F, H, W, 3)` uint8."""
    out = np.full((frames, height, width, 3), 40, np.uint8)
    for index in range(frames):
        out[index, :, 4 * index : 4 * index + 8] = 220
    return out


def combing(frames: torch.Tensor) -> float:
    """How much lines differ from both neighbours."""
    grey = frames.float().mean(-1)
    return float((grey[:, 1:-1] - (grey[:, :-2] + grey[:, 2:]) / 2).abs().mean())


def write_interlaced(path: Path, codec: str, top_first: bool) -> None:
    fields = moving(24)
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        flags = {"flags": "+ildct+ilme", "g": "6"}
        order = "tff=1" if top_first else "bff=1"
        stream.options = {"x264-params": order, "crf": "8", "g": "6"} if codec == "libx264" else {**flags, "b": "2M"}
        if codec != "libx264":
            stream.codec_context.field_order = 2 if top_first else 3
        for index in range(12):
            woven = fields[2 * index].copy()
            woven[int(top_first) :: 2] = fields[2 * index + 1][int(top_first) :: 2]
            output.mux(stream.encode(av.VideoFrame.from_ndarray(woven, format="rgb24")))
        output.mux(stream.encode(None))


@pytest.mark.parametrize("top_first", [True, False])
def test_interlaced_frames_are_read_progressive_wherever_reading_begins(tmp_path: Path, top_first: bool) -> None:
    path = tmp_path / "a.mp4"
    write_interlaced(path, "libx264", top_first)
    with av.open(str(path)) as container:
        woven = torch.from_numpy(np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)]))
    clip = Clip.read(path)
    frames = clip.frames
    assert len(frames) == len(woven) == 12
    assert combing(frames) < combing(woven) / 4
    assert any("nterlaced" in note for note in clip.notes)
    for start in range(1, 12):
        assert torch.equal(torch.cat([window for _, window in clip.windows(3, start)]), frames[start:])
    assert torch.equal(clip.frames_at([2, 7, 11]), frames[[2, 7, 11]])
    written = Clip.read(clip.write(tmp_path / "b.mp4"))
    assert written.notes == [] and combing(written.frames) < combing(woven) / 4
    np.testing.assert_allclose(written.times, clip.times)


@pytest.mark.parametrize(("codec", "name"), [("libvpx", "a.webm"), ("libvpx-vp9", "b.webm")])
def test_transparent_vpx_is_laid_over_black(tmp_path: Path, codec: str, name: str) -> None:
    path = tmp_path / name
    rgba = np.full((48, 64, 4), 200, np.uint8)
    rgba[..., 3] = 255
    rgba[:, :32, 3] = 0
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuva420p"
        stream.options = {"auto-alt-ref": "0", "crf": "10", "b": "2M"}
        for _ in range(5):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format="yuva420p")))
        output.mux(stream.encode(None))
    frames = Clip.read(path).frames
    assert frames.shape == (5, 48, 64, 3)
    assert int(frames[:, :, :28].max()) == 0 and int(frames[:, :, 36:].min()) > 190


@pytest.mark.parametrize("kind", ["webp", "png", "gif"])
@pytest.mark.parametrize("suffix", [".webp", ".png", ".gif"])
def test_an_animation_is_a_clip_with_its_delays(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    pictures = [Image.fromarray(frame) for frame in moving(5)]
    options = {"lossless": True} if kind == "webp" else {}
    with path.open("wb") as file:
        pictures[0].save(
            file, format=kind, save_all=True, append_images=pictures[1:], duration=[40, 80, 120, 40, 500], **options
        )
    clip = Clip.read(path)
    assert torch.equal(clip.frames, torch.from_numpy(moving(5)))
    np.testing.assert_allclose(clip.times, [0, 0.04, 0.12, 0.24, 0.28])
    source = clip._source
    assert source.last is not None and float(source.last * source.time_base) == 0.5
    assert torch.equal(torch.cat([window for _, window in clip.windows(2, 3)]), clip.frames[3:])


def test_a_transparent_animation_is_blended_and_disposed(tmp_path: Path) -> None:
    frames = []
    for index in range(3):
        rgba = np.zeros((16, 16, 4), np.uint8)
        rgba[:, 4 * index : 4 * index + 4] = (200, 100, 50, 255)
        frames.append(Image.fromarray(rgba))
    path = tmp_path / "a.png"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, disposal=1, blend=1)
    read = Clip.read(path).frames.numpy()
    assert all((read[i] == np.asarray(frame)[..., :3]).all() for i, frame in enumerate(frames))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".gif"])
def test_a_single_picture_stays_one_frame(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(moving(1)[0]).save(path)
    assert len(Clip.read(path)) == 1


def test_damaged_frames_are_counted_and_named(tmp_path: Path) -> None:
    good = tmp_path / "good.mp4"
    texture = np.random.default_rng(0).integers(0, 255, (16, 96, 96, 3), dtype=np.uint8)
    Clip.from_frames(torch.from_numpy(texture)).write(good, crf=30)
    data = bytearray(good.read_bytes())
    with av.open(str(good)) as container:
        packet = [p for p in container.demux(video=0) if p.size][8]
        position, size, stamp = packet.pos, packet.size, packet.pts
        number = sorted(p.pts for p in av.open(str(good)).demux(video=0) if p.size).index(stamp)
    data[position + size // 2 : position + size // 2 + 200] = bytes(200)
    (tmp_path / "bad.mp4").write_bytes(data)
    clip = Clip.read(tmp_path / "bad.mp4")
    assert clip.notes == []  # nothing is decoded yet but the first frame
    assert len(clip.frames) == 16
    (note,) = clip.notes
    assert "of 16 frames" in note and "damaged" in note and str(number) in note
    assert Clip.read(good).frames is not None and Clip.read(good).notes == []
