"""Small plots as inline SVG that take their colours from the page around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]

_WIDTH, _HEIGHT = 340, 168  # px of a plot over time
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 10, 10, 24  # px around its field
LANE, LANE_HEIGHT = 240, 34  # px of an attribute's lane
_INSET = 8  # px: marks at 0 % and 100 % are whole


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a plot: `kind` is its class on the page (`edit`, `truth`, `nothing`)."""

    kind: str
    name: str
    values: Curve  # (F,); NaN leaves a gap


def over_time(lines: Sequence[Line], label: str) -> str:
    """Curves over a clip's frames, with a cursor that the page moves.

    The field lies between `data-left` and `data-right`, in the units of the drawing.
    """
    frames = len(lines[0].values)
    top = _round_up(max((float(np.nanmax(line.values)) for line in lines if np.isfinite(line.values).any()), default=1))
    right, low = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(frame: float) -> float:
        return _LEFT + (right - _LEFT) * (frame / max(1, frames - 1))

    def y(value: float) -> float:
        return low - (low - _TOP) * value / top

    parts = []
    for level in (0.0, top / 2, top):
        parts.append(f'<path class="grid" d="M{_LEFT} {y(level):.1f}H{right}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y(level) + 4:.1f}" text-anchor="end">{level:g}</text>')
    for frame in sorted({0, (frames - 1) // 2, frames - 1}):
        parts.append(f'<text class="tick" x="{x(frame):.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{frame}</text>')
    for line in lines:
        path = _path([(x(i), y(value)) for i, value in enumerate(line.values)])
        parts.append(f'<path class="line {line.kind}" d="{path}"><title>{escape(line.name)}</title></path>')
    parts.append(f'<path class="cursor" d="M0 {_TOP}V{low}" data-left="{_LEFT}" data-right="{right}"/>')
    return _svg("plot", _WIDTH, _HEIGHT, label, parts)


def chances(seen: Mapping[str, Curve], label: str) -> str:
    """Probabilities of one value, 0 to 1: a mark at the mean of each clip, a bar where nine of ten frames lie.

    Args:
        seen: Clip -> `(n,)`; drawn as `factual` (ring), `counterfactual` (disc) and `truth` (diamond).
    """
    middle = LANE_HEIGHT / 2

    def x(share: float) -> float:
        return float(_INSET + (LANE - 2 * _INSET) * share)

    parts = [f'<path class="grid" d="M{x(share):.1f} 3V{LANE_HEIGHT - 3}"/>' for share in (0, 0.5, 1)]
    offsets = {"factual": -7.0, "counterfactual": 0.0, "truth": 7.0}
    for clip, values in seen.items():
        low, mean, high = x(np.quantile(values, 0.05)), x(values.mean()), x(np.quantile(values, 0.95))
        y = middle + offsets[clip]
        parts.append(f'<path class="range {clip}" d="M{low:.1f} {y:g}H{high:.1f}"/>')
        if clip == "truth":
            parts.append(f'<path class="mark {clip}" d="M{mean:.1f} {y - 5:g}l5 5-5 5-5-5z"/>')
        else:
            radius = 5 if clip == "counterfactual" else 4
            parts.append(f'<circle class="mark {clip}" cx="{mean:.1f}" cy="{y:g}" r="{radius}"/>')
    return _svg("lane", LANE, LANE_HEIGHT, label, parts)


def course(seen: Mapping[str, Curve], looked: Sequence[int], frames: int, label: str) -> str:
    """The same probabilities over the frames, as thin lines with a cursor."""
    left, right = _INSET, LANE - _INSET

    def x(frame: float) -> float:
        return left + (right - left) * frame / max(1, frames - 1)

    parts = [f'<path class="grid" d="M{left} {y}H{right}"/>' for y in (4, LANE_HEIGHT - 4)]
    kinds = {"factual": "nothing", "counterfactual": "edit", "truth": "truth"}
    for clip in sorted(seen, key=list(kinds).index):
        rows = zip(looked, seen[clip], strict=True)
        path = _path([(x(frame), LANE_HEIGHT - 4 - (LANE_HEIGHT - 8) * value) for frame, value in rows])
        parts.append(f'<path class="line {kinds[clip]}" d="{path}"/>')
    parts.append(f'<path class="cursor" d="M0 2V{LANE_HEIGHT - 2}" data-left="{left}" data-right="{right}"/>')
    return _svg("lane", LANE, LANE_HEIGHT, label, parts)


def _svg(kind: str, width: int, height: int, label: str, parts: Sequence[str]) -> str:
    drawn = "".join(parts)
    return f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{drawn}</svg>'


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Points joined; a point that is not finite breaks the line, one that stands alone is a dot."""
    path, pen = [], "M"
    for index, (x, y) in enumerate(points):
        if not np.isfinite(y):
            pen = "M"
            continue
        path.append(f"{pen}{x:.1f} {y:.1f}")
        alone = pen == "M" and (index + 1 == len(points) or not np.isfinite(points[index + 1][1]))
        if alone:
            path.append("h.1")
        pen = "L"
    return "".join(path)


def _round_up(value: float) -> float:
    """The next of 1, 2, 3, 4, 6, 10, 20, ... (1 at least): an axis that ends, and halves, on a plain number."""
    power = 1.0
    while True:
        for step in (1.0, 2.0, 3.0, 4.0, 6.0):
            if value <= step * power:
                return step * power
        power *= 10
