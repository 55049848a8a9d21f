"""Tables of planted results: what is better is found, what is lost is counted, the text is the same each time."""

from __future__ import annotations

import csv
import doctest
import io
import math
import re

import pytest
from typer.testing import CliRunner

from benchmark.planted import EDITORS, VARIABLES, configuration, planted
from countervid.benchmark import layout, results
from countervid.benchmark.layout import render
from countervid.benchmark.results import Results, Row
from countervid.benchmark.scored import Scored
from countervid.benchmark.tables import MAIN, paper, tables
from countervid.cli.main import app
from countervid.errors import ConfigError

LOST = {"failed": ["phantom-2000003/flatten/auto/age"], "absent": ["phantom-2000002/tokenflow/auto/beard"]}


@pytest.fixture(scope="module")
def small() -> Results:
    """Two editors, unsteered and steered, 8 clips, 2 seeds; some jobs failed or absent."""
    return planted(editors=EDITORS[:2], steerings=("none", "auto"), seeds=2, **LOST)


@pytest.fixture(scope="module")
def made(small):
    return {table.name: table for table in paper(small)}


def cell(table, labels, column):
    line = next(line for line in table.lines if line.labels == labels)
    return line.cells[table.columns.index(column)]


def test_examples_in_the_docstrings():
    assert doctest.testmod(layout).failed == 0


def test_the_papers_tables_are_there(made):
    assert list(made) == ["main", "accuracy", "balanced", "direction", "direction-skill", "stops", "costs"]
    assert made["main"].columns == tuple(name for name in MAIN if name != "motion.jump")  # it was not measured
    arms = [line.labels for line in made["main"].lines]
    assert arms == [
        ("tokenflow", "none"), ("tokenflow", "auto"), ("flatten", "none"), ("flatten", "auto"),
        ("nothing", "none"), ("copy-target", "none"), ("oracle", "none"),
    ]  # fmt: skip


def test_means_are_those_of_the_rows(small, made):
    found = cell(made["main"], ("flatten", "none"), "truth.skill")
    scores = [row.score for row in small.scores("truth.skill", editor="flatten", steering="none")]
    assert found.estimate.mean == pytest.approx(sum(scores) / len(scores)) and found.defined == len(scores) == 64
    assert found.estimate.low < found.estimate.mean < found.estimate.high
    assert 0 < found.deviation < 0.1


def test_planted_steering_is_marked_and_chance_is_not(made):
    skill = cell(made["main"], ("tokenflow", "auto"), "truth.skill")
    assert skill.mark == "better" and skill.difference.mean == pytest.approx(0.18, abs=0.06) and skill.p < 0.05
    assert cell(made["main"], ("tokenflow", "auto"), "cost.seconds").mark == "worse"
    assert cell(made["main"], ("tokenflow", "none"), "truth.skill").difference is None
    assert cell(made["main"], ("oracle", "none"), "truth.skill").difference is None


def test_steering_without_effect_is_hardly_ever_marked():
    alike = planted(editors=("dva",), steerings=("none", "csvc-paper"), references=False, clips=12)
    for name in ("truth.skill", "psnr", "clip.consistency"):
        (only,) = [line.cells[0] for line in tables(alike, [name])[0].lines if line.labels[1] == "csvc-paper"]
        assert only.difference.pairs == 48
        assert abs(only.difference.mean) < 3 * (only.difference.high - only.difference.low)
    assert only.mark in ("", "worse")


def test_holm_is_over_editors(made):
    marks = [made["main"].lines[row].cells[made["main"].columns.index("truth.skill")] for row in (1, 3)]
    smaller, larger = sorted(marks, key=lambda found: found.difference.p)
    assert smaller.p == pytest.approx(2 * smaller.difference.p)
    assert larger.p == pytest.approx(max(smaller.p, larger.difference.p))


def test_nothing_that_is_lost_hides(small, made):
    lines = {line.labels: line for line in made["main"].lines}
    assert (lines["flatten", "auto"].jobs, lines["flatten", "auto"].failed, lines["flatten", "auto"].absent) == (
        64,
        2,
        0,
    )
    assert (lines["tokenflow", "auto"].failed, lines["tokenflow", "auto"].absent) == (0, 2)
    found = cell(made["main"], ("flatten", "auto"), "truth.skill")
    assert (found.defined, found.jobs) == (62, 64)
    text = render([made["main"]])
    assert "64, 2 failed |" in text and "64, 2 not done |" in text and "(62/64)" in text
    for table in (made["main"], made["accuracy"]):  # whose rows are of an attribute each: a job is counted once
        assert "Of 352 jobs, 2 failed and 2 are not done yet." in render([table])
    assert "64, 2 failed" in render([made["main"]], "latex") and "(62/64)" in render([made["main"]], "latex")


def test_scores_that_are_not_defined_are_counted(made, small):
    stops = cell(made["stops"], ("tokenflow", "none"), "steering.false_stop")
    satisfied = cell(made["stops"], ("tokenflow", "none"), "steering.satisfied")
    assert stops.defined == round(satisfied.estimate.mean * 64) < 64
    rows = [row._replace(score=None) if row.metric == "psnr" else row for row in small.rows]
    (none,) = tables(Results(small.config, rows), ["psnr"])
    assert all(math.isnan(line.cells[0].estimate.mean) and line.cells[0].defined == 0 for line in none.lines)
    assert "| – (0/64) |" in render([none])


def test_references_miss_no_costs(small):
    rows = [row for row in small.rows if row.kind == "edit" or not row.metric.startswith("cost.")]
    (found,) = tables(Results(small.config, rows), ["cost.edits", "psnr"])
    assert [line.cells[0] for line in found.lines[-3:]] == [None] * 3
    assert all(line.cells[1].defined == 32 for line in found.lines[-3:])


def test_one_clip_has_no_interval():
    (found, *_) = paper(planted(editors=("dva",), steerings=("none",), clips=1))
    assert math.isnan(found.lines[0].cells[0].estimate.low)
    assert found.notes[0] == "Mean over one clip: no interval." and "[" not in render([found]).splitlines()[4]


def test_accuracy_by_attribute_has_its_ceiling(made, small):
    accuracy = made["accuracy"]
    assert set(accuracy.columns) == set(VARIABLES)
    found = cell(accuracy, ("flatten", "auto", "effectiveness.age"), "beard")
    scores = [row.score for row in small.scores("effectiveness.age", editor="flatten", steering="auto")
              if row.variable == "beard"]  # fmt: skip
    assert found.estimate.mean == pytest.approx(sum(scores) / len(scores))
    oracle = [row.score for row in small.scores("effectiveness.age", editor="oracle") if row.variable == "beard"]
    assert found.ceiling == pytest.approx(sum(oracle) / len(oracle))
    assert math.isnan(cell(accuracy, ("oracle", "none", "effectiveness.age"), "beard").ceiling)


def test_balanced_accuracy_sees_through_a_constant_answer():
    """An editor that leaves everybody beardless is right of five people in six."""
    start = ("clip", "dva", "none", "age", "old", "age=old", 0, "edit")
    rows = []
    for number in range(6):
        clip, beard = f"clip-{number}", "yes" if number == 5 else "no"
        job = f"{clip}/dva/none/age=old/0"
        rows.append(Row(job, clip, *start[1:], f'{{"beard": "{beard}"}}', "effectiveness.beard", float(beard == "no")))
        rows.append(rows[-1]._replace(metric="effectiveness.age", score=1.0))
    rows += [row._replace(job=row.job.replace("age=old", "beard=yes"), variable="beard", value="yes",
                          intervention="beard=yes", score=0.0) for row in rows[:2]]  # fmt: skip
    made = {table.name: table for table in paper(Results({}, rows))}
    assert cell(made["accuracy"], ("dva", "none", "effectiveness.beard"), "age").estimate.mean == pytest.approx(5 / 6)
    assert cell(made["balanced"], ("dva", "none"), "effectiveness.beard").estimate.mean == 0.5


def test_directions_tell_who_the_person_was(made, small):
    direction = made["direction"]
    found = cell(direction, ("gender=woman, man", "flatten"), "none")
    scores = [row.score for row in small.scores("effectiveness.target", editor="flatten", steering="none")
              if row.intervention == "gender=woman"]  # fmt: skip
    assert found.estimate.mean == sum(scores) / len(scores) and found.jobs == len(scores) == 8
    assert all(line.labels[0] != "gender=woman, woman" for line in direction.lines)


def test_the_best_edit_is_bold_and_references_are_not(made):
    skills = {line.labels: line.cells[made["main"].columns.index("truth.skill")] for line in made["main"].lines}
    assert [labels for labels, found in skills.items() if found.best] == [("flatten", "auto")]
    assert "**" in render([made["main"]]) and r"\mathbf{" in render([made["main"]], "latex")


@pytest.mark.parametrize("kind", layout.FORMATS)
def test_the_same_rows_give_the_same_bytes(small, kind, tmp_path):
    """In whatever order they were written, and through the file."""
    results.write(tmp_path, small.config, reversed(small.rows))
    assert render(paper(results.read(tmp_path)), kind) == render(paper(small), kind)


def test_markdown_is_a_grid(made):
    for table in made.values():
        rows = [line for line in render([table]).splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) == 1 and len(rows) == len(table.lines) + 2


def test_latex_is_well_formed(made):
    """Braces and environments close, every row has the columns that the head declares, nothing special is bare."""
    for table in made.values():
        text = render([table], "latex")
        bare = re.sub(r"\\[{}%_&$#]", "", text)
        depth = 0
        for letter in bare:
            depth += {"{": 1, "}": -1}.get(letter, 0)
            assert depth >= 0
        assert depth == 0
        opened = re.findall(r"\\(begin|end)\{(\w+\*?)\}", text)
        one = [("begin", "table*"), ("begin", "tabular"), ("end", "tabular"), ("end", "table*")]
        assert opened == one * (len(opened) // 4) and len(opened) // 4 >= len(table.lines) / layout.PAGE
        assert len(set(re.findall(r"\\label\{(.*?)\}", text))) == len(opened) // 4
        declared = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
        rows = [line for line in bare.splitlines() if line.endswith(r"\\")]
        assert rows and {row.count("&") + 1 for row in rows} == {len(declared[1])}
        assert bare.count("$") % 2 == 0 and text.isascii()
        outside = re.sub(r"\$[^$]*\$|\\label\{[^}]*\}", "", bare)
        assert not re.search(r"[_^#]", outside)
        assert all("resizebox" in line and line.endswith("%") for line in bare.splitlines() if "%" in line)


def test_csv_has_every_number(made):
    rows = list(csv.DictReader(io.StringIO(render(list(made.values()), "csv"))))
    assert len(rows) == sum(
        found is not None for table in made.values() for line in table.lines for found in line.cells
    )
    (row,) = [row for row in rows if row["table"] == "main" and row["metric"] == "truth.skill"
              and (row["editor"], row["steering"]) == ("tokenflow", "auto")]  # fmt: skip
    found = cell(made["main"], ("tokenflow", "auto"), "truth.skill")
    assert float(row["mean"]) == pytest.approx(found.estimate.mean) and float(row["p_holm"]) == pytest.approx(found.p)
    assert (row["defined"], row["jobs"], row["pairs"]) == ("62", "64", "62")


def test_tables_of_ones_own(small):
    by_intervention = tables(small, ["truth.skill", "psnr"], columns="intervention")
    assert [table.name for table in by_intervention] == ["truth.skill", "psnr"]
    assert {"age=old", "beard=yes"} <= set(by_intervention[0].columns)
    (pooled,) = tables(small, ["cost"], rows=["steering"])
    assert [line.labels for line in pooled.lines] == [("none",), ("auto",)]
    assert pooled.columns == ("cost.calls", "cost.edits", "cost.evaluations", "cost.seconds")


def test_what_there_is_not_is_refused(small):
    for arguments, said in (
        ({"metrics": ["beauty"]}, "no metric `beauty`"),
        ({"columns": "colour"}, "`colour` is not"),
        ({"rows": ["metric"]}, "cannot be rows twice"),
        ({"baseline": "vpo"}, "steered by `vpo`. There are: auto, none."),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)):
            tables(small, **arguments)
    with pytest.raises(ConfigError, match="no format `word`"):
        render([], "word")


def test_command(small, tmp_path):
    results.write(tmp_path, small.config, small.rows)
    run = CliRunner()
    main = run.invoke(app, ["benchmark", "table", str(tmp_path)])
    assert main.exit_code == 0, main.output
    assert "### What each editor reaches" in main.output and "### Costs of a job" in main.output
    target = tmp_path / "skill.tex"
    one = run.invoke(app, ["benchmark", "table", str(tmp_path), "--metric", "truth.skill", "--columns", "direction",
                           "--to", str(target)])  # fmt: skip
    assert one.exit_code == 0 and target.read_text().startswith(r"\begin{table*}")
    wrong = run.invoke(app, ["benchmark", "table", str(tmp_path / "nowhere")])
    assert wrong.exit_code == 2


def test_configuration_of_planted_results_is_plain():
    assert configuration(seeds=3)["seeds"] == 3


def test_references_are_never_pooled_with_edits():
    results = planted(editors=("flatten", "dva"), steerings=("none", "auto"))
    by_way = tables(results, ["effectiveness.target"], ("direction",), "steering")[0]
    for line in by_way.lines:
        for cell in line.cells:
            assert cell is None or cell.jobs == sum(
                job.kind == "edit" and all(job.labels[name] == value for name, value in cell.labels if name != "metric")
                for job in Scored.of(results).jobs.values()
            )
