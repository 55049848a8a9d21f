"""The report of a run: one page of HTML with everything in it, no network."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from countervid.clip.clip import zip_clips
from countervid.clip.sheets import CAPTION
from countervid.editors.base import Target
from countervid.runs import findings
from countervid.runs.comparison import AMPLIFICATION, Panel
from countervid.runs.drawing import draw_graph, spoken
from countervid.runs.everyone import told
from countervid.runs.measure import clips_of, window_of
from countervid.runs.media import Media, Pictures, jpeg_of
from countervid.runs.steered import picture_of, seen_as
from countervid.runs.timeline import Timeline, TimelineMeter
from countervid.steering.base import edits_of, front

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


def render_report(result: Result, media: Media, timeline: Timeline) -> str:
    """The page's HTML.

    Args:
        result: The run.
        media, timeline: Its pictures and its numbers over time, see `report_meters`.
    """
    environment = Environment(
        loader=PackageLoader("countervid.runs"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["spoken"] = spoken
    metrics = result.metrics
    record = result.record
    return environment.get_template("report.html").render(
        version=record["versions"]["countervid"],
        title="do(" + ", ".join(f"{name} = {value}" for name, value in result.outcome.do.items()) + ")",
        do=result.outcome.do,
        lead=_lead(result),
        notes=record["notes"],
        media=media,
        fps=float(result.factual.fps),
        frames=len(result.factual),
        glance=findings.glance(metrics, result.target),
        effects=findings.effects(timeline, result.target),
        curves=findings.curves(timeline),
        moved=findings.moved(timeline, metrics, result.target),
        truth=result.truth is not None,
        rows=_rows(result, metrics),
        readings=metrics.get("examiner") is not None,
        prompt=result.target.prompt,
        graph=draw_graph(result.graph, result.outcome),
        graph_name=result.graph.name,
        meters=findings.meters(metrics, result.factual.notes),
        scores=findings.scores(metrics),
        facts=_facts(result),
        rounds=_rounds(result),
        edits=0 if result.steered is None else len(edits_of(result.steered.rounds)),
        steering=record.get("steering"),
        provenance=json.dumps(record, indent=2, sort_keys=True),
        marking=_marking(record),
    )


def report_of(result: Result) -> str:
    """The page's HTML, in a pass of its own over the clips."""
    pictures, timeline = report_meters(result)
    clips = clips_of(result.factual, result.clip, result.truth)
    for start, windows in zip_clips(list(clips.values()), window_of(result.factual)):
        pictures.update(start, windows)
        timeline.update(start, dict(zip(clips, windows, strict=True)))
    return render_report(result, pictures.media(), timeline.compute())


def report_meters(result: Result) -> tuple[Pictures, TimelineMeter]:
    """What takes the report's pictures and its numbers over time, of the windows of a run."""
    size, frames = (result.factual.height, result.factual.width), len(result.factual)
    return (
        Pictures(frames, size, captions(result)),
        TimelineMeter(frames, result.prepared.track, result.outcome.attributes, result.examiner),
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
    examiner = metrics.get("examiner") or {}
    seen, seen_before = examiner.get("counterfactual", {}), examiner.get("factual", {})
    rows = []
    for name, after in result.outcome.attributes.items():
        change, reading, earlier = changes.get(name), seen.get(name), seen_before.get(name)
        rows.append(
            {
                "name": name,
                "before": result.outcome.factual[name],
                "after": after,
                "reason": change.reason if change else "stays",
                "kind": "kept" if change is None else "set" if name in result.outcome.do else "follows",
                "seen": reading["value"] if reading else None,
                "seen_before": earlier["value"] if earlier else None,
                "agrees": bool(reading) and reading["value"] == after and not _already(change, earlier),
                "confidence": f"{reading['confidence']:.0%}" if reading else "",
            }
        )
    order = {"set": 0, "follows": 1, "kept": 2}
    return sorted(rows, key=lambda row: order[row["kind"]])  # stable: the graph's order within each kind


def _already(change: Any, earlier: Mapping[str, Any] | None) -> bool:
    """Whether what should change was read so before the edit: then it cannot be seen to change."""
    return change is not None and earlier is not None and earlier["value"] == change.after


def _rounds(result: Result) -> list[dict[str, Any]]:
    """What was tried, and what the critic saw of it; empty where nothing was steered."""
    if result.steered is None:
        return []
    best = {round.number for round in front(result.steered.rounds)}
    found: list[dict[str, Any]] = []
    before: Target | None = None
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
                "prompt": _marked(before.prompt if before else target.prompt, target.prompt),
                "negative": target.negative_prompt,
                "words": [] if before is None else _turned(before, target, set(result.record.get("controls", ()))),
                "failure": round.failure,
                "distance": f"{round.distance:.1f}",
                "seen": [
                    {
                        "name": name, "value": seen_as(round, name), "confidence": f"{answers[name].confidence:.0%}",
                        "agrees": name not in round.missing and name not in round.lost and name not in round.already,
                        "critique": answers[name].critique,
                    }
                    for name in watched if name in answers
                ],
                "critique": "" if round.verdict is None else round.verdict.critique,
                "picture": jpeg_of(picture, top=CAPTION) if picture is not None and picture.is_file() else None,
            }
        )  # fmt: skip
        before = target
    return found


def _marked(before: str, after: str) -> list[tuple[str, str]]:
    """A prompt against the one before, in pieces: `same`, `ins` or `del`, and the words."""
    old, new = before.split(), after.split()
    pieces: list[tuple[str, str]] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            pieces.append(("same", " ".join(new[c:d])))
            continue
        pieces += [("del", " ".join(old[a:b]))] if b > a else []
        pieces += [("ins", " ".join(new[c:d]))] if d > c else []
    return pieces


def _turned(before: Target, after: Target, controls: Collection[str]) -> list[str]:
    """What else was asked for differently from the round before, a sentence each; only what the editor answers to."""
    said = []
    for name in after.counterfactual:
        if name in after.changed and before.amount(name) != after.amount(name):
            said.append(f"{spoken(name)}: strength {before.amount(name):.0%} → {after.amount(name):.0%}")
    if before.guidance != after.guidance and "guidance" in controls:
        one, two = ("the editor's own" if t.guidance is None else f"{t.guidance:g}" for t in (before, after))
        said.append(f"guidance {one} → {two}")
    if before.negative_prompt != after.negative_prompt and "negative_prompt" in controls:
        said.append(f"negative prompt “{after.negative_prompt}”" if after.negative_prompt else "no negative prompt")
    if before.seed != after.seed and "seed" in controls:
        said.append(f"seed {before.seed} → {after.seed}")
    if before.prompt != after.prompt:
        said.append("prompt rewritten, marked below")
    return said


def _facts(result: Result) -> dict[str, str]:
    record, clip = result.record, result.factual
    settings = record["settings"]
    facts = {
        "source": record["source"],
        "video": f"{len(clip)} frames, {clip.width} × {clip.height}, {clip.fps:g} fps",
        "editor": settings["editor"],
        "strength": f"{settings['strength']:g}",
    }
    if "seed" in record.get("controls", ()):
        facts["seed"] = str(settings["seed"])
    if faces := record["facts"].get("faces"):
        facts["face"] = str(faces)
    if len(result.people) > 1:
        facts["everyone"] = "; ".join(told(result.people)) + "; the numbers on this page are of person 0"
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
