"""The text-guided editors on people that no model has seen: what is seen, what stays, and what it costs.

    python benchmarks/editors.py run OUT [--editor tokenflow] [--clips 12] [--frames 16] [--set NAME=VALUE]
    python benchmarks/editors.py table OUT
    python benchmarks/editors.py plot OUT --to PNG

Every clip is edited under each intervention of the published graph, unsteered, as a user would. One line a case is kept
in OUT/NAME.jsonl, so that a stopped run goes on and several may share the work (`--first`). `table` prints what was
measured, averaged over cases:

- effect: the target attribute as the examiner sees it; changed: all attributes that must change; kept: the others.
- before, after: mean absolute distance to the true counterfactual, in the face's square, of 255 levels; skill from it.
- motion: landmarks against the source's, in distances between the eyes, inner face (brows to mouth).
- jump: mean difference of neighbouring frames, edited to source.
- again: the clip drawn from its noise with its own prompt and no guidance, against its latents drawn, dB PSNR.
- evaluations of the U-Net and seconds, of preparing a clip and of one edit.

`plot` draws effect, skill and `again` of every label against the evaluations of twelve edits of one clip.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from countervid.causal.language import describe
from countervid.clip import Clip
from countervid.clip.sheets import write_rows
from countervid.editors import Target, load_editor
from countervid.editors.text_drawing import loaded
from countervid.face.align import PORTRAIT, crop, quads
from countervid.face.landmarks import LandmarkNet, interocular
from countervid.metrics.examiner import Examiner
from countervid.models import bundled
from countervid.phantom.dataset import FACE, SPLITS
from countervid.phantom.scm import DOMAINS
from countervid.phantom.world import render_clip, sample_person

SIZE, FPS, CROP = 256, 8.0, 128
EDITORS = ("tokenflow", "flatten", "tune-a-video")


def run(out: Path, name: str, label: str, clips: int, first: int, frames: int, settings: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{label}.jsonl"
    done = {case["person"] for case in cases_of(path)}
    examiner, landmarks = (
        kind.from_folder(bundled(model)) for kind, model in ((Examiner, "examiner"), (LandmarkNet, "landmarks"))
    )
    with tempfile.TemporaryDirectory() as cache:
        editor: Any = load_editor(name, cache=Path(cache), **settings)
        for index in range(first, first + clips):
            person = sample_person(SPLITS["test"] + index)
            if person.seed in done:
                continue
            factual = render_clip(person, frames=frames, fps=FPS, size=SIZE)
            squares = quads(factual.landmarks - 0.5, framing=PORTRAIT)
            source = crops(torch.from_numpy(factual.frames), squares)
            started, begun = time.perf_counter(), editor.costs()["unet_evaluations"]
            clip = Clip.from_frames(torch.from_numpy(factual.frames), fps=FPS)
            prepared = editor.prepare(clip, person.attributes, prompt=describe(person.attributes, person.graph))
            preparing = time.perf_counter() - started, editor.costs()["unet_evaluations"] - begun
            again = redrawn(editor, prepared)
            rows, cases = {"factual": source[:6]}, []
            for attribute in FACE:
                value = next(v for v in DOMAINS[attribute] if v != person.attributes[attribute])
                wanted = person.counterfactual({attribute: value}).attributes
                target = Target(
                    factual=person.attributes, do={attribute: value}, counterfactual=wanted,
                    prompt=describe(wanted, person.graph),
                )  # fmt: skip
                true = render_clip(person, frames=frames, fps=FPS, size=SIZE, attributes=wanted)
                truth = crops(torch.from_numpy(true.frames), squares)
                started, begun = time.perf_counter(), editor.costs()["unet_evaluations"]
                edited = crops(editor.edit(prepared, target).frames, squares)
                seconds, evaluations = time.perf_counter() - started, editor.costs()["unet_evaluations"] - begun
                seen = examiner.read(edited)
                cases.append(
                    {
                        "person": person.seed, "do": attribute, "value": value,
                        "effect": seen[attribute] == value,
                        "changed": [seen[k] == v for k, v in target.changed.items()],
                        "kept": [seen[k] == v for k, v in target.kept.items()],
                        "before": float((source - truth).abs().mean() * 127.5),
                        "after": float((edited - truth).abs().mean() * 127.5),
                        "motion": motion(landmarks, source, edited),
                        "again": again,
                        "jump": float(jumps(edited).mean() / jumps(source).mean()),
                        "prepare_seconds": preparing[0], "prepare_evaluations": preparing[1],
                        "seconds": seconds, "evaluations": evaluations,
                    }
                )  # fmt: skip
                rows[f"do({attribute} = {value})"], rows["truth" + " " * len(rows)] = edited[:6], truth[:6]
                print(
                    label,
                    index,
                    attribute,
                    value,
                    f"skill {1 - cases[-1]['after'] / cases[-1]['before']:.2f}",
                    flush=True,
                )
            write_rows(out / f"{label}-{index}.png", rows)
            with open(path, "a") as file:
                file.writelines(json.dumps(case) + "\n" for case in cases)


@torch.no_grad()
def redrawn(editor: Any, prepared: Any) -> float:
    """How well the first window is drawn again from its noise, dB PSNR against its latents drawn."""
    tensors, latents = (loaded(prepared.store, f"{name}/00000000") for name in ("prepared", "latents"))
    editor.made_ready(prepared.store)
    config, begun = replace(editor.config, guidance=1.0), editor.diffusion.evaluations
    path = editor.diffusion.sample(tensors, prepared.facts["source_prompt"], "", config)
    editor.diffusion.evaluations = begun  # not a part of any edit
    drawn, known = (editor.pixels(x).clamp(0, 255) for x in (path[-1], latents["latents"]))
    return float(10 * torch.log10(255**2 / (drawn - known).square().mean()))


def cases_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def crops(frames: torch.Tensor, squares: Any) -> torch.Tensor:
    """Face crops `(F, 3, 128, 128)` in [-1, 1]."""
    return crop(frames, squares, CROP).permute(0, 3, 1, 2).float() / 127.5 - 1


def jumps(pictures: torch.Tensor) -> torch.Tensor:
    return (pictures[1:] - pictures[:-1]).abs().flatten(1).mean(1)


@torch.no_grad()
def motion(net: LandmarkNet, source: torch.Tensor, edited: torch.Tensor) -> float:
    """Mean distance of inner landmarks, in distances between the source's eyes."""
    before, after = (net(pictures).double().numpy() for pictures in (source, edited))
    away = ((before - after)[:, 17:] ** 2).sum(-1) ** 0.5
    return float((away.mean(1) / interocular(before)).mean())


def table(out: Path) -> None:
    heads = ("", "clips", "effect", *FACE, "changed", "kept", "before", "after", "skill", "motion", "jump", "again",
             "prepare", "edit")  # fmt: skip
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for path in sorted(out.glob("*.jsonl")):
        cases = cases_of(path)

        def mean(values: list[Any]) -> float:
            return float(statistics.fmean(values))

        def share(values: list[Any]) -> str:
            return f"{100 * mean(values):.0f} %" if values else ""

        row = [path.stem, str(len({case["person"] for case in cases})), share([c["effect"] for c in cases])]
        row += [share([c["effect"] for c in cases if c["do"] == name]) for name in FACE]
        row += [share([ok for c in cases for ok in c[field]]) for field in ("changed", "kept")]
        row += [f"{mean([c[field] for c in cases]):.1f}" for field in ("before", "after")]
        row += [f"{mean([1 - c['after'] / c['before'] for c in cases]):.2f}"]
        row += [f"{100 * mean([c['motion'] for c in cases]):.1f} %", f"{mean([c['jump'] for c in cases]):.2f}"]
        row.append(f"{mean([c.get('again', 0.0) for c in cases]):.1f}")
        for part in ("prepare_", ""):
            evaluations, seconds = (mean([c[f"{part}{unit}"] for c in cases]) for unit in ("evaluations", "seconds"))
            row.append(f"{evaluations:.0f}, {seconds:.0f} s")
        print("| " + " | ".join(row) + " |")


def plot(out: Path, to: Path) -> None:
    """One line a family of labels: what stands before the last `-` in their names."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    families: dict[str, list[tuple[float, float, float, float]]] = {}
    for path in sorted(out.glob("*.jsonl")):
        cases = cases_of(path)
        means = {name: statistics.fmean([float(case[name]) for case in cases])
                 for name in ("prepare_evaluations", "evaluations", "effect", "again")}  # fmt: skip
        # The clip is drawn once with its own prompt, with the first edit: its share is in the mean of four.
        cost = means["prepare_evaluations"] + 12.0 * min(case["evaluations"] for case in cases)
        skill = statistics.fmean([1 - case["after"] / case["before"] for case in cases])
        family = families.setdefault(path.stem.rpartition("-")[0] or path.stem, [])
        family.append((cost, 100 * means["effect"], skill, means["again"]))
    for family, points in families.items():
        points.sort()
        for axis, column in zip(axes, (1, 2, 3), strict=True):
            axis.plot([point[0] for point in points], [point[column] for point in points], "o-", label=family)
    for axis, label in zip(axes, ("target attribute seen, %", "skill", "drawn again, dB"), strict=True):
        axis.set(xlabel="evaluations, 12 edits of a clip", ylabel=label, xscale="log")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.margins(x=0.12)
    axes[0].set_ylim(0, 104)
    axes[0].legend(frameon=False, loc="lower right")
    figure.savefig(to, dpi=110)


def value_of(item: str) -> tuple[str, Any]:
    name, _, text = item.partition("=")
    try:
        return name, json.loads(text)
    except ValueError:
        return name, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table", "plot"), nargs="?", default="run")
    parser.add_argument("out", type=Path, nargs="?", default=Path("benchmark-editors"))
    parser.add_argument("--editor", action="append", choices=EDITORS)
    parser.add_argument("--label", help="name of the cases' file; the editor's by default")
    parser.add_argument("--clips", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first person")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--to", type=Path, default=Path("editors.png"), help="where `plot` draws")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    asked = parser.parse_args()
    if asked.what == "run":
        settings = dict(value_of(item) for item in asked.set)
        for name in asked.editor or EDITORS:
            run(asked.out, name, asked.label or name, asked.clips, asked.first, asked.frames, settings)
    if asked.what == "plot":
        plot(asked.out, asked.to)
    table(asked.out)


if __name__ == "__main__":
    main()
