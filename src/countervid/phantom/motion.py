"""Head motion, speech, blinks, gaze and camera shake of any length, frame by frame reproducible.

Every channel is a function of (key, time) alone: lattice values come from a counter-based hash and
time is cut into cells that each hold their own events. So a slice of a take equals that part of
the whole bit for bit, and an hour of motion costs no more memory than the frames asked for.

The key belongs to a person and a take; attributes never enter, except through `express`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from countervid.phantom.parameters import Array, Motion

Float = NDArray[np.float64]

YAW_LIMIT = np.deg2rad(35.0)
PITCH_LIMIT = np.deg2rad(15.0)
ROLL_LIMIT = np.deg2rad(12.0)
NEARER = 1.5  # head units from the place where head and hair are half the frame high, towards the camera
OCCLUDED_SHARE = 0.12  # of the takes
OCCLUSION_PERIOD = 15.0  # seconds between passes in such a take; the first comes within 1.2 s

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _hash(key: int, channel: int, index: NDArray[np.int64]) -> NDArray[np.uint64]:
    """64 well-mixed bits for each index (splitmix64's finaliser, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = index.astype(np.uint64) * _GOLDEN + np.uint64(key & 0xFFFFFFFFFFFFFFFF)
        x = x ^ (np.uint64(channel + 1) * np.uint64(0xD1B54A32D192ED03))
        for _ in range(2):  # twice, since key, channel and index are all small numbers at times
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x = x ^ (x >> np.uint64(31))
    return x


def uniform(key: int, channel: int, index: NDArray[np.int64]) -> Float:
    """Independent uniform numbers in [0, 1), one for each lattice index."""
    return np.asarray((_hash(key, channel, index) >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _once(key: int, channel: int) -> float:
    """One uniform number that holds for the whole take."""
    return float(uniform(key, channel, np.array([0], np.int64))[0])


def smooth_noise(key: int, channel: int, seconds: Float, hertz: float) -> Float:
    """Band-limited noise of zero mean and unit variance.

    Uniform lattice values, `2 * hertz` of them a second, blended by the cubic B-spline: twice
    continuously differentiable, with little power above `hertz`.

    Args:
        key, channel: Which noise it is.
        seconds: Times, `(F,)`.
        hertz: Upper end of the band.

    Returns:
        `(F,)`, bounded by about 2.5.
    """
    place = seconds * (2.0 * hertz) + 977.0 * _once(key, channel + 1000)
    cell = np.floor(place).astype(np.int64)
    t = place - cell
    weights = ((1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6)
    total = np.zeros_like(t)
    for offset, weight in enumerate(weights):
        total += weight * (uniform(key, channel, cell + offset) - 0.5)
    return np.asarray(total * (np.sqrt(12.0) / np.sqrt(0.4794)))  # variances of a uniform, of the blend


def _soft_limit(x: Float, limit: float) -> Float:
    """Identity near zero, never beyond +-limit."""
    return np.asarray(limit * np.tanh(x / limit))


def _smoothstep(t: Float) -> Float:
    t = np.clip(t, 0.0, 1.0)
    return np.asarray(t * t * (3 - 2 * t))


def _events(
    key: int, channel: int, seconds: Float, cell_seconds: float, slots: int, chance: float
) -> list[tuple[Float, Float, Float]]:
    """Events around each time: a binomial approximation of a Poisson process, cell by cell.

    Each cell holds `slots` events at uniform times, each present with probability `chance`.

    Returns:
        For every event in the previous, present and next cell: time since its start in seconds
        (infinite where absent), and two uniform draws of its own; each `(F,)`.
    """
    cell = np.floor(seconds / cell_seconds).astype(np.int64)
    found = []
    for neighbour in (-1, 0, 1):
        for slot in range(slots):
            index = (cell + neighbour) * slots + slot
            start = (cell + neighbour + uniform(key, channel, index)) * cell_seconds
            present = uniform(key, channel + 1, index) < chance
            since = np.where(present, seconds - start, np.inf)
            found.append((since, uniform(key, channel + 2, index), uniform(key, channel + 3, index)))
    return found


def _blink(key: int, seconds: Float) -> Float:
    """Closure of the lids 0..1: about 16 blinks a minute of 0.15 to 0.3 s, closing twice as fast as opening."""
    closure = np.zeros_like(seconds)
    for since, u, depth in _events(key, 30, seconds, cell_seconds=3.0, slots=2, chance=0.4):
        duration = 0.15 + 0.15 * u
        phase = np.where(np.isfinite(since), since, -1.0) / duration
        profile = np.where(phase < 0.35, _smoothstep(phase / 0.35), 1 - _smoothstep((phase - 0.4) / 0.6))
        inside = (phase > 0) & (phase < 1)
        closure = np.maximum(closure, np.where(inside, profile * (0.9 + 0.1 * depth), 0.0))
    return closure


def _speech(key: int, seconds: Float) -> tuple[Float, Float, Float]:
    """Jaw 0..1, mouth width -1..1 and whether the person speaks 0..1.

    Phrases of about 2 s with pauses between; in a phrase about 5 syllables a second, each its own opening.
    """
    talkative = 0.45 + 0.5 * _once(key, 40)
    phrase_seconds, syllable_seconds = 2.4, 0.2
    phrase = np.floor(seconds / phrase_seconds).astype(np.int64)
    within = seconds - phrase * phrase_seconds
    begin = 0.1 + 0.3 * uniform(key, 41, phrase)
    end = phrase_seconds - 0.1 - 0.5 * uniform(key, 42, phrase)
    speaks = uniform(key, 43, phrase) < talkative
    talk = np.where(speaks, _smoothstep((within - begin) / 0.12) * _smoothstep((end - within) / 0.12), 0.0)

    syllable = np.floor(seconds / syllable_seconds).astype(np.int64)
    jaw = np.zeros_like(seconds)
    for neighbour in (-1, 0, 1):
        k = syllable + neighbour
        centre = (k + 0.3 + 0.4 * uniform(key, 44, k)) * syllable_seconds
        distance = np.abs(seconds - centre) / (0.75 * syllable_seconds)
        opening = 0.15 + 0.75 * uniform(key, 45, k) ** 1.3
        jaw = np.maximum(jaw, opening * _smoothstep(1 - distance))
    jaw = talk * jaw
    wide = np.clip(talk * smooth_noise(key, 46, seconds, 2.5) * 0.5, -1.0, 1.0)
    wide = np.where(wide > 0, 0.45 * wide, wide)  # widely spread lips would pass for a smile
    return jaw, wide, talk


def _gaze(key: int, seconds: Float, yaw: Float, pitch: Float) -> Float:
    """Gaze `(F, 2)`: fixations joined by saccades of 45 ms, mostly near the camera whatever the head does."""
    fixation_seconds = 0.9
    cell = np.floor(seconds / fixation_seconds).astype(np.int64)
    jump = (cell + 0.85 * uniform(key, 50, cell)) * fixation_seconds
    current = np.where(seconds >= jump, cell, cell - 1)  # the fixation that holds, or is being reached
    jump = (current + 0.85 * uniform(key, 50, current)) * fixation_seconds
    blend = _smoothstep((seconds - jump) / 0.045)
    axes = []
    for channel, spread, compensation in ((51, 0.12, 0.75 * yaw), (54, 0.07, 0.6 * pitch)):
        here, before = (
            spread * (2 * uniform(key, channel, k) - 1) * np.where(uniform(key, channel + 1, k) < 0.25, 2.2, 0.7)
            for k in (current, current - 1)
        )
        axes.append(_soft_limit(before + (here - before) * blend - compensation, 0.42))
    return np.stack(axes, axis=-1)


def _occluder(key: int, seconds: Float) -> Float:
    """Palm's x, y, angle, presence `(F, 4)`: in a share of the takes something passes the face, in under 1 s."""
    row = np.zeros((len(seconds), 4))
    row[:, 1] = -3.0  # out of sight while absent
    if _once(key, 60) >= OCCLUDED_SHARE:
        return row
    cell = np.floor(seconds / OCCLUSION_PERIOD).astype(np.int64)
    u = [uniform(key, 61 + i, cell) for i in range(6)]
    start = cell * OCCLUSION_PERIOD + 0.2 + u[0]
    phase = (seconds - start) / (0.55 + 0.4 * u[1])
    present = (phase >= 0) & (phase <= 1)
    side = np.where(u[2] < 0.5, -1.0, 1.0)
    sweep = 2 * phase - 1  # -1 .. 1; slow in the middle, as a gesture is
    x = side * (1.6 * sweep**3 + 0.5 * sweep) + 0.3 * (u[3] - 0.5)
    y = -0.15 + 0.3 * (u[4] - 0.5) - 1.3 * sweep**2
    angle = side * (0.5 * sweep + 0.6 * (u[5] - 0.5))
    return np.where(present[:, None], np.stack([x, y, angle, np.ones_like(x)], axis=-1), row)


def make_motion(key: int, start: int, stop: int, fps: float) -> Motion:
    """The exogenous motion of frames `start` to `stop` of a take, with a resting mouth's smile.

    Args:
        key: The take's key, any integer.
        start, stop: First frame and the one after the last.
        fps: Frames a second.

    Returns:
        `stop - start` rows; equal, bit for bit, to those rows of any longer stretch.
    """
    return motion_at(key, np.arange(start, stop, dtype=np.float64) / fps, fps)


def motion_at(key: int, seconds: Float, fps: float) -> Motion:
    """As `make_motion`, at any times `(F,)`: the rows need not follow each other."""

    def noise(channel: int, hertz: float) -> Float:
        return smooth_noise(key, channel, seconds, hertz)

    def base(channel: int) -> float:  # constant over the take, -1..1
        return 2 * _once(key, channel) - 1

    jaw, wide, talk = _speech(key, seconds)
    lively = 0.6 + 0.8 * _once(key, 70)
    yaw = _soft_limit(0.38 * base(71) + lively * (0.22 * noise(1, 0.12) + 0.05 * noise(2, 0.5)), YAW_LIMIT)
    pitch = _soft_limit(
        0.10 * base(72) + lively * (0.08 * noise(3, 0.15) + (0.01 + 0.025 * talk) * noise(4, 0.8)), PITCH_LIMIT
    )
    roll = _soft_limit(0.08 * base(73) + lively * (0.07 * noise(5, 0.15) + 0.015 * noise(6, 0.6)), ROLL_LIMIT)

    breath = np.sin(2 * np.pi * (0.24 + 0.05 * base(74)) * seconds + np.pi * base(75))
    position = np.stack(
        [
            0.30 * base(76) + 0.05 * noise(7, 0.15) + 0.25 * np.sin(yaw) * 0.2,
            -0.05 + 0.16 * base(77) + 0.02 * noise(8, 0.3) + 0.008 * breath,
            NEARER + 0.7 * base(78) + 0.10 * noise(9, 0.12) + 0.01 * breath,
        ],
        axis=-1,
    )
    brows = 0.25 * noise(10, 0.5)
    for since, u, height in _events(key, 80, seconds, cell_seconds=4.0, slots=1, chance=0.5):
        phase = np.where(np.isfinite(since), since, -1.0) / (0.5 + 0.5 * u)
        lift = _smoothstep(phase / 0.25) * _smoothstep((1 - phase) / 0.4)
        brows = np.maximum(brows, np.where((phase > 0) & (phase < 1), lift * (0.5 + 0.5 * height), -1.0))

    shake = 0.15 if _once(key, 90) < 0.5 else 1.0  # a tripod, or a hand
    camera = np.stack(
        [
            shake * (0.008 * noise(11, 0.3) + 0.0012 * noise(12, 3.0)),
            shake * (0.008 * noise(13, 0.3) + 0.0012 * noise(14, 3.0)),
            1 + shake * 0.012 * noise(15, 0.15),
        ],
        axis=-1,
    )
    kind = int(3 * _once(key, 91))
    palette = ((0.52, 0.30, 0.21), (0.75, 0.72, 0.66), (0.05, 0.05, 0.06))  # hand, cup, microphone
    tint = 0.5 + 0.8 * _once(key, 92)

    def single(x: Float) -> Array:
        return np.ascontiguousarray(x, dtype=np.float32)

    return Motion(
        yaw=single(yaw),
        pitch=single(pitch),
        roll=single(roll),
        position=single(position),
        jaw=single(jaw),
        mouth_wide=single(wide),
        smile=single(np.clip(0.5 + 0.3 * noise(16, 0.25), 0.0, 1.0)),
        blink=single(_blink(key, seconds)),
        brow_raise=single(np.clip(brows, -1.0, 1.0)),
        gaze=single(_gaze(key, seconds, yaw, pitch)),
        camera=single(camera),
        light_turn=single(0.12 * noise(17, 0.05)),
        occluder=single(_occluder(key, seconds)),
        occluder_kind=kind,
        occluder_colour=np.clip(np.array(palette[kind]) * tint, 0.0, 0.9).astype(np.float32),
        fps=float(fps),
    )


def express(motion: Motion, smiling: bool) -> Motion:
    """Give the motion the attribute `smiling`; every other channel stays as it is, to the bit.

    `make_motion` leaves the person's momentary cheerfulness, 0..1, in the smile channel. A person
    who smiles moves within 0.75..1, one who does not within 0..0.06: the ranges lie far apart.
    """
    mood = motion.smile
    smile = 0.75 + 0.25 * mood if smiling else 0.06 * mood
    return replace(motion, smile=smile.astype(np.float32))
