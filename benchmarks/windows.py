"""Whether the borders of windows show: how far frames jump there, and elsewhere, in long clips.

    python benchmarks/windows.py run OUT [--editor tokenflow] [--clips 4] [--first 0] [--frames 64] [--window 24]
    python benchmarks/windows.py table OUT

A clip of several windows is edited under one intervention. A jump is the mean difference of neighbouring frames in the
face's square, edited over source; *added* is the same of the edit alone, its change from the source: what the edit does
from one frame to the next beyond the person's own motion. OUT gets a strip of the frames around each border.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from countervid.causal.language import describe
from countervid.clip import Clip
from countervid.clip.sheets import write_rows
from countervid.diffusion.windows import windows
from countervid.editors import Target, load_editor
from countervid.face.align import PORTRAIT, quads
from countervid.phantom.dataset import FACE, SPLITS
from countervid.phantom.scm import DOMAINS
from countervid.phantom.world import render_clip, sample_person
from editors import EDITORS, FPS, SIZE, crops, jumps

AROUND = 4  # frames on each side of a border, in its strip


def run(out: Path, name: str, index: int, frames: int, window: int) -> dict[str, Any]:
    person = sample_person(SPLITS["test"] + index)
    attribute = FACE[index % len(FACE)]
    value = next(v for v in DOMAINS[attribute] if v != person.attributes[attribute])
    wanted = person.counterfactual({attribute: value}).attributes
    factual = render_clip(person, frames=frames, fps=FPS, size=SIZE)
    squares = quads(factual.landmarks - 0.5, framing=PORTRAIT)
    with tempfile.TemporaryDirectory() as cache:
        editor: Any = load_editor(name, cache=Path(cache), window=window)
        clip = Clip.from_frames(torch.from_numpy(factual.frames), fps=FPS)
        prepared = editor.prepare(clip, person.attributes, prompt=describe(person.attributes, person.graph))
        target = Target(
            factual=person.attributes, do={attribute: value}, counterfactual=wanted,
            prompt=describe(wanted, person.graph),
        )  # fmt: skip
        edited = editor.edit(prepared, target).frames
    source, edited = crops(clip.frames, squares), crops(edited, squares)
    borders = [part.own.start - 1 for part in windows(frames, window, editor.config.overlap)[1:]]
    at = np.isin(np.arange(frames - 1), borders)
    ratio, added = (jumps(edited) / jumps(source)).numpy(), jumps(edited - source).numpy() * 127.5
    rows = {}
    for border in borders[:2]:
        near = slice(border + 1 - AROUND, border + 1 + AROUND)
        rows[f"{name}, do({attribute} = {value}): the border lies in the middle"] = edited[near]
        rows["source" + " " * len(rows)] = source[near]
    write_rows(out / f"{name}-{index}.png", rows)
    return {
        "editor": name, "clip": index, "borders": len(borders), "border": float(ratio[at].mean()),
        "elsewhere": float(ratio[~at].mean()), "added_border": float(added[at].mean()),
        "added_elsewhere": float(added[~at].mean()), "spread": float(added[~at].std()),
    }  # fmt: skip


def table(out: Path) -> None:
    print("| editor | clips | borders | jump there | elsewhere | added there | elsewhere | its spread |")
    print("|---|---|---|---|---|---|---|---|")
    for name in EDITORS:
        cases = [json.loads(line) for path in sorted(out.glob(f"{name}-*.json")) for line in [path.read_text()]]
        if cases:
            fields = ("border", "elsewhere", "added_border", "added_elsewhere", "spread")
            means = [f"{np.mean([case[field] for case in cases]):.2f}" for field in fields]
            borders = sum(case["borders"] for case in cases)
            print(f"| `{name}` | {len(cases)} | {borders} | " + " | ".join(means) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--editor", action="append", choices=EDITORS)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--window", type=int, default=24)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for name in (asked.editor or EDITORS) if asked.what == "run" else ():
        for index in range(asked.first, asked.first + asked.clips):
            path = asked.out / f"{name}-{index}.json"
            if not path.exists():
                path.write_text(json.dumps(run(asked.out, name, index, asked.frames, asked.window)))
    table(asked.out)


if __name__ == "__main__":
    main()
