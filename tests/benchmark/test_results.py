"""Results in Parquet: what is written is read, always the same bytes, and damage is said."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from countervid.benchmark import results
from countervid.benchmark.results import COSTS, Row, about, read, write, write_rows
from countervid.errors import ConfigError, OutputError
from countervid.metrics.base import catalogue


def row(metric: str, score: float | None, editor: str = "dva") -> Row:
    return Row(
        f"one/{editor}/none/age=old/0", "one", editor, "none", "age", "old", "age=old", 0, "edit",
        results.attributes_text({"gender": "man", "age": "young"}), metric, score,
    )  # fmt: skip


ROWS = [row("psnr", 20.5), row("truth.skill", math.nan), row("failed", 0.0), row("psnr", 1.0, "flatten")]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path, {"frames": 4}, ROWS, {"device": "cpu"})
    found = read(tmp_path)
    assert found.config == {"frames": 4} and found.record == {"device": "cpu"}
    assert found.metrics == ["failed", "psnr", "truth.skill"]
    assert [r.score for r in found.scores("psnr", editor="dva")] == [20.5]
    assert found.scores("truth.skill")[0].score is None  # not a number
    assert found.rows[0].factual == '{"age": "young", "gender": "man"}'


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    one = write_rows(tmp_path, ROWS).read_bytes()
    assert write_rows(tmp_path, ROWS[::-1]).read_bytes() == one


def test_other_tools_read_the_table(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(write_rows(tmp_path, ROWS))
    assert table.column_names == list(Row._fields)
    assert str(table.schema.field("seed").type) == "int32" and str(table.schema.field("score").type) == "double"


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no benchmark"):
        read(tmp_path)
    write(tmp_path, {}, ROWS)
    table = tmp_path / "results.parquet"
    table.write_bytes(table.read_bytes()[:200])
    with pytest.raises(OutputError, match="damaged"):
        read(tmp_path)
    write_rows(tmp_path, [])
    with pytest.raises(OutputError, match="empty"):
        read(tmp_path)
    table.unlink()
    with pytest.raises(OutputError, match="without results"):
        read(tmp_path)
    (tmp_path / "benchmark.json").write_text("{")
    with pytest.raises(OutputError, match="damaged"):
        read(tmp_path)


def test_every_number_can_be_explained() -> None:
    for name in (*COSTS, *catalogue()):
        assert about(name).title and about(name).formula
    with pytest.raises(ConfigError, match="beauty"):
        about("beauty")
