"""The figures of a benchmark's page: drawn by matplotlib, as inline SVG whose colours the page decides.

Colours are stand-ins here, and become the page's variables in `inline`: one drawing reads well in light, in dark and
on paper. Editors are told by colour (Okabe and Ito's, which the colour-blind can tell apart), steering by shape.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from countervid.benchmark.results import EDIT, REFERENCES, about
from countervid.benchmark.scored import Scored
from countervid.benchmark.statistics import Estimate, bootstrap

INK, QUIET, LINE, CARD = "#010203", "#020304", "#030405", "#040506"
SERIES = tuple(f"#0a0b{number:02x}" for number in range(8))  # an editor each; beyond, they begin again
SHAPES = "os^DPXv<"
_OF_THE_PAGE = {INK: "ink", QUIET: "quiet", LINE: "line", CARD: "card"} | {
    colour: f"series-{number}" for number, colour in enumerate(SERIES)
}
# Those of `trial.plot`, which is also a picture of its own.
_OF_THE_PAGE |= {"#1f5fa8": "series-0", "#d9822b": "series-1", "#f3f4f6": "bg", "#555555": "quiet", "#ffffff": "card"}
_STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "countervid", "font.size": 8.5, "axes.edgecolor": LINE,
    "axes.labelcolor": QUIET, "axes.titlecolor": INK, "axes.titlelocation": "left", "axes.titleweight": "bold",
    "axes.titlesize": 9.5, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "axes.axisbelow": True, "grid.color": LINE, "grid.linewidth": 0.7, "xtick.color": LINE, "ytick.color": LINE,
    "xtick.labelcolor": QUIET, "ytick.labelcolor": QUIET, "text.color": INK, "legend.labelcolor": QUIET,
}  # fmt: skip
EFFECT = "effectiveness.changed"
LITTLE = ("effectiveness.kept", "truth.spill", "minimality.outside")  # what minimality is told by; the first two there
PRICES = ("cost.seconds", "cost.evaluations", "cost.calls")


@dataclass(frozen=True)
class Arm:
    """An editor under a steering, or a reference."""

    editor: str
    steering: str
    colour: str
    shape: str

    @property
    def reference(self) -> bool:
        return self.editor in REFERENCES

    def estimate(self, scored: Scored, metric: str, **where: str) -> Estimate:
        """A metric's mean over this arm's jobs (those with these labels), and its interval over clips."""
        labels = {"editor": self.editor, "steering": self.steering, **where}
        by_clip: dict[str, list[float]] = {}
        known = scored.known(metric, labels.items())
        for case in sorted(known):
            by_clip.setdefault(case[0], []).append(known[case])
        return bootstrap(by_clip, draws=2000)


def arms(scored: Scored) -> list[Arm]:
    """All arms, in the order of the tables."""
    editors = _ordered(scored, "editor", kind=EDIT)
    steerings = _ordered(scored, "steering", kind=EDIT)
    there = {(job.labels["editor"], job.labels["steering"]) for job in scored.jobs.values() if job.state != "absent"}
    found = [
        Arm(editor, steering, SERIES[row % len(SERIES)], SHAPES[column % len(SHAPES)])
        for row, editor in enumerate(editors) for column, steering in enumerate(steerings)
        if (editor, steering) in there
    ]  # fmt: skip
    return found + [Arm(name, "none", QUIET, "*") for name in REFERENCES if (name, "none") in there]


@matplotlib.rc_context(_STYLE)
def fronts(scored: Scored) -> Figure | None:
    """Effect against what else moved: an arm is a mark with its intervals, the front joins those that none beats."""
    metrics = [name for name in LITTLE if scored.scores.get(name)][:2]
    if EFFECT not in scored.scores or not metrics:
        return None
    figure, panels = _panels(len(metrics), 4.1)
    edits = [arm for arm in arms(scored) if not arm.reference]
    for panel, metric in zip(panels, metrics, strict=True):
        told = about(metric)
        down = told.better in ("lower", "zero")
        panel.set_xlabel("attributes that must change, and do")
        panel.set_ylabel(told.title + (" (downwards)" if down else ""))
        _titled(panel, "Effect × kept attributes" if metric == LITTLE[0] else f"Effect × {metric}", "↗")
        panel.set_xlim(-0.06, 1.06)
        ends = [value for arm in edits for value in arm.estimate(scored, metric) if np.isfinite(value)]
        room = 0.12 * (max(ends) - min(ends)) + 0.01 if ends else 1.0
        low, high = (min(ends) - room, max(ends) + room) if ends else (0.0, 1.0)
        panel.set_ylim(*((high, low) if down else (low, high)))
        _marks(scored, panel, EFFECT, metric, edits)
        _references(scored, panel, metric, (low, high))
        points = [(arm.estimate(scored, EFFECT).mean, arm.estimate(scored, metric).mean) for arm in edits]
        best = front([(x, -y if down else y) for x, y in points])
        if len(best) > 1:
            xs, ys = zip(*(points[index] for index in best), strict=True)
            panel.plot(xs, ys, color=QUIET, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    return figure


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points that no other beats in both, by number, from left to right; larger is better.

    >>> front([(0.1, 0.9), (0.5, 0.5), (0.4, 0.4), (0.9, 0.1)])
    [0, 1, 3]
    """
    known = [index for index, point in enumerate(points) if np.isfinite(point).all()]

    def beaten(index: int) -> bool:
        x, y = points[index]
        return any(points[o] != (x, y) and points[o][0] >= x and points[o][1] >= y for o in known)

    return sorted((index for index in known if not beaten(index)), key=lambda index: points[index])


@matplotlib.rc_context(_STYLE)
def prices(scored: Scored) -> Figure | None:
    """What a job costs against how good it gets: each editor's steerings are joined, from plain to dear."""
    quality = next((name for name in ("truth.skill", EFFECT) if scored.scores.get(name)), None)
    metrics = [name for name in PRICES if any(scored.scores.get(name, {}).values())][:2]
    if quality is None or not metrics:
        return None
    figure, panels = _panels(len(metrics), 3.6)
    for panel, metric in zip(panels, metrics, strict=True):
        for editor in _ordered(scored, "editor", kind=EDIT):
            mine = [arm for arm in arms(scored) if arm.editor == editor]
            points = sorted((arm.estimate(scored, metric).mean, arm.estimate(scored, quality).mean) for arm in mine)
            points = [point for point in points if np.isfinite(point).all()]
            if points:
                panel.plot(*zip(*points, strict=True), color=mine[0].colour, linewidth=1, alpha=0.5, zorder=1)
        _marks(scored, panel, metric, quality, [arm for arm in arms(scored) if not arm.reference])
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        unit = about(metric).unit
        panel.set_xlabel(f"{about(metric).title.lower()} a job" + (f" [{unit}]" if unit else ""))
        panel.set_ylabel(quality)
        _titled(panel, f"{quality} × {about(metric).title.lower()}", "↖")
    return figure


@matplotlib.rc_context(_STYLE)
def directions(scored: Scored, metric: str = "effectiveness.target") -> Figure | None:
    """Bars with intervals: how often each intervention is seen, a row a steering, a colour an editor."""
    if metric not in scored.scores:
        return None
    asked = _ordered(scored, "intervention", kind=EDIT)
    steerings = _ordered(scored, "steering", kind=EDIT)
    editors = _ordered(scored, "editor", kind=EDIT)
    known = {(arm.editor, arm.steering): arm for arm in arms(scored)}
    figure = Figure(figsize=(10, 0.6 + 1.35 * len(steerings)), layout="constrained")
    rows = figure.subplots(len(steerings), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    width = 0.8 / len(editors)
    for panel, steering in zip(rows, steerings, strict=True):
        for place, editor in enumerate(editors):
            arm = known.get((editor, steering))
            if arm is None:
                continue
            found = [arm.estimate(scored, metric, intervention=one) for one in asked]
            x = np.arange(len(asked)) + (place - (len(editors) - 1) / 2) * width
            mean = np.array([one.mean for one in found])
            panel.bar(x, mean, width * 0.9, color=arm.colour, linewidth=0)
            panel.vlines(x, [one.low for one in found], [one.high for one in found], color=INK, linewidth=1)
        for at, one in enumerate(asked):
            ceiling = scored.known(metric, {"editor": "oracle", "intervention": one}.items())
            if ceiling:
                panel.hlines(np.mean(list(ceiling.values())), at - 0.42, at + 0.42, color=QUIET, linewidth=1)
        panel.set_title(f"steering: {steering}", fontsize=8.5)
        panel.set_ylim(0, 1.06)
        panel.set_yticks([0, 0.5, 1])
        panel.grid(axis="x", visible=False)
        panel.tick_params(length=0)
    rows[-1].set_xticks(range(len(asked)), [one.replace("=", " = ") for one in asked])
    return figure


@matplotlib.rc_context(_STYLE)
def inline(figure: Figure, name: str) -> str:
    """The figure as `<svg>` for a page: no size of its own, the page's colours and lettering, its own identifiers."""
    sink = io.StringIO()
    figure.patch.set_visible(False)
    for panel in figure.axes:
        panel.patch.set_visible(False)
    figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = sink.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.S)
    drawn = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", drawn, count=1)
    drawn = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", drawn, count=1)
    drawn = re.sub(r' xmlns(:xlink)?="[^"]*"', "", drawn).replace("xlink:href", "href")
    drawn = re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{name}-", drawn)
    for colour, variable in _OF_THE_PAGE.items():
        drawn = drawn.replace(colour, f"var(--{variable})")
    return re.sub(r"\n\s*", "\n", drawn).strip()


def _panels(count: int, height: float) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(10, height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _titled(panel: Any, title: str, better: str) -> None:
    panel.set_title(title)
    panel.set_title(f"better {better}", loc="right", color=QUIET, fontsize=8.5, fontweight="normal")


def _marks(scored: Scored, panel: Any, x: str, y: str, shown: Sequence[Arm]) -> None:
    """A mark with its intervals for each arm, at its means of two metrics."""
    for arm in shown:
        across, up = arm.estimate(scored, x), arm.estimate(scored, y)
        if not np.isfinite([across.mean, up.mean]).all():
            continue
        panel.plot([across.low, across.high], [up.mean] * 2, color=arm.colour, linewidth=1.2, alpha=0.35, zorder=2)
        panel.plot([across.mean] * 2, [up.low, up.high], color=arm.colour, linewidth=1.2, alpha=0.35, zorder=2)
        panel.plot(
            [across.mean], [up.mean], arm.shape, color=arm.colour, markersize=7, markeredgecolor=CARD,
            markeredgewidth=0.8, zorder=3,
        )  # fmt: skip


def _references(scored: Scored, panel: Any, metric: str, limits: tuple[float, float]) -> None:
    """The references, named; one far from all edits stands at the border, with its number, so that edits have room."""
    for arm in arms(scored):
        x, y = arm.estimate(scored, EFFECT).mean, arm.estimate(scored, metric).mean
        if not arm.reference or not np.isfinite([x, y]).all():
            continue
        border = min(max(y, limits[0]), limits[1])
        text = arm.editor if border == y else f"{arm.editor}, {y:.2f}"
        panel.plot([x], [border], "*", color=QUIET, markersize=8, zorder=3, clip_on=False)
        left, top = x > 0.7, border == panel.get_ylim()[1]
        panel.annotate(
            text, (x, border), xytext=(-7 if left else 7, -9 if top else 4), textcoords="offset points",
            ha="right" if left else "left", color=QUIET, fontsize=8,
        )  # fmt: skip


def _ordered(scored: Scored, field: str, kind: str) -> list[str]:
    values = {job.labels[field] for job in scored.jobs.values() if job.kind == kind}
    return sorted(values, key=lambda value: scored.order(field, value))
