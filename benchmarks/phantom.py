"""How fast people are rendered: `python benchmarks/phantom.py [--size 128] [--frames 48] [--people 8]`.

Prints frames a second over whole clips (set-up of each clip included), the set-up alone, and the time to compile in a
fresh cache when `--cold` is given. The goal is 20 frames a second at 128 px on two cores.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--layers", action="store_true", help="masks, flow and visibility too")
    parser.add_argument("--cold", action="store_true", help="compile everything anew first")
    options = parser.parse_args()
    if options.cold:
        os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp()

    # After the cache's place is set: numba reads it when it is imported.
    import numba

    from countervid.phantom.world import render_clip, sample_person

    began, used = time.perf_counter(), time.process_time()
    render_clip(sample_person(0), frames=2, size=32, layers=True)
    print(f"first call {time.perf_counter() - began:6.1f} s ({time.process_time() - used:.1f} s of processor time)")
    people = [sample_person(seed) for seed in range(options.people)]
    began, used = time.perf_counter(), time.process_time()
    for person in people:
        render_clip(person, frames=options.frames, size=options.size, layers=options.layers)
    seconds, work = time.perf_counter() - began, time.process_time() - used
    count = options.people * options.frames
    print(f"clips      {count / seconds:6.1f} frames a second, {1e3 * work / count:.1f} ms of processor time a frame")
    began = time.perf_counter()
    for person in people:
        render_clip(person, frames=1, size=options.size, layers=options.layers)
    print(f"one frame  {1e3 * (time.perf_counter() - began) / options.people:6.1f} ms, set-up of the clip included")
    print(f"{options.size} px, {numba.get_num_threads()} threads, {platform.processor() or platform.machine()}")


if __name__ == "__main__":
    main()
