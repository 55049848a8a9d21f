"""A benchmark from configuration to results: what is there already, what is left, who does it, and what came of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from countervid.benchmark.clips import Shelf
from countervid.benchmark.engine import Local, Seen, Work, in_process, spread
from countervid.benchmark.grading import load_judge
from countervid.benchmark.grid import EXAMINER, BenchmarkConfig, Grid, Job, chat_of, make_grid, weights_of
from countervid.benchmark.job import DONE, FAILED, RUNNING, error_of, full, scores_of, standing
from countervid.benchmark.measuring import comes_with, windows_of
from countervid.benchmark.results import COSTS, RECORD, TABLE, Row, arrow, attributes_text, read_record, write_rows
from countervid.benchmark.results import FAILED as FAILED_METRIC
from countervid.critics.base import load_critic
from countervid.errors import ConfigError, CountervidError, OutputError
from countervid.files.locks import LOCK, alone_in
from countervid.files.whole import clear_partials_below
from countervid.metrics.base import Asked, Eyes, catalogue, chosen, measured
from countervid.models.device import choose_device
from countervid.runs.folder import differences, write_json
from countervid.runs.run import versions

ENGINES = ("local", "ray")
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class How:
    """How the jobs are done; nothing here changes a result but for the last digits of some."""

    engine: str = "local"
    address: str | None = None  # of a Ray cluster
    workers: int = 1
    threads: int = 1  # of each worker
    device: str = "auto"
    retries: int = 1
    cache: Path | None = None
    grow: bool = False  # add to a benchmark that was begun: clips, editors, steering, interventions or seeds

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ConfigError(f"There is no engine `{self.engine}`. There are: {', '.join(ENGINES)}.")
        if self.address is not None and self.engine != "ray":
            raise ConfigError("`--address` is of a Ray cluster. Add `--engine ray`.")
        for name, least in (("workers", 1), ("threads", 1), ("retries", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"`{name}` must be at least {least}, got {getattr(self, name)}.")


@dataclass
class Summary:
    """What a call came to."""

    jobs: int
    already: int = 0  # done before
    done: int = 0  # in all
    failed: dict[str, str] = field(default_factory=dict)  # job -> error
    undefined: dict[str, int] = field(default_factory=dict)  # metric -> jobs where it is no number
    damaged: list[str] = field(default_factory=list)  # what was found damaged, and done again
    left_out: list[str] = field(default_factory=list)  # metrics, clips and ways of steering


class Benchmark:
    """A benchmark in its folder.

    Args:
        out: The folder; made when missing.
        config: What the results depend on.
        how: How the jobs are done.

    Raises:
        ConfigError, ClipError: The configuration asks for what there is not.
        OutputError: The folder holds something else, another configuration, or a run that is going on.
    """

    def __init__(self, out: Path, config: BenchmarkConfig, how: How) -> None:
        self.out, self.config, self.how = out.resolve(), config, how
        self.grid = make_grid(config)
        _check_critic(self.grid)
        # A cluster's machines look for themselves whether they have a GPU.
        self.device = how.device if how.engine == "ray" and how.device == "auto" else str(choose_device(how.device))
        self.previous = _previous(self.out, self.grid.record(), how.grow)
        self.standings = {job: standing(self.out, job) for job in self.grid.jobs}

    @property
    def left(self) -> list[Job]:
        """The jobs that are not done."""
        return [job for job, status in self.standings.items() if status != DONE]

    def run(self, seen: Seen | None = None) -> Summary:
        """Do what is left, and write the results, whatever happens meanwhile.

        Args:
            seen: Called after each job.

        Raises:
            CountervidError: No job can go on, such as with a full disk.
        """
        arrow()
        with alone_in(self.out):
            clear_partials_below(self.out)
            self.standings = {job: standing(self.out, job) for job in self.grid.jobs}
            metrics = self._begun_whole()
            damaged = [text for text in self.standings.values() if text not in ("", DONE, FAILED, RUNNING)]
            summary = Summary(len(self.grid.jobs), len(self.grid.jobs) - len(self.left), damaged=damaged)
            try:
                self._do(metrics, seen or (lambda outcome: None))
            finally:
                clear_partials_below(self.out)  # of workers that were ended
                self.standings = {job: standing(self.out, job) for job in self.grid.jobs}
                self._finish(summary)
        return summary

    def _do(self, metrics: tuple[str, ...], seen: Seen) -> None:
        units, how = self.grid.units(self.left), self.how
        if not units:
            return
        work = Work(
            out=self.out, config=self.config, metrics=metrics, device=self.device, retries=how.retries,
            cache=how.cache, threads=how.threads,
        )  # fmt: skip
        if how.engine == "ray":
            from countervid.benchmark.ray import cluster

            with cluster(work, how.workers, how.address) as crew:
                spread(crew, how.workers, units, work, seen)
        elif how.workers == 1:
            in_process(units, work, seen)
        else:
            spread(Local(work), how.workers, units, work, seen)

    def _begun_whole(self) -> tuple[str, ...]:
        """The same as `_begun`; clips of a benchmark that could not be begun go, for another may be of other clips."""
        if self.previous is None:
            shutil.rmtree(self.out / "clips", ignore_errors=True)
        try:
            return self._begun()
        except Exception:
            if self.previous is None:
                shutil.rmtree(self.out / "clips", ignore_errors=True)
            raise

    def _begun(self) -> tuple[str, ...]:
        """Write `benchmark.json`, or take from it what was decided when it was begun."""
        if self.previous is not None:
            names, left_out = self.previous["metrics"], self.previous.get("left_out", {})
            if self.previous["config"] == self.grid.record():
                return tuple(names)
        else:
            names, left_out = measurable(self.grid, self.out, self.config.metrics, self.device)
        record = {
            "config": self.grid.record(), "metrics": names, "left_out": {**left_out, **self.grid.left_out},
            "versions": versions(), "device": self.device,
        }  # fmt: skip
        write_json(self.out / RECORD, record)
        return tuple(names)

    def _finish(self, summary: Summary) -> None:
        rows = list(rows_of(self.out, self.grid, self.standings))
        summary.done = sum(status == DONE for status in self.standings.values())
        summary.failed = {
            job.id: error_of(self.out, job) for job, status in self.standings.items() if status == FAILED
        }  # fmt: skip
        for row in rows:
            if row.score is None and row.metric not in COSTS:
                summary.undefined[row.metric] = summary.undefined.get(row.metric, 0) + 1
        try:
            write_rows(self.out, rows)
            record = read_record(self.out) or {}
            summary.left_out = list(record.get("left_out", {}))
            record["jobs"] = {
                "all": summary.jobs, "done": summary.done, "failed": summary.failed, "undefined": summary.undefined,
                "damaged": summary.damaged,
            }  # fmt: skip
            write_json(self.out / RECORD, record)
        except OSError as error:
            if not full(error):
                raise
            raise OutputError(
                f"The disk is full: `{self.out}` cannot be written. Free some space and run the same command again; "
                "every finished job is kept."
            ) from error
        if summary.done == summary.jobs and self.how.cache is None:
            shutil.rmtree(self.out / "prepared", ignore_errors=True)


def rows_of(out: Path, grid: Grid, standings: dict[Job, str]) -> Iterator[Row]:
    """The rows of all jobs that are done or failed."""
    factual = {subject.name: attributes_text(subject.factual) for subject in grid.subjects}
    for job, status in standings.items():
        scores: dict[str, float | None] = {}
        if status == DONE:
            scores = {**(scores_of(out, job) or {}), FAILED_METRIC: 0.0}
        elif status == FAILED:
            scores = {FAILED_METRIC: 1.0}
        for metric, score in scores.items():
            yield Row(
                job=job.id, clip=job.clip, editor=job.editor, steering=job.steering, variable=job.variable,
                value=job.value, intervention=f"{job.variable}={job.value}", seed=job.seed, kind=job.kind,
                factual=factual[job.clip], metric=metric, score=score,
            )  # fmt: skip


def measurable(grid: Grid, out: Path, asked: Sequence[str], device: str) -> tuple[list[str], dict[str, str]]:
    """The metrics to take, tried on the first clip, and those left out with the reason.

    Args:
        asked: Names or families; nothing, or `all`, means all whose weights are there.

    Raises:
        ConfigError: There is no metric of that name.
        ModelError: The weights of one that was named are missing.
    """
    everything = not asked or ALL in asked
    names = list(catalogue() if everything else chosen(asked))
    families: dict[type, list[str]] = {}
    for name, family in chosen(names).items():
        families.setdefault(family, []).append(name)
    shelf, subject = Shelf(out / "clips"), grid.subjects[0]
    ask = subject.asks[0]
    factual, truth = shelf.footage(subject), shelf.truth(subject, ask)
    told = Asked(
        factual=subject.factual, do={ask.variable: ask.value}, counterfactual=ask.counterfactual, prompt=ask.prompt,
        factual_prompt=subject.prompt, graph=subject.graph,
    )  # fmt: skip
    eyes = Eyes("cpu" if device == "auto" else device, weights_of(grid.config))
    windows, left_out = windows_of(factual, truth or factual, truth, told, eyes), {}
    for members in families.values():
        try:
            measured(members, windows, comes_with(factual, truth))
        except (CountervidError, ValueError, RuntimeError) as error:  # torch's own: what a device cannot do
            if not everything:
                raise
            left_out[", ".join(members)] = " ".join(str(error).split())
            names = [name for name in names if name not in members]
    return names, left_out


def _check_critic(grid: Grid) -> None:
    """Refuse a critic or judge that there is not, or one without answers for a graph. Local models are not loaded."""
    config = grid.config
    if config.judge != EXAMINER and not config.judge.startswith("transformers:"):
        load_judge(config.judge, chat_of(config))
    if not config.critic.startswith("transformers:"):
        critic = load_critic(config.critic, chat_of(config))
        for subject in {subject.graph.name: subject for subject in grid.subjects}.values():
            critic.check(subject.graph)


def _previous(out: Path, config: dict[str, Any], grow: bool) -> dict[str, Any] | None:
    """What was begun in the folder, if it is the same, or a part of it that may grow."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"`{out}` is a file. Choose another `--out`.")
    record = read_record(out)
    if record is None:
        strangers = [path.name for path in out.iterdir() if path.name not in OWN] if out.is_dir() else []
        if strangers:
            raise OutputError(f"`{out}` is not empty and holds no benchmark. Choose another `--out`, or empty it.")
        return None
    differing = differences(record["config"], config)
    if differing and not (grow and _part_of(record["config"], config)):
        more = f", and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise OutputError(
            f"`{out}` holds a benchmark of another configuration: {'; '.join(differing[:3])}{more}. "
            "Choose another `--out`, remove that folder, or add to it with `--grow`: clips, editors, steering, "
            "interventions and seeds may become more."
        )
    if not isinstance(record.get("metrics"), list):
        raise OutputError(f"`{out / RECORD}` is damaged (no metrics). Remove it: finished jobs are kept.")
    return record


def _part_of(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether all jobs of one configuration are jobs of another, and are done in the same way."""
    if any(before.get(name) != after.get(name) for name in {*before, *after} - GROWING):
        return False
    items = all(before[name].items() <= after[name].items() for name in ("clips", "editors"))
    words = set(before["steering"]) <= set(after["steering"])
    asked = before["interventions"] == after["interventions"] or set(before["interventions"]) < set(
        after["interventions"]
    )
    return (
        items and words and asked and before["seeds"] <= after["seeds"] and before["references"] <= after["references"]
    )


GROWING = {"clips", "editors", "steering", "interventions", "seeds", "references", "settings"}
OWN = (LOCK, "clips", "jobs", "costs", "prepared", TABLE)
