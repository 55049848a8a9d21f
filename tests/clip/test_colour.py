"""Colour as it was filmed: files of one picture in many codings are read as the same BT.709 RGB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from countervid.clip import Clip
from countervid.clip.colour import Colour, RgbReader, tables
from countervid.clip.light import HLG_PEAK, LUMA, REFERENCE_WHITE, nits_to_pq, pq_to_nits, roll_off, to_709

SIDE = 64


def picture() -> np.ndarray:
    """SDR colours 0..1, BT.709: ramps of grey, red, green and blue, none pure."""
    ramp = np.linspace(0.05, 0.85, SIDE)
    rows = np.stack([np.tile(ramp, (SIDE // 4, 1)) for _ in range(4)])
    out = np.repeat(rows[..., None], 3, axis=-1)
    for index in range(3):
        out[index + 1, ..., [c for c in range(3) if c != index]] *= 0.6
    return out.reshape(SIDE, SIDE, 3)


def coded(rgb: np.ndarray, matrix: int, full: bool, bits: int) -> list[np.ndarray]:
    """Coded RGB 0..1 -> luma and chroma samples, 4:4:4."""
    red, blue = LUMA[matrix]
    y = rgb @ [red, 1 - red - blue, blue]
    u, v = (rgb[..., 2] - y) / (2 * (1 - blue)), (rgb[..., 0] - y) / (2 * (1 - red))
    scale, most = 1 << (bits - 8), (1 << bits) - 1
    if full:
        samples = [y * most, u * most + 128 * scale, v * most + 128 * scale]
    else:
        samples = [(16 + 219 * y) * scale, (128 + 224 * u) * scale, (128 + 224 * v) * scale]
    return [np.round(plane).clip(0, most).astype(np.uint8 if bits == 8 else np.uint16) for plane in samples]


def frame_of(planes: list[np.ndarray], layout: str, tags: dict[str, int]) -> Any:
    frame = av.VideoFrame(planes[0].shape[1], planes[0].shape[0], layout)
    for target, samples in zip(frame.planes, planes, strict=True):
        padded = np.zeros((samples.shape[0], target.line_size // samples.itemsize), samples.dtype)
        padded[:, : samples.shape[1]] = samples
        target.update(padded.tobytes())
    for name, value in tags.items():
        setattr(frame, name, value)
    return frame


def hlg(light: np.ndarray) -> np.ndarray:
    """Display light (1 = SDR white, BT.2020) -> HLG, written down from BT.2100 once more."""
    nits = light * REFERENCE_WHITE / HLG_PEAK
    luminance = nits @ [0.2627, 0.6780, 0.0593]
    scene = nits * luminance[..., None] ** (1 / 1.2 - 1)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


def mastered(primaries: int, transfer: int) -> np.ndarray:
    """`picture` in other primaries and another transfer, coded RGB."""
    light = picture() ** 2.4 @ np.linalg.inv(to_709(primaries)).T
    if transfer == 16:
        return nits_to_pq(light * REFERENCE_WHITE)
    return hlg(light) if transfer == 18 else light.clip(0) ** (1 / 2.4)


CODINGS = {
    "pq": (9, 9, 16, False, 10), "hlg": (9, 9, 18, False, 10), "pq, 12 bits, full": (9, 9, 16, True, 12),
    "bt2020": (9, 9, 14, False, 10), "bt2020, 12 bits": (9, 9, 15, False, 12), "display p3": (1, 12, 1, False, 8),
    "dci p3": (1, 11, 1, False, 10), "601 525": (6, 6, 6, False, 8), "601 625, full": (5, 5, 6, True, 8),
    "240m": (7, 7, 7, False, 8), "untagged": (6, 2, 2, False, 8), "709, 10 bits": (1, 1, 1, False, 10),
    "709, full": (1, 1, 1, True, 8), "709, 12 bits": (1, 1, 1, False, 12), "fcc": (4, 1, 1, False, 8),
}  # fmt: skip


@pytest.mark.parametrize("coding", CODINGS.values(), ids=CODINGS)
def test_one_picture_in_every_coding_is_read_as_the_same_rgb(coding: tuple[int, int, int, bool, int]) -> None:
    matrix, primaries, transfer, full, bits = coding
    rgb = picture() if primaries in (1, 2) else mastered(primaries, transfer)
    layout = "yuv444p" if bits == 8 else f"yuv444p{bits}le"
    tags = {"colorspace": 2 if primaries == 2 else matrix, "color_range": 2 if full else 1}
    frame = frame_of(
        coded(rgb, matrix, full, bits), layout, {**tags, "color_primaries": primaries, "color_trc": transfer}
    )
    error = RgbReader().read(frame).astype(float) - picture() * 255
    assert np.abs(error).mean() < 1.0  # rounding of 8 and 10 bits
    assert np.abs(error).max() < 8


def quantised(samples: np.ndarray) -> list[np.ndarray]:
    """Luma 0..1 and chroma -0.5..0.5, `(H, W, 3)` -> planes of 10 bits in limited range."""
    scaled = samples * [219 * 4, 224 * 4, 224 * 4] + [64, 512, 512]
    return [np.round(scaled[..., index]).astype(np.uint16) for index in range(3)]


def test_ictcp_and_constant_luminance_are_read_as_the_same_rgb() -> None:
    light = picture() ** 2.4 @ np.linalg.inv(to_709(9)).T
    lms = light @ np.array([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]).T / 4096  # BT.2100, table 7
    ictcp = (
        nits_to_pq(lms * REFERENCE_WHITE)
        @ np.array([[2048, 2048, 0], [6610, -13613, 7003], [17933, -17390, -543]]).T
        / 4096
    )
    coded_light, luma = light.clip(0) ** (1 / 2.4), (light @ [0.2627, 0.6780, 0.0593]) ** (1 / 2.4)
    blue, red = coded_light[..., 2] - luma, coded_light[..., 0] - luma  # BT.2020, table 4
    blue, red = blue / np.where(blue <= 0, 1.9404, 1.5816), red / np.where(red <= 0, 1.7184, 0.9936)
    for samples, matrix, transfer in ((ictcp, 14, 16), (np.stack([luma, blue, red], axis=-1), 10, 14)):
        tags = {"colorspace": matrix, "color_range": 1, "color_primaries": 9, "color_trc": transfer}
        error = RgbReader().read(frame_of(quantised(samples), "yuv444p10le", tags)) - picture() * 255
        assert np.abs(error).mean() < 1.0 and np.abs(error).max() < 8


def test_rgb_in_p3_is_converted() -> None:
    planes = [np.round(mastered(12, 13)[..., c] * 1023).astype(np.uint16) for c in (1, 2, 0)]
    tags = {"colorspace": 0, "color_range": 2, "color_primaries": 12, "color_trc": 1}
    read = RgbReader().read(frame_of(planes, "gbrp10le", tags))
    assert np.abs(read - picture() * 255).mean() < 1.0


def test_highlights_are_rolled_off_and_sdr_is_left_alone() -> None:
    nits = np.linspace(0, 4000, 4001)
    for peak in (300.0, 1000.0, 4000.0, 10_000.0):
        shown = roll_off(nits, peak)
        assert (np.diff(shown) >= 0).all() and shown.max() <= REFERENCE_WHITE + 1e-6
        np.testing.assert_allclose(shown[:141], nits[:141])
        np.testing.assert_allclose(roll_off(np.array([peak]), peak), REFERENCE_WHITE)
    np.testing.assert_allclose(roll_off(nits, 203.0), np.minimum(nits, 203))
    np.testing.assert_allclose(pq_to_nits(np.array([0.0, 0.5806888810416109, 1.0])), [0, 203, 10_000], rtol=1e-6)


def test_colours_outside_bt709_keep_their_hue() -> None:
    rgb = np.zeros((8, 8, 3))
    rgb[..., 1] = nits_to_pq(150.0)  # pure green of BT.2020
    tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": 16}
    read = RgbReader().read(frame_of(coded(rgb, 9, False, 10), "yuv444p10le", tags))[4, 4].astype(int)
    assert read[1] > 180 and read[0] < read[1] and read[2] < read[1] and read.min() <= 1


def test_mastering_peak_and_maxcll_shape_the_curve() -> None:
    dim, bright = Colour(9, False, 9, 16, 250.0), Colour(9, False, 9, 16, 4000.0)
    levels = [float(tables(colour).shoulder[-1]) * colour.peak for colour in (dim, bright)]
    np.testing.assert_allclose(levels, REFERENCE_WHITE, rtol=1e-4)


def write_hdr(path: Path, transfer: int, frames: int = 6, side: int = SIDE, params: str = "") -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx265", rate=25)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p10le"
        stream.options = {"crf": "4", "x265-params": f"log-level=none:pools=none:asm=sse4.2:{params}"}
        tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": transfer}
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for _ in range(frames):
            y, u, v = coded(mastered(9, transfer), 9, False, 10)
            half = [p.reshape(side // 2, 2, side // 2, 2).mean((1, 3)).round().astype(np.uint16) for p in (u, v)]
            output.mux(stream.encode(frame_of([y, *half], "yuv420p10le", tags)))
        output.mux(stream.encode(None))
    return path


@pytest.fixture(params=[16, 18], ids=["pq", "hlg"])
def hdr(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    yield write_hdr(tmp_path / "hdr.mp4", request.param)


def test_an_hdr_file_is_read_as_sdr_and_says_so(hdr: Path) -> None:
    clip = Clip.read(hdr)
    error = clip.frames[0].numpy() - picture() * 255
    assert np.abs(error).mean() < 4
    note = clip.notes[0]
    with av.open(str(Clip.from_frames(clip.frames).write(hdr.with_name("written.mp4")))) as container:
        written = next(container.decode(video=0))
    assert (written.colorspace, written.color_primaries, written.color_trc) == (1, 1, 1)
    assert note.startswith("HDR (") and "read as SDR" in note and "203 cd/m2" in note
    assert torch.equal(torch.cat([window for _, window in clip.windows(2, 3)]), clip.frames[3:])


def test_maxcll_is_read_from_the_file(tmp_path: Path) -> None:
    mastering = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(40000000,50):max-cll=700,200"
    path = write_hdr(tmp_path / "a.mp4", 16, 2, params=mastering + ":hdr10=1:repeat-headers=1")
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    assert Colour.of(frame).peak == 700
