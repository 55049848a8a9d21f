"""A benchmark as one HTML page: what was run, tables, figures, the best and the worst, and every failure."""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from PIL import Image

from countervid.benchmark import figures
from countervid.benchmark.layout import ARROWS, MARKS, legend, places_of
from countervid.benchmark.results import EDIT, Results, about
from countervid.benchmark.scored import Scored
from countervid.benchmark.tables import Cell, Line, Table, paper
from countervid.benchmark.trial import Trial, plot, trial
from countervid.clip.sheets import CAPTION
from countervid.errors import OutputError
from countervid.files.whole import write_whole

QUALITY = ("truth.skill", "effectiveness.changed")  # what cases are ranked by: the first that was measured
_KEPT = (0, 2, 5)  # columns of a job's sheet that the page shows
_CELL = 112  # px, side of one picture
_OPEN = ("main",)  # tables that are not folded away


def write_page(results: Results, out: Path, to: Path | None = None) -> Path:
    """Write the page.

    Args:
        results: Those of `out`.
        out: The benchmark's folder, where the jobs' pictures are.
        to: The page's file; `report.html` in `out` by default. Links to the jobs are relative to it.
    """
    path = out / "report.html" if to is None else to
    write_whole(path, render_page(results, out, path.parent))
    return path


def render_page(results: Results, out: Path, beside: Path) -> str:
    """The page's HTML.

    Args:
        results: Those of `out`.
        out: The benchmark's folder.
        beside: The folder that the page will lie in.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("countervid.benchmark"), PackageLoader("countervid.runs")]),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    )  # fmt: skip
    scored = Scored.of(results)
    tables = paper(results)
    judged = _judged(results)
    drawn = {
        "fronts": figures.fronts(scored), "prices": figures.prices(scored), "directions": figures.directions(scored),
        "trial": plot(judged) if judged else None,
    }  # fmt: skip
    return environment.get_template("page.html").render(
        version=results.record.get("versions", {}).get("countervid", ""),
        headline=_headline(results, scored),
        glance=_glance(results, scored),
        findings=_findings(scored, tables),
        tables=[_table(table) for table in tables],
        figures={name: "" if figure is None else figures.inline(figure, name) for name, figure in drawn.items()},
        arms=_key(scored),
        oracle="oracle" in {job.labels["editor"] for job in scored.jobs.values()},
        trial=judged,
        cases=_cases(results, scored, out, beside),
        ranked_by=_ranked_by(scored),
        failures=_failures(results, scored, out, beside),
        left_out=results.record.get("left_out", {}),
        facts=_facts(results),
        record=json.dumps({"config": results.config, **results.record}, indent=2, sort_keys=True, ensure_ascii=False),
    )


def _counts(scored: Scored) -> dict[str, int]:
    states = [job.state for job in scored.jobs.values()]
    return {state: states.count(state) for state in ("done", "failed", "absent")}


def _headline(results: Results, scored: Scored) -> dict[str, Any]:
    edits = [job for job in scored.jobs.values() if job.kind == EDIT]

    def named(field: str) -> list[str]:
        return sorted({job.labels[field] for job in edits}, key=lambda value: scored.order(field, value))

    return {
        "clips": sorted({job.labels["clip"] for job in scored.jobs.values()}), "editors": named("editor"),
        "steerings": named("steering"), "interventions": named("intervention"), "seeds": named("seed"),
        "metrics": len(results.metrics),
    }  # fmt: skip


def _glance(results: Results, scored: Scored) -> list[dict[str, str]]:
    counts = _counts(scored)
    clips = len({job.labels["clip"] for job in scored.jobs.values()})
    done = f"{counts['done']} / {len(scored.jobs)}"
    found = [
        {"value": done, "what": "jobs done"},
        {"value": str(counts["failed"]), "what": "failed" + (", listed below" if counts["failed"] else "")},
    ]
    found.append({"value": str(clips), "what": "clips: intervals are over these"})
    if (quality := _ranked_by(scored)) and (best := _best(scored, quality)):
        arm, estimate = best
        what = f"best {quality}: {arm.editor}, {arm.steering}"
        found.append({"value": _signed(estimate.mean), "what": what})
    hours = sum(row.score or 0 for row in results.scores("cost.seconds")) / 3600
    if hours:
        spent = f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min"
        found.append({"value": spent, "what": "of editing and steering in all"})
    return found


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _best(scored: Scored, metric: str) -> tuple[figures.Arm, Any] | None:
    found = [(arm, arm.estimate(scored, metric)) for arm in figures.arms(scored) if not arm.reference]
    found = [(arm, estimate) for arm, estimate in found if not math.isnan(estimate.mean)]
    return max(found, key=lambda pair: pair[1].mean, default=None)


def _findings(scored: Scored, tables: list[Table]) -> list[str]:
    """What the numbers say, in sentences; only what the tables show."""
    said = []
    if (quality := _ranked_by(scored)) and (best := _best(scored, quality)):
        arm, one = best
        known = "" if math.isnan(one.low) else f" [{_signed(one.low)}, {_signed(one.high)}]"
        said.append(f"Best {quality}: {arm.editor} with steering {arm.steering}, {_signed(one.mean)}{known}.")
    main = next((table for table in tables if table.name == "main"), None)
    for metric in ("effectiveness.changed", "effectiveness.kept", "truth.skill"):
        if main is None or metric not in main.columns:
            continue
        cells = [line.cells[main.columns.index(metric)] for line in main.lines]
        by: dict[str, list[Cell]] = {}
        for cell in cells:
            if cell is not None and cell.difference is not None:
                by.setdefault(dict(cell.labels)["steering"], []).append(cell)
        for steering, compared in by.items():
            better, worse = (sum(cell.mark == mark for cell in compared) for mark in ("better", "worse"))
            if better or worse:
                said.append(
                    f"Steering {steering} against {main.baseline}: {metric} is better with {better} of {len(compared)} "
                    f"editors, worse with {worse}; the others may be chance."
                )
    if len({job.labels["clip"] for job in scored.jobs.values()}) < 8:
        said.append("Fewer than 8 clips: intervals are wide, and little can be told apart.")
    return said


def _key(scored: Scored) -> dict[str, list[dict[str, Any]]]:
    """The legend that all figures share."""
    there = [arm for arm in figures.arms(scored) if not arm.reference]
    glyphs = dict(zip(figures.SHAPES, "●■▲◆✚✖▼◀", strict=True))
    editors = {arm.editor: figures.SERIES.index(arm.colour) for arm in there}
    steerings = {arm.steering: glyphs[arm.shape] for arm in there}
    return {
        "editors": [{"name": name, "series": number} for name, number in editors.items()],
        "steerings": [{"name": name, "glyph": glyph} for name, glyph in steerings.items()],
    }


def _table(table: Table) -> dict[str, Any]:
    """A table for the page: heads with what they mean, rows of cells in pieces."""
    digits = places_of(table)
    metrics = {cell.metric for line in table.lines for cell in line.cells if cell is not None}
    heads = []
    for column in table.columns:
        told = about(column) if column in metrics else None
        heads.append(
            {
                "name": column, "arrow": ARROWS[told.better] if told else "", "unit": told.unit if told else "",
                "title": f"{told.title}. {told.formula}" if told else "",
            }
        )  # fmt: skip
    lines, above = [], ""
    for line in table.lines:
        cells = [None if cell is None else _cell(cell, digits[cell.metric]) for cell in line.cells]
        lines.append(
            {
                "labels": line.labels,
                "begins": line.labels[0] != above,
                "cells": cells,
                "jobs": line.jobs,
                "lost": _lost(line),
            }
        )
        above = line.labels[0]
    return {
        "name": table.name, "title": table.title, "fields": table.fields, "heads": heads, "lines": lines,
        "notes": (*table.notes, *legend(table, MARKS)), "open": table.name in _OPEN,
    }  # fmt: skip


def _cell(cell: Cell, digits: int) -> dict[str, Any]:
    one = cell.estimate

    def told(value: float) -> str:
        return "" if math.isnan(value) else f"{value:.{digits}f}".replace("-", "−")

    return {
        "mean": told(one.mean) or "–", "interval": "" if math.isnan(one.low) else f"{told(one.low)} … {told(one.high)}",
        "deviation": told(cell.deviation), "best": cell.best, "mark": MARKS[cell.mark], "kind": cell.mark,
        "ceiling": told(cell.ceiling), "count": f"{cell.defined}/{cell.jobs}" if cell.defined < cell.jobs else "",
    }  # fmt: skip


def _lost(line: Line) -> str:
    parts = [f"{line.failed} failed" if line.failed else "", f"{line.absent} not done" if line.absent else ""]
    return ", ".join(filter(None, parts))


def _judged(results: Results) -> Trial | None:
    """The metrics on trial, where the truth of enough edits is known."""
    try:
        return trial(results)
    except OutputError:
        return None


def _ranked_by(scored: Scored) -> str:
    return next((name for name in QUALITY if scored.scores.get(name)), "")


def _cases(results: Results, scored: Scored, out: Path, beside: Path) -> list[dict[str, Any]]:
    """Of each editor the best, the median and the worst edit that there is a picture of."""
    metric, found = _ranked_by(scored), []
    for editor in dict.fromkeys(arm.editor for arm in figures.arms(scored) if not arm.reference):
        ranked = [
            (score, name) for name, score in scored.scores.get(metric, {}).items()
            if scored.jobs[name].labels["editor"] == editor and not math.isnan(score)
            and (out / "jobs" / name / "sheet.png").is_file()
        ]  # fmt: skip
        ranked.sort(key=lambda one: (-one[0], one[1]))
        places = dict.fromkeys((0, len(ranked) // 2, len(ranked) - 1)) if ranked else {}
        names = ["best", "median", "worst"] if len(places) == 3 else ["best", "worst"][: len(places)]
        shown = [_case(*ranked[place], what, scored, out, beside) for place, what in zip(places, names, strict=True)]
        if shown:
            found.append({"editor": editor, "count": len(ranked), "shown": shown})
    return found


def _case(score: float, name: str, what: str, scored: Scored, out: Path, beside: Path) -> dict[str, str]:
    labels = scored.jobs[name].labels
    picture, size = _sheet(out / "jobs" / name / "sheet.png")
    return {
        "what": what, "score": _signed(score), "picture": picture, "size": size,
        "link": _link(out / "jobs" / name, beside), "intervention": labels["intervention"].replace("=", " = "),
        "steering": labels["steering"], "clip": labels["clip"], "seed": labels["seed"],
    }  # fmt: skip


def _sheet(path: Path) -> tuple[str, str]:
    """Some columns of a job's sheet without its captions, small, as JPEG in base64; and its width and height."""
    with Image.open(path) as file:
        sheet = np.asarray(file.convert("RGB"))
    for rows in (3, 2):  # factual, edit, and the truth where it is known
        side = len(sheet) // rows - CAPTION
        if len(sheet) % rows == 0 and side > 0 and sheet.shape[1] % side == 0:
            kept = [column for column in _KEPT if column < sheet.shape[1] // side] or [0]
            lanes = [sheet[row * (side + CAPTION) + CAPTION :][:side] for row in range(rows)]
            sheet = np.concatenate(
                [np.concatenate([lane[:, c * side : (c + 1) * side] for c in kept], axis=1) for lane in lanes]
            )
            size = (len(kept) * _CELL, rows * _CELL)
            break
    else:  # somebody else's sheet: as it is
        size = (3 * _CELL, max(1, round(3 * _CELL * len(sheet) / sheet.shape[1])))
    buffer = io.BytesIO()
    Image.fromarray(sheet).resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=82)
    return base64.b64encode(buffer.getvalue()).decode(), f"{size[0]} {size[1]}"


def _failures(results: Results, scored: Scored, out: Path, beside: Path) -> list[dict[str, str]]:
    """Every job that failed, with its last error."""
    told: Mapping[str, str] = (results.record.get("jobs") or {}).get("failed") or {}
    failed = [name for name, job in sorted(scored.jobs.items()) if job.state == "failed"]
    folders = {name: out / "jobs" / name for name in failed}
    return [
        {"name": name, "error": told.get(name) or _error(folder), "link": _link(folder, beside)}
        for name, folder in folders.items()
    ]


def _error(folder: Path) -> str:
    """What a job's state says of its failure."""
    try:
        return str(json.loads((folder / "state.json").read_text(encoding="utf-8")).get("error", ""))
    except (OSError, ValueError, AttributeError):
        return "its state cannot be read"


def _link(folder: Path, beside: Path) -> str:
    return quote(os.path.relpath(folder, beside).replace(os.sep, "/")) + "/"


def _facts(results: Results) -> dict[str, str]:
    config, record = results.config, results.record
    names = ("critic", "judge", "frames", "fps", "size", "max_edits", "seeds")
    found = {name.replace("_", " "): str(config[name]) for name in names if config.get(name) is not None}
    if device := record.get("device"):
        found["device"] = str(device)
    found |= {name: str(value) for name, value in (record.get("versions") or {}).items()}
    return found
