"""Steering on people that no model has seen: what is seen, what stays, how near the truth, and how many edits it takes.

    python benchmarks/steering.py run OUT [--editor tokenflow] [--clips 10] [--first 0] [--frames 16]
    python benchmarks/steering.py obey OUT [--editor tokenflow] [--clips 10] [--first 0]
    python benchmarks/steering.py table OUT

Every clip is edited under each intervention of the published graph by each way of steering; the bundled critic steers,
the examiner grades. One line a case is kept in OUT, so that a stopped run goes on and several may share the work. Ways:

- none: one edit as asked. paraphrase: one edit, reworded beforehand. csvc-paper: as published (one frame, two
  rewritings, words alone, the last edit). auto: ours. coupled: ours without causal decoupling, for beard and bald.

`obey` edits by three graphs of the same four variables (face, empty, reversed), unsteered and steered, and asks which
graph's truth the result is nearest to, wherever the three do not agree anyway. `table` prints what was measured, with
95 % bootstrap intervals over people.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from countervid.causal.graph import CausalGraph
from countervid.causal.language import describe
from countervid.clip import Clip
from countervid.clip.sheets import write_rows
from countervid.critics.bundled import BundledCritic
from countervid.editors import Target, load_editor
from countervid.face.align import PORTRAIT, quads
from countervid.face.landmarks import LandmarkNet
from countervid.metrics.examiner import Examiner
from countervid.metrics.obedience import distances
from countervid.models import bundled
from countervid.phantom.dataset import FACE, SPLITS
from countervid.phantom.scm import DOMAINS
from countervid.phantom.world import Person, render_clip, sample_person
from countervid.steering.base import Steerer
from countervid.steering.choose import load_steerer
from countervid.steering.loop import LoopConfig, steer
from editors import CROP, FPS, SIZE, crops, jumps, motion

EDITORS = ("tokenflow", "flatten", "tune-a-video", "dva")
NOT_OF = dict.fromkeys(("paraphrase", "csvc-paper", "coupled"), ("dva",))  # no words move it
WAYS = ("none", "paraphrase", "csvc-paper", "auto", "coupled")
GRAPHS = ("face", "empty", "reversed")
DRAWS = 10_000


One = Callable[["Bench", tuple[str, ...], Person, Any, Any], list[dict[str, Any]]]


class Bench:
    """One editor over people; everything dear is loaded once, and a clip is prepared once."""

    def __init__(self, out: Path, name: str, frames: int, max_edits: int, settings: dict[str, Any]) -> None:
        self.out, self.name, self.frames, self.settings = out, name, frames, settings
        self.examiner, self.critic = Examiner.from_folder(bundled("examiner")), BundledCritic.load()
        self.landmarks = LandmarkNet.from_folder(bundled("landmarks"))
        self.loop = LoopConfig(max_edits=max_edits)
        self.drawn: dict[str, torch.Tensor] = {}  # of the person at hand, by target
        out.mkdir(parents=True, exist_ok=True)

    def over(self, people: list[Person], path: Path, ways: tuple[str, ...], one: One) -> None:
        """Cases of people by the ways that are not there yet, a line each."""
        for person in people:
            done = {case["way"] for case in cases_of(path) if case["person"] == person.seed}
            left = tuple(way for way in ways if way not in done and self.name not in NOT_OF.get(way, ()))
            if not left:
                continue
            self.drawn = {}
            with tempfile.TemporaryDirectory() as cache:
                editor: Any = load_editor(self.name, cache=Path(cache), **self.settings)
                began = time.perf_counter()
                cases = one(self, left, person, editor, self.rendered(person, person.attributes))
                print(self.name, person.seed, f"{time.perf_counter() - began:.0f} s", flush=True)
            with open(path, "a") as file:
                file.writelines(json.dumps(case) + "\n" for case in cases)

    def steerer(self, way: str, editor: Any, graph: CausalGraph) -> Steerer:
        if way == "coupled":
            return replace(load_steerer("csvc", editor, graph), decouple=False)  # type: ignore[type-var]
        return load_steerer(way, editor, graph)

    @staticmethod
    def evaluations(editor: Any) -> int:
        return int(editor.costs()["unet_evaluations"]) if hasattr(editor, "costs") else 0

    def rendered(self, person: Person, attributes: dict[str, str]) -> Any:
        return render_clip(person, frames=self.frames, fps=FPS, size=SIZE, attributes=attributes)

    def case(
        self,
        way: str,
        editor: Any,
        prepared: Any,
        target: Target,
        graph: CausalGraph,
        squares: Any,
        source: torch.Tensor,
    ) -> tuple[dict[str, Any], torch.Tensor]:
        """What one way of steering one edit came to, and its crops."""
        steerer = self.steerer(way, editor, graph)
        began, evaluations = time.perf_counter(), self.evaluations(editor)
        done = steer(editor, prepared, target, graph=graph, critic=self.critic, steerer=steerer, config=self.loop)
        told = json.dumps(done.chosen.step.target.to_json())
        edited = self.drawn.get(told)
        if edited is None:  # ways that end at the same target share its drawing
            edited = self.drawn[told] = crops(done.clip.frames, squares)
        seen = self.examiner.read(edited)
        chosen, (attribute, value) = done.chosen, next(iter(target.do.items()))
        satisfied = chosen.verdict is not None and not chosen.missing and (way == "csvc-paper" or chosen.holds)
        case = {
            "way": way, "do": attribute, "value": value, "gender": target.factual["gender"],
            "age": target.factual["age"], "effect": seen[attribute] == value,
            "changed": [seen[k] == v for k, v in target.changed.items()],
            "kept": [seen[k] == v for k, v in target.kept.items()],
            "edits": len(done.rounds), "calls": sum(r.verdict is not None for r in done.rounds),
            "satisfied": satisfied, "chosen": chosen.number, "stopped": done.stopped,
            "prompt": chosen.step.target.prompt, "strengths": dict(chosen.step.target.strengths),
            "guidance": chosen.step.target.guidance, "strength": chosen.step.target.strength,
            "critic": None if chosen.verdict is None else
            {k: [a.value, a.confidence] for k, a in chosen.verdict.answers.items()},
            "examiner": seen, "seconds": time.perf_counter() - began,
            "evaluations": self.evaluations(editor) - evaluations,
            "motion": motion(self.landmarks, source, edited),
            "jump": float(jumps(edited).mean() / jumps(source).mean()),
        }  # fmt: skip
        return case, edited


def unseen(count: int) -> list[Person]:
    """People of the test split, a man and a woman by turns, so that every direction of an edit is there."""
    found: dict[str, list[Person]] = {"man": [], "woman": []}
    index = 0
    while min(map(len, found.values())) < (count + 1) // 2:
        person = sample_person(SPLITS["test"] + index)
        found[person.attributes["gender"]].append(person)
        index += 1
    return [found["woman" if turn % 2 else "man"][turn // 2] for turn in range(count)]


def steered(bench: Bench, ways: tuple[str, ...], person: Person, editor: Any, factual: Any) -> list[dict[str, Any]]:
    squares = quads(factual.landmarks - 0.5, framing=PORTRAIT)
    source, graph = crops(torch.from_numpy(factual.frames), squares), person.graph
    clip = Clip.from_frames(torch.from_numpy(factual.frames), fps=FPS)
    began, evaluations = time.perf_counter(), bench.evaluations(editor)
    prepared = editor.prepare(clip, person.attributes, prompt=describe(person.attributes, graph))
    preparing = {
        "prepare_seconds": time.perf_counter() - began, "prepare_evaluations": bench.evaluations(editor) - evaluations,
    }  # fmt: skip
    cases, rows = [], {"factual": source[:6]}
    for attribute in FACE:
        value = next(v for v in DOMAINS[attribute] if v != person.attributes[attribute])
        wanted = person.counterfactual({attribute: value}).attributes
        target = Target(
            factual=person.attributes, do={attribute: value}, counterfactual=wanted, prompt=describe(wanted, graph)
        )
        truth = crops(torch.from_numpy(bench.rendered(person, wanted).frames), squares)
        before = float((source - truth).abs().mean() * 127.5)
        for way in ways:
            if way == "coupled" and not graph.decoupled({attribute}):
                continue
            case, edited = bench.case(way, editor, prepared, target, graph, squares, source)
            after = float((edited - truth).abs().mean() * 127.5)
            cases.append({"person": person.seed, "before": before, "after": after, **preparing, **case})
            if way in ("none", "auto"):
                rows[f"{way}: do({attribute} = {value}), {case['edits']} edits, skill {1 - after / before:.2f}"] = (
                    edited[:6]
                )
        rows["truth" + " " * len(rows)] = truth[:6]
    write_rows(bench.out / f"{bench.name}-{person.seed}.png", rows)
    return cases


def obeying(bench: Bench, ways: tuple[str, ...], person: Person, editor: Any, factual: Any) -> list[dict[str, Any]]:
    """Edits by each graph, and the truths of all of them."""
    squares = quads(factual.landmarks - 0.5, framing=PORTRAIT)
    source = crops(torch.from_numpy(factual.frames), squares)
    clip = Clip.from_frames(torch.from_numpy(factual.frames), fps=FPS)
    graphs = {name: CausalGraph.load(name) for name in GRAPHS}
    known = {name: person.attributes[name] for name in graphs["face"].variables}
    prepared = editor.prepare(clip, known, prompt=describe(known, graphs["face"]))
    cases, rendered = [], {}
    for attribute in FACE:
        value = next(v for v in DOMAINS[attribute] if v != known[attribute])
        answers = {name: graph.counterfactual(known, {attribute: value}).attributes for name, graph in graphs.items()}
        if len({tuple(answer.items()) for answer in answers.values()}) == 1:
            continue  # the graphs agree: nothing to tell
        truths = {}
        for name, answer in answers.items():
            key = tuple(answer.items())
            if key not in rendered:
                frames = bench.rendered(person, {**person.attributes, **answer}).frames
                rendered[key] = crops(torch.from_numpy(frames), squares)
            truths[name] = rendered[key]
        for name, graph in graphs.items():
            target = Target(
                factual=known, do={attribute: value}, counterfactual=answers[name],
                prompt=describe(answers[name], graph),
            )  # fmt: skip
            for way in ways:
                case, edited = bench.case(way, editor, prepared, target, graph, squares, source)
                apart = distances(edited / 2, {other: truth / 2 for other, truth in truths.items()})
                nearest = min(apart, key=apart.__getitem__)
                seen = {k: case["examiner"][k] for k in known}
                alike = {g: sum(seen[k] == a[k] for k in known) for g, a in answers.items()}
                best = {answers[g] == answers[name] for g in alike if alike[g] == max(alike.values())}
                cases.append(
                    {
                        "person": person.seed, "graph": name, **case, "apart": apart,
                        "obeyed": answers[nearest] == answers[name], "examined": best == {True},
                    }
                )  # fmt: skip
    return cases


def cases_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def interval(cases: list[dict[str, Any]], value: Callable[[dict[str, Any]], Any]) -> tuple[float, float, float]:
    """Mean and 95 % interval of a value (or list of values) a case; people are drawn again, with all their cases."""
    by_person: dict[int, list[float]] = {}
    for case in cases:
        found = value(case)
        by_person.setdefault(case["person"], []).extend(map(float, found if isinstance(found, list) else [found]))
    sums, counts = (np.array([f(v) for v in by_person.values()], float) for f in (sum, len))
    drawn = np.random.default_rng(0).integers(len(sums), size=(DRAWS, len(sums)))
    means = sums[drawn].sum(1) / np.maximum(counts[drawn].sum(1), 1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(sums.sum() / counts.sum()), float(low), float(high)


def share(cases: list[dict[str, Any]], value: Callable[[dict[str, Any]], Any]) -> str:
    mean, low, high = interval(cases, value)
    return f"{100 * mean:.0f} % ({100 * low:.0f}-{100 * high:.0f})"


def table(out: Path) -> None:
    everything: list[dict[str, Any]] = []
    rows = ["editor", "way", "people", "target seen", "all changes", "kept", "skill", "edits", "false stops"]
    print("| " + " | ".join(rows) + " |\n|" + "---|" * len(rows))
    for name in EDITORS:
        cases = cases_of(out / f"{name}.jsonl")
        everything += [{**case, "editor": name} for case in cases if name != "dva"]
        for way in WAYS:
            if chosen := [case for case in cases if case["way"] == way]:
                _row(name, way, chosen)
    for way in WAYS:
        if chosen := [case for case in everything if case["way"] == way]:
            _row("text-guided", way, chosen)
    print("\nUnsteered: distances to the truth (of 255), landmarks against the source's, frame-to-frame change\n")
    print("| editor | before | after | motion | jump | prepare | edit |\n|---|---|---|---|---|---|---|")
    for name in EDITORS:
        if chosen := [case for case in cases_of(out / f"{name}.jsonl") if case["way"] == "none"]:

            def mean(field: str, chosen: list[dict[str, Any]] = chosen) -> float:
                return float(np.mean([case[field] for case in chosen]))

            costs = [f"{mean(p + 'evaluations'):.0f}, {mean(p + 'seconds'):.0f} s" for p in ("prepare_", "")]
            shown = [f"{mean('before'):.1f}", f"{mean('after'):.1f}", f"{100 * mean('motion'):.1f} %"]
            print("| " + " | ".join([name, *shown, f"{mean('jump'):.2f}", *costs]) + " |")
    print("\nBy direction, text-guided editors together: target seen, number of cases\n")
    cells = sorted({(c["do"], c["value"], c["gender"]) for c in everything})
    print("| intervention | " + " | ".join(WAYS) + " |\n|---|" + "---|" * len(WAYS))
    for do, value, gender in cells:
        row = [f"{do} = {value}, {gender}"]
        for way in WAYS:
            chosen = [c for c in everything if (c["do"], c["value"], c["gender"], c["way"]) == (do, value, gender, way)]
            row.append(f"{100 * np.mean([c['effect'] for c in chosen]):.0f} % of {len(chosen)}" if chosen else "")
        print("| " + " | ".join(row) + " |")
    told = [case for name in EDITORS for case in cases_of(out / f"obey-{name}.jsonl")]
    if told:
        print("\nObedience: nearest to the truth of the graph that was told; by the examiner's reading\n")
        print("| graph | way | cases | nearest truth | examiner |\n|---|---|---|---|---|")
        for graph in (*GRAPHS, "all"):
            for way in ("none", "auto"):
                chosen = [c for c in told if c["way"] == way and graph in (c["graph"], "all")]
                if chosen:
                    parts = (share(chosen, lambda c: c["obeyed"]), share(chosen, lambda c: c["examined"]))
                    print(f"| {graph} | {way} | {len(chosen)} | {' | '.join(parts)} |")


def _row(name: str, way: str, cases: list[dict[str, Any]]) -> None:
    people = len({case["person"] for case in cases})
    parts = [
        share(cases, lambda c: c["effect"]),
        share(cases, lambda c: c["changed"]),
        share(cases, lambda c: c["kept"]),
    ]
    skill, low, high = interval(cases, lambda c: 1 - c["after"] / c["before"])
    edits = np.mean([case["edits"] for case in cases])
    stopped = [case for case in cases if case["satisfied"]]
    false = f"{100 * np.mean([not all(c['changed']) for c in stopped]):.0f} % of {len(stopped)}" if stopped else ""
    target = f"{100 * np.mean([not c['effect'] for c in stopped]):.0f} %" if stopped else ""
    cells = [
        name,
        way,
        str(people),
        *parts,
        f"{skill:.2f} ({low:.2f}-{high:.2f})",
        f"{edits:.1f}",
        f"{false}, target {target}",
    ]
    print("| " + " | ".join(cells) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "obey", "table"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--editor", action="append", choices=EDITORS)
    parser.add_argument("--way", action="append", choices=WAYS)
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="number of the first person")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--max-edits", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    asked = parser.parse_args()
    settings = {k: json.loads(v) for k, _, v in (item.partition("=") for item in asked.set)}
    people = unseen(asked.first + asked.clips)[asked.first :]
    for name in (asked.editor or EDITORS[:3]) if asked.what != "table" else ():
        bench = Bench(asked.out, name, asked.frames, asked.max_edits, settings)
        if asked.what == "run":
            bench.over(people, asked.out / f"{name}.jsonl", tuple(asked.way or WAYS), steered)
        else:
            bench.over(people, asked.out / f"obey-{name}.jsonl", tuple(asked.way or ("none", "auto")), obeying)
    table(asked.out)


if __name__ == "__main__":
    assert CROP == 128
    main()
