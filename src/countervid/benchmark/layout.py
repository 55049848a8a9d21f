"""Tables as text: Markdown for people, LaTeX for a paper, CSV for programs. The same table gives the same bytes.

LaTeX needs the packages `booktabs` and `graphicx`. CSV has one line a cell, whatever the table, and full numbers.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence

from countervid.benchmark.results import about
from countervid.benchmark.scored import FIELDS
from countervid.benchmark.tables import Cell, Line, Table
from countervid.errors import ConfigError

FORMATS = {"markdown": ".md", "latex": ".tex", "csv": ".csv"}
ARROWS = {"higher": "↑", "lower": "↓", "one": "→1", "zero": "→0", "neither": ""}
MARKS = {"better": "▲", "worse": "▼", "differs": "◆", "": ""}
NOTHING = "–"
PAGE = 20  # rows of two lines that LaTeX sets on a page, with room for what is said below

_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$",
    "|": "$|$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\to$", "–": "--", "−": "$-$", "±": r"$\pm$",
    **{one: "\\" + one for one in "&%$#_{}"},
}  # fmt: skip
_TEX_MARKS = {"better": "$^{+}$", "worse": "$^{-}$", "differs": "$^{*}$", "": ""}


def render(tables: Sequence[Table], kind: str = "markdown") -> str:
    """All tables as one text.

    Args:
        tables: In order.
        kind: One of `FORMATS`.

    Raises:
        ConfigError: There is no such format.
    """
    if kind not in FORMATS:
        raise ConfigError(f"There is no format `{kind}`. Use one of: {', '.join(FORMATS)}.")
    if kind == "csv":
        return _csv(tables)
    return "\n".join(map(markdown if kind == "markdown" else latex, tables))


def markdown(table: Table) -> str:
    """The table for people, its title above and what must be said below."""
    places = places_of(table)
    heads = [*table.fields, *(_head(table, column) for column in table.columns), "jobs"]
    told = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    above: tuple[str, ...] = ()
    for line in table.lines:
        cells = [_plain(cell, places) for cell in line.cells]
        told.append("| " + " | ".join([*_once(line.labels, above), *cells, _jobs(line)]) + " |")
        above = line.labels
    notes = [f"- {note}" for note in (*table.notes, *legend(table, MARKS))]
    return "\n".join([f"### {table.title}", "", *told, "", *notes, ""])


def latex(table: Table) -> str:
    """The table as `table*` with rules of `booktabs`, intervals in a second line of each row.

    One that does not fit on a page becomes several, split between its first labels where that goes.
    """
    parts: list[list[Line]] = [[]]
    for line in table.lines:
        block = sum(other.labels[0] == line.labels[0] for other in table.lines)
        begins = bool(parts[-1]) and parts[-1][-1].labels[0] != line.labels[0]
        if len(parts[-1]) == PAGE or (begins and len(parts[-1]) + block > PAGE):
            parts.append([])
        parts[-1].append(line)
    count = len(parts)
    return "\n".join(
        _float(table, part, f"{number}/{count}" if count > 1 else "") for number, part in enumerate(parts, 1)
    )


def _float(table: Table, lines: Sequence[Line], part: str) -> str:
    places = places_of(table)
    stub, width = len(table.fields), len(table.columns)
    heads = [_head(table, column) for column in table.columns]
    upper = [tex(head.rpartition(".")[0]) for head in heads]
    lower = [tex(head.rpartition(".")[2]) for head in heads]
    body: list[str] = []
    above: tuple[str, ...] = ()
    for line in lines:
        if above and line.labels[0] != above[0]:
            body.append(r"    \addlinespace")
        labels = [tex(label) for label in _once(line.labels, above)]
        first = [_tex_mean(cell, places) for cell in line.cells]
        second = [_tex_interval(cell, places) for cell in line.cells]
        body.append("    " + " & ".join([*labels, *first, tex(_jobs(line))]) + r" \\")
        if any(second):
            body.append("    " + " & ".join([""] * stub + second + [""]) + r" \\")
        above = line.labels
    notes = [*map(tex, table.notes), *legend(table, _TEX_MARKS)]
    label = re.sub(r"[^a-z0-9]+", "-", "-".join(filter(None, (table.name, part))))
    return "\n".join(
        [
            r"\begin{table*}[t]", r"  \centering", r"  \small", r"  \setlength{\tabcolsep}{3pt}",
            r"  \setlength{\belowcaptionskip}{4pt}",
            rf"  \caption{{{tex(table.title + (f' ({part})' if part else ''))}}}", rf"  \label{{tab:{label}}}",
            r"  \resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",  # only ever made smaller
            rf"  \begin{{tabular}}{{{'l' * stub}{'r' * width}r}}", r"    \toprule",
            *(["    " + " & ".join([""] * stub + upper + [""]) + r" \\"] if any(upper) else []),
            "    " + " & ".join([*map(tex, table.fields), *lower, "jobs"]) + r" \\", r"    \midrule", *body,
            r"    \bottomrule", r"  \end{tabular}}",
            rf"  \par\smallskip {{\footnotesize {' '.join(notes)}\par}}",
            r"\end{table*}", "",
        ]
    )  # fmt: skip


def tex(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    >>> print(tex("95 % of age_old"))
    95 \% of age\_old
    """
    quotes = re.sub(r"`([^`]*)`", r"``\1''", text)
    return "".join(_SPECIAL.get(one, one) for one in quotes)


def _csv(tables: Sequence[Table]) -> str:
    """One line a cell: which table, its labels, and every number; empty where there is none."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    numbers = (
        "mean low high deviation_over_seeds difference difference_low difference_high pairs p_holm ceiling defined jobs"
    )
    writer.writerow(["table", *FIELDS, *numbers.split()])
    for table in tables:
        for cell in (cell for line in table.lines for cell in line.cells if cell is not None):
            labels = {**dict(cell.labels), "metric": cell.metric}
            change = cell.difference
            found = [*cell.estimate, cell.deviation, *((change[:3]) if change else (None,) * 3)]
            found += [change.pairs if change else None, cell.p, cell.ceiling, cell.defined, cell.jobs]
            shown = ["" if value is None or math.isnan(value) else f"{value:.10g}" for value in found]
            writer.writerow([table.name, *(labels.get(name, "") for name in FIELDS), *shown])
    return sink.getvalue()


def _head(table: Table, column: str) -> str:
    metrics = {cell.metric for line in table.lines for cell in line.cells if cell is not None}
    if column not in metrics:
        return column
    told = about(column)
    return " ".join(part for part in (column, f"[{told.unit}]" if told.unit else "", ARROWS[told.better]) if part)


def places_of(table: Table) -> dict[str, int]:
    """Decimals of each metric: about two digits of what is uncertain; two of shares."""
    found: dict[str, int] = {}
    cells = [cell for line in table.lines for cell in line.cells if cell is not None]
    for metric in {cell.metric for cell in cells}:
        told = about(metric)
        mine = [cell.estimate for cell in cells if cell.metric == metric]
        widths = sorted((one.high - one.low) / 2 for one in mine if one.high > one.low)
        means = [one.mean for one in mine if not math.isnan(one.mean)]
        if metric.startswith(("effectiveness.", "steering.")) and (told.low, told.high) == (0, 1):
            found[metric] = 2
        elif widths:
            found[metric] = min(max(math.ceil(0.5 - math.log10(widths[len(widths) // 2])), 0), 5)
        else:
            found[metric] = 0 if all(mean == round(mean) for mean in means) else 2
    return found


def _plain(cell: Cell | None, places: dict[str, int]) -> str:
    if cell is None:
        return ""
    count = _count(cell)
    if math.isnan(cell.estimate.mean):
        return f"{NOTHING} {count}"
    digits = places[cell.metric]
    mean = f"{cell.estimate.mean:.{digits}f}"
    parts = [f"**{mean}**" if cell.best else mean]
    if not math.isnan(cell.deviation):
        parts.append(f"± {cell.deviation:.{digits}f}")
    if not math.isnan(cell.estimate.low):
        parts.append(f"[{cell.estimate.low:.{digits}f}, {cell.estimate.high:.{digits}f}]")
    if cell.mark:
        parts.append(MARKS[cell.mark])
    if not math.isnan(cell.ceiling):
        parts.append(f"/ {cell.ceiling:.{digits}f}")
    return " ".join([*parts, count] if count else parts)


def _tex_mean(cell: Cell | None, places: dict[str, int]) -> str:
    if cell is None:
        return ""
    if math.isnan(cell.estimate.mean):
        return "--"
    digits = places[cell.metric]
    mean = f"{cell.estimate.mean:.{digits}f}"
    told = rf"$\mathbf{{{mean}}}$" if cell.best else f"${mean}$"
    if not math.isnan(cell.deviation):
        told += rf"\,{{\scriptsize $\pm${cell.deviation:.{digits}f}}}"
    told += _TEX_MARKS[cell.mark]
    return told + (f"\\,$|$\\,{cell.ceiling:.{digits}f}" if not math.isnan(cell.ceiling) else "")


def _tex_interval(cell: Cell | None, places: dict[str, int]) -> str:
    if cell is None:
        return ""
    digits, count = places[cell.metric], _count(cell)
    known = not math.isnan(cell.estimate.low)
    told = f"$[{cell.estimate.low:.{digits}f}, {cell.estimate.high:.{digits}f}]$" if known else ""
    both = " ".join(part for part in (told, count) if part)
    return rf"{{\scriptsize {both}}}" if both else ""


def _count(cell: Cell) -> str:
    return f"({cell.defined}/{cell.jobs})" if cell.defined < cell.jobs else ""


def _jobs(line: Line) -> str:
    lost = [f"{line.failed} failed" if line.failed else "", f"{line.absent} not done" if line.absent else ""]
    return ", ".join([str(line.jobs), *filter(None, lost)])


def _once(labels: tuple[str, ...], above: tuple[str, ...]) -> list[str]:
    """Labels, those left out that are the same as in the row above."""
    same = 0
    while same < len(above) - 1 and labels[same] == above[same]:
        same += 1
    return [""] * same + list(labels[same:])


def _marks(table: Table) -> list[tuple[str, str]]:
    """The marks that occur, and what they mean."""
    there = {cell.mark for line in table.lines for cell in line.cells if cell is not None}
    meant = {"better": "better", "worse": "worse", "differs": "different (neither is better by itself)"}
    return [(mark, f"{text} than the baseline." if mark != "differs" else f"{text}.") for mark, text in meant.items()
            if mark in there]  # fmt: skip


def legend(table: Table, marks: dict[str, str]) -> list[str]:
    """What the marks in a table mean, those that occur."""
    told = " ".join(f"{marks[mark]} {text}" for mark, text in _marks(table))
    best = any(cell.best for line in table.lines for cell in line.cells if cell is not None)
    return list(filter(None, [told, "Bold: the best edit of its column." if best else ""]))
