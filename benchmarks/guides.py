"""Three ways to ask the autoencoder for one attribute, on people that no model has seen.

    python benchmarks/guides.py [PEOPLE] [SHEET]

`do` moves to the mean of people who have the attribute and holds the others; `attribute` is the published classifier
editor; `text` is the published text editor, with the bundled CLIP. All are asked for one attribute alone, and held
against the rendered person with that attribute changed alone: what the examiner sees of it, what it says stayed,
skill (1 is the truth, 0 is doing nothing), and seconds an edit, the search for the text's direction included.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import torch

from countervid.autoencoder.clip_guidance import TextGuidance
from countervid.autoencoder.directions import Direction
from countervid.clip import Clip
from countervid.clip.sheets import write_rows
from countervid.editors import Target, load_editor
from countervid.editors.base import Guide
from countervid.face.align import crop
from countervid.metrics.base import Eyes
from countervid.phantom.dataset import SPLITS
from countervid.phantom.world import Person, render_clip, sample_person
from countervid.runs.measure import asked_of, measure

FRAMES, SIZE, FPS = 8, 192, 8.0
ASKED = {"beard": "yes", "age": "old", "bald": "yes"}
TEXTS = {"beard": ("face", "face with a beard"), "age": ("young face", "old face"), "bald": ("face", "bald face")}


def ways(name: str) -> dict[str, Guide | None]:
    """The guides to compare; None is the editor's own move."""
    source, target = TEXTS[name]
    text = {"source_text": source, "target_text": target, "learning_rate": 0.01, "iterations": 60, "patience": 20}
    return {
        "do": None,
        "attribute, 0.25": Direction(attribute=name, scale=0.25),
        "attribute, 0.5": Direction(attribute=name, scale=0.5),
        "text, published weights": TextGuidance(**text),
        "text, freer": TextGuidance(**text, identity_weight=0.5, l1_weight=0.5),
    }


def somebody(name: str, count: int) -> list[Person]:
    """The first people of the test split to whom the attribute can be given."""
    found, seed = [], SPLITS["test"]
    while len(found) < count:
        person = sample_person(seed)
        if person.attributes[name] != ASKED[name] and (name == "age" or person.attributes["gender"] == "man"):
            found.append(person)
        seed += 1
    return found


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    eyes = Eyes()
    print("| attribute | way | seen | others kept | skill | seconds an edit |\n|---|---|---|---|---|---|")
    sheet = {}
    with tempfile.TemporaryDirectory() as cache:
        editor = load_editor("dva", cache=Path(cache))
        for name, value in ASKED.items():
            found = defaultdict(list)
            for number, person in enumerate(somebody(name, count)):
                asked = {**person.attributes, name: value}
                before, after = (
                    Clip.from_frames(torch.from_numpy(render_clip(person, attributes=a, **_film()).frames), fps=FPS)
                    for a in (person.attributes, asked)
                )
                prepared = editor.prepare(before, person.attributes)
                pictures = {f"{name}: source": before, "truth": after}
                for way, guide in ways(name).items():
                    target = Target(factual=person.attributes, do={name: value}, counterfactual=asked, guide=guide)
                    start = time.perf_counter()
                    edited = Clip.from_frames(editor.edit(prepared, target).frames, fps=FPS)
                    seconds = time.perf_counter() - start
                    said = measure(before, edited, after, prepared.track, asked_of(target), eyes)
                    seen = said["examiner"]["changed_seen"], said["examiner"]["kept_kept"]
                    found[way].append((*seen, said["truth"]["face"]["skill"], seconds))
                    pictures[way] = edited
                if number == 0:
                    sheet |= {f"{name}, {k}": _strip(clip, prepared.track.quads) for k, clip in pictures.items()}
            for way, rows in found.items():
                seen, kept, skill, seconds = (statistics.fmean(column) for column in zip(*rows, strict=True))
                print(f"| {name} | {way} | {seen:.0%} | {kept:.0%} | {skill:.2f} | {seconds:.0f} |", flush=True)
    if len(sys.argv) > 2:
        write_rows(Path(sys.argv[2]), sheet)


def _film() -> dict[str, float | int]:
    return {"frames": FRAMES, "size": SIZE, "fps": FPS}


def _strip(clip: Clip, quads: torch.Tensor) -> torch.Tensor:
    return crop(clip.frames, quads, 128)[::2].permute(0, 3, 1, 2).float() / 127.5 - 1


if __name__ == "__main__":
    main()
