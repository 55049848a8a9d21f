"""Whether steered edits follow the graph that was told, or what the models knew anyway.

    python benchmarks/obedience.py run OUT [--editor flatten] [--clips 10] [--first 0] [--frames 16]
    python benchmarks/obedience.py table OUT

The same people are edited by the published graph `face`, by `empty` (nothing causes anything), `reversed` and `absurd`
(a beard puts glasses on, baldness a hat), unsteered and steered. Each graph has its own truth. Told one of several
graphs, wherever they do not agree anyway: is the result nearest to the truth of that one, in what the examiner sees and
in pixels, and do the attributes that the examiner reads agree with its answer better than with any other? One line a
case is kept in OUT, so that a stopped run goes on and several may share the work. `table` prints shares, with 95 %
bootstrap intervals over people.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from countervid.benchmark.clips import Filming, Footage, Phantom, people
from countervid.causal.graph import CausalGraph
from countervid.causal.language import describe
from countervid.critics.bundled import BundledCritic
from countervid.editors import Target, load_editor
from countervid.face import align
from countervid.metrics.examiner import Examiner
from countervid.metrics.obedience import distances, obeyed
from countervid.models import bundled
from countervid.phantom.scm import DOMAINS
from countervid.phantom.world import Person, render_clip
from countervid.steering.choose import load_steerer
from countervid.steering.loop import LoopConfig, steer

AGAINST = {
    "face": ("empty", "reversed"),
    "empty": ("face", "reversed"),
    "reversed": ("face", "empty"),
    "absurd": ("face",),
}
"""The graph told, and those that it is to be told apart from: of the same variables, or in no model's experience."""
WAYS = ("none", "auto")
DRAWS = 10_000


class Bench:
    """One editor over people; everything dear is loaded once, and a clip is prepared once."""

    def __init__(self, name: str, filming: Filming, max_edits: int, device: str) -> None:
        self.name, self.filming, self.device = name, filming, device
        self.examiner, self.critic = Examiner.from_folder(bundled("examiner")), BundledCritic.load()
        self.graphs = {graph: CausalGraph.load(graph) for graph in AGAINST}
        self.loop = LoopConfig(max_edits=max_edits)

    def cases(self, person: Person) -> list[dict[str, Any]]:
        footage = Phantom(person, (), self.filming).footage()
        variables = dict.fromkeys(name for graph in self.graphs.values() for name in graph.variables)
        known = {name: person.attributes[name] for name in variables}
        found = []
        with tempfile.TemporaryDirectory() as cache:
            editor: Any = load_editor(self.name, cache=Path(cache), device=self.device)
            prepared = editor.prepare(footage.clip(), known, prompt=describe(person.attributes, person.graph))
            for attribute in self.graphs["face"].variables:
                value = next(v for v in DOMAINS[attribute] if v != known[attribute])
                answers = {name: self.answer(graph, known, {attribute: value}) for name, graph in self.graphs.items()}
                if len({tuple(answer.items()) for answer in answers.values()}) == 1:
                    continue  # the graphs agree: nothing to tell
                truths = self.truths(person, footage, answers)
                for told, graph in self.graphs.items():
                    factual = {name: known[name] for name in graph.variables}
                    target = Target(
                        factual=factual, do={attribute: value},
                        counterfactual={name: answers[told][name] for name in graph.variables},
                        prompt=describe({**person.attributes, **answers[told]}, person.graph),
                    )  # fmt: skip
                    for way in WAYS:
                        done = steer(
                            editor, prepared, target, graph=graph, critic=self.critic, config=self.loop,
                            steerer=load_steerer(way, editor, graph),
                        )  # fmt: skip
                        edited = align.crop(done.clip.frames[torch.from_numpy(footage.rows)], footage.squares, 128)
                        found.append(
                            {"person": person.seed, "do": attribute, "told": told, "way": way}
                            | self.judged(edited, truths, answers)
                            | {"answers": answers, "edits": len(done.rounds)}
                        )
        return found

    @staticmethod
    def answer(graph: CausalGraph, known: Mapping[str, str], do: dict[str, str]) -> dict[str, str]:
        """Everything that is known of the person, after an intervention by this graph."""
        own = {name: known[name] for name in graph.variables}
        return {**known, **graph.counterfactual(own, do).attributes}

    def truths(self, person: Person, footage: Footage, answers: Mapping[str, dict[str, str]]) -> dict[str, Tensor]:
        """The true counterfactual by each graph, face crops `(n, 128, 128, 3)`; what agrees is rendered once."""
        rendered: dict[tuple[tuple[str, str], ...], Tensor] = {}
        for answer in answers.values():
            if (key := tuple(answer.items())) not in rendered:
                film = self.filming
                shown = render_clip(
                    person, frames=film.frames, fps=film.fps, size=film.size, attributes={**person.attributes, **answer}
                )
                frames = torch.from_numpy(shown.frames)[torch.from_numpy(footage.rows)]
                rendered[key] = align.crop(frames, footage.squares, 128)
        return {name: rendered[tuple(answer.items())] for name, answer in answers.items()}

    @torch.inference_mode()
    def judged(self, edited: Tensor, truths: dict[str, Tensor], answers: dict[str, dict[str, str]]) -> dict[str, Any]:
        """How far the result is from each truth, and what is seen of it."""

        def signed(crops: Tensor) -> Tensor:
            return crops.permute(0, 3, 1, 2).float() / 127.5 - 1

        def looked(crops: Tensor) -> Tensor:
            features: Tensor = self.examiner.trunk(signed(crops))
            return features

        def apart(one: Tensor, other: Tensor) -> Tensor:
            lengths: Tensor = (one - other).norm(dim=1)
            return lengths

        seen = self.examiner.read(signed(edited))
        features = distances(looked(edited), {name: looked(truth) for name, truth in truths.items()}, distance=apart)
        pixels = distances(signed(edited) / 2, {name: signed(truth) / 2 for name, truth in truths.items()})
        return {"pixels": pixels, "features": features, "seen": {name: seen[name] for name in answers["face"]}}


def rivals(case: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The answers of the graph told and of those that it is held against; what gives the same answer counts as one."""
    answers = case["answers"]
    told = answers[case["told"]]
    return {"told": told} | {name: answers[name] for name in AGAINST[case["told"]] if answers[name] != told}


def nearest(case: Mapping[str, Any], by: str) -> float:
    """Whether the truth of the graph told is the nearest."""
    apart = {name: case[by][case["told"] if name == "told" else name] for name in rivals(case)}
    return obeyed("told", apart)


def read(case: Mapping[str, Any]) -> float:
    """Whether the graph told answers more of what is seen than any other; a tie is none."""
    answers, seen = rivals(case), case["seen"]
    apart = {name: float(sum(seen[k] != answer[k] for k in seen)) for name, answer in answers.items()}
    found = obeyed("told", apart)
    return 0.0 if math.isnan(found) else found


def exactly(case: Mapping[str, Any]) -> float:
    """Whether all is as the graph told says, of that in which the graphs differ."""
    answers = rivals(case)
    differ = [name for name in case["seen"] if len({answer[name] for answer in answers.values()}) > 1]
    return float(all(case["seen"][name] == answers["told"][name] for name in differ))


def share(cases: list[dict[str, Any]], value: Callable[[dict[str, Any]], float]) -> str:
    """Mean and 95 % interval; people are drawn again, with all their cases."""
    by_person: dict[int, list[float]] = {}
    for case in cases:
        by_person.setdefault(case["person"], []).append(value(case))
    sums, counts = (np.array([f(v) for v in by_person.values()], float) for f in (sum, len))
    drawn = np.random.default_rng(0).integers(len(sums), size=(DRAWS, len(sums)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), [2.5, 97.5])
    return f"{100 * sums.sum() / counts.sum():.0f} % ({100 * low:.0f}-{100 * high:.0f})"


def cases_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(out: Path) -> None:
    cases = [case for path in sorted(out.glob("*.jsonl")) for case in cases_of(path)]
    cases = [case for case in cases if len(rivals(case)) > 1]
    print(f"{len({case['person'] for case in cases})} people\n")
    print("| told | against | | edits | as the examiner reads | exactly | nearest, as the examiner sees | in pixels |")
    print("|---|---|---|---|---|---|---|---|")
    for told in (*AGAINST, "all"):
        for way in WAYS:
            chosen = [case for case in cases if case["way"] == way and told in (case["told"], "all")]
            if chosen:
                parts = [share(chosen, read), share(chosen, exactly)]
                parts += [share(chosen, partial(nearest, by=by)) for by in ("features", "pixels")]
                against = ", ".join(AGAINST.get(told, ()))
                print(f"| {told} | {against} | {way} | {len(chosen)} | " + " | ".join(parts) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--editor", action="append", choices=("tokenflow", "flatten", "tune-a-video"))
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="number of the first person")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--max-edits", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    for name in (asked.editor or ["flatten"]) if asked.what == "run" else ():
        bench = Bench(name, Filming(frames=asked.frames), asked.max_edits, asked.device)
        asked.out.mkdir(parents=True, exist_ok=True)
        path = asked.out / f"{name}.jsonl"
        for person in people(asked.clips, asked.first):
            if person.seed in {case["person"] for case in cases_of(path)}:
                continue
            cases = bench.cases(person)
            with open(path, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(case) + "\n" for case in cases)
            print(name, person.seed, flush=True)
    if asked.what == "table":
        table(asked.out)


if __name__ == "__main__":
    main()
