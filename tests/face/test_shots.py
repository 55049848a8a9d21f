"""Cuts are found, and what only looks like one is not: `benchmarks/shots.py` in small, with photographs."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from countervid.face.shots import CutDetector

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "shots.py"
SIZE, LENGTH = 96, 36


@lru_cache
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shots_benchmark", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drifting(picture: np.ndarray, phase: float) -> np.ndarray:
    """A camera that drifts over a photograph, turning a little: (LENGTH, SIZE, SIZE, 3) uint8."""
    height, width = picture.shape[:2]
    scale = 1.6 * SIZE / min(height, width)
    frames = []
    for i in range(LENGTH):
        turn = phase + i / 20
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 3 * np.sin(turn), scale)
        matrix[:, 2] += np.array([SIZE / 2 - width / 2, SIZE / 2 - height / 2]) + 6 * np.array(
            [np.sin(turn), np.cos(turn)]
        )
        frames.append(
            cv2.warpAffine(picture, matrix, (SIZE, SIZE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
        )
    return np.stack(frames)


@pytest.fixture(scope="module")
def world() -> SimpleNamespace:
    pictures = [np.ascontiguousarray(take()[..., :3]) for take in (data.astronaut, data.chelsea, data.coffee)]
    takes = [drifting(picture, phase) for phase, picture in enumerate(pictures)]
    again = [drifting(np.ascontiguousarray(picture[:, ::-1]), 2.0) for picture in pictures]
    return SimpleNamespace(size=SIZE, length=LENGTH, takes=takes, again=again, swapped=again, hands=takes)


KINDS = (
    "cut", "cut_same_person", "cut_punch_in", "cut_in_motion", "cut_on_a_flash", "cut_dark", "cutaway", "dissolve",
    "fade", "nothing", "flash", "whip", "shake", "zoom", "hand", "light",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_no_miss_and_no_false_alarm(world, kind):
    for seed in (1, 2):
        frames, bounds = benchmark().KINDS[kind](world, np.random.default_rng(seed))
        cuts = benchmark().found(frames)
        if kind == "dissolve":  # two frames beyond its middle half are allowed
            bounds = [(first - 2, last + 2) for first, last in bounds]
        assert benchmark().judged(cuts, bounds) == (0, 0), (seed, cuts, bounds)


def test_windows_and_what_comes_after_do_not_matter(world):
    frames, bounds = benchmark().cut(world, np.random.default_rng(4))
    assert bounds
    whole = benchmark().found(frames, window=len(frames))
    assert [(cut, cut) for cut in whole] == bounds
    for window in (1, 7):
        assert benchmark().found(frames, window) == whole
    detector = CutDetector()
    first = whole[0]
    early = detector.update(torch.from_numpy(frames[: first + detector.lookahead + 1]))
    assert first in early and detector.decided > first  # known as soon as it says


def test_nothing_is_cut_in_one_frame_or_in_the_dark():
    assert benchmark().found(np.zeros((1, 40, 60, 3), np.uint8)) == []
    assert benchmark().found(np.zeros((30, 40, 60, 3), np.uint8)) == []


def test_little_is_kept_of_a_long_clip(world):
    detector = CutDetector()
    for _ in range(6):
        detector.update(torch.from_numpy(world.takes[0]))
    assert len(detector._pictures) <= 4 * detector.lookahead + LENGTH
    assert len(detector._known) <= 2000
