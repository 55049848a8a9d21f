"""The public detector on a real face."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from countervid.errors import ConfigError, ModelError
from countervid.face import align, detect
from countervid.face.detect import YuNet, YuNetConfig
from face.support import astronaut, moving


@pytest.fixture(scope="module")
def detector() -> YuNet:
    return YuNet()


def test_the_astronaut_is_found(detector):
    found = detector(torch.from_numpy(astronaut())[None])[0]
    assert len(found) == 1 and found.scores[0] > 0.8
    left, top, right, bottom = found.boxes[0]
    assert 160 < left < 195 and 250 < right < 280 and 50 < top < 90 and 170 < bottom < 215
    eyes = found.points[0, :2]
    assert eyes[0, 0] < eyes[1, 0] and abs(eyes[0, 1] - 115) < 15  # left in the picture first


def test_large_frames_are_reduced_and_answered_in_their_own_pixels(detector):
    small = detector(torch.from_numpy(astronaut())[None])[0]
    large = detector(torch.from_numpy(cv2.resize(astronaut(), None, fx=3, fy=3))[None])[0]
    np.testing.assert_allclose(
        large.points / 3, small.points, atol=6
    )  # of a face of 85 px: the network sees 512 and 640 px


def test_a_small_face_in_a_large_frame_is_looked_for_again(detector):
    frame = np.full((1200, 1600, 3), 90, np.uint8)
    frame[500:620, 300:420] = cv2.resize(astronaut()[30:240, 120:330], (120, 120), interpolation=cv2.INTER_AREA)
    once = YuNet(config=YuNetConfig(long_side=160, retry_long_side=160))
    assert len(once(torch.from_numpy(frame)[None])[0]) == 0
    again = YuNet(config=YuNetConfig(long_side=160, retry_long_side=1600))(torch.from_numpy(frame)[None])[0]
    assert len(again) == 1 and 300 < again.boxes[0, 0] < 420


def test_a_frame_does_not_depend_on_the_batch_and_repeats(detector):
    frames = moving(4)
    whole, again = detector(frames), YuNet()(frames)
    for i in range(4):
        alone = detector(frames[i : i + 1])[0]
        for name in ("boxes", "scores", "points"):
            np.testing.assert_array_equal(getattr(alone, name), getattr(whole[i], name))
            np.testing.assert_array_equal(getattr(again[i], name), getattr(whole[i], name))


def test_nothing_is_found_in_nothing(detector):
    found = detector(torch.zeros((2, 100, 60, 3), dtype=torch.uint8))
    assert [len(f) for f in found] == [0, 0] and found[0].points.shape == (0, 5, 2)
    assert len(detector(torch.zeros((1, 1, 1, 3), dtype=torch.uint8))[0]) == 0


def test_the_square_of_detected_points_is_steady_under_the_camera(detector):
    five = np.stack([found.points[0] for found in detector(moving(24))])
    squares = align.quads(five)
    side = align.side(squares)
    # The camera does not zoom. The detector's points shrink by some percent as the head tilts, but slowly.
    assert np.ptp(side) / side.mean() < 0.1
    assert np.abs(np.diff(side)).max() / side.mean() < 0.015


def test_other_detectors_can_be_registered():
    assert detect.load("yunet").name == "yunet"
    with pytest.raises(ConfigError, match="yunet"):
        detect.load("haar")
    with pytest.raises(ConfigError, match="registered already"):
        detect.register("yunet", YuNet)


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        YuNet(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="No .onnx"):
        YuNet(tmp_path)
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    with pytest.raises(ModelError, match="not a YuNet"):
        YuNet(tmp_path)
