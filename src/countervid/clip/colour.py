"""Decoded frames as RGB, and edits of that RGB as changes of their own samples: matrix, range, primaries, light."""

from __future__ import annotations

import struct
import threading
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from countervid.clip.light import (
    HLG,
    HLG_PEAK,
    LUMA,
    PQ,
    PQ_PEAK,
    PRIMARIES,
    REFERENCE_WHITE,
    SHADES,
    STEPS,
    roll_off,
    sdr_gamma,
    to_709,
    to_light,
)
from countervid.clip.subsampled import to_rgb, to_rgb_coefficients

# The matrix between YCbCr and RGB (ITU-T H.273, MatrixCoefficients) -> swscale's name for it.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
_YCGCO, _CONSTANT, _ICTCP = 8, 10, 14
# What the samples of this transfer look like on a display differs from BT.709's; all others keep their coded greys.
_CONVERTED_TRANSFERS = frozenset({5, 8, 9, 10, 17, PQ, HLG})
# Exact rounding, chroma interpolated at full resolution, the same bytes on every machine.
SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
_NAMES = {5: "BT.601 625", 6: "BT.601 525", 7: "SMPTE 240M", 9: "BT.2020", 11: "DCI-P3", 12: "Display P3", 22: "EBU"}


class Colour(NamedTuple):
    """How samples stand for colour (ITU-T H.273), with what the file left out filled in."""

    matrix: int  # 0: the samples are RGB
    full: bool  # black at 0 and white at the greatest sample
    primaries: int
    transfer: int
    peak: float = PQ_PEAK  # cd/m2 of PQ's brightest pixel

    @staticmethod
    def of(frame: Any) -> Colour:
        """The colour of a decoded frame. What is untagged is what players assume."""
        matrix, primaries, transfer = int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc)
        if frame.format.is_rgb or frame.format.has_palette:
            matrix = 0
        elif matrix not in (*LUMA, _YCGCO, _ICTCP):
            matrix = 1 if frame.height >= 720 else 6
        full = int(frame.color_range) == ColorRange.JPEG or frame.format.name.startswith("yuvj") or matrix == 0
        if primaries not in PRIMARIES:
            primaries = 9 if matrix in (9, _CONSTANT, _ICTCP) or transfer in (PQ, HLG) else 1
        peak = _peak(frame) if transfer == PQ else PQ_PEAK
        return Colour(matrix, full, primaries, transfer, peak)

    @property
    def plain(self) -> bool:
        """Whether a matrix alone makes SDR BT.709 of the samples."""
        return (
            self.primaries == 1
            and self.transfer not in _CONVERTED_TRANSFERS
            and self.matrix not in (_YCGCO, _CONSTANT, _ICTCP)
        )

    @property
    def invertible(self) -> bool:
        """Whether there is a way back from RGB to samples of luma and chroma."""
        return self.matrix in LUMA and self.matrix != _CONSTANT

    @property
    def hdr(self) -> bool:
        return self.transfer in (PQ, HLG)

    @property
    def note(self) -> str | None:
        """What a run says of how this colour is read."""
        name = _NAMES.get(self.primaries, f"primaries {self.primaries}")
        if self.hdr:
            curve = "PQ" if self.transfer == PQ else "HLG"
            white = f"reference white {REFERENCE_WHITE:.0f} cd/m2"
            return f"HDR ({curve}, {name}) read as SDR BT.709: tone-mapped, {white}"
        if self.plain:
            return None
        return f"{name} colours read as BT.709" if self.primaries != 1 else "Colours read as BT.709"


class Tables(NamedTuple):
    """What the loops of `kernels.py` look up. Light: 1 is SDR white."""

    decode: np.ndarray  # (3, 4): samples of 16 bits -> coded R, G, B, 0..1
    constant: bool  # luma of constant luminance
    light: np.ndarray  # coded 0..1 -> light
    mixed: bool
    unmix: np.ndarray  # (3, 3): LMS -> RGB, of ICtCp
    scene: bool  # light is the scene's: HLG
    system: np.ndarray  # luminance of the scene -> gain to the display's light
    luma: np.ndarray  # (3,): weights of that luminance
    brightest: float  # light of the brightest pixel
    shoulder: np.ndarray  # the greatest of R, G, B -> gain of the tone mapping
    gamut: np.ndarray  # (3, 3): light to BT.709
    levels: np.ndarray  # light -> 0..255
    plain: bool  # the way back is a matrix of levels
    unlevel: np.ndarray
    ungamut: np.ndarray
    unshoulder: np.ndarray
    unsystem: np.ndarray
    unlight: np.ndarray
    encode: np.ndarray  # (3, 3): coded R, G, B -> luma and chroma


@lru_cache(maxsize=16)
def tables(colour: Colour) -> Tables:
    """The tables of a colour. Some MiB, made in milliseconds; made once."""
    shown = np.linspace(0, 1, SHADES + 1) ** 2
    brightest = {PQ: colour.peak, HLG: HLG_PEAK}.get(colour.transfer, REFERENCE_WHITE) / REFERENCE_WHITE
    light = shown * brightest
    with np.errstate(divide="ignore", invalid="ignore"):
        mapped = roll_off(light * REFERENCE_WHITE, brightest * REFERENCE_WHITE) / REFERENCE_WHITE
        shoulder = np.where(light > 0, mapped / light, 1.0)
        rising, first = np.unique(mapped, return_index=True)
        unshoulder = np.where(shown > 0, np.interp(shown, rising, light[first]) / shown, 1.0)
        system = HLG_PEAK / REFERENCE_WHITE * shown**0.2  # BT.2100: luminance to the power of gamma - 1
        scene = (light * REFERENCE_WHITE / HLG_PEAK) ** (1 / 1.2)
        unsystem = np.where(light > 0, scene / light, 0.0)
    unsystem[0] = unsystem[1]
    table = to_light(colour.transfer, np.linspace(0, 1, STEPS))
    rising, first = np.unique(table, return_index=True)
    reach = shown if colour.transfer == HLG else light
    unlight = np.interp(reach, rising, np.linspace(0, 1, STEPS)[first])
    gamma = sdr_gamma(colour.transfer)
    curve = to_light(gamma, np.linspace(0, 1, STEPS))
    levels = np.round(255 * np.interp(shown, curve, np.linspace(0, 1, STEPS))).astype(np.uint8)
    gamut = to_709(colour.primaries)
    decode, encode = _matrices(colour)
    # LMS of ICtCp to BT.2020 (BT.2100, table 7)
    unmix = np.linalg.inv(np.array([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]) / 4096)
    f32 = np.float32
    return Tables(
        decode=decode.astype(f32), constant=colour.matrix == _CONSTANT, light=table.astype(f32),
        mixed=colour.matrix == _ICTCP, unmix=unmix.astype(f32), scene=colour.transfer == HLG,
        system=system.astype(f32), luma=np.array([0.2627, 0.6780, 0.0593], f32), brightest=float(brightest),
        shoulder=shoulder.astype(f32), gamut=gamut.astype(f32), levels=levels, plain=colour.plain,
        unlevel=to_light(gamma, np.arange(256) / 255).astype(f32), ungamut=np.linalg.inv(gamut).astype(f32),
        unshoulder=unshoulder.astype(f32), unsystem=unsystem.astype(f32), unlight=unlight.astype(f32),
        encode=encode.astype(f32),
    )  # fmt: skip


def _matrices(colour: Colour) -> tuple[np.ndarray, np.ndarray]:
    """From samples of 16 bits to coded RGB, `(3, 4)`, and from coded RGB to luma and chroma, `(3, 3)`."""
    if colour.matrix == 0:
        return np.hstack([np.eye(3) / 65535, np.zeros((3, 1))]), np.eye(3)
    if colour.matrix == _YCGCO:
        to_rgb = np.array([[1, -1, 1], [1, 1, 0], [1, -1, -1]], float)
    elif colour.matrix == _CONSTANT:
        to_rgb = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]], float)
    elif colour.matrix == _ICTCP:
        to_rgb = np.linalg.inv(np.array([[2048, 2048, 0], [6610, -13613, 7003], [17933, -17390, -543]]) / 4096)
    else:
        red, blue = LUMA[colour.matrix]
        green = 1 - red - blue
        cr, cb = 2 * (1 - red), 2 * (1 - blue)
        to_rgb = np.array([[1, 0, cr], [1, -cb * blue / green, -cr * red / green], [1, cb, 0]])
    black, luma, chroma = (0, 65535, 65535) if colour.full else (16 << 8, 219 << 8, 224 << 8)
    scale, offset = np.diag([1 / luma, 1 / chroma, 1 / chroma]), np.array([black, 1 << 15, 1 << 15])
    return np.hstack([to_rgb @ scale, -(to_rgb @ scale @ offset)[:, None]]), np.linalg.inv(to_rgb)


def _peak(frame: Any) -> float:
    """cd/m2 of the brightest pixel: MaxCLL, else what the mastering display reaches, else `PQ_PEAK`."""
    light = light_of(frame)
    peak = light.max_cll or light.display_peak or PQ_PEAK
    return float(min(max(peak, REFERENCE_WHITE), 10_000.0))


class LightLevels(NamedTuple):
    """Static HDR metadata (SMPTE ST 2086, CTA-861.3) as x265 takes it."""

    max_cll: int = 0
    max_fall: int = 0
    display_peak: float = 0.0  # cd/m2
    mastering: str = ""


def light_of(frame: Any) -> LightLevels:
    """What a decoded frame says of its light."""
    kinds = av.sidedata.sidedata.Type
    cll = fall = 0
    peak, text = 0.0, ""
    with suppress(KeyError, struct.error):
        cll, fall = struct.unpack("=2I", bytes(frame.side_data[kinds.CONTENT_LIGHT_LEVEL])[:8])
    with suppress(KeyError, struct.error):
        # AVMasteringDisplayMetadata: primaries R, G, B, white, least and most light as fractions, and two flags
        words = struct.unpack("=22i", bytes(frame.side_data[kinds.MASTERING_DISPLAY_METADATA])[:88])
        value = [words[i] / words[i + 1] if words[i + 1] else 0.0 for i in range(0, 20, 2)]
        peak = value[9] if words[21] else 0.0
        if words[20] and words[21]:
            x, y = [round(50_000 * v) for v in value[0:8:2]], [round(50_000 * v) for v in value[1:8:2]]
            least, most = round(10_000 * value[8]), round(10_000 * value[9])
            points = (f"{name}({x[i]},{y[i]})" for name, i in (("G", 1), ("B", 2), ("R", 0), ("WP", 3)))
            text = "".join(points) + f"L({most},{least})"
    return LightLevels(cll, fall, peak, text)


def plane(frame: Any, index: int) -> np.ndarray:
    """Samples of one plane, `(H, W)` uint8 or uint16, without a copy."""
    lines = frame.planes[index]
    return padded_plane(frame, index)[: lines.height, : lines.width]


def padded_plane(frame: Any, index: int) -> np.ndarray:
    """The same with whole lines, which may be longer than the picture is wide; contiguous."""
    lines = frame.planes[index]
    kind = np.dtype(np.uint8 if frame.format.components[index].bits == 8 else "<u2")
    return np.frombuffer(lines, kind).reshape(-1, lines.line_size // kind.itemsize)


class RgbReader:
    """Decoded frames as `(H, W, 3)` RGB uint8. Each thread keeps what it scales with from frame to frame."""

    def __init__(self, peak: float | None = None) -> None:
        """`peak`: cd/m2 of PQ's brightest pixel in the whole file; None: what each frame says."""
        self._local, self._peak = threading.local(), peak

    @property
    def _scaler(self) -> VideoReformatter:
        if not hasattr(self._local, "scaler"):
            self._local.scaler = VideoReformatter()
        scaler: VideoReformatter = self._local.scaler
        return scaler

    def read(self, frame: Any, out: np.ndarray | None = None) -> np.ndarray:
        """A frame of any pixel format, as stored; transparency is laid over black.

        Args:
            out: `(H, W, 3)` uint8 that may be filled and returned, where the conversion can do that.
        """
        colour = Colour.of(frame)
        if self._peak is not None:
            colour = colour._replace(peak=self._peak)
        if not colour.plain:
            return self._converted(frame, colour)
        if frame.format.name in ("yuv420p", "yuvj420p"):
            rgb = np.empty((frame.height, frame.width, 3), np.uint8) if out is None else out
            to_rgb(*(padded_plane(frame, i) for i in range(3)), to_rgb_coefficients(colour.matrix, colour.full), rgb)
            return rgb
        transparent = frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
        rgb = self._scaler.reformat(
            frame,
            format="rgba" if transparent else "rgb24",
            src_colorspace=_MATRICES[colour.matrix or (1 if frame.height >= 720 else 6)],
            src_color_range=ColorRange.JPEG if colour.full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=SCALING,
        ).to_ndarray()
        return over_black(rgb) if transparent else rgb

    def _converted(self, frame: Any, colour: Colour) -> np.ndarray:
        from countervid.clip.kernels import coded_to_rgb  # numba, where it is needed

        scale = ColorRange.JPEG if colour.full else ColorRange.MPEG
        names = [component.is_alpha for component in frame.format.components]
        layout = "gbrp16le" if colour.matrix == 0 else "yuv444p16le"
        if any(names):
            layout = "gbrap16le" if colour.matrix == 0 else "yuva444p16le"
        # The samples stay what they are; swscale refuses the matrices that it does not know, also where it needs none.
        matrix = _MATRICES[1] if colour.matrix in (_YCGCO, _CONSTANT, _ICTCP) else None
        deep = self._scaler.reformat(
            frame,
            format=layout,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            src_color_range=scale,
            dst_color_range=scale,
            interpolation=SCALING,
        )
        order = (2, 0, 1) if colour.matrix == 0 else (0, 1, 2)  # planes of RGB are stored G, B, R
        samples = np.stack([plane(deep, index) for index in order])
        rgb = np.empty((*samples.shape[1:], 3), np.uint8)
        coded_to_rgb(samples, tables(colour), rgb)
        if any(names):
            rgb = over_black(np.dstack([rgb, (plane(deep, 3) >> 8).astype(np.uint8)]))
        return rgb


def over_black(rgba: np.ndarray) -> np.ndarray:
    """`(H, W, 4)` uint8 with straight alpha, laid over black: `(H, W, 3)` uint8. Opaque pixels keep their values."""
    alpha = rgba[..., 3:].astype(np.uint16)
    blended: np.ndarray = ((rgba[..., :3] * alpha + 127) // 255).astype(np.uint8)
    return blended
