"""The results of a benchmark: one row a job and metric, in Parquet, written whole and read back as plain rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from countervid.errors import ConfigError, MissingExtraError, OutputError
from countervid.files.names import safe_name
from countervid.files.whole import write_whole
from countervid.metrics.base import About, catalogue

RECORD, TABLE = "benchmark.json", "results.parquet"
EDIT, REFERENCE = "edit", "reference"  # kinds of jobs
REFERENCES = ("nothing", "copy-target", "oracle")  # what editors are held against
FAILED = "failed"  # the only row of a job that failed is 1 of this


class Row(NamedTuple):
    """One number of one job."""

    job: str  # clip/editor/steering/intervention/seed
    clip: str
    editor: str
    steering: str
    variable: str
    value: str
    intervention: str  # "age=old"
    seed: int
    kind: str  # "edit" or "reference"
    factual: str  # JSON of the person's attributes, keys sorted
    metric: str
    score: float | None  # None where it is not defined


def _cost(title: str, unit: str, formula: str, source: str = "countervid benchmark") -> About:
    return About(title=title, better="lower", low=0.0, unit=unit, formula=formula, source=source)


COSTS: dict[str, About] = {
    "cost.seconds": _cost("Seconds", "s", "wall-clock time of steering and drawing, without preparing and measuring"),
    "cost.prepare_seconds": _cost("Seconds to prepare", "s", "wall-clock time of what an editor does once a clip"),
    "cost.memory_mb": _cost("Memory", "MB", "peak of the GPU's memory in this job; without one, of the process so far"),
    "cost.evaluations": _cost("Evaluations", "", "evaluations of the editor's network, frames and streams counted"),
    "cost.prepare_evaluations": _cost("Evaluations to prepare", "", "the same, of what is done once a clip"),
    "cost.edits": _cost("Edits", "", "rounds of steering, the first among them"),
    "cost.calls": _cost("Critic's calls", "", "how often the critic was asked"),
    "cost.critic_dollars": _cost("Dollars", "$", "what critic and writer cost"),
    "steering.satisfied": About(
        title="Satisfied", better="higher", low=0.0, high=1.0, source="countervid benchmark",
        formula="1 where the critic sees all that must change, and nothing else moved, in the edit that is returned",
    ),
    "steering.false_stop": About(
        title="False stop", better="lower", low=0.0, high=1.0, source="countervid benchmark",
        formula="of satisfied jobs: 1 where the examiner does not see all that must change",
    ),
    FAILED: About(
        title="Failed", better="lower", low=0.0, high=1.0, source="countervid benchmark",
        formula="1 where the job could not be done; such a job has no other number",
    ),
}  # fmt: skip


def about(metric: str) -> About:
    """What a metric means, of measured names and of costs alike.

    Raises:
        ConfigError: Nothing is called so.
    """
    found = COSTS.get(metric) or catalogue().get(metric) or _judged(metric)
    if found is None:
        raise ConfigError(f"There is no metric `{metric}`. There are: {', '.join([*COSTS, *catalogue()])}.")
    return found


def _judged(metric: str) -> About | None:
    """What `judge.VARIABLE` and `judge.published.VARIABLE` mean."""
    family, _, rest = metric.partition(".")
    if family != "judge" or not rest:
        return None
    key, _, variable = rest.rpartition(".")
    return About(
        title=f"{variable.replace('_', ' ')}, by the judge{', published key' if key else ''}", better="higher",
        low=0.0, high=1.0, formula=f"[answer to the question about {variable} = key]: 1 right, 0 wrong",
        source="CSVC (arXiv:2506.14404), effectiveness", weights="the judge's",
    )  # fmt: skip


@dataclass(frozen=True)
class Results:
    """All rows of a benchmark, sorted by job and metric.

    Attributes:
        config: What the results depend on.
        rows: One a job and metric.
        record: The rest of `benchmark.json`: versions, weights, what was left out and why.
    """

    config: dict[str, Any]
    rows: list[Row]
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """The metrics that there are rows of, sorted."""
        return sorted({row.metric for row in self.rows})

    def scores(self, metric: str, **where: object) -> list[Row]:
        """The rows of a metric whose columns have these values: `scores("psnr", editor="dva", seed=0)`."""
        return [
            row for row in self.rows
            if row.metric == metric and all(getattr(row, name) == value for name, value in where.items())
        ]  # fmt: skip


def attributes_text(factual: Mapping[str, str]) -> str:
    """The column `factual`."""
    return json.dumps(dict(factual), sort_keys=True, ensure_ascii=False)


def write(out: Path, config: Mapping[str, Any], rows: Iterable[Row], record: Mapping[str, Any] | None = None) -> Path:
    """Write `benchmark.json` and `results.parquet` into a folder, each whole or not at all.

    Args:
        out: The folder, made when missing.
        config: What the results depend on, as JSON values.
        rows: In any order; NaN and infinities are kept as "not defined".
        record: What else `benchmark.json` says.
    """
    write_whole(out / RECORD, json.dumps({"config": config, **(record or {})}, indent=2, ensure_ascii=False) + "\n")
    return write_rows(out, rows)


def write_rows(out: Path, rows: Iterable[Row]) -> Path:
    """Write `results.parquet` alone; the same rows give the same bytes, in whatever order they come."""
    pyarrow, parquet = arrow()
    plain = sorted((row._replace(score=defined(row.score)) for row in rows), key=lambda row: row[:-1])
    kinds = {"seed": pyarrow.int32(), "score": pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in Row._fields])
    columns = list(zip(*plain, strict=True)) or [()] * len(Row._fields)
    table = pyarrow.Table.from_arrays(
        [pyarrow.array(column, kind.type) for column, kind in zip(columns, schema, strict=True)], schema=schema
    )
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    write_whole(out / TABLE, sink.getvalue().to_pybytes())
    return out / TABLE


def defined(score: float | None) -> float | None:
    """The score, or None where it is no finite number."""
    return score if score is not None and math.isfinite(score) else None


def read(out: Path) -> Results:
    """The results in a benchmark's folder.

    Raises:
        OutputError: There are none, they are damaged, or they are empty.
        MissingExtraError: pyarrow is not installed.
    """
    record = read_record(out)
    if record is None:
        raise OutputError(f"`{out}` holds no benchmark. Make one: `countervid benchmark run --out {out}`.")
    path = out / TABLE
    if not path.is_file():
        raise OutputError(f"`{out}` holds a benchmark without results. The command that began it goes on with it.")
    pyarrow, parquet = arrow()
    try:
        table = parquet.read_table(path).select(list(Row._fields)).to_pydict()
        rows = [Row(*values) for values in zip(*table.values(), strict=True)]
        for job in {row.job for row in rows}:  # where its folder is
            for part in str(job).split("/"):
                safe_name(part, "job", path)
    except (pyarrow.ArrowException, KeyError, OSError) as error:
        raise OutputError(
            f"`{path}` is damaged ({str(error).splitlines()[0][:80]}). Remove it: the command that began the benchmark "
            "makes it again from the jobs."
        ) from None
    if not rows:
        raise OutputError(f"`{path}` is empty: no job is done yet. The command that began the benchmark goes on.")
    return Results(record.pop("config"), rows, record)


def read_record(out: Path) -> dict[str, Any] | None:
    """What `benchmark.json` says, or None where there is none.

    Raises:
        OutputError: It is damaged.
    """
    path = out / RECORD
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record["config"], dict):
            raise ValueError("no configuration")
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(
            f"`{path}` is damaged ({error}). Remove it, and run the command that began the benchmark again: "
            "finished jobs are kept."
        ) from None
    return dict(record)


def arrow() -> tuple[Any, Any]:
    """The modules `pyarrow` and `pyarrow.parquet`.

    Raises:
        MissingExtraError: They are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError(
            'Results are kept in Parquet, which needs an extra: `pip install "countervid[benchmark]"`.'
        ) from None
    return pyarrow, pyarrow.parquet
