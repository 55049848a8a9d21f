"""What a longer clip costs in memory: `python benchmarks/length.py [FRAMES FRAMES ...]`, 48 and 1,000 by default.

Every length is a whole run in a process of its own (prepare, edit, metrics, comparison, report), of one rendered clip
that is played to and fro, with few steps: they cost time, not memory.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZE = 256
STEPS = 4


def child(clip: Path, folder: Path) -> None:
    """One run; prints its seconds and its peak of memory as JSON."""
    from countervid import Clip, counterfactual, load_editor

    start = time.perf_counter()
    editor = load_editor("dva", cache=folder / "cache", steps=STEPS)
    result = counterfactual(Clip.read(clip), {"age": "old"}, editor=editor, out=folder / "run")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"frames": len(result.factual), "seconds": time.perf_counter() - start, "mib": peak}))


def main(lengths: list[int]) -> None:
    import torch

    from countervid import Clip
    from countervid.phantom.world import render_clip, sample_person

    once = torch.from_numpy(render_clip(sample_person(2_000_000), frames=48, size=SIZE).frames)
    to_and_fro = torch.cat([once, once.flip(0)])
    first = None
    print(
        f"{SIZE} px, {STEPS} steps\n\n| frames | seconds a frame | peak memory | times the first |\n|---|---|---|---|"
    )
    for length in lengths:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            path = folder / "clip.mp4"
            Clip.from_frames(once[:1].expand(length, -1, -1, -1)).mapped(
                lambda start, frames: to_and_fro[(start + torch.arange(len(frames))) % len(to_and_fro)]
            ).write(path)
            command = [sys.executable, __file__, "--child", str(path), str(folder)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        first = first or found["mib"]
        each, times = found["seconds"] / found["frames"], found["mib"] / first
        print(f"| {found['frames']} | {each:.2f} | {found['mib']:.0f} MiB | {times:.3f} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main([int(a) for a in sys.argv[1:]] or [48, 1000])
