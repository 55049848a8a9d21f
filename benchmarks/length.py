"""What a longer clip costs: `python benchmarks/length.py [--editor NAME ...] [FRAMES FRAMES ...]`.

Every row is a whole run in a process of its own (prepare, edit, metrics, comparison, report), of one rendered clip that
is played to and fro, with few steps: they cost time, not memory. 100 and 2,000 frames, and every editor, by default.

    python benchmarks/length.py --editor dva --size 128 --keep FOLDER 15000

is ten minutes of video at 25 frames a second. With `--keep` the clip, the cache and the run stay in FOLDER, and the
same command goes on where it was stopped; `seconds` are then those of the last part alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Few steps, and those that each method needs.
SETTINGS: dict[str, dict[str, object]] = {
    "dva": {"steps": 3},
    "tokenflow": {"steps": 2, "inversion_steps": 2},
    "flatten": {"steps": 2, "inversion_steps": 4, "inject_steps": 1},
    "tune-a-video": {"steps": 2, "tuning_steps": 2},
}


def child(editor: str, clip: Path, folder: Path) -> None:
    """One run; prints what it cost as JSON."""
    from countervid import Clip, counterfactual, load_editor
    from countervid.clip.seeking import DECODED

    start = time.perf_counter()
    chosen = load_editor(editor, cache=folder / "cache", **SETTINGS[editor])
    told = [start]

    def report(what: str, done: int, total: int) -> None:
        if time.perf_counter() - told[0] > 60:
            told[0] = time.perf_counter()
            print(f"{what}: {done} of {total}, {told[0] - start:.0f} s", file=sys.stderr, flush=True)

    result = counterfactual(
        Clip.read(clip), {"age": "old"}, editor=chosen, factual="She is young.", out=folder / "run", report=report
    )
    frames = len(result.factual)
    costs = {
        "frames": frames,
        "seconds": (time.perf_counter() - start) / frames,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "decodes": DECODED[clip] / frames,
        "kib": sum(path.stat().st_size for path in (folder / "cache").rglob("*") if path.is_file()) / 1024 / frames,
    }
    print(json.dumps(costs))


def make_clip(path: Path, length: int, size: int) -> None:
    """A rendered person for `length` frames."""
    import torch

    from countervid import Clip
    from countervid.phantom.world import render_clip, sample_person

    once = torch.from_numpy(render_clip(sample_person(2_000_000), frames=48, size=size).frames)
    to_and_fro = torch.cat([once, once.flip(0)])
    # Numbers instead of pictures are played to and fro, so that a long clip takes no memory here.
    place = torch.zeros(1, 1, 1, 3, dtype=torch.uint8).expand(length, size, size, 3)
    clip = Clip.from_frames(place).mapped(
        lambda start, frames: to_and_fro[(start + torch.arange(len(frames))) % len(to_and_fro)]
    )
    clip.write(path)


@contextmanager
def folder_of(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("frames", nargs="*", type=int, default=[100, 2000])
    parser.add_argument("--editor", action="append", choices=SETTINGS)
    parser.add_argument("--size", type=int, default=160, help="side of the frames, pixels")
    parser.add_argument("--keep", type=Path, help="work here, and leave everything there")
    parser.add_argument("--child", nargs=3)
    asked = parser.parse_args()
    if asked.child:
        editor, clip, folder = asked.child
        child(editor, Path(clip), Path(folder))
        return
    print(f"{asked.size} px\n\n| editor | frames | seconds a frame | peak memory | times the first | decodes | cache |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for editor in asked.editor or SETTINGS:
        first = None
        for length in asked.frames or [100, 2000]:
            with folder_of(asked.keep) as folder:
                clip = folder / f"{length}.mp4"
                if not clip.exists():
                    make_clip(clip, length, asked.size)
                command = [sys.executable, __file__, "--child", editor, str(clip), str(folder)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            costs = json.loads(done.stdout.splitlines()[-1])
            first = first or costs["mib"]
            print(
                f"| {editor} | {costs['frames']} | {costs['seconds']:.2f} | {costs['mib']:.0f} MiB | "
                f"{costs['mib'] / first:.3f} | {costs['decodes']:.2f} | {costs['kib']:.0f} KiB a frame |",
                flush=True,
            )


if __name__ == "__main__":
    main()
