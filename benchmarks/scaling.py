"""How much faster two workers are than one, on Ray and as processes of this machine.

    python benchmarks/scaling.py [--clips 4] [--frames 8] [--workers 2]

The same small benchmark (the DVA, unsteered, four interventions a clip) by each engine with one worker and several,
each in a folder of its own. Wall-clock from the moment that the first worker has done its first job, so that starting
Python and loading models, the same whatever there is to do, is told apart: `start`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from countervid.benchmark.grid import BenchmarkConfig
from countervid.benchmark.run import Benchmark, How


def timed(engine: str, workers: int, config: BenchmarkConfig) -> tuple[float, float]:
    """Seconds to the first job done, and jobs a second from then on."""
    done: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        benchmark = Benchmark(Path(folder) / "out", config, How(engine=engine, workers=workers, device="cpu"))
        began = time.perf_counter()
        summary = benchmark.run(lambda outcome: done.append(time.perf_counter() - began))
        assert summary.done == summary.jobs, summary.failed
    return done[0], (len(done) - 1) / (done[-1] - done[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    config = BenchmarkConfig(
        clips=(f"phantom:{asked.clips}",), editors=("dva",), steering=("none",), frames=asked.frames, references=False,
        metrics=("effectiveness", "truth", "identity", "motion", "ssim"),
    )  # fmt: skip
    print("| engine | workers | start, s | jobs a minute | faster |\n|---|---|---|---|---|")
    for engine in ("local", "ray"):
        alone = 0.0
        for workers in (1, asked.workers):
            start, rate = timed(engine, workers, config)
            alone = alone or rate
            print(f"| {engine} | {workers} | {start:.0f} | {60 * rate:.1f} | {rate / alone:.2f} x |", flush=True)


if __name__ == "__main__":
    main()
