"""The landmark network, what it looks at, and the plain face that stands in for it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from countervid.errors import ModelError
from countervid.face import align
from countervid.face.landmarks import (
    MEAN_FACE,
    FittedLandmarks,
    LandmarkNet,
    LandmarkNetConfig,
    NetLandmarks,
    crop_transform,
    landmark_error,
    landmark_loss,
)

TINY = LandmarkNetConfig(size=32, widths=(8, 16, 16, 16), head=16)


def faces(count: int, seed: int = 0) -> np.ndarray:
    """The plain face at random places, sizes and angles: (count, 68, 2)."""
    rng = np.random.default_rng(seed)
    angle, size = rng.uniform(-0.4, 0.4, count), rng.uniform(8, 30, count)
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
    return np.einsum("fij,nj->fni", turn * size[:, None, None], MEAN_FACE) + rng.uniform(60, 140, (count, 1, 2))


def test_the_plain_face_is_one():
    five = align.five_points(MEAN_FACE)
    np.testing.assert_allclose(five[:2], [[-1, 0], [1, 0]], atol=0.02)
    mirrored = MEAN_FACE * (-1, 1)
    order = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31]
    order += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    order += [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
    np.testing.assert_allclose(mirrored[order], MEAN_FACE, atol=1e-9)
    assert MEAN_FACE[8, 1] == MEAN_FACE[:, 1].max()  # the chin is lowest


def test_the_network_looks_at_the_whole_face():
    landmarks = faces(20)
    inside = align.to_square(landmarks, crop_transform(landmarks))
    assert inside.min() > 0.02 and inside.max() < 0.98
    assert np.ptp(inside, axis=1).min() > 0.5  # and not at much else


def test_crop_transform_turns_with_the_face_and_takes_disturbances():
    landmarks = faces(5)
    plain = align.to_square(landmarks, crop_transform(landmarks))
    np.testing.assert_allclose(plain, plain[:1].repeat(5, 0), atol=1e-9)  # similar faces look the same
    shifted = align.to_square(landmarks, crop_transform(landmarks, shift=(0.1, 0.0)))
    np.testing.assert_allclose(shifted.mean((0, 1)) - plain.mean((0, 1)), (-0.1, 0), atol=0.02)
    larger = align.to_square(landmarks, crop_transform(landmarks, scale=np.full(5, 1.25)))
    np.testing.assert_allclose(np.ptp(larger, axis=1), np.ptp(plain, axis=1) / 1.25, rtol=1e-9)
    sides = align.side(crop_transform(landmarks, turn=0.3))
    np.testing.assert_allclose(sides, align.side(crop_transform(landmarks)), rtol=1e-9)


def test_five_points_give_the_square_of_the_landmarks():
    five = align.five_points(faces(6))
    fitted = FittedLandmarks()(torch.zeros(6, 1, 1, 3), np.zeros((6, 4)), five)
    np.testing.assert_allclose(fitted, faces(6), atol=1e-6)  # a face like the plain one is found whole
    five[:, 1] += (3.0, -2.0)
    five[:, 4] += (-2.0, 1.0)
    fitted = FittedLandmarks()(torch.zeros(6, 1, 1, 3), np.zeros((6, 4)), five)
    # Any other face keeps its eyes and mouth, and so its square.
    np.testing.assert_allclose(align.quads(fitted), align.quads(five), atol=1e-6)


def test_size_and_range_of_the_network():
    net = LandmarkNet()
    assert 0.6e6 < sum(p.numel() for p in net.parameters()) < 1.0e6
    heat, offset = net.heat(torch.zeros(2, 3, 128, 128))
    assert heat.shape == (2, 68, 32, 32) and offset.abs().max() == 0
    torch.testing.assert_close(heat.sum((2, 3)), torch.ones(2, 68))
    assert net(torch.zeros(2, 3, 128, 128)).shape == (2, 68, 2)


def drawn(count: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Crops with one bright dot, and 68 landmarks that are all that dot but for the eyes, kept apart."""
    dot = torch.rand((count, 1, 2), generator=generator) * 0.6 + 0.2
    cell = (torch.arange(size) + 0.5) / size
    bump = torch.exp(-150 * ((cell - dot[..., :1]) ** 2 + (cell - dot[..., 1:]).transpose(1, 2) ** 2))
    landmarks = dot.repeat(1, 68, 1)
    landmarks[:, 36:42, 0] -= 0.15
    landmarks[:, 42:48, 0] += 0.15
    return (bump[:, None] * 2 - 1).expand(-1, 3, -1, -1).contiguous(), landmarks


def test_the_loss_teaches_the_network_to_point():
    torch.manual_seed(0)
    net, generator = LandmarkNet(TINY), torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(net.parameters(), 4e-3)
    crops, true = drawn(8, 32, generator)
    start = landmark_error(net(crops), true).mean()
    for _ in range(40):
        crops, true = drawn(8, 32, generator)
        loss = landmark_loss(net, crops, true)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    crops, true = drawn(8, 32, generator)
    assert landmark_error(net.eval()(crops), true).mean() < 0.5 * start


def test_error_is_in_units_of_the_eyes_distance():
    true = torch.from_numpy(faces(3))
    eyes = torch.linalg.vector_norm(true[:, 36:42].mean(1) - true[:, 42:48].mean(1), dim=-1)
    moved = true + eyes[:, None, None] * torch.tensor([0.03, 0.04])
    torch.testing.assert_close(landmark_error(moved, true), torch.full((3,), 0.05, dtype=torch.float64))


def test_a_frame_does_not_depend_on_the_batch():
    torch.manual_seed(1)
    model = NetLandmarks(LandmarkNet(TINY))
    frames = torch.randint(0, 256, (4, 80, 90, 3), dtype=torch.uint8)
    points = align.five_points(faces(4)) / 2
    whole = model(frames, np.zeros((4, 4)), points)
    for i in range(4):
        np.testing.assert_array_equal(model(frames[i : i + 1], np.zeros((1, 4)), points[i : i + 1])[0], whole[i])
    assert model(frames[:0], np.zeros((0, 4)), points[:0]).shape == (0, 68, 2)


def test_from_folder(tmp_path):
    torch.manual_seed(2)
    net = LandmarkNet(TINY).eval()
    (tmp_path / "config.json").write_text(json.dumps({"size": 32, "widths": [8, 16, 16, 16], "head": 16}))
    save_file({name: value.half() for name, value in net.state_dict().items()}, tmp_path / "model.safetensors")
    crops = torch.rand(2, 3, 32, 32)
    loaded = LandmarkNet.from_folder(tmp_path)
    # Half-precision weights move a landmark by less than a tenth of a pixel of 32.
    torch.testing.assert_close(loaded(crops), net(crops), atol=3e-3, rtol=0)
    (tmp_path / "config.json").write_text(json.dumps({"size": 32, "widths": [8, 16, 16, 24], "head": 16}))
    with pytest.raises(ModelError):
        LandmarkNet.from_folder(tmp_path)
