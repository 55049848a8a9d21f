"""A run's numbers in words: what a report says of an edit's effect, and of what moved that should not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from countervid.editors.base import Target
from countervid.metrics.base import catalogue
from countervid.runs.drawing import spoken
from countervid.runs.plots import Line, chances, course, over_time
from countervid.runs.timeline import VISIBLE, Timeline
from countervid.runs.touched import rest_of

_FAINT = 1.0  # of 255: below this a mean change is rounding and compression
_NEAR, _FAR = 0.1, 0.3  # of a cosine of identity, against what the intervention itself moves


def glance(metrics: Mapping[str, Any], target: Target) -> list[dict[str, str]]:
    """The few numbers that come first: `value`, and what it is."""
    found = []
    if examiner := metrics.get("examiner"):
        before = examiner["factual"]
        already = sum(name in before and before[name]["value"] == value for name, value in target.changed.items())
        note = f" ({already} of them looked so before)" if already else ""
        for share, asked, what in (
            (examiner["changed_seen"], target.changed, f"changes seen by the examiner{note}"),
            (examiner["kept_kept"], target.kept, "other attributes kept"),
        ):
            count = sum(name in examiner["counterfactual"] for name in asked)
            if share is not None and count:
                found.append({"value": f"{round(share * count)} of {count}", "what": what})
    if (truth := (metrics.get("truth") or {}).get("face")) and truth["skill"] is not None:
        found.append({"value": f"{truth['skill']:.2f}", "what": "skill: 1 is the truth, 0 is doing nothing"})
    if (identity := metrics.get("identity")) and identity["tl_id"] is not None:
        found.append({"value": f"{identity['tl_id']:.3f}", "what": "steadiness (TL-ID): 1 is the source's"})
    found.append({"value": f"{metrics['changed_share']:.1%}", "what": "of all pixels touched"})
    return found


def effects(timeline: Timeline, target: Target) -> list[dict[str, str]]:
    """One row an attribute that the examiner knows, those that change first.

    Fields: `name`, `value` (asked for), `kind` (`changes`, `stays`), `lane` and `course` (SVG), and the mean
    probability of the value in words, by clip.
    """
    rows = []
    for name in sorted(timeline.seen, key=lambda name: name not in target.changed):
        seen = timeline.seen[name]
        means = {clip: f"{values.mean():.0%}" for clip, values in seen.items()}
        said = ", ".join(f"{clip} {text}" for clip, text in means.items())
        label = f"Probability that {spoken(name)} is {target.counterfactual[name]}: {said}"
        rows.append(
            {
                "name": name,
                "value": target.counterfactual[name],
                "kind": "changes" if name in target.changed else "stays",
                "lane": chances(seen, label),
                "course": course(seen, timeline.looked.tolist(), len(timeline), f"{label}, frame by frame"),
                **means,
            }
        )
    return rows


def curves(timeline: Timeline) -> list[dict[str, str]]:
    """The plots over time that there is something to draw in: `title`, `note`, `plot` (SVG)."""
    plots = [
        ("Change inside the face", "by the edit, and in the truth", [
            Line(kind="truth", name="truth against factual", values=timeline.true_inside),
            Line(kind="edit", name="counterfactual against factual", values=timeline.inside),
        ]),
        ("Change outside the face", "best: as in the truth, or none", [
            Line(kind="truth", name="truth against factual", values=timeline.true_outside),
            Line(kind="edit", name="counterfactual against factual", values=timeline.outside),
        ]),
        ("Error against the truth", "inside the face; dashed: doing nothing", [
            Line(kind="nothing", name="factual against truth", values=timeline.true_inside),
            Line(kind="edit", name="counterfactual against truth", values=timeline.error),
        ]),
    ]  # fmt: skip
    found = []
    for title, note, lines in plots:
        drawn = [line for line in lines if np.isfinite(line.values).any()]
        if any(line.kind == "edit" for line in drawn):
            means = ", ".join(f"{line.name} {np.nanmean(line.values):.1f}" for line in drawn)
            found.append({"title": title, "note": note, "plot": over_time(drawn, f"{title}, mean of 255: {means}")})
    return found


def moved(timeline: Timeline, metrics: Mapping[str, Any], target: Target) -> list[dict[str, str]]:
    """What should not have moved: `name`, `state` (`good`, `watch`, `bad`, `told`), `value` and what it means."""
    found = [*_drifted(metrics, target)]
    around = timeline.outside[np.isfinite(timeline.outside)]
    if around.size:
        mean, where = float(around.mean()), "outside the face" if np.isfinite(timeline.inside).any() else "all over"
        value = "none" if mean == 0 else f"{mean:.2f} of 255"
        text = f"mean change {where}; {np.nanmean(timeline.touched):.1%} of those pixels moved by more than {VISIBLE}"
        if np.isfinite(timeline.true_outside).any():
            text += f"; the truth: {np.nanmean(timeline.true_outside):.2f}"
        found.append({"name": "pixels", "state": _state(mean, _FAINT, VISIBLE), "value": value, "text": text})
        light = float(np.nanmean(timeline.light))
        widest = float(np.nanmax(np.abs(timeline.light)))
        found.append(
            {
                "name": "light", "state": _state(widest, _FAINT, VISIBLE), "value": f"{light:+.2f} of 255",
                "text": f"mean change of brightness {where}; {widest:.2f} in the frame that changed most",
            }
        )  # fmt: skip
    return [*found, *_identity(metrics.get("identity"))]


def _drifted(metrics: Mapping[str, Any], target: Target) -> list[dict[str, str]]:
    examiner = metrics.get("examiner")
    if not examiner:
        return []
    after, before = examiner["counterfactual"], examiner["factual"]
    known = [name for name in target.kept if name in after]
    gone = [name for name in known if after[name]["value"] != target.kept[name]]
    if not gone:
        text = f"all {len(known)} that should stay are seen to stay"
        return [{"name": "attributes", "state": "good", "value": "none", "text": text}]
    said = [
        f"{spoken(name)} should stay {target.kept[name]}, the examiner sees {after[name]['value']}"
        + (" (and saw it before the edit, too)" if before[name]["value"] == after[name]["value"] else "")
        for name in gone
    ]
    return [{"name": "attributes", "state": "bad", "value": f"{len(gone)} of {len(known)}", "text": "; ".join(said)}]


def _identity(identity: Mapping[str, float | None] | None) -> list[dict[str, str]]:
    if not identity:
        return []
    found = []
    like, truly = identity["likeness"], identity.get("likeness_of_truth")
    if like is not None:
        state, text = "told", "cosine of identity to the source; an edit of age or gender moves it rightly"
        if truly is not None:
            state = _state(truly - like, _NEAR, _FAR)
            text = f"cosine of identity to the source; the truth's own is {truly:.2f}"
        found.append({"name": "identity", "state": state, "value": f"{like:.2f}", "text": text})
    if (steady := identity["tl_id"]) is not None:
        text = "identity from frame to frame, relative to the source (TL-ID); 1 is as steady"
        found.append(
            {"name": "steadiness", "state": _state(1 - steady, 0.02, _NEAR), "value": f"{steady:.3f}", "text": text}
        )
    return found


def _state(excess: float, good: float, bad: float) -> str:
    return "good" if excess < good else "watch" if excess < bad else "bad"


def scores(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """Every number of the catalogue that was measured: `name`, `title`, `value`, `better`, `formula`."""
    known = catalogue()
    words = {"higher": "higher is better", "lower": "lower is better", "one": "1 is best", "zero": "0 is best"}
    found = []
    for name, value in sorted((metrics.get("scores") or {}).items()):
        about = known.get(name)
        found.append(
            {
                "name": name, "value": "not defined" if value is None else f"{value:.4g}",
                "title": about.title if about else "", "better": words.get(about.better, "") if about else "",
                "formula": about.formula if about else "", "unit": about.unit if about else "",
            }
        )  # fmt: skip
    return found


def meters(metrics: Mapping[str, Any], notes: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Numbers worth a line: name, what it means, its text, and how full its bar is (0..1, or none)."""
    found: list[dict[str, Any]] = []

    def add(name: str, meaning: str, value: float | None, form: str, share: float | None = None) -> None:
        if value is not None:
            full = None if share is None else min(1.0, max(0.0, share))
            found.append({"name": name, "meaning": meaning, "text": form.format(value), "share": full})

    truth = (metrics.get("truth") or {}).get("face")
    if truth:
        skill = truth["skill"]
        add("skill", "1 is the truth, 0 is doing nothing, below 0 is harm; face crop, L1", skill, "{:.2f}", skill)
        add("strength", "how far it went along the true change; 1 is right", truth["strength"], "{:.2f}")
        add(
            "direction", "cosine between the edit and the true change", truth["direction"], "{:.2f}", truth["direction"]
        )
        add("spill", "energy moved outside the true effect, relative to it; 0 is best", truth["spill"], "{:.3f}")
        add("hole", "share of the true effect that was left out; 0 is best", truth["hole"], "{:.0%}")
    examiner = metrics.get("examiner")
    if examiner:
        asked, kept = examiner["changed_seen"], examiner["kept_kept"]
        add(
            "changed, and seen",
            "attributes that the examiner sees as asked for, and did not before",
            asked,
            "{:.0%}",
            asked,
        )
        add("kept", "attributes that should stay and do, by the examiner", kept, "{:.0%}", kept)
    identity = metrics.get("identity")
    if identity:
        add(
            "TL-ID", "identity from frame to frame, relative to the source; 1 is as steady", identity["tl_id"], "{:.3f}"
        )
        add("TG-ID", "identity over the whole clip, relative to the source", identity["tg_id"], "{:.3f}")
        add("likeness", "cosine of identity to the source", identity["likeness"], "{:.2f}", identity["likeness"])
    add("pixels touched", rest_of(metrics, notes), metrics.get("changed_share"), "{:.1%}")
    return found
