"""The results as jobs and their scores, with the jobs that should be there and are not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from countervid.benchmark.results import EDIT, FAILED, REFERENCES, Results, Row

FIELDS = ("editor", "steering", "metric", "intervention", "variable", "value", "direction", "clip", "seed")
NO_STEERING = "none"
Case = tuple[str, ...]  # what a job has in common with the same under another steering; the clip first, the seed last


class ScoredJob(NamedTuple):
    """One job of the grid."""

    labels: dict[str, str]  # each of `FIELDS` but the metric
    factual: dict[str, str]
    kind: str
    state: str  # done, failed, absent

    @property
    def case(self) -> Case:
        """What it shares with the same job under another steering."""
        return tuple(self.labels[name] for name in ("clip", "editor", "variable", "value", "seed"))


@dataclass(frozen=True)
class Scored:
    """The results as jobs and scores, with the jobs that should be there and are not."""

    jobs: dict[str, ScoredJob]
    scores: dict[str, dict[str, float]]  # metric -> job -> score, NaN where it is not defined
    order: Callable[[str, str], Any] = field(repr=False)  # (field, value) -> how it sorts
    alike: dict[tuple[str, str], frozenset[str]] = field(repr=False)  # (field, value) -> jobs

    @classmethod
    def of(cls, results: Results) -> Scored:
        """Index results; fill in what is absent.

        Every clip, intervention and seed that was tried by any editor should be there of each editor under each of its
        steerings. References need no seeds but their own.
        """
        jobs: dict[str, ScoredJob] = {}
        scores: dict[str, dict[str, float]] = {}
        for row in results.rows:
            if row.job not in jobs:
                jobs[row.job] = _job(row)
            if row.metric == FAILED and row.score:
                jobs[row.job] = jobs[row.job]._replace(state="failed")
            scores.setdefault(row.metric, {})[row.job] = np.nan if row.score is None else row.score
        arms = {(job.labels["editor"], job.labels["steering"], job.kind) for job in jobs.values()}
        there = {(job.labels["steering"], *job.case) for job in jobs.values()}
        for editor, steering, kind in sorted(arms):
            alike = [job for job in jobs.values() if job.kind == kind]
            own = {job.labels["seed"] for job in alike if job.labels["editor"] == editor}
            for job in alike:
                missing = job._replace(labels={**job.labels, "editor": editor, "steering": steering}, state="absent")
                case = (steering, *missing.case)
                if case not in there and (kind == EDIT or job.labels["seed"] in own):
                    there.add(case)
                    jobs["absent: " + "/".join(case)] = missing
        return cls(jobs, scores, _ordering(results.config), _alike(jobs))

    @property
    def edits(self) -> Scored:
        """The same without the references."""
        jobs = {name: job for name, job in self.jobs.items() if job.kind == EDIT}
        return replace(self, jobs=jobs, alike=_alike(jobs))

    def chosen(self, labels: Iterable[tuple[str, str]]) -> frozenset[str]:
        """The names of the jobs with these labels."""
        wanted = [self.alike.get(label, frozenset()) for label in labels if label[0] != "metric"]
        return frozenset.intersection(*wanted) if wanted else frozenset(self.jobs)

    def known(self, metric: str, labels: Iterable[tuple[str, str]]) -> dict[Case, float]:
        """Case -> score, where it is defined."""
        scores = self.scores.get(metric, {})
        found = ((self.jobs[name].case, scores.get(name, np.nan)) for name in self.chosen(labels))
        return {case: score for case, score in found if not np.isnan(score)}


def _alike(jobs: dict[str, ScoredJob]) -> dict[tuple[str, str], frozenset[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for name, job in jobs.items():
        for label in job.labels.items():
            found.setdefault(label, set()).add(name)
    return {label: frozenset(names) for label, names in found.items()}


def _ordering(config: dict[str, Any]) -> Callable[[str, str], Any]:
    """Editors and steerings as the configuration lists them, references last, the rest by name."""
    listed = {"editor": list(config.get("editors") or ()), "steering": list(config.get("steering") or ())}

    def place(name: str, value: str) -> Any:
        if name == "steering" and value == NO_STEERING:
            return (0, 0, value)
        if name == "editor" and value in REFERENCES:
            return (3, REFERENCES.index(value), value)
        if name == "seed":
            return (2, int(value), value)
        known = listed.get(name, [])
        return (1, known.index(value), value) if value in known else (2, 0, value)

    return place


def _job(row: Row) -> ScoredJob:
    factual = json.loads(row.factual) if row.factual else {}
    gender = factual.get("gender")
    labels = {name: str(getattr(row, name)) for name in FIELDS if name not in ("metric", "direction")}
    labels["direction"] = f"{row.intervention}, {gender}" if gender else row.intervention
    return ScoredJob(labels, factual, row.kind, "done")
