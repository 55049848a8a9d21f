"""The paper's tables: what each editor reached under each steering, how sure that is, and what it cost.

A table is a grid of cells. A cell is the jobs that share its labels, one metric of them: the mean, its interval over
clips, the deviation over seeds, and whether it differs from the same under the baseline's steering. Jobs that failed or
are not done yet, and scores that are not defined, are counted in every cell. `layout` writes tables down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from countervid.benchmark.results import EDIT, REFERENCES, Results, about
from countervid.benchmark.scored import FIELDS, NO_STEERING, Scored
from countervid.benchmark.statistics import (
    NOTHING,
    Difference,
    Estimate,
    balanced,
    bootstrap,
    deviation_over_seeds,
    holm,
    paired,
)
from countervid.errors import ConfigError

MAIN = (
    "effectiveness.target", "effectiveness.changed", "effectiveness.kept", "truth.skill", "truth.edited_error",
    "clip.consistency", "identity.tl_id", "motion.jump", "cost.edits", "cost.calls", "cost.evaluations", "cost.seconds",
)  # fmt: skip
CEILING = "oracle"
SIGNIFICANT = 0.05

Labels = tuple[tuple[str, str], ...]  # (field, value), in the order of the table's fields


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One metric of the jobs that share some labels."""

    labels: Labels
    metric: str
    estimate: Estimate
    deviation: float  # over seeds; NaN with one
    difference: Difference | None  # from the baseline, where this is not the baseline
    p: float  # of the difference, after Holm's correction
    defined: int  # jobs with a number
    jobs: int  # that there should be
    ceiling: float = float("nan")  # the same of the oracle
    best: bool = False  # of the column

    @property
    def mark(self) -> str:
        """`better` or `worse` than the baseline, or `differs`; empty where it may be chance."""
        if self.difference is None or not self.p < SIGNIFICANT:
            return ""
        before = self.estimate.mean - self.difference.mean
        gain = goodness(self.metric, self.estimate.mean) - goodness(self.metric, before)
        return "differs" if np.isnan(gain) or gain == 0 else "better" if gain > 0 else "worse"


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of a table."""

    labels: tuple[str, ...]
    cells: tuple[Cell | None, ...]
    jobs: int
    failed: int
    absent: int


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows by columns, and what must be said below them."""

    name: str
    title: str
    fields: tuple[str, ...]
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    baseline: str


def paper(results: Results, *, baseline: str = NO_STEERING) -> list[Table]:
    """All tables that these results give: main, accuracy by attribute, plain and balanced, directions, stops, costs."""
    scored, there = Scored.of(results), set(results.metrics)

    def made(name: str, title: str, metrics: Sequence[str], rows: Sequence[str], columns: str) -> list[Table]:
        wanted = [metric for metric in metrics if metric in there]
        edits = name in ("stops", "costs")
        return [table(scored, name, title, wanted, rows, columns, baseline, edits)] if wanted else []

    changed = sorted(
        {job.labels["variable"] for job in scored.jobs.values()}, key=lambda v: scored.order("variable", v)
    )
    arms = ("editor", "steering")
    answers = [f"effectiveness.{variable}" for variable in changed]
    costs = [name for name in there if name.startswith("cost.") and any(scored.scores[name].values())]
    return [
        *made("main", "What each editor reaches", MAIN, arms, "metric"),
        *made("accuracy", "Attribute asked (rows) by attribute intervened on (columns)", answers,
              (*arms, "metric"), "variable"),
        *balance(scored, [name for name in answers if name in there]),
        *made("direction", "Intervened attribute read as asked, by direction (who the person was)",
              ["effectiveness.target"], ("direction", "editor"), "steering"),
        *made("direction-skill", "Skill, by direction (who the person was)", ["truth.skill"],
              ("direction", "editor"), "steering"),
        *made("stops", "What the critic was content with, and wrongly so",
              ["steering.satisfied", "steering.false_stop"], arms, "metric"),
        *made("costs", "Costs of a job", sorted(costs), arms, "metric"),
    ]  # fmt: skip


def tables(
    results: Results,
    metrics: Sequence[str] = (),
    rows: Sequence[str] = ("editor", "steering"),
    columns: str = "metric",
    *,
    baseline: str = NO_STEERING,
) -> list[Table]:
    """Tables of one's own; one a metric where metrics are neither rows nor columns.

    Args:
        results: Of a benchmark.
        metrics: Names, or families of names (`cost`); by default those of the main table.
        rows: Which of `FIELDS` make a row.
        columns: Which of them makes a column.
        baseline: The steering that others are compared with.

    Raises:
        ConfigError: A metric, a field or a steering that there is not.
    """
    for name in (*rows, columns):
        if name not in FIELDS:
            raise ConfigError(f"`{name}` is not something to make rows or columns of. Use: {', '.join(FIELDS)}.")
    if columns in rows or len(set(rows)) < len(rows):
        raise ConfigError("The same thing cannot be rows twice, nor rows and columns. Name each once.")
    scored = Scored.of(results)
    steerings = {job.labels["steering"] for job in scored.jobs.values()}
    if baseline not in steerings:
        raise ConfigError(f"No job was steered by `{baseline}`. There are: {', '.join(sorted(steerings))}.")
    chosen = select(results, metrics or [name for name in MAIN if name in results.metrics] or results.metrics)
    if "metric" in (*rows, columns):
        return [table(scored, "table", ", ".join(rows) + " by " + columns, chosen, rows, columns, baseline)]
    return [table(scored, metric, about(metric).title, [metric], rows, columns, baseline) for metric in chosen]


def select(results: Results, names: Sequence[str]) -> list[str]:
    """The metrics of that name, or of a family of that name, in the order asked for.

    Raises:
        ConfigError: There is none.
    """
    found: list[str] = []
    for name in names:
        matching = [metric for metric in results.metrics if metric == name or metric.startswith(f"{name}.")]
        if not matching:
            families = sorted({metric.partition(".")[0] for metric in results.metrics})
            raise ConfigError(f"These results have no metric `{name}`. There are: {', '.join(families)}.")
        found += [metric for metric in matching if metric not in found]
    return found


def table(
    scored: Scored, name: str, title: str, metrics: Sequence[str], rows: Sequence[str], columns: str, baseline: str,
    edits: bool = False,
) -> Table:  # fmt: skip
    """One table of these metrics; `metric` is among the rows or the columns, or there is one metric.

    With `edits`, references are left out: nothing steers them, and they cost nothing. They are never pooled with edits.
    """
    scored = scored.edits if edits or "editor" not in (*rows, columns) else scored
    heads = _values(scored, metrics, (columns,))
    ceilings = "metric" in rows and all(metric.startswith("effectiveness.") for metric in metrics)
    lines = []
    for labels in _values(scored, metrics, rows):
        names = scored.chosen(labels)
        states = [scored.jobs[job].state for job in names]
        if set(states) <= {"absent"}:
            continue
        cells = []
        for head in heads:
            both = dict((*labels, *head))
            cells.append(_cell(scored, tuple(both.items()), both.get("metric", metrics[0]), baseline, ceilings))
        shown = tuple(value for _, value in labels)
        lines.append(
            Line(
                labels=shown, cells=tuple(cells), jobs=len(names),
                failed=states.count("failed"), absent=states.count("absent"),
            )
        )  # fmt: skip
    lines = _corrected(lines)
    lines = _best(lines) if columns == "metric" else lines
    whole = Table(
        name=name, title=title, fields=tuple(rows), columns=tuple(head[0][1] for head in heads),
        lines=tuple(lines), notes=(), baseline=baseline,
    )  # fmt: skip
    return replace(whole, notes=tuple(_notes(scored, whole)))


def balance(scored: Scored, metrics: Sequence[str]) -> list[Table]:
    """Balanced accuracy of each attribute over all interventions; no table where no attribute was read.

    The classes are the values that were wanted: the intervention's, and of other attributes those that the person had.
    """
    if not metrics:
        return []
    arms = ("editor", "steering")
    lines = []
    for labels in _values(scored, metrics, arms):
        names = scored.chosen(labels)
        cells = []
        for metric in metrics:
            variable, answers = metric.partition(".")[2], dict[str, list[tuple[str, float]]]()
            for name in names:
                job, score = scored.jobs[name], scored.scores[metric].get(name, np.nan)
                wanted = job.labels["value"] if job.labels["variable"] == variable else job.factual.get(variable, "")
                answers.setdefault(job.labels["clip"], []).append((wanted, score))
            answers = {clip: sorted(found) for clip, found in answers.items()}
            defined = sum(not np.isnan(score) for found in answers.values() for _, score in found)
            cells.append(
                Cell(
                    labels=(*labels, ("metric", metric)), metric=metric, estimate=balanced(answers),
                    deviation=np.nan, difference=None, p=np.nan, defined=defined, jobs=len(names),
                )
            )  # fmt: skip
        states = [scored.jobs[job].state for job in names]
        shown = tuple(value for _, value in labels)
        counts = {"jobs": len(names), "failed": states.count("failed"), "absent": states.count("absent")}
        lines.append(Line(labels=shown, cells=tuple(cells), **counts))
    whole = Table(
        name="balanced", title="Balanced accuracy: each value of an attribute counts the same", fields=arms,
        columns=tuple(metrics), lines=tuple(_best(lines)), notes=(), baseline="",
    )  # fmt: skip
    told = "An editor that always shows the same value reaches 0.50."
    return [replace(whole, notes=(*_notes(scored, whole), told))]


def _cell(scored: Scored, labels: Labels, metric: str, baseline: str, ceilings: bool) -> Cell | None:
    names = scored.chosen(labels)
    if not names:
        return None
    known = scored.known(metric, labels)
    if not known and dict(labels).get("editor") in REFERENCES and metric.startswith(("cost.", "steering.")):
        return None  # nothing steers a reference, and it costs nothing: there is no number to miss
    by_clip: dict[str, list[float]] = {}
    for case in sorted(known):
        by_clip.setdefault(case[0], []).append(known[case])
    told = dict(labels)
    difference = None
    if told.get("steering", baseline) != baseline:
        difference = paired(known, scored.known(metric, {**told, "steering": baseline}.items()))
        difference = difference if difference.pairs else None
    ceiling = np.nan
    if ceilings and told.get("editor", CEILING) not in REFERENCES:
        best = scored.known(metric, {**told, "editor": CEILING, "steering": NO_STEERING}.items())
        ceiling = float(np.mean([best[case] for case in sorted(best)])) if best else np.nan
    return Cell(
        labels=labels, metric=metric, estimate=bootstrap(by_clip) if by_clip else NOTHING,
        deviation=deviation_over_seeds(known), difference=difference, p=np.nan,
        defined=len(known), jobs=len(names), ceiling=ceiling,
    )  # fmt: skip


def _corrected(lines: list[Line]) -> list[Line]:
    """Holm's correction over editors (all else that rows name, too): within each column, metric and steering."""
    families: dict[tuple[int, str, str], list[tuple[int, float]]] = {}
    for row, line in enumerate(lines):
        for column, cell in enumerate(line.cells):
            if cell is not None and cell.difference is not None:
                family = (column, cell.metric, dict(cell.labels)["steering"])
                families.setdefault(family, []).append((row, cell.difference.p))
    cells = [list(line.cells) for line in lines]
    for (column, *_), found in families.items():
        for (row, _), p in zip(found, holm([p for _, p in found]), strict=True):
            cell = cells[row][column]
            assert cell is not None
            cells[row][column] = replace(cell, p=p)
    return [replace(line, cells=tuple(new)) for line, new in zip(lines, cells, strict=True)]


def _best(lines: list[Line]) -> list[Line]:
    """Mark the best edit of each column and metric, where editors differ at all; of costs the least is no merit."""
    families: dict[tuple[int, str], dict[int, float]] = {}
    for row, line in enumerate(lines):
        for column, cell in enumerate(line.cells):
            if cell is None or cell.metric.startswith(("cost.", "steering.")):
                continue
            value = goodness(cell.metric, cell.estimate.mean)
            if dict(cell.labels).get("editor") not in REFERENCES and not np.isnan(value):
                families.setdefault((column, cell.metric), {})[row] = value
    cells = [list(line.cells) for line in lines]
    for (column, _), found in families.items():
        if min(found.values()) < max(found.values()):
            for row in (row for row, value in found.items() if value == max(found.values())):
                cell = cells[row][column]
                assert cell is not None
                cells[row][column] = replace(cell, best=True)
    return [replace(line, cells=tuple(new)) for line, new in zip(lines, cells, strict=True)]


def _notes(scored: Scored, made: Table) -> list[str]:
    cells = [cell for line in made.lines for cell in line.cells if cell is not None]
    clips = len({job.labels["clip"] for job in scored.jobs.values()})
    seeds = len({job.labels["seed"] for job in scored.jobs.values() if job.kind == EDIT})
    notes = [f"Mean and 95 % interval over {clips} clips" if clips > 1 else "Mean over one clip: no interval"]
    notes[0] += f"; ± standard deviation over {seeds} seeds." if seeds > 1 and made.baseline else "."
    compared = [cell for cell in cells if cell.difference is not None]
    if compared:
        notes.append(
            f"Marked where it differs from steering `{made.baseline}` of the same: p < {SIGNIFICANT:g} over the same "
            "jobs, by paired bootstrap over clips, after Holm's correction over the rows of that steering."
        )
    if any(not np.isnan(cell.ceiling) for cell in cells):
        notes.append(
            "After the bar: the ceiling, which is the same of the oracle: the truth, drawn by the autoencoder."
        )
    short = [cell for cell in cells if cell.defined < cell.jobs]
    if short:
        lost = sum(cell.jobs - cell.defined for cell in short)
        notes.append(f"(n/m): a number in n of m jobs. {lost} are not there, in {len(short)} of {len(cells)} cells.")
    metric = made.fields.index("metric") if "metric" in made.fields else len(made.fields)
    alike = {line.labels[:metric] + line.labels[metric + 1 :]: line for line in made.lines}  # a line a job's own labels
    jobs, failed, absent = (
        sum(getattr(line, name) for line in alike.values()) for name in ("jobs", "failed", "absent")
    )  # fmt: skip
    if failed or absent:
        notes.append(f"Of {jobs} jobs, {failed} failed and {absent} are not done yet.")
    return notes


@cache
def _better(metric: str) -> str:
    return about(metric).better


def goodness(metric: str, score: float) -> float:
    """How good a score is, larger being better; NaN where the metric does not judge."""
    better = _better(metric)
    return {"higher": score, "lower": -score, "one": -abs(score - 1), "zero": -abs(score)}.get(better, np.nan)


def _values(scored: Scored, metrics: Sequence[str], fields: Sequence[str]) -> list[Labels]:
    """The combinations of these fields that there are, in order."""
    rest = [name for name in fields if name != "metric"]
    found = {tuple((name, job.labels[name]) for name in rest) for job in scored.jobs.values()}
    if "metric" in fields:
        at = list(fields).index("metric")
        found = {(*some[:at], ("metric", metric), *some[at:]) for some in found for metric in metrics}

    def place(labels: Labels) -> list[Any]:
        return [metrics.index(value) if name == "metric" else scored.order(name, value) for name, value in labels]

    return sorted(found, key=place)
