"""The report of a run: one page of HTML with everything in it, no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from countervid.runs.comparison import AMPLIFICATION, Panel
from countervid.runs.drawing import draw_graph, spoken
from countervid.runs.media import jpeg_of, make_media
from countervid.runs.steered import picture_of
from countervid.steering.base import front

if TYPE_CHECKING:
    from countervid.runs.run import Result


def captions(result: Result) -> list[Panel]:
    """One panel a picture: factual, counterfactual, truth where it is known, difference."""
    changed = [change.variable for change in result.outcome.changes]

    def said(attributes: Mapping[str, str]) -> str:
        return " · ".join(f"{spoken(name)}: {attributes[name]}" for name in changed)

    panels = [
        Panel(caption="factual", detail=said(result.outcome.factual)),
        Panel(caption="counterfactual", detail=said(result.outcome.attributes)),
    ]
    if result.truth is not None:
        panels.append(Panel(caption="truth", detail="rendered by the world itself"))
    return [*panels, Panel(caption=f"difference, {AMPLIFICATION}-fold", detail="counterfactual against factual")]


def render_report(result: Result) -> str:
    """The page's HTML."""
    environment = Environment(
        loader=PackageLoader("countervid.runs"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["spoken"] = spoken
    metrics = result.metrics
    clips = [result.factual, result.clip] + ([] if result.truth is None else [result.truth])
    record = result.record
    return environment.get_template("report.html").render(
        version=record["versions"]["countervid"],
        title="do(" + ", ".join(f"{name} = {value}" for name, value in result.outcome.do.items()) + ")",
        do=result.outcome.do,
        lead=_lead(result),
        notes=record["notes"],
        media=make_media(clips, captions(result)),
        rows=_rows(result, metrics),
        readings=metrics.get("examiner") is not None,
        prompt=result.target.prompt,
        graph=draw_graph(result.graph, result.outcome),
        graph_name=result.graph.name,
        meters=_meters(metrics),
        facts=_facts(result),
        rounds=_rounds(result),
        steering=record.get("steering"),
        provenance=json.dumps(record, indent=2, sort_keys=True),
        marking=_marking(record),
    )


def _lead(result: Result) -> str:
    changes = result.outcome.changes
    following = [change for change in changes if change.variable not in result.outcome.do]
    if not changes:
        return "The person is so already: nothing changes, and the video is the source."
    lead = "What would this video have looked like, had one thing about the person been different?"
    if not following:
        return f"{lead} Nothing else follows from it."
    names = [spoken(change.variable) for change in following]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return f"{lead} By the causal graph, {listed} {'follows' if len(names) == 1 else 'follow'}."


def _rows(result: Result, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    changes = {change.variable: change for change in result.outcome.changes}
    seen = (metrics.get("examiner") or {}).get("counterfactual", {})
    rows = []
    for name, after in result.outcome.attributes.items():
        change, reading = changes.get(name), seen.get(name)
        rows.append(
            {
                "name": name,
                "before": result.outcome.factual[name],
                "after": after,
                "reason": change.reason if change else "stays",
                "kind": "kept" if change is None else "set" if name in result.outcome.do else "follows",
                "seen": reading["value"] if reading else None,
                "agrees": bool(reading) and reading["value"] == after,
                "confidence": f"{reading['confidence']:.0%}" if reading else "",
            }
        )
    order = {"set": 0, "follows": 1, "kept": 2}
    return sorted(rows, key=lambda row: order[row["kind"]])  # stable: the graph's order within each kind


def _meters(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
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
        add("changed, and seen", "attributes asked for that the examiner sees", asked, "{:.0%}", asked)
        add("kept", "attributes that should stay and do, by the examiner", kept, "{:.0%}", kept)
    identity = metrics.get("identity")
    if identity:
        add(
            "TL-ID", "identity from frame to frame, relative to the source; 1 is as steady", identity["tl_id"], "{:.3f}"
        )
        add("TG-ID", "identity over the whole clip, relative to the source", identity["tg_id"], "{:.3f}")
        add("likeness", "cosine of identity to the source", identity["likeness"], "{:.2f}", identity["likeness"])
    add("pixels touched", "all others are the source's, bit for bit", metrics.get("changed_share"), "{:.1%}")
    return found


def _rounds(result: Result) -> list[dict[str, Any]]:
    """What was tried, and what the critic saw of it; empty where nothing was steered."""
    if result.steered is None:
        return []
    best = {round.number for round in front(result.steered.rounds)}
    found = []
    for round in result.steered.rounds:
        target, answers = round.step.target, {} if round.verdict is None else round.verdict.answers
        watched = (*target.changed, *round.lost)
        picture = None if result.folder is None else result.folder / picture_of(round.number)
        found.append(
            {
                "number": round.number,
                "chosen": round.number == result.steered.chosen.number,
                "front": round.number in best,
                "note": round.step.note,
                "prompt": target.prompt,
                "negative": target.negative_prompt,
                "failure": round.failure,
                "distance": f"{round.distance:.1f}",
                "seen": [
                    {
                        "name": name, "value": answers[name].value or "cannot be told",
                        "confidence": f"{answers[name].confidence:.0%}",
                        "agrees": name not in round.missing and name not in round.lost,
                        "critique": answers[name].critique,
                    }
                    for name in watched if name in answers
                ],
                "critique": "" if round.verdict is None else round.verdict.critique,
                "picture": jpeg_of(picture) if picture is not None and picture.is_file() else None,
            }
        )  # fmt: skip
    return found


def _facts(result: Result) -> dict[str, str]:
    record, clip = result.record, result.factual
    settings = record["settings"]
    facts = {
        "source": record["source"],
        "video": f"{len(clip)} frames, {clip.width} × {clip.height}, {clip.fps:g} fps",
        "editor": settings["editor"],
        "strength": f"{settings['strength']:g}",
        "seed": str(settings["seed"]),
    }
    if faces := record["facts"].get("faces"):
        facts["face"] = str(faces)
    slow = {name.split(".")[0]: value for name, value in record["seconds"].items() if value >= 0.1}
    if slow:
        facts["time"] = ", ".join(f"{name} {value:.1f} s" for name, value in slow.items())
    return facts


def _marking(record: Mapping[str, Any]) -> str:
    if record["settings"]["marking"]:
        return (
            "The counterfactual video is marked as synthetic in its metadata and by a watermark; "
            "the command countervid verify reads both."
        )
    return "The counterfactual video is not marked as synthetic: marking was switched off."
