"""From a clip and an intervention to its counterfactual: the one function that ties everything together."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from countervid.causal.counterfactual import Counterfactual, Noise
from countervid.causal.graph import CausalGraph
from countervid.causal.language import describe
from countervid.clip import Clip
from countervid.critics.base import Critic, Verdict, load_critic
from countervid.editors.base import Editor, Guide, Prepared, Report, Seen, Target, load_editor
from countervid.errors import ClipError, ConfigError, InterventionError
from countervid.files.names import printable
from countervid.files.whole import write_whole
from countervid.metrics.base import Asked, Eyes
from countervid.metrics.examiner import Examiner
from countervid.runs import provenance
from countervid.runs.abduction import seen_in, stated_by
from countervid.runs.comparison import Header, compare
from countervid.runs.drawing import spoken
from countervid.runs.everyone import PersonEdit, check_everyone, composed, others
from countervid.runs.folder import RunFolder
from countervid.runs.measure import RunMeter, asked_of, measure
from countervid.runs.outputs import write_outputs
from countervid.runs.report import captions, report_of
from countervid.runs.steered import Steering, steered, summary
from countervid.steering.base import Round, Steerer
from countervid.steering.candidates import check_candidates
from countervid.steering.choose import load_steerer
from countervid.steering.loop import LoopConfig, Steered

PHANTOM_MARK = "synthetic: countervid phantom"  # how the world's own clips say so in their metadata
MINIATURE_NOTE = (
    "The bundled miniature models have only ever seen rendered people: on real footage expect a rough result. "
    "Real weights come in through `countervid models import`."
)


@dataclass(kw_only=True)
class Result:
    """A counterfactual video and all that is known of it."""

    clip: Clip  # the counterfactual; lazy
    factual: Clip
    truth: Clip | None  # the true counterfactual, where a world knows it
    target: Target
    outcome: Counterfactual  # attributes before and after, with the reason of each change
    graph: CausalGraph
    prepared: Prepared
    seen: Mapping[str, Seen]  # what was read off the clip, where attributes were not given
    eyes: Eyes  # the models that measure
    record: dict[str, Any]  # what `run.json` says
    folder: Path | None = None
    steered: Steered | None = None  # the rounds, where a critic looked
    people: tuple[PersonEdit, ...] = ()  # everybody who was edited; the first is the one of the fields above

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What the critic said of each edit that it judged."""
        rounds = () if self.steered is None else self.steered.rounds
        return tuple(round.verdict for round in rounds if round.verdict is not None)

    @property
    def asked(self) -> Asked:
        """What the edit was asked for, as metrics see it."""
        return asked_of(self.target, self.graph, describe(self.outcome.factual, self.graph))

    def meter(self) -> RunMeter:
        """What takes `metrics` of windows that are at hand."""
        tracks = [one.prepared.track for one in self.people if one.prepared.track is not None]
        return RunMeter(self.truth is not None, self.prepared.track, self.asked, self.eyes, tracks or None)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Examiner, identity and, where the truth is known, the distance to it; measured when first asked for."""
        return measure(self.factual, self.clip, self.truth, self.prepared.track, self.asked, self.eyes)

    @property
    def examiner(self) -> Examiner | None:
        """Who judges the attributes, where its weights are there."""
        return self.eyes.get("examiner", Examiner.from_folder) if self.eyes.has("examiner") else None

    def comparison(self) -> Clip:
        """Factual, counterfactual, truth and difference side by side, with captions; lazy."""
        title = "do(" + ", ".join(f"{spoken(name)} = {value}" for name, value in self.outcome.do.items()) + ")"
        lines = [f"{spoken(c.variable)}: {c.before} to {c.after}, {c.reason}" for c in self.outcome.changes]
        lines = lines or ["nothing changes: the person is so already"]
        if len(lines) > 4:
            lines = [*lines[:3], f"and {len(lines) - 3} more"]
        corner = "synthetic video" if self.record["settings"]["marking"] else ""
        header = Header(title=title, lines=lines, corner=corner)
        return compare(header, self.factual, self.clip, self.truth, captions(self))

    def write_report(self, path: str | Path) -> Path:
        """Write the report: one HTML page that needs no network."""
        path = Path(path)
        write_whole(path, report_of(self))
        return path


def counterfactual(
    clip: Clip,
    do: Mapping[str, str],
    *,
    graph: CausalGraph | str | Path = "phantom",
    editor: Editor | str = "dva",
    critic: Critic | str | None = None,
    steerer: Steerer | str = "auto",
    loop: LoopConfig = LoopConfig(),
    watch: Callable[[Round, Path | None], None] | None = None,
    factual: str | Mapping[str, str] | None = None,
    noise: Noise | None = None,
    truth: Clip | None = None,
    strength: float = 1.0,
    strengths: Mapping[str, float] | None = None,
    seed: int = 0,
    guide: Guide | None = None,
    out: str | Path | None = None,
    marking: bool = True,
    everyone: bool = False,
    eyes: Eyes | None = None,
    report: Report | None = None,
) -> Result:
    """What the video would have looked like, had the attributes in `do` been so.

    Args:
        clip: The factual video.
        do: The intervention: attribute -> value.
        graph: A causal graph, the name of a bundled one, or the path of a YAML file.
        editor: An editor, or the name of one.
        critic: Who looks at each edit, so that it is steered; a critic or its name (`bundled`). None: one edit.
        steerer: Who writes the next target from a verdict; `auto` is what suits the editor.
        loop: How many edits, how many frames.
        watch: Called after each round with the file of its pictures, where there is a folder.
        factual: The person's attributes, or a sentence about them. What is left out is read off the clip.
        noise: The person's noise, where it is carried from before; else inferred from the factual attributes.
        truth: The true counterfactual clip, where it is known: measured against and shown.
        strength: 0 returns the source bit for bit, 1 is the edit as asked.
        strengths: The same for single attributes, on top of it.
        seed: For editors that draw noise.
        guide: How, for editors that know a way of their own; `do` then only names it.
        out: Write a run's folder there, file by file; the same call goes on where it was stopped.
        marking: Mark the result as synthetic (metadata and watermark). Whoever switches it off must say so.
        everyone: Edit every person of the clip, each from what is read off them; else the one that the editor's
            settings name. Metrics are of the largest.
        eyes: The models that measure; the bundled ones by default, on the editor's device.
        report: Called with (what is being done, frames done, frames in all).

    Raises:
        InterventionError: Unknown attributes or values, or factual attributes that cannot be told.
        ClipError: `truth` does not fit `clip`.
        OutputError: `out` cannot be written, or holds another run.
        FaceError, ModelError, ConfigError: As the editor says.
    """
    model = graph if isinstance(graph, CausalGraph) else CausalGraph.load(graph)
    if not do:
        raise InterventionError("No intervention was given. Say what should be different, for example age=old.")
    model.check(do)
    if truth is not None and (len(truth), truth.height, truth.width) != (len(clip), clip.height, clip.width):
        raise ClipError(
            f"The truth has {len(truth)} frames of {truth.width} x {truth.height}, the clip {len(clip)} of "
            f"{clip.width} x {clip.height}. They must be of one length and size."
        )
    chosen = load_editor(editor) if isinstance(editor, str) else editor
    # Checked before anything dear is computed; what the graph and the clip add is checked by the target itself.
    strengths = dict(strengths or {})
    Target(factual={}, do={}, counterfactual=dict.fromkeys(strengths, ""), strength=strength, strengths=strengths)
    if hasattr(chosen, "check"):
        chosen.check(do, guide)
    if everyone:
        check_everyone(chosen, critic is not None, guide is not None, factual is not None, noise is not None)
    plan = None
    if critic is not None:
        if guide is not None:
            raise ConfigError(
                "`--attribute` and `--target-text` go round the graph, and a critic asks what the graph says."
            )
        looking = load_critic(critic) if isinstance(critic, str) else critic
        looking.check(model)
        steering = load_steerer(steerer, chosen, model) if isinstance(steerer, str) else steerer
        check_candidates(loop.candidates, chosen)
        plan = Steering(critic=looking, steerer=steering, loop=loop, watch=watch)
    settings = {
        "clip": clip.digest(),
        "do": dict(do),
        "factual": factual if isinstance(factual, str) or factual is None else dict(factual),
        "noise": None if noise is None else noise.to_dict(),
        "graph": {"name": model.name, "digest": _graph_digest(model)},
        "editor": chosen.name,
        "editor_settings": asdict(chosen.config),
        "weights": chosen.weights(),
        "strength": strength,
        "strengths": strengths,
        "seed": seed,
        **({} if guide is None else {"guide": asdict(guide)}),
        **({} if plan is None else {"steering": plan.settings()}),
        **({"everyone": True} if everyone else {}),
        "truth": None if truth is None else truth.digest(),
        "marking": marking,
    }
    notes = [*clip.notes, *clip.lost_in(".mp4")]
    if chosen.miniature and not clip.metadata.get("comment", "").startswith(PHANTOM_MARK):
        notes.append(MINIATURE_NOTE)
    if seed and "seed" not in chosen.knobs:
        notes.append(f"The seed changes nothing: `{chosen.name}` has none among its controls.")
    about = {"controls": sorted(chosen.knobs), "versions": versions(), "source": _name_of(clip), "notes": notes}
    folder = None if out is None else RunFolder(Path(out), settings, about, getattr(chosen, "costs", None))
    record: dict[str, Any] = (
        folder.record if folder else {**about, "settings": settings, "facts": {}, "seconds": {}, "files": {}}
    )
    if folder is not None:
        report = _counting(folder, report)

    with folder or nullcontext():
        started = time.perf_counter()
        stated = stated_by(factual, model)
        seen = seen_in(chosen, clip, model, stated, report)
        known = {**{name: reading.value for name, reading in seen.items()}, **stated}
        outcome = model.counterfactual(known, do, noise)
        said = factual if isinstance(factual, str) else describe(outcome.factual, model)
        prepared = chosen.prepare(clip, outcome.factual, prompt=said, report=report)
        target = Target(
            factual=outcome.factual,
            do=outcome.do,
            counterfactual=outcome.attributes,
            prompt=describe(outcome.attributes, model, factual if isinstance(factual, str) else None),
            strength=strength,
            strengths=strengths,
            seed=seed,
            guide=guide,
        )
        person = 0 if prepared.track is None else prepared.track.face
        people = [PersonEdit(person=person, seen=seen, outcome=outcome, prepared=prepared, target=target)]
        if everyone:
            people += others(chosen, clip, model, people[0], report)
        nothing = all(one.target.asks_for_nothing for one in people)
        came = None
        if plan is None or nothing:
            edited = composed(chosen, clip, people, report)
        else:
            came = steered(chosen, prepared, target, model, plan, folder, report)
            edited, target = came.clip, came.chosen.step.target
            record["steering"] = summary(came)
        if marking and not nothing:
            edited = clip.zipped(provenance.mark, edited)
        record["facts"] = {
            **prepared.facts, "prepared": prepared.key,
            "seen": {name: asdict(reading) for name, reading in seen.items()},
        }  # fmt: skip
        if everyone:
            record["people"] = [one.to_json() for one in people]
        result = Result(
            clip=edited, factual=clip, truth=truth, target=target, outcome=outcome, graph=model, prepared=prepared,
            seen=seen, eyes=eyes or Eyes(getattr(chosen, "device", "cpu")), record=record,
            folder=None if folder is None else folder.path, steered=came, people=tuple(people),
        )  # fmt: skip
        if folder is not None:
            folder.took("prepare", time.perf_counter() - started)
            write_outputs(result, folder, nothing, report)
            folder.finish()
    return result


def _counting(folder: RunFolder, report: Report | None) -> Report:
    """`report`, that also has the folder note what the run has cost so far."""

    def told(what: str, done: int, total: int) -> None:
        folder.counted()
        if report is not None:
            report(what, done, total)

    return told


def _name_of(clip: Clip) -> str:
    return printable(clip.source.name) if clip.source else "frames in memory"


def _graph_digest(graph: CausalGraph) -> str:
    parts = [repr(graph.causes)]
    for name in graph.variables:
        parts += [graph.variables[name].model_dump_json(), graph.mechanisms[name].model_dump_json()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def versions() -> dict[str, str]:
    """What a repetition needs: versions of the package, of Python and of the libraries that compute."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in ("countervid", "torch", "numpy", "av", "opencv-python-headless", "safetensors"):
        try:
            found[name] = installed_version(name)
        except PackageNotFoundError:
            found[name] = "source"  # run from its source, or not there
    return found
