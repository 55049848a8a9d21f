"""Two benchmarks side by side: how their configurations differ, and what changed over the jobs that both did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from countervid.benchmark.layout import ARROWS, MARKS
from countervid.benchmark.results import Results, about
from countervid.benchmark.scored import Scored
from countervid.benchmark.statistics import Difference, holm, paired
from countervid.benchmark.tables import SIGNIFICANT, goodness, select
from countervid.runs.folder import differences


@dataclass(frozen=True, kw_only=True)
class Change:
    """What became of one metric of one editor under one steering, over the jobs that both have a number for."""

    editor: str
    steering: str
    metric: str
    before: float
    after: float
    difference: Difference
    p: float  # after Holm's correction over the changes of this metric
    size: float  # the difference, in standard deviations of the metric over all jobs of both

    @property
    def mark(self) -> str:
        """`better`, `worse` or `differs`, or nothing where it may be chance."""
        if not self.p < SIGNIFICANT:
            return ""
        gain = goodness(self.metric, self.after) - goodness(self.metric, self.before)
        return "differs" if math.isnan(gain) or gain == 0 else "better" if gain > 0 else "worse"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that differs between two results, what changed most first."""

    configuration: tuple[str, ...]  # `frames was 16, is 8`
    changes: tuple[Change, ...]
    same: int  # editor x steering x metric without any difference
    common: int  # jobs of both
    only: tuple[tuple[str, ...], tuple[str, ...]]  # jobs of one alone
    metrics_only: tuple[tuple[str, ...], tuple[str, ...]]
    unpaired: int  # numbers of common jobs that one of the two lacks


def compare(one: Results, two: Results, metrics: Sequence[str] = ()) -> Comparison:
    """What two benchmarks have in common, and how the second differs from the first.

    Args:
        one, two: Before and after. Jobs are the same when clip, editor, steering, intervention and seed are.
        metrics: Names or families; by default all that both have.

    Raises:
        ConfigError: A metric that one of them does not have.
    """
    boards = [Scored.of(results) for results in (one, two)]
    done = [{name for name, job in board.jobs.items() if job.state != "absent"} for board in boards]
    common = done[0] & done[1]
    there = [set(results.metrics) for results in (one, two)]
    wanted = [select(results, metrics) for results in (one, two)][0] if metrics else sorted(there[0])
    wanted = [metric for metric in wanted if metric in there[1]]
    arms = sorted({(boards[0].jobs[name].labels["editor"], boards[0].jobs[name].labels["steering"]) for name in common})
    found, unpaired = [], 0
    for metric in wanted:
        everything = [score for board in boards for score in board.scores[metric].values() if not np.isnan(score)]
        scale = float(np.std(everything)) if everything else 0.0
        for editor, steering in arms:
            names = sorted(common & boards[0].chosen([("editor", editor), ("steering", steering)]))
            before, after = (
                {board.jobs[name].case: board.scores[metric].get(name, np.nan) for name in names} for board in boards
            )
            both = [case for case in before if not math.isnan(before[case] + after[case])]
            unpaired += sum(math.isnan(before[case]) != math.isnan(after[case]) for case in before)
            if both:
                change = Change(
                    editor=editor, steering=steering, metric=metric, p=np.nan,
                    before=float(np.mean([before[case] for case in both])),
                    after=float(np.mean([after[case] for case in both])),
                    difference=paired({case: after[case] for case in both}, {case: before[case] for case in both}),
                    size=0.0,
                )  # fmt: skip
                moves = any(before[case] != after[case] for case in both)
                found.append((change, moves, change.difference.mean / scale if scale else 0.0))
    changes = []
    for metric in wanted:
        moved = [(change, size) for change, moves, size in found if moves and change.metric == metric]
        corrected = holm([change.difference.p for change, _ in moved])
        changes += [replace(change, p=p, size=size) for (change, size), p in zip(moved, corrected, strict=True)]
    changes.sort(key=lambda change: (-abs(change.size), change.metric, change.editor, change.steering))
    return Comparison(
        configuration=tuple(differences(one.config, two.config)), changes=tuple(changes),
        same=len(found) - len(changes), common=len(common),
        only=(tuple(sorted(done[0] - common)), tuple(sorted(done[1] - common))),
        metrics_only=(tuple(sorted(there[0] - there[1])), tuple(sorted(there[1] - there[0]))), unpaired=unpaired,
    )  # fmt: skip


def markdown(done: Comparison, names: tuple[str, str], most: int | None = None) -> str:
    """The comparison for people.

    Args:
        done: What was compared.
        names: Of the two, as they are called in the text.
        most: How many changes are listed; None for all.
    """
    lines = [f"### {names[0]} → {names[1]}", "", f"{done.common} jobs are in both."]
    for name, jobs, metrics in zip(names, done.only, done.metrics_only, strict=True):
        if jobs:
            more = f", and {len(jobs) - 3} more" if len(jobs) > 3 else ""
            lines.append(f"{len(jobs)} jobs are only in {name}: {', '.join(jobs[:3])}{more}.")
        if metrics:
            lines.append(f"Only in {name}: {', '.join(metrics)}.")
    if done.unpaired:
        lines.append(f"{done.unpaired} numbers of common jobs are only in one of the two, and not compared.")
    lines += ["", "Configuration: " + ("; ".join(done.configuration) + "." if done.configuration else "the same."), ""]
    shown = done.changes[:most]
    if shown:
        heads = ("editor", "steering", "metric", "before", "after", "change", "size", "p", "jobs")
        lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        lines += ["| " + " | ".join(_cells(change)) + " |" for change in shown]
        lines.append("")
        sure = sum(bool(change.mark) for change in done.changes)
        lines += [
            f"- {len(done.changes)} comparisons differ, {sure} of them beyond chance; {done.same} are the same."
            + (f" The {len(shown)} largest are shown." if len(shown) < len(done.changes) else ""),
            "- Change: mean over the same jobs, 95 % interval over clips. Size: in standard deviations of the metric.",
            f"- p by paired bootstrap over clips, after Holm's correction over a metric; {MARKS['better']} better, "
            f"{MARKS['worse']} worse, {MARKS['differs']} different: p < {SIGNIFICANT:g}.",
        ]
    else:
        lines.append(f"All {done.same} comparisons are the same." if done.same else "There is nothing to compare.")
    return "\n".join([*lines, ""])


def _cells(change: Change) -> list[str]:
    told = change.difference
    digits = _digits(told.high - told.low if told.high > told.low else told.mean)
    interval = "" if math.isnan(told.low) else f" [{told.low:+.{digits}f}, {told.high:+.{digits}f}]"
    p = "–" if math.isnan(change.p) else "< 0.001" if change.p < 0.001 else f"{change.p:.3f}"
    return [
        change.editor, change.steering, f"{change.metric} {ARROWS[about(change.metric).better]}".strip(),
        f"{change.before:.{digits}f}", f"{change.after:.{digits}f}", f"{told.mean:+.{digits}f}{interval}",
        f"{change.size:+.2f}", f"{p} {MARKS[change.mark]}".strip(), str(told.pairs),
    ]  # fmt: skip


def _digits(width: float) -> int:
    """Decimals that show about two digits of something so wide."""
    return min(max(math.ceil(1 - math.log10(abs(width))), 0), 6) if width else 2
