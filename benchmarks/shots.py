"""How well scene cuts are found: no miss, no false alarm?

    python benchmarks/shots.py [--clips 238] [--first 1] [--people 700] [--size 112] [--misses FOLDER]

Clips of rendered people are joined and disturbed as people's videos are: cuts (also within one room, to another take,
punched in, on the flash of a camera, in motion), cut-aways, dissolves, fades through black; and what looks like a cut
and is none: flashes, whipped pans, shaking, fast zooms, a hand, a light switched off. One line a kind: boundaries,
misses, false alarms. Thresholds were chosen on `--people 500` and even seeds; the table of the docs is of other people
and odd seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from countervid.face.shots import CutDetector
from countervid.phantom.render import render
from countervid.phantom.world import Person, render_clip, sample_person

Frames = npt.NDArray[np.uint8]  # (F, S, S, 3)
Made = tuple[Frames, list[tuple[int, int]]]  # frames, and for each boundary the frames that may begin the new shot
PEOPLE = 24  # rendered for one seed's clips; each has two takes
LENGTH = 36  # frames of one take


class World:
    """A pool of rendered takes, some of them of two people in one room under one motion."""

    def __init__(self, size: int, people: int = PEOPLE, first: int = 500, length: int = LENGTH) -> None:
        self.size, self.length = size, length
        self.people = [sample_person(first + index) for index in range(people)]
        self.takes = [render_clip(person, take=index % 2, frames=length, size=size).frames
                      for index, person in enumerate(self.people)]  # fmt: skip
        half = people // 3
        self.again = [render_clip(person, take=1 - index % 2, frames=length, size=size).frames
                      for index, person in enumerate(self.people[:half])]  # fmt: skip
        self.swapped = [self._as(self.people[-1 - index], person, index % 2) for index, person in
                        enumerate(self.people[:half])]  # fmt: skip
        self.hands = [self._hand(person, index % 2) for index, person in enumerate(self.people[:half])]

    def _as(self, other: Person, person: Person, take: int) -> Frames:
        """Another person in somebody's place, light and motion."""
        return render(other.look(), person.scene(take), person.motion(take, self.length), self.size).frames

    def _hand(self, person: Person, take: int) -> Frames:
        """A hand that comes before the face and goes again."""
        motion = person.motion(take, self.length)
        path = motion.occluder.copy()
        seconds = np.linspace(-1, 1, self.length)
        path[:, 0], path[:, 1], path[:, 3] = 0.9 * seconds, 0.0 * seconds, 1.0
        moved = dataclasses.replace(motion, occluder=path, occluder_kind=0)
        return render(person.look(), person.scene(take), moved, self.size).frames


def cut(world: World, rng: np.random.Generator) -> Made:
    parts, bounds, at = [], [], 0
    for index in rng.choice(len(world.takes), int(rng.integers(2, min(5, len(world.takes) + 1))), replace=False):
        count = int(rng.integers(8, 24))
        first = int(rng.integers(0, world.length - count))
        bounds += [(at, at)] if at else []
        parts.append(world.takes[index][first : first + count])
        at += count
    return np.concatenate(parts), bounds


def _pair(world: World, rng: np.random.Generator) -> tuple[Frames, Frames]:
    a, b = rng.choice(len(world.takes), 2, replace=False)
    return world.takes[a], world.takes[b]


def _joined(a: Frames, b: Frames, at: int) -> Made:
    return np.concatenate([a[:at], b[at:]]), [(at, at)]


def cut_same_room(world: World, rng: np.random.Generator) -> Made:
    index = int(rng.integers(len(world.swapped)))
    return _joined(world.takes[index], world.swapped[index], int(rng.integers(10, 26)))


def cut_same_person(world: World, rng: np.random.Generator) -> Made:
    index = int(rng.integers(len(world.again)))
    return _joined(world.takes[index], world.again[index], int(rng.integers(10, 26)))


def cut_punch_in(world: World, rng: np.random.Generator) -> Made:
    frames, at = _pair(world, rng)[0], int(rng.integers(10, 26))
    return _joined(frames, _zoomed(frames, np.full(len(frames), rng.uniform(1.25, 1.7))), at)


def cut_in_motion(world: World, rng: np.random.Generator) -> Made:
    a, b = (_shaken(frames, rng, 0.05) for frames in _pair(world, rng))
    return _joined(a, b, int(rng.integers(10, 26)))


def cut_on_a_flash(world: World, rng: np.random.Generator) -> Made:
    a, b = _pair(world, rng)
    at = int(rng.integers(10, 26))
    frames, _ = _joined(a, b, at)
    return _lit(frames, [at - int(rng.integers(0, 2))], rng.uniform(1.5, 4), rng.uniform(40, 160)), [(at - 1, at + 1)]


def cut_dark(world: World, rng: np.random.Generator) -> Made:
    a, b = _pair(world, rng)
    frames, bounds = _joined(a, b, int(rng.integers(10, 26)))
    noise = rng.normal(0, 4, frames.shape)
    return np.clip(frames * rng.uniform(0.15, 0.3) + noise, 0, 255).astype(np.uint8), bounds


def cutaway(world: World, rng: np.random.Generator) -> Made:
    a, b = _pair(world, rng)
    at, count = int(rng.integers(8, 16)), int(rng.integers(5, 12))
    return np.concatenate([a[:at], b[at : at + count], a[at + count :]]), [(at, at), (at + count, at + count)]


def dissolve(world: World, rng: np.random.Generator) -> Made:
    a, b = _pair(world, rng)
    count = int(rng.integers(6, 25))
    at = int(rng.integers(5, world.length - count - 5))
    share = np.clip((np.arange(world.length) - at + 1) / (count + 1), 0, 1)[:, None, None, None]
    return (a * (1 - share) + b * share).round().astype(np.uint8), [
        (at + count // 4, at + count - count // 4)
    ]  # its middle half


def fade(world: World, rng: np.random.Generator) -> Made:
    a, b = _pair(world, rng)
    down, black, up = (int(n) for n in rng.integers((4, 1, 4), (12, 6, 12)))
    at = int(rng.integers(6, world.length - down - 2))
    out = a[: at + down] * np.concatenate([np.ones(at), 1 - np.arange(1, down + 1) / down])[:, None, None, None]
    back = b * np.clip((np.arange(world.length) + 1) / up, 0, 1)[:, None, None, None]
    frames = np.concatenate([out, np.zeros((black, *a.shape[1:])), back])
    return frames.round().astype(np.uint8), [(at + down - 3, at + down + black + 3)]


def nothing(world: World, rng: np.random.Generator) -> Made:
    return _pair(world, rng)[0], []


def flash(world: World, rng: np.random.Generator) -> Made:
    count = int(rng.integers(1, 4))
    at = [int(rng.integers(5, 12)), int(rng.integers(20, 30))][: int(rng.integers(1, 3))]
    where = [int(first) + offset for first in at for offset in range(count)]
    return _lit(_pair(world, rng)[0], where, rng.uniform(1.3, 5), rng.uniform(20, 200)), []


def whip(world: World, rng: np.random.Generator) -> Made:
    a, b = _pair(world, rng)
    size, gap = world.size, cv2.resize(_pair(world, rng)[0][0], (world.size * 2, world.size))
    count = int(rng.integers(5, 12))
    at = int(rng.integers(8, world.length - count - 6))
    ease = np.clip((np.arange(world.length) - at) / count, 0, 1)
    x = (ease * ease * (3 - 2 * ease)) * 3 * size
    frames = []
    for i in range(world.length):
        wide = np.concatenate([a[i], gap, b[i]], 1).astype(np.float32)
        speed = int(round(abs(x[min(i + 1, len(x) - 1)] - x[i])))
        blur = cv2.blur(wide, (max(1, speed // 2), 1))
        left = int(round(x[i]))
        frames.append(blur[:, left : left + size])
    return np.stack(frames).round().astype(np.uint8), []


def shake(world: World, rng: np.random.Generator) -> Made:
    return _shaken(_pair(world, rng)[0], rng, rng.uniform(0.03, 0.12)), []


def zoom(world: World, rng: np.random.Generator) -> Made:
    count, most = int(rng.integers(4, 12)), rng.uniform(1.4, 2.5)
    at = int(rng.integers(6, 24))
    ease = np.clip((np.arange(world.length) - at) / count, 0, 1)
    return _zoomed(_pair(world, rng)[0], most**ease), []


def hand(world: World, rng: np.random.Generator) -> Made:
    frames = world.hands[int(rng.integers(len(world.hands)))]
    if rng.random() < 0.5:  # quick, and larger than the face
        size, radius = world.size, rng.uniform(0.2, 0.35)
        frames, count = frames.copy(), int(rng.integers(6, 14))
        at = int(rng.integers(5, world.length - count))
        for i in range(count):
            x = int((-0.3 + 1.6 * i / (count - 1)) * size)
            cv2.ellipse(frames[at + i], (x, size // 2), (int(radius * size), int(1.4 * radius * size)), 20, 0, 360,
                        (196, 150, 126), -1, cv2.LINE_AA)  # fmt: skip
    return frames, []


def light(world: World, rng: np.random.Generator) -> Made:
    count, least = int(rng.integers(1, 12)), rng.uniform(0.35, 0.7)
    share = np.clip((np.arange(world.length) - rng.integers(8, 22)) / count, 0, 1)[:, None, None, None]
    frames = _pair(world, rng)[0] * (1 - share * (1 - least))
    return frames.round().astype(np.uint8), []


def _lit(frames: Frames, where: list[int], gain: float, offset: float) -> Frames:
    result = frames.astype(np.float32)
    result[where] = result[where] * gain + offset
    return np.clip(result, 0, 255).round().astype(np.uint8)


def _shaken(frames: Frames, rng: np.random.Generator, amount: float) -> Frames:
    size = frames.shape[1]
    path = np.cumsum(rng.normal(0, amount * size, (len(frames), 2)), 0)
    path = 0.12 * size * np.sin(path / (0.12 * size))  # stays within the margin that the zoom leaves
    moved = []
    for frame, (x, y) in zip(frames, path, strict=True):
        matrix = np.array([[1.3, 0, x - 0.15 * size], [0, 1.3, y - 0.15 * size]])
        moved.append(cv2.warpAffine(frame, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))
    return np.stack(moved)


def _zoomed(frames: Frames, factors: npt.NDArray[np.float64]) -> Frames:
    size = frames.shape[1]
    centre = (size / 2, 0.45 * size)
    turned = [cv2.getRotationMatrix2D(centre, 0, float(factor)) for factor in factors]
    return np.stack([cv2.warpAffine(f, m, (size, size), borderMode=cv2.BORDER_REFLECT)
                     for f, m in zip(frames, turned, strict=True)])  # fmt: skip


KINDS: dict[str, Callable[[World, np.random.Generator], Made]] = {
    make.__name__: make
    for make in (cut, cut_same_room, cut_same_person, cut_punch_in, cut_in_motion, cut_on_a_flash, cut_dark, cutaway,
                 dissolve, fade, nothing, flash, whip, shake, zoom, hand, light)
}  # fmt: skip


def found(frames: Frames, window: int = 16) -> list[int]:
    """First frames of the shots after the first."""
    detector, cuts = CutDetector(), list[int]()
    for start in range(0, len(frames), window):
        cuts += detector.update(torch.from_numpy(frames[start : start + window]))
    return cuts + detector.finish()


def judged(cuts: list[int], bounds: list[tuple[int, int]]) -> tuple[int, int]:
    """Boundaries that were missed, and cuts that are none."""
    left = list(cuts)
    missed = 0
    for first, last in bounds:
        match = next((c for c in left if first <= c <= last), None)
        missed += match is None
        if match is not None:
            left.remove(match)
    return missed, len(left)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=238)
    parser.add_argument("--first", type=int, default=1, help="seed of the first clip; every second one is used")
    parser.add_argument("--people", type=int, default=700, help="seed of the first person")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--misses", type=Path, help="a folder for a picture of each clip that went wrong")
    options = parser.parse_args()
    world = World(options.size, first=options.people)
    rows: dict[str, list[int]] = {}
    seconds = frames_seen = 0.0
    for number in range(options.clips):
        seed = options.first + 2 * number
        kind = list(KINDS)[number % len(KINDS)]
        frames, bounds = KINDS[kind](world, np.random.default_rng(seed))
        started = time.perf_counter()
        cuts = found(frames)
        seconds, frames_seen = seconds + time.perf_counter() - started, frames_seen + len(frames)
        missed, false = judged(cuts, bounds)
        row = rows.setdefault(kind, [0, 0, 0, 0])
        for place, value in enumerate((1, len(bounds), missed, false)):
            row[place] += value
        if (missed or false) and options.misses:
            options.misses.mkdir(parents=True, exist_ok=True)
            small = [cv2.resize(frame, (96, 96)) for frame in frames]
            small += [np.zeros_like(small[0])] * (-len(small) % 12)
            sheet = np.concatenate([np.concatenate(small[i : i + 12], 1) for i in range(0, len(small), 12)])
            cv2.imwrite(str(options.misses / f"{kind}-{seed}.png"), sheet[..., ::-1])
            print(f"{kind} {seed}: found {cuts}, true {bounds}")
    print("| kind | clips | boundaries | missed | false alarms |\n|---|---|---|---|---|")
    for kind, row in rows.items():
        print(f"| {kind.replace('_', ' ')} | {' | '.join(str(value) for value in row)} |")
    total = np.sum(list(rows.values()), 0)
    print(f"| all | {' | '.join(str(value) for value in total)} |")
    print(f"{1000 * seconds / frames_seen:.2f} ms a frame of {options.size} px")


if __name__ == "__main__":
    main()
