from dataclasses import fields

import numpy as np
import pytest

from countervid.phantom.motion import (
    PITCH_LIMIT,
    ROLL_LIMIT,
    YAW_LIMIT,
    _occluder,
    express,
    make_motion,
    motion_at,
    smooth_noise,
)
from countervid.phantom.parameters import Motion

KEYS = [97 * k + 13 for k in range(60)]


def rows(motion: Motion) -> dict[str, np.ndarray]:
    arrays = {f.name: getattr(motion, f.name) for f in fields(Motion) if f.name != "occluder_colour"}
    return {name: a for name, a in arrays.items() if isinstance(a, np.ndarray) and len(a) == len(motion)}


@pytest.mark.parametrize("bounds", [(0, 1), (17, 61), (100_000, 100_003)])
def test_a_slice_equals_that_part_of_the_whole(bounds):
    start, stop = bounds
    origin = max(0, start - 40)
    whole, part = make_motion(7, origin, stop + 37, 25.0), make_motion(7, start, stop, 25.0)
    assert len(part) == stop - start
    for name, values in rows(part).items():
        np.testing.assert_array_equal(values, rows(whole)[name][start - origin : stop - origin], err_msg=name)


def test_frames_may_lie_anywhere():
    seconds = np.array([3.0, 0.2, 100.0])
    scattered = motion_at(5, seconds, 25.0)
    for row, second in enumerate(seconds):
        np.testing.assert_array_equal(scattered.yaw[row], motion_at(5, np.array([second]), 25.0).yaw[0])


def test_another_take_moves_otherwise():
    assert not np.array_equal(make_motion(1, 0, 20, 25.0).yaw, make_motion(2, 0, 20, 25.0).yaw)


def test_the_head_stays_within_its_limits_and_uses_them():
    motions = [make_motion(key, 0, 75, 25.0) for key in KEYS]
    for name, limit in (("yaw", YAW_LIMIT), ("pitch", PITCH_LIMIT), ("roll", ROLL_LIMIT)):
        reach = max(np.abs(getattr(m, name)).max() for m in motions)
        assert 0.7 * limit < reach <= limit, name
    fastest = max(np.abs(np.diff(m.yaw)).max() * 25 for m in motions)
    assert fastest < np.deg2rad(60)  # a head, not a machine


def test_channels_keep_their_ranges():
    for key in KEYS[:30]:
        m = make_motion(key, 0, 250, 25.0)
        assert 0 <= m.jaw.min() and m.jaw.max() <= 1 and np.abs(m.mouth_wide).max() <= 1
        assert 0 <= m.blink.min() and m.blink.max() <= 1
        assert np.abs(m.brow_raise).max() <= 1 and np.abs(m.gaze).max() < 0.45
        assert set(np.unique(m.occluder[:, 3])) <= {0.0, 1.0}


def test_people_blink_at_a_human_rate_and_speed():
    fps = 100.0
    closed = make_motion(3, 0, int(300 * fps), fps).blink > 0.1
    edges = np.flatnonzero(np.diff(closed.astype(int)))
    durations = (edges[1::2] - edges[::2][: len(edges[1::2])]) / fps
    assert 10 < len(durations) / 5 < 25  # a minute
    assert 0.08 < np.median(durations) < 0.3


def test_speech_has_syllables_and_pauses():
    jaw = make_motion(11, 0, 25 * 120, 25.0).jaw
    quiet = (jaw < 0.03).mean()
    assert 0.1 < quiet < 0.8
    peaks = ((jaw[1:-1] > jaw[:-2]) & (jaw[1:-1] >= jaw[2:]) & (jaw[1:-1] > 0.15)).sum()
    assert 1 < peaks / 120 < 7  # a second


def test_an_occluder_passes_in_about_one_take_of_eight_for_less_than_a_second():
    seconds = np.arange(75) / 25
    passes = [_occluder(key, seconds)[:, 3] for key in range(600)]
    assert 0.08 < np.mean([p.any() for p in passes]) < 0.17
    assert max(p.sum() for p in passes) <= 25


def test_smiling_moves_the_smile_channel_alone_and_far():
    motion = make_motion(5, 0, 500, 25.0)
    off, on = express(motion, smiling=False), express(motion, smiling=True)
    assert off.smile.max() <= 0.06 + 1e-6 and on.smile.min() >= 0.75 - 1e-6
    for name, values in rows(off).items():
        if name != "smile":
            np.testing.assert_array_equal(values, rows(on)[name], err_msg=name)


def test_smooth_noise_is_centred_unit_and_band_limited():
    fps, hertz = 50.0, 1.0
    x = smooth_noise(9, 1, np.arange(int(500 * fps)) / fps, hertz)
    assert abs(x.mean()) < 0.1 and x.std() == pytest.approx(1, abs=0.05)
    power = np.abs(np.fft.rfft(x)) ** 2
    above = np.fft.rfftfreq(len(x), 1 / fps) > 1.5 * hertz
    assert power[above].sum() / power.sum() < 0.01
