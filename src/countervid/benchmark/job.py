"""One job, from prepared clip to scores, in a folder of its own that is finished or is not.

A worker keeps what is dear: the models, and the clip that it last prepared. Whatever a job wrote before it was stopped
is found again (rounds in its ledger, drawings in the editor's store), and its costs are told as if nothing had been
shared: a drawing that another way of steering has made already counts as what it took then.
"""

from __future__ import annotations

import errno
import json
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from countervid.autoencoder.codec import VAE
from countervid.benchmark.clips import Ask, Footage, Shelf, Subject
from countervid.benchmark.counted import PREPARING, Counted
from countervid.benchmark.grading import Grader, load_judge, read_items
from countervid.benchmark.grid import (
    AS_PUBLISHED,
    COUPLED,
    EXAMINER,
    Grid,
    Job,
    ask_of,
    chat_of,
    given,
    model_of,
    preset_of,
    seeded,
    weights_of,
)
from countervid.benchmark.measuring import CROP, Looks, comes_with, crops_of, seen_as_asked, windows_of
from countervid.benchmark.results import EDIT, defined
from countervid.causal.graph import CausalGraph
from countervid.clip.sheets import write_rows
from countervid.critics.base import Critic, load_critic
from countervid.editors.base import Editor, Prepared, Target, editor_class, load_editor
from countervid.errors import ConfigError, OutputError
from countervid.face.paste import paste
from countervid.files.digests import entry_of, intact
from countervid.files.whole import write_whole
from countervid.metrics.base import Asked, Eyes, measured
from countervid.runs import provenance
from countervid.runs.run import versions
from countervid.steering.base import edits_of, spent
from countervid.steering.choose import load_steerer
from countervid.steering.loop import Ledger, LoopConfig, Steered, steer

STATE, SCORES, ERROR = "state.json", "scores.json", "error.txt"
DONE, FAILED, RUNNING = "done", "failed", "running"
FILES = (SCORES, "target.json", "counterfactual.mp4", "sheet.png")  # of a finished job
SHOWN = 6  # frames of a sheet
FEATHER = 8  # px at the border of the oracle's square


class FullDisk(OutputError):
    """No job can go on."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    job: Job
    status: str  # DONE or FAILED
    error: str = ""  # in one line
    seconds: float = 0.0


class Worker:
    """Does jobs, one after another.

    Args:
        out: The benchmark's folder.
        grid: What the jobs are of.
        metrics: What is measured.
        device: Where models run.
        retries: How often a job that fails is tried again.
        cache: Where prepared clips are kept for good; None keeps them in `out` for as long as they are needed.
    """

    def __init__(
        self, out: Path, grid: Grid, metrics: Sequence[str], *, device: str = "cpu", retries: int = 1,
        cache: Path | None = None,
    ) -> None:  # fmt: skip
        self.out, self.grid, self.metrics, self.retries = out, grid, tuple(metrics), retries
        self.device, self.cache = torch.device(device), cache
        self.eyes = Eyes(self.device, weights_of(grid.config))
        self._shelf, self._looks = Shelf(out / "clips"), Looks()
        self._subjects = {subject.name: subject for subject in grid.subjects}
        self._editors: dict[tuple[str, int], Editor] = {}
        self._critic: Critic | None = None
        self._grader: Grader | None = None
        self._at_hand: tuple[tuple[str, str, int], Counted, Prepared] | None = None

    def do(self, job: Job) -> Outcome:
        """Do a job, and do it again where it fails; its folder says how it stands.

        Raises:
            FullDisk: There is no room for its files.
        """
        folder, began = folder_of(self.out, job), time.perf_counter()
        for tries in range(1, self.retries + 2):
            try:
                _state(folder, status=RUNNING, tries=tries)
                self._done(job, folder)
                seconds = round(time.perf_counter() - began, 3)
                (folder / ERROR).unlink(missing_ok=True)
                files = {path.name: entry_of(path) for path in map(folder.joinpath, FILES)}
                _state(folder, status=DONE, tries=tries, seconds=seconds, files=files)
                self._tidy(job)
                return Outcome(job, DONE, seconds=seconds)
            except Exception as error:
                if full(error):
                    raise FullDisk(
                        f"The disk is full: `{folder}` cannot be written. Free some space and run the same command "
                        "again; every finished job is kept."
                    ) from error
                line = " ".join(f"{type(error).__name__}: {error}".split())
                write_whole(folder / ERROR, traceback.format_exc())
                _state(folder, status=FAILED, tries=tries, error=line)
                self._at_hand = None
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
        return Outcome(job, FAILED, line, time.perf_counter() - began)

    def _done(self, job: Job, folder: Path) -> None:
        subject = self._subjects[job.clip]
        ask = ask_of(subject, job)
        factual, truth = self._shelf.footage(subject), self._shelf.truth(subject, ask)
        target = Target(
            factual=dict(subject.factual), do={job.variable: job.value}, counterfactual=dict(ask.counterfactual),
            prompt=ask.prompt, seed=job.seed,
        )  # fmt: skip
        if self.device.type == "cuda":
            torch.cuda.init()  # memory is asked about before anything is on the device
            torch.cuda.reset_peak_memory_stats(self.device)
        costs: dict[str, float | None] = {}
        if job.kind == EDIT:
            edited, target, costs = self._edited(job, folder, subject, factual, target)
        else:
            edited = self._reference(job, subject, ask, factual, truth)
        asked = Asked(
            factual=target.factual, do=target.do, counterfactual=target.counterfactual, prompt=ask.prompt,
            factual_prompt=subject.prompt, graph=subject.graph,
        )  # fmt: skip
        windows = windows_of(factual, edited, truth, asked, self.eyes)
        self._looks.turn_to(job.clip, ask.intervention)
        self._looks.lend(windows)
        scores: dict[str, float | None] = dict(measured(self.metrics, windows, comes_with(factual, truth)))
        self._looks.keep(windows)
        if (grader := self._grading()) is not None:
            scores |= grader.scores(subject, ask, edited)
        if job.kind == EDIT:
            satisfied = costs["steering.satisfied"]
            seen = seen_as_asked(windows, asked) if satisfied else None
            costs["steering.false_stop"] = None if seen is None else float(not seen)
        plain = {name: None if value is None else defined(value) for name, value in {**scores, **costs}.items()}
        _write_json(folder / "target.json", target.to_json())
        self._pictures(job, folder, factual, edited, truth)
        _write_json(folder / SCORES, {"job": job.id, "scores": plain})

    # --- editing -----------------------------------------------------------------------------------------------------

    def _edited(
        self, job: Job, folder: Path, subject: Subject, factual: Footage, target: Target
    ) -> tuple[Footage, Target, dict[str, float | None]]:
        counted, prepared = self._prepared(job, subject, factual)
        critic, graph = self._looking(), subject.graph
        steerer: Any = load_steerer(AS_PUBLISHED if job.steering == COUPLED else job.steering, counted.editor, graph)
        if job.steering == COUPLED:
            steerer = replace(steerer, decouple=False)
        began, drawing = time.perf_counter(), counted.seconds
        done = steer(
            cast(Editor, counted), prepared, target, graph=graph, critic=critic, steerer=steerer,
            config=LoopConfig(max_edits=self.grid.config.max_edits, source=False), ledger=_ledger(folder),
        )  # fmt: skip
        beside = time.perf_counter() - began - (counted.seconds - drawing)
        frames = counted.frames_of(done.clip)
        costs = self._costs(job, done, counted, prepared, beside)
        return replace(factual, frames=frames), done.chosen.step.target, costs

    def _prepared(self, job: Job, subject: Subject, factual: Footage) -> tuple[Counted, Prepared]:
        if self._at_hand is not None and self._at_hand[0] == job.unit:
            return self._at_hand[1:]
        self._at_hand = None  # its memory goes before the next is taken
        counted = Counted(self._editor(job.editor, job.seed), self.out / "costs" / job.clip / job.editor)
        prepared = counted.prepare(factual.clip(), dict(subject.factual), prompt=subject.prompt)
        self._at_hand = (job.unit, counted, prepared)
        return counted, prepared

    def _editor(self, name: str, seed: int) -> Editor:
        """An editor, resident. Bundled ones are small and all stay; of others, the last one."""
        settings, config = self.grid.editors[name], self.grid.config
        drawing = seeded(settings, seed)
        key = (name, seed if drawing else 0)
        if key not in self._editors:
            model, kind = model_of(config, name), editor_class(name)
            if model is not None:
                self._editors.clear()
            where = {"device": str(self.device)} if "device" in {f.name for f in fields(kind.Config)} else {}  # type: ignore[attr-defined]
            self._editors[key] = load_editor(
                name, model, cache=self.cache or self.out / "prepared", preset=preset_of(config, name)[0],
                **{**given(config, name), **drawing, **where},
            )  # fmt: skip
        return self._editors[key]

    def _looking(self) -> Critic:
        if self._critic is None:
            self._critic = load_critic(self.grid.config.critic, chat_of(self.grid.config))
        return self._critic

    def _grading(self) -> Grader | None:
        config = self.grid.config
        if self._grader is None and config.judge != EXAMINER:
            published = None if config.questions is None else Path(config.questions)
            items = None if published is None else read_items(published, CausalGraph.load(config.graph))
            self._grader = Grader(load_judge(config.judge, chat_of(config)), items)
        return self._grader

    def _costs(
        self, job: Job, done: Steered, counted: Counted, prepared: Prepared, beside: float
    ) -> dict[str, float | None]:
        chosen, sums = done.chosen, spent(done.rounds)
        edits = edits_of(done.rounds)
        drawn = [counted.cost(prepared, counted.mark(round.step.target)) for round in edits]
        preparing = counted.cost(prepared, PREPARING)
        paper = job.steering in (AS_PUBLISHED, COUPLED)  # it minds what should change, and nothing else
        satisfied = None if chosen.verdict is None else float(not chosen.missing and (paper or chosen.holds))
        return {
            "cost.seconds": beside + sum(cost["seconds"] or 0.0 for cost in drawn),
            "cost.prepare_seconds": preparing["seconds"],
            "cost.evaluations": _sum(cost["evaluations"] for cost in drawn),
            "cost.prepare_evaluations": preparing["evaluations"],
            "cost.memory_mb": peak_mb(self.device),
            "cost.edits": float(len(edits)),
            "cost.calls": float(sum(round.verdict is not None or bool(round.failure) for round in done.rounds)),
            "cost.critic_dollars": float(sum(amounts.get("cost_usd", 0.0) for amounts in sums.values())),
            "steering.satisfied": satisfied,
        }

    # --- what editors are held against -------------------------------------------------------------------------------

    def _reference(self, job: Job, subject: Subject, ask: Ask, factual: Footage, truth: Footage | None) -> Footage:
        if job.editor == "nothing":
            return factual
        if job.editor == "copy-target":
            found = subject.another(ask)
            assert found is not None
            return found
        assert truth is not None
        return replace(factual, frames=self._oracle(factual, truth))

    @torch.inference_mode()
    def _oracle(self, factual: Footage, truth: Footage) -> Tensor:
        """The truth as the bundled VAE draws it, laid back into the source inside the face's square."""
        vae: VAE = self.eyes.get("vae", VAE.from_folder)

        def drawn(footage: Footage) -> Tensor:
            signed = crops_of(footage, slice(None), self.device) * 2 - 1
            parts = [vae.decode(vae.encode(part)) for part in signed.split(8)]
            return ((torch.cat(parts) + 1) * 127.5).permute(0, 2, 3, 1).cpu()

        edge = torch.arange(CROP)
        ramp = (torch.minimum(edge, CROP - 1 - edge).float() / FEATHER).clamp(0, 1)
        masks = (ramp[:, None] * ramp[None]).expand(len(factual.rows), -1, -1)
        result, rows = factual.frames.clone(), torch.from_numpy(factual.rows)
        result[rows] = paste(
            factual.frames[rows], drawn(truth), factual.squares, masks, before=drawn(replace(factual, world=None))
        )
        return result

    # --- files -------------------------------------------------------------------------------------------------------

    def _pictures(self, job: Job, folder: Path, factual: Footage, edited: Footage, truth: Footage | None) -> None:
        source, clip = factual.clip(), edited.clip()
        if job.editor != "nothing":
            tags = provenance.metadata(
                {job.variable: job.value}, version=versions()["countervid"], editor=job.editor
            )  # fmt: skip
            source.zipped(provenance.mark, clip).write(folder / "counterfactual.mp4", metadata=tags)
        else:
            clip.write(folder / "counterfactual.mp4")
        rows = {"factual": factual, f"do({job.variable} = {job.value}), {job.editor}, {job.steering}": edited}
        rows |= {} if truth is None else {"truth": truth}
        write_rows(folder / "sheet.png", {name: _signed(footage) for name, footage in rows.items()})

    def _tidy(self, job: Job) -> None:
        """Remove what was prepared of a clip for an editor, once nothing is left to do with it."""
        if self.cache is not None or self._at_hand is None or self._at_hand[0] != job.unit:
            return
        those = [other for other in self.grid.jobs if (other.clip, other.editor) == (job.clip, job.editor)]
        if all(standing(self.out, other) == DONE for other in those):
            shutil.rmtree(self._at_hand[2].store.folder, ignore_errors=True)
            self._at_hand = None


def folder_of(out: Path, job: Job) -> Path:
    return out / "jobs" / job.id


def standing(out: Path, job: Job) -> str:
    """How a job stands: done, failed, running (it was stopped), "" (not begun), or what is wrong with its files."""
    folder = folder_of(out, job)
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        status = state["status"]
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"`{folder / STATE}` is damaged ({type(error).__name__})"
    if status == DONE and scores_of(out, job) is None:
        return f"`{folder / SCORES}` is damaged or missing"
    if status == DONE and isinstance(files := state.get("files"), dict):  # not in benchmarks of older versions
        damaged = [name for name in FILES if not intact(folder / name, files.get(name))]
        if damaged:
            return f"`{folder / damaged[0]}` is damaged or missing"
    return str(status) if status in (DONE, FAILED, RUNNING) else f"`{folder / STATE}` is damaged (`{status}`)"


def scores_of(out: Path, job: Job) -> dict[str, float | None] | None:
    """The numbers of a finished job, or None where its file is damaged."""
    try:
        content = json.loads((folder_of(out, job) / SCORES).read_text(encoding="utf-8"))
        scores = content["scores"]
        sound = content["job"] == job.id and all(
            value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
            for value in scores.values()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return dict(scores) if sound else None


def error_of(out: Path, job: Job) -> str:
    """Why a job failed, in one line."""
    try:
        return str(json.loads((folder_of(out, job) / STATE).read_text(encoding="utf-8"))["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"


def note_failure(out: Path, job: Job, line: str) -> None:
    """Mark a job as failed whose worker cannot do so itself any more."""
    _state(folder_of(out, job), status=FAILED, tries=1, error=line)
    write_whole(folder_of(out, job) / ERROR, line + "\n")


def full(error: BaseException | None) -> bool:
    """Whether a full disk is behind an error."""
    while error is not None:
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT) or "disk is full" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def peak_mb(device: torch.device) -> float:
    """Peak of the GPU's memory since it was last reset; without a GPU, of this process so far. In MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _ledger(folder: Path) -> Ledger:
    try:
        return Ledger(folder / "verdicts.jsonl")
    except (UnicodeDecodeError, ConfigError):  # not even text: its rounds are made again
        (folder / "verdicts.jsonl").unlink()
        return Ledger(folder / "verdicts.jsonl")


def _signed(footage: Footage) -> Tensor:
    """The first faces of a clip, or its first frames where none is known, `(n, 3, 128, 128)` in [-1, 1]."""
    if len(footage.rows):
        first = replace(footage, rows=footage.rows[:SHOWN], squares=footage.squares[:SHOWN])
        return crops_of(first, slice(None), torch.device("cpu")) * 2 - 1
    pictures = footage.frames[:SHOWN].permute(0, 3, 1, 2).float() / 127.5 - 1
    return functional.interpolate(pictures, (CROP, CROP), mode="bilinear", antialias=True)


def _sum(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return float(sum(known)) if known else None


def _state(folder: Path, **entries: Any) -> None:
    _write_json(folder / STATE, entries)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
