"""Metrics on trial: which of the scores that need no truth rank edits as the truth does.

Over all edits (editors, steerings, clips, interventions, seeds), Spearman's correlation of each reference-free score
with how near the edit is to the true counterfactual, turned by the score's own direction: +1, the score ranks edits as
the truth does; 0, it says nothing; -1, it prefers the wrong ones. Three ways, from easy to hard:

- pooled: all edits together. A score also earns by telling easy interventions from hard ones.
- within an intervention: the mean of the correlations of each (`age=old`).
- within a case: the mean over clip and intervention, only the edits of one clip to one end: the choice among editors.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from countervid.benchmark.results import EDIT, Results, about
from countervid.benchmark.scored import Scored, ScoredJob
from countervid.benchmark.statistics import DRAWS, NOTHING, Array, Estimate, spearman
from countervid.errors import OutputError
from countervid.files.whole import write_whole
from countervid.metrics.base import catalogue, chosen

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEARNESS = {"error": "truth.edited_error", "skill": "truth.skill"}  # what the truth says, oriented likewise
POOLED, INTERVENTION, CASE = "pooled", "within an intervention", "within a case"
WAYS = (CASE, INTERVENTION, POOLED)
_TITLES = {CASE: "Same clip, same intervention", INTERVENTION: "Within an intervention", POOLED: "Pooled"}
FEWEST = 10  # edits that a correlation is made of

# Families whose class needs no truth, though these numbers of theirs do; and what is of the source alone.
_AFTER_ALL = (
    "effectiveness.track_error", "effectiveness.ceiling", "effectiveness.ceiling_gained", "effectiveness.ceiling_kept",
    "identity.weakest",
)  # fmt: skip
_CRITIC = "steering.satisfied"  # the only score of ours that is no metric: the critic's own opinion


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the trial says of one score."""

    metric: str
    edits: int  # with a number
    found: dict[tuple[str, str], Estimate]  # (name in `NEARNESS`, one of `WAYS`) -> correlation

    @property
    def place(self) -> float:
        """By what scores are sorted: the first correlation that is defined."""
        means = [
            self.found[nearness, way].mean for nearness in NEARNESS for way in WAYS if (nearness, way) in self.found
        ]
        return next((mean for mean in means if not math.isnan(mean)), -2.0)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """All scores, the most believable first, and what was left out."""

    verdicts: tuple[Verdict, ...]
    edits: int
    clips: int
    left_out: dict[str, str]  # score -> why


def trial(results: Results, *, draws: int = DRAWS) -> Trial:
    """Put every reference-free score of these results on trial.

    Args:
        results: Of a benchmark on phantoms.
        draws: How often clips are drawn again.

    Raises:
        OutputError: The truth is not known, or there are too few edits.
    """
    scored = Scored.of(results)
    jobs = {name: job for name, job in sorted(scored.jobs.items()) if job.kind == EDIT and job.state == "done"}

    def column(metric: str) -> Array:
        """The scores of all jobs, turned so that larger is better; as they are where the metric does not judge."""
        scores = np.array([scored.scores[metric].get(name, np.nan) for name in jobs])
        return {"lower": -scores, "one": -abs(scores - 1), "zero": -abs(scores)}.get(about(metric).better, scores)

    truths = {short: column(metric) for short, metric in NEARNESS.items() if metric in scored.scores}
    known = max((int(np.sum(~np.isnan(values))) for values in truths.values()), default=0)
    if known < FEWEST:
        raise OutputError(
            f"Of these results, {known} edits have a known truth; the trial needs {FEWEST}. Run the benchmark on "
            "phantoms (`--clips phantom:8`), whose true counterfactuals are known."
        )
    verdicts, left_out = [], {}
    for metric in (name for name in results.metrics if _free(name)):
        values = column(metric)
        there = values[~np.isnan(values)]
        if len(there) < FEWEST:
            left_out[metric] = f"{len(there)} numbers"
        elif np.ptp(there) == 0:
            left_out[metric] = "the same for all edits"
        else:
            verdicts.append(
                Verdict(metric=metric, edits=len(there), found=_judged(list(jobs.values()), values, truths, draws))
            )
    verdicts.sort(key=lambda verdict: (-verdict.place, verdict.metric))
    clips = len({job.labels["clip"] for job in jobs.values()})
    return Trial(verdicts=tuple(verdicts), edits=len(jobs), clips=clips, left_out=left_out)


def markdown(done: Trial) -> str:
    """The trial as a table for people."""
    shown = [*((CASE, "error"),), *((way, nearness) for way in (INTERVENTION, POOLED) for nearness in NEARNESS)]
    heads = ["score", *(way if way == CASE else f"{way}: {nearness}" for way, nearness in shown), "edits"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for verdict in done.verdicts:
        cells = [_cell(verdict.found.get((nearness, way), NOTHING)) for way, nearness in shown]
        lines.append("| " + " | ".join([_name(verdict.metric), *cells, str(verdict.edits)]) + " |")
    notes = [
        f"Spearman's correlation with nearness to the truth over {done.edits} edits, 95 % interval over {done.clips} "
        "clips. +1: ranks edits as the truth does; bold: the interval is on one side of 0.",
        "Nearness: minus the error against the truth, or skill, which is that error over what doing nothing leaves. "
        "Within a case (one clip, one intervention) the two rank alike.",
    ]
    if any(about(verdict.metric).better == "neither" for verdict in done.verdicts):
        notes.append("°: not good or bad by itself; taken as better when higher.")
    if done.left_out:
        notes.append("Left out: " + "; ".join(f"{name} ({why})" for name, why in done.left_out.items()) + ".")
    return "\n".join(["### Metrics on trial", "", *lines, "", *(f"- {note}" for note in notes), ""])


def table(done: Trial) -> str:
    """The trial as CSV: one line a score, nearness and way."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(["metric", "better", "nearness", "way", "correlation", "low", "high", "edits"])
    for verdict in done.verdicts:
        for (nearness, way), found in verdict.found.items():
            numbers = ["" if math.isnan(value) else f"{value:.10g}" for value in found]
            better = about(verdict.metric).better
            writer.writerow([verdict.metric, better, nearness, way, *numbers, verdict.edits])
    return sink.getvalue()


def plot(done: Trial) -> Figure:
    """A row a score, a panel a way: dots with intervals, to the right of 0 where the score can be believed."""
    from matplotlib.figure import Figure

    rows = len(done.verdicts)
    figure = Figure(figsize=(11.5, 1.5 + 0.27 * rows), layout="constrained")
    panels = figure.subplots(1, len(WAYS), sharey=True, squeeze=False)[0]
    colours = {"error": "#1f5fa8", "skill": "#d9822b"}
    for panel, way in zip(panels, WAYS, strict=True):
        shown = [nearness for nearness in NEARNESS if way != CASE or nearness == "error"]
        for row in range(0, rows, 2):
            panel.axhspan(row - 0.5, row + 0.5, color="#f3f4f6", zorder=0, linewidth=0)
        panel.axvline(0, color="#555555", linewidth=1, zorder=1)
        for index, nearness in enumerate(shown):
            shift = 0.0 if len(shown) == 1 else 0.17 * (2 * index - 1)
            found = [verdict.found.get((nearness, way), NOTHING) for verdict in done.verdicts]
            heights = np.arange(rows) + shift
            faces = [colours[nearness] if one.low > 0 or one.high < 0 else "white" for one in found]
            means, lows, highs = np.array(found).reshape(-1, 3).T
            panel.hlines(heights, lows, highs, color=colours[nearness], linewidth=1.6, alpha=0.75, zorder=2)
            panel.scatter(means, heights, s=24, facecolors=faces, edgecolors=colours[nearness], zorder=3)
        panel.set_xlim(-1.05, 1.05)
        panel.set_xticks([-1, -0.5, 0, 0.5, 1])
        panel.set_title(_TITLES[way], fontsize=10)
        panel.tick_params(length=0, labelsize=8.5)
        for side in ("top", "right", "left"):
            panel.spines[side].set_visible(False)
    panels[0].set_ylim(rows - 0.5, -0.5)
    panels[0].set_yticks(range(rows), [_name(verdict.metric) for verdict in done.verdicts])
    figure.supxlabel(
        "rank correlation with nearness to the truth, 95 % interval   "
        "(−1: prefers the wrong edits · 0: says nothing · +1: ranks as the truth does)", fontsize=9,
    )  # fmt: skip
    handles = [
        panels[-1].plot([], [], "o-", color=colours[nearness], label=label, markersize=5)[0]
        for nearness, label in (("error", "by error against the truth"), ("skill", "by skill"))
    ]
    handles.append(
        panels[-1].plot([], [], "o", color="#555555", markerfacecolor="white", label="may be chance", markersize=5)[0]
    )
    figure.legend(handles=handles, loc="outside upper right", ncols=3, fontsize=8.5, frameon=False)
    figure.suptitle(f"Which scores can be believed?  {done.edits} edits of {done.clips} clips", x=0.01, ha="left",
                    fontsize=12, fontweight="bold")  # fmt: skip
    return figure


def write(done: Trial, folder: Path) -> list[Path]:
    """Write `trial.md`, `trial.csv`, `trial.png` and `trial.svg`; the same trial gives the same bytes."""
    import matplotlib

    written = [folder / f"trial.{kind}" for kind in ("md", "csv", "png", "svg")]
    write_whole(written[0], markdown(done))
    write_whole(written[1], table(done))
    with matplotlib.rc_context({"svg.hashsalt": "countervid", "svg.fonttype": "none"}):
        figure = plot(done)
        for path in written[2:]:
            sink = io.BytesIO()
            metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
            figure.savefig(sink, format=path.suffix[1:], dpi=150, metadata=metadata)
            write_whole(path, sink.getvalue())
    return written


def _judged(
    jobs: Sequence[ScoredJob], values: Array, truths: dict[str, Array], draws: int
) -> dict[tuple[str, str], Estimate]:
    clips = [job.labels["clip"] for job in jobs]
    interventions = [job.labels["intervention"] for job in jobs]
    cases = [f"{clip} {intervention}" for clip, intervention in zip(clips, interventions, strict=True)]
    groups = {POOLED: None, INTERVENTION: interventions, CASE: cases}
    return {
        (nearness, way): spearman(values, truth, clips, groups[way], draws=draws)
        for nearness, truth in truths.items() for way in WAYS
    }  # fmt: skip


def _free(metric: str) -> bool:
    """Whether a number can be had without knowing the truth."""
    if metric == _CRITIC:
        return True
    if metric in _AFTER_ALL or metric not in catalogue():
        return False
    family = chosen([metric])[metric]
    needs: frozenset[str] = family.needs  # type: ignore[attr-defined]
    return not needs & {"truth", "world"}


def _name(metric: str) -> str:
    return metric + ("°" if about(metric).better == "neither" else "")


def _cell(one: Estimate) -> str:
    if math.isnan(one.mean):
        return "–"
    told = f"{one.mean:+.2f}".replace("-", "−")
    told = f"**{told}**" if one.low > 0 or one.high < 0 else told
    return told if math.isnan(one.low) else f"{told} [{one.low:+.2f}, {one.high:+.2f}]".replace("-", "−")
