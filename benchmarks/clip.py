"""How fast clips are read and written, and how much memory it takes: `python benchmarks/clip.py [frames] [height]`."""

from __future__ import annotations

import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

from countervid.clip import Clip


def main(count: int = 250, height: int = 720) -> None:
    """Write, list, read and rewrite a clip of `count` frames, 16:9; prints frames a second and the peak of memory."""
    width = height * 16 // 9 // 2 * 2
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    ground = (torch.stack([x, y, (x + y) / 2], dim=-1) * 200).to(torch.uint8)
    still = Clip.from_frames(ground[None].expand(count, -1, -1, -1))
    moving = still.mapped(lambda start, frames: torch.stack([f.roll(4 * (start + i), 1) for i, f in enumerate(frames)]))
    print(
        f"{count} frames of {width} x {height}; {platform.processor() or platform.machine()}, torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mp4"
        _timed("write H.264, crf 16", count, lambda: moving.write(path))
        _timed("open (list packets)", count, lambda: Clip.read(path))
        _timed("read in windows of 32", count, lambda: sum(len(frames) for _, frames in Clip.read(path).windows()))
        _timed("read, map, write", count, lambda: Clip.read(path).mapped(lambda _, f: 255 - f).write(path))
        _timed("write lossless", count, lambda: Clip.read(path).write(Path(folder) / "b.mp4", lossless=True))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def _timed(what: str, count: int, work: object) -> None:
    start = time.perf_counter()
    work()  # type: ignore[operator]
    print(f"{what:24} {count / (time.perf_counter() - start):8.0f} frames/s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
