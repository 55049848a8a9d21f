"""How fast clips are read and written, against PyAV alone, and in how much memory.

`python benchmarks/clip.py [frames] [height]`. PyAV alone decodes to the same `rgb24`, or encodes the same frames with
the same settings of x264; each is timed several times in turn with ours, and the best of each is compared.
"""

from __future__ import annotations

import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import torch

from countervid.clip import Clip
from countervid.clip.encoding import SAME_BYTES


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
        next(Clip.read(path).windows())  # compiles
        _compared("read", lambda: _read_by_pyav(path), lambda: [None for _ in Clip.read(path).windows()])
        held = Clip.from_frames(torch.cat([f for _, f in Clip.read(path).first(min(count, 60)).windows()]))
        _compared("write", lambda: _written_by_pyav(held, path), lambda: held.write(Path(folder) / "c.mp4"))
        _timed("open (list packets)", count, lambda: Clip.read(path))
        _timed("read in windows of 32", count, lambda: sum(len(frames) for _, frames in Clip.read(path).windows()))
        _timed("read, map, write", count, lambda: Clip.read(path).mapped(lambda _, f: 255 - f).write(path))
        _timed("write lossless", count, lambda: Clip.read(path).write(Path(folder) / "b.mp4", lossless=True))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


def _compared(what: str, bare: Callable[[], object], ours: Callable[[], object], times: int = 4) -> None:
    best = [float("inf"), float("inf")]
    for _ in range(times):
        for index, work in enumerate((bare, ours)):
            start = time.perf_counter()
            work()
            best[index] = min(best[index], time.perf_counter() - start)
    print(f"{what} against PyAV alone    {best[0] / best[1]:8.2f} x its speed")


def _read_by_pyav(path: Path) -> None:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            frame.to_ndarray(format="rgb24")


def _written_by_pyav(clip: Clip, path: Path) -> None:
    with av.open(str(path.with_name("bare.mp4")), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = clip.width, clip.height, "yuv420p"
        stream.options = {"preset": "fast", "crf": "16", "threads": "4", **SAME_BYTES}
        for _, frames in clip.windows(16):
            for pixels in frames.numpy():
                output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))


def _timed(what: str, count: int, work: object) -> None:
    start = time.perf_counter()
    work()  # type: ignore[operator]
    print(f"{what:24} {count / (time.perf_counter() - start):8.0f} frames/s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
