"""Coded values, light and primaries: ITU-T H.273, BT.2100 (PQ, HLG), and highlights rolled off as in BT.2390."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

REFERENCE_WHITE = 203.0  # cd/m2 that an SDR picture's white stands for (BT.2408)
HLG_PEAK = 1000.0  # cd/m2 of the display that HLG is shown on (BT.2100: system gamma 1.2)
PQ_PEAK = 1000.0  # cd/m2 of PQ's brightest pixel where the file does not say
KNEE = 140.0  # cd/m2 up to which nothing is rolled off: SDR levels up to 218
PQ, HLG = 16, 18  # TransferCharacteristics
STEPS = 1 << 16  # entries of a table over coded values 0..1
SHADES = 1 << 12  # intervals of a table over square roots of light

# MatrixCoefficients (H.273, table 4) -> weights of red and blue in luma.
LUMA = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}
# ColourPrimaries (H.273, table 2) -> x and y of red, green, blue and white.
_D65, _C = (0.3127, 0.3290), (0.310, 0.316)
PRIMARIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    4: ((0.670, 0.330), (0.210, 0.710), (0.140, 0.080), _C),
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), _D65),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65),
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    10: ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1 / 3, 1 / 3)),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),
}
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


class PqCurve(NamedTuple):
    """Constants of SMPTE ST 2084."""

    m1: float = 2610 / 16384
    m2: float = 2523 / 4096 * 128
    c1: float = 3424 / 4096
    c2: float = 2413 / 4096 * 32
    c3: float = 2392 / 4096 * 32


_PQ = PqCurve()


def pq_to_nits(coded: np.ndarray) -> np.ndarray:
    """PQ values 0..1 -> cd/m2 of the display (ST 2084, EOTF)."""
    root = np.clip(coded, 0, 1) ** (1 / _PQ.m2)
    nits: np.ndarray = 10_000 * (np.maximum(root - _PQ.c1, 0) / (_PQ.c2 - _PQ.c3 * root)) ** (1 / _PQ.m1)
    return nits


def nits_to_pq(nits: np.ndarray | float) -> np.ndarray:
    """The inverse of `pq_to_nits`."""
    power = (np.clip(nits, 0, 10_000) / 10_000) ** _PQ.m1
    coded: np.ndarray = ((_PQ.c1 + _PQ.c2 * power) / (1 + _PQ.c3 * power)) ** _PQ.m2
    return coded


def hlg_to_scene(coded: np.ndarray) -> np.ndarray:
    """HLG values 0..1 -> light of the scene 0..1 (ARIB STD-B67, inverse OETF)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    coded = np.clip(coded, 0, 1)
    scene: np.ndarray = np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - c) / a) + b) / 12)
    return scene


def to_light(transfer: int, coded: np.ndarray) -> np.ndarray:
    """Coded values 0..1 -> light, 1 = SDR white; for HLG the scene's light, 0..1.

    The camera curves of BT.709, BT.601 and BT.2020 stand for what a display makes of them (BT.1886, gamma 2.4).
    """
    coded = np.clip(coded, 0, 1)
    if transfer == PQ:
        return pq_to_nits(coded) / REFERENCE_WHITE
    if transfer == HLG:
        return hlg_to_scene(coded)
    if transfer == 13:  # IEC 61966-2-1
        return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    if transfer == 8:
        return coded
    if transfer in (9, 10):  # logarithmic, 100 : 1 and 316 : 1
        return np.where(coded > 0, 10 ** ((2.0 if transfer == 9 else 2.5) * (coded - 1)), 0.0)
    if transfer == 17:  # SMPTE ST 428-1, white at 48 of 52.37 cd/m2
        return np.clip(coded**2.6 * 52.37 / 48, 0, 1)
    light: np.ndarray = coded ** {4: 2.2, 5: 2.8}.get(transfer, 2.4)
    return light


def sdr_gamma(transfer: int) -> int:
    """The transfer in which RGB is given out: a file's own where SDR keeps its coded greys, else that of BT.709."""
    return transfer if transfer in (4, 13) else 1


def to_709(primaries: int) -> np.ndarray:
    """Matrix from light in some primaries to light in BT.709's, `(3, 3)`; other whites adapted (Bradford)."""
    source, target = _to_xyz(primaries), _to_xyz(1)
    adapted = np.linalg.solve(_BRADFORD, np.diag((_BRADFORD @ target.sum(1)) / (_BRADFORD @ source.sum(1))) @ _BRADFORD)
    matrix: np.ndarray = np.linalg.solve(target, adapted @ source)
    return matrix


def _to_xyz(primaries: int) -> np.ndarray:
    points = np.array([(x, y, 1 - x - y) for x, y in PRIMARIES[primaries]])
    white = points[3] / points[3, 1]
    matrix: np.ndarray = points[:3].T * np.linalg.solve(points[:3].T, white)
    return matrix


def roll_off(nits: np.ndarray, peak: float) -> np.ndarray:
    """Display light -> what is shown of it on an SDR display with white at `REFERENCE_WHITE`, cd/m2.

    In PQ values, like BT.2390's EETF: untouched up to `KNEE`, and `peak` becomes white. Deviation: a rational shoulder
    in place of the Hermite spline, which overshoots with so high a knee; it begins with slope 1 and always rises.
    """
    if peak <= REFERENCE_WHITE:
        clipped: np.ndarray = np.minimum(nits, REFERENCE_WHITE)
        return clipped
    knee, white, top = (float(nits_to_pq(value)) for value in (KNEE, REFERENCE_WHITE, peak))
    part = (np.minimum(nits_to_pq(nits), top) - knee) / (top - knee)
    bend = (top - knee) / (white - knee) - 1
    shoulder = pq_to_nits(knee + (top - knee) * part / (1 + bend * part))
    shown: np.ndarray = np.where(nits <= KNEE, nits, shoulder)
    return shown
