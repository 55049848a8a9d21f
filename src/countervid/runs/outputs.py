"""The files of a run: all that shows or measures the edit is made in one pass over the clips."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from countervid.clip import Clip
from countervid.clip.clip import zip_clips
from countervid.editors.base import Report
from countervid.files.whole import replacing, write_whole
from countervid.runs import provenance
from countervid.runs.folder import RunFolder, write_json
from countervid.runs.measure import clips_of, looked_at, window_of
from countervid.runs.report import render_report, report_meters
from countervid.runs.steered import VERDICTS

if TYPE_CHECKING:
    from countervid.runs.run import Result

OF_THE_TARGET = ("target.json", "counterfactual.mp4", "metrics.json", "comparison.mp4", "report.html")
"""The files of a run that one target was asked for with: they are of the same round."""
_FACTUAL_CRF = 8  # of a source that is no mp4 itself


def write_outputs(result: Result, folder: RunFolder, nothing: bool, report: Report | None) -> None:
    """Write the files that the folder lacks.

    Args:
        result: What is written.
        folder: Knows which files are finished.
        nothing: Whether the edit changes nothing, so that the counterfactual is the source.
        report: Called with (what is being done, frames done, frames in all).
    """
    target = {**result.target.to_json(), **_explained(result)}
    if len(result.people) > 1:
        target["people"] = [one.to_json() for one in result.people]
    if result.steered is not None:
        target["round"] = result.steered.chosen.number
    _settle(folder, target)
    folder.make("target.json", lambda path: write_json(path, target))
    if result.steered is None:
        folder.make(VERDICTS, lambda path: write_whole(path, ""))
    record, settings = folder.record, folder.record["settings"]
    tags = provenance.metadata(result.outcome.do, version=record["versions"]["countervid"], editor=settings["editor"])
    tags = tags if settings["marking"] else {}
    # File -> the clip in it, its quality and its metadata.
    videos: dict[str, tuple[Clip, int, Mapping[str, str]]] = {
        "factual.mp4": (result.factual, _FACTUAL_CRF, {}),
        "counterfactual.mp4": (result.factual, _FACTUAL_CRF, {}) if nothing else (result.clip, 16, tags),
        "comparison.mp4": (result.comparison(), 16, tags),
    }
    source = result.factual.source
    for name, (clip, _, _) in list(videos.items()):
        if clip is result.factual and source is not None and source.suffix.lower() in (".mp4", ".m4v"):
            folder.make(name, lambda path: _copy(source, path))
        if folder.has(name):
            del videos[name]
    _one_pass(result, folder, videos, report)
    if not folder.has("report.html"):  # it was stopped between the numbers and the page
        folder.make("report.html", result.write_report)


def _settle(folder: RunFolder, target: Mapping[str, Any]) -> None:
    """Have the files made again that an earlier process made of another target, such as another round's."""
    path = folder.path / "target.json"
    try:
        before = json.loads(path.read_text(encoding="utf-8")) if folder.has("target.json") else None
    except (OSError, ValueError):
        before = None
    if before != json.loads(json.dumps(target)):
        folder.forget(*OF_THE_TARGET)


def _one_pass(
    result: Result, folder: RunFolder, videos: Mapping[str, tuple[Clip, int, Mapping[str, str]]], report: Report | None
) -> None:
    """Videos, numbers and the report, as far as they are not finished."""
    watchers: list[Callable[[int, Mapping[str, Tensor]], None]] = []
    meter, pictures = result.meter(), None
    if folder.has("metrics.json"):
        result.metrics = json.loads((folder.path / "metrics.json").read_text(encoding="utf-8"))
    else:
        track, asked, eyes = result.prepared.track, result.asked, result.eyes
        watchers.append(lambda start, frames: meter.update(looked_at(start, frames, track, asked, eyes)))
    if not folder.has("report.html"):
        pictures, timeline = report_meters(result)
        watchers.append(lambda start, frames: pictures.update(start, list(frames.values())))
        watchers.append(timeline.update)
    if not watchers and not videos:
        return
    shown = clips_of(result.factual, result.clip, result.truth) if watchers else {}
    clips = list({id(clip): clip for clip in [*shown.values(), *(clip for clip, _, _ in videos.values())]}.values())
    started, total = time.perf_counter(), len(result.factual)
    try:
        with ExitStack() as stack:
            writers = [
                (clip, stack.enter_context(clip.writer(folder.path / name, crf=crf, metadata=tags)))
                for name, (clip, crf, tags) in videos.items()
            ]
            for start, windows in zip_clips(clips, window_of(result.factual)):
                frames = {id(clip): window for clip, window in zip(clips, windows, strict=True)}
                for clip, add in writers:
                    add(frames[id(clip)])
                for watch in watchers:
                    watch(start, {name: frames[id(clip)] for name, clip in shown.items()})
                if report is not None:
                    report("editing", start + len(windows[0]), total)
    finally:
        folder.took("edit", time.perf_counter() - started)
    for name in videos:
        folder.keep(name)
    _note_source(folder.record, result.factual)  # all frames were read by now
    if not folder.has("metrics.json"):
        result.metrics = meter.compute()
        folder.make("metrics.json", lambda path: write_json(path, result.metrics))
    if pictures is not None:
        page = render_report(result, pictures.media(), timeline.compute())
        folder.make("report.html", lambda path: write_whole(path, page))


def _note_source(record: dict[str, Any], clip: Clip) -> None:
    """Add what a run must say of how its source was read; some of it is known only once all frames were read."""
    record["notes"] += [note for note in clip.notes if note not in record["notes"]]


def _copy(source: Path, path: Path) -> None:
    with replacing(path) as partial:
        shutil.copyfile(source, partial)


def _explained(result: Result) -> dict[str, Any]:
    changes = [asdict(change) for change in result.outcome.changes]
    return {"graph": result.graph.name, "changes": changes, "noise": result.outcome.noise.to_dict()}
