"""What a benchmark does: a configuration, and the jobs that follow from it, in an order that never changes.

A job is clip x editor x steering x intervention x seed. Beside the editors stand three references, which are measured
like any result: `nothing` (the source), `copy-target` (somebody else who is as asked) and `oracle` (the truth, drawn
by the bundled VAE and laid back as editors do).
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from countervid import models
from countervid.benchmark.clips import Ask, Filming, Subject, subjects
from countervid.benchmark.grading import check_items, read_items
from countervid.benchmark.results import EDIT, REFERENCE, REFERENCES
from countervid.causal.graph import CausalGraph
from countervid.chat.base import ChatConfig
from countervid.editors import base as editors
from countervid.editors.base import Editor
from countervid.errors import ConfigError
from countervid.files.names import safe_name
from countervid.models.registry import SUMS, bundled_folder
from countervid.phantom.dataset import FACE
from countervid.steering.choose import STEERERS, load_steerer

COUPLED, AS_PUBLISHED = "coupled", "csvc-paper"  # the one is the other without causal decoupling
STEERINGS = (*STEERERS, "auto", COUPLED)
UNLOADED = ("vpo", "promptist")  # of large models: whether they fit is known without loading them
EXAMINER = "examiner"


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Everything that the results depend on."""

    clips: tuple[str, ...]  # phantom:N, phantom:N@M, celebv:DIR, or a folder
    prompts: str | None = None  # what is asked of footage: JSON as CSVC's counterfactual_explicit.json
    editors: tuple[str, ...] = ("tokenflow", "flatten", "tune-a-video", "dva")
    steering: tuple[str, ...] = ("none", "auto")
    critic: str = "bundled"  # who looks while steering
    judge: str = EXAMINER  # who grades; any other is asked besides
    questions: str | None = None  # what that judge is asked: JSON as CSVC's questions_explicit.json
    chat: tuple[str, ...] = ()  # NAME=VALUE: settings of language models, of critic and judge alike
    interventions: tuple[str, ...] = ()  # of people, the published four; of footage, all that the file has
    seeds: int = 1
    frames: int = 16
    fps: float = 8.0
    size: int = 256  # px, of rendered clips
    max_edits: int = 4  # of a steered job
    settings: tuple[str, ...] = ()  # EDITOR.NAME=VALUE
    preset: tuple[str, ...] = ()  # NAME, for every editor that has it, or EDITOR=NAME
    model: tuple[str, ...] = ()  # a folder or hub name for every text-guided editor, or EDITOR=FOLDER
    metrics: tuple[str, ...] = ()  # all that need no weights beyond the bundled
    weights: tuple[str, ...] = ()  # NAME=FOLDER: what metrics look with, in place of or beside the bundled
    references: bool = True
    graph: str = "face"  # by which the prompts of footage are read
    modules: tuple[str, ...] = ()  # imported first: for editors and metrics of one's own

    def __post_init__(self) -> None:
        for name, least in (("seeds", 1), ("frames", 2), ("max_edits", 1), ("size", 64)):
            if getattr(self, name) < least:
                raise ConfigError(f"`{name.replace('_', '-')}` must be at least {least}, got {getattr(self, name)}.")
        if self.judge == self.critic:
            raise ConfigError(f"`{self.judge}` steers: it cannot be the judge too, of its own work. Name another.")
        if self.questions is not None and self.judge == EXAMINER:
            raise ConfigError("`--questions` are for a judge that answers in words. Name one: --judge openai:MODEL.")
        for name in ("clips", "editors", "steering"):
            given = getattr(self, name)
            if not given:
                raise ConfigError(f"`{name}` is empty. Name at least one.")
            if twice := sorted({one for one in given if given.count(one) > 1}):
                raise ConfigError(f"`{name}` names `{twice[0]}` twice.")


class Job(NamedTuple):
    """One cell of the grid."""

    clip: str
    editor: str
    steering: str
    variable: str
    value: str
    seed: int
    kind: str  # EDIT or REFERENCE

    @property
    def id(self) -> str:
        """Also where its folder is, below `jobs`."""
        return f"{self.clip}/{self.editor}/{self.steering}/{self.variable}={self.value}/{self.seed}"

    @property
    def unit(self) -> tuple[str, str, int]:
        """Jobs that share a preparation, and drawings: they are handed out together."""
        return self.clip, self.editor, self.seed


@dataclass(frozen=True)
class Grid:
    """The jobs of a configuration."""

    config: BenchmarkConfig
    subjects: tuple[Subject, ...]
    jobs: tuple[Job, ...]
    editors: Mapping[str, Mapping[str, Any]]  # name -> every setting, resolved
    left_out: Mapping[str, str]  # what was asked for and cannot be -> why

    def units(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """Jobs by what is handed out together, in order."""
        found: dict[tuple[str, str, int], list[Job]] = {}
        for job in jobs:
            found.setdefault(job.unit, []).append(job)
        return list(found.values())

    def record(self) -> dict[str, Any]:
        """What `benchmark.json` holds, and another run must agree with: words as given, settings as resolved."""
        found = asdict(self.config)
        found["editors"] = {name: dict(values) for name, values in self.editors.items()}
        found["clips"] = {subject.name: subject.prompt for subject in self.subjects}
        for name in ("prompts", "questions"):
            if found[name] is not None:
                path = Path(found[name])
                found[name] = {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        sums = bundled_folder() / SUMS
        found["bundle"] = models.sha256(sums) if sums.is_file() else None
        plain: dict[str, Any] = json.loads(json.dumps(found))
        return plain


def make_grid(config: BenchmarkConfig) -> Grid:
    """The grid of a configuration; the same configuration gives the same jobs in the same order.

    Raises:
        ConfigError: Something is named that there is not, or nothing of what is asked for can be done.
        ClipError: There are no such clips.
    """
    import_modules(config.modules)
    refuse_unknown("editor", config.editors, editors.names())
    refuse_unknown("steering", config.steering, STEERINGS)
    resolved = {name: settings_of(config, name) for name in config.editors}
    _refuse_strangers(config)
    weights_of(config)
    chat_of(config)
    filming = Filming(frames=config.frames, fps=config.fps, size=config.size)
    prompts = None if config.prompts is None else Path(config.prompts)
    wanted = config.interventions or (() if prompts is not None else FACE)
    found, left_out = subjects(
        config.clips, filming, interventions=wanted, prompts=prompts, graph=config.graph
    )  # fmt: skip
    if config.questions is not None:
        asked = Path(config.questions)
        check_items(read_items(asked, CausalGraph.load(config.graph)), found, asked)
    jobs: list[Job] = []
    for subject in found:
        for name in REFERENCES if config.references else ():
            if subject.true or name == "nothing":
                jobs += [Job(subject.name, name, "none", ask.variable, ask.value, 0, REFERENCE) for ask in subject.asks]
        for editor in config.editors:
            ways = []
            for way in config.steering:
                reason = unfit(editor, way, subject.graph, resolved[editor])
                if reason:
                    left_out[f"{editor}/{way}"] = reason
                else:
                    ways.append(way)
            for seed in range(config.seeds):
                for ask in subject.asks:
                    for way in ways:
                        if way == COUPLED and not subject.graph.decoupled({ask.variable}):
                            left_out[f"{COUPLED}/{ask.variable}"] = f"nothing causes it: the same as {AS_PUBLISHED}"
                            continue
                        jobs.append(Job(subject.name, editor, way, ask.variable, ask.value, seed, EDIT))
    if not any(job.kind == EDIT for job in jobs):
        reasons = "; ".join(f"{what}: {why}" for what, why in left_out.items()) or "no clip can have the interventions"
        raise ConfigError(f"There is nothing to do: {reasons}.")
    for job in jobs:
        for part in (job.clip, job.editor, job.steering, f"{job.variable}={job.value}"):  # folders, one in another
            safe_name(part, "job", f"{job.clip}, {job.editor}")
    return Grid(config, tuple(found), tuple(jobs), resolved, left_out)


def unfit(editor: str, way: str, graph: CausalGraph, settings: Mapping[str, Any]) -> str:
    """Why an editor cannot be steered so; "" where it can."""
    kind: Any = editors.editor_class(editor)
    stand_in = SimpleNamespace(name=editor, knobs=kind.knobs, config=SimpleNamespace(**{"guidance": 1.0, **settings}))
    asked = "csvc" if way in (COUPLED, *UNLOADED) else way
    try:
        load_steerer(asked, cast(Editor, stand_in), graph)
    except ConfigError as error:
        return str(error)
    return ""


def ask_of(subject: Subject, job: Job) -> Ask:
    """The intervention of a job."""
    return next(ask for ask in subject.asks if (ask.variable, ask.value) == (job.variable, job.value))


def settings_of(config: BenchmarkConfig, editor: str) -> dict[str, Any]:
    """Every setting of an editor but the device, with what presets and `EDITOR.NAME=VALUE` say.

    Raises:
        ConfigError: It has no such setting or preset.
    """
    kind: Any = editors.editor_class(editor)
    chosen = editors.make_config(kind.Config, {**preset_of(config, editor)[1], **given(config, editor)}, editor)
    resolved = asdict(chosen)
    resolved.pop("device", None)
    model = model_of(config, editor)
    return resolved if model is None else {**resolved, "model": model}


def preset_of(config: BenchmarkConfig, editor: str) -> tuple[str | None, dict[str, object]]:
    """The preset in use, by name, and its settings."""
    known, named = editors.presets(editor), _for(config.preset, editor)
    if named is None or (named not in known and f"{editor}={named}" not in config.preset):
        if model_of(config, editor) is None and "miniature" in known:
            return "miniature", known["miniature"]
        return None, {}
    if named not in known:
        raise ConfigError(f"`{editor}` has no preset `{named}`. It has: {', '.join(known) or 'none'}.")
    return named, known[named]


def model_of(config: BenchmarkConfig, editor: str) -> str | None:
    """The weights in place of the bundled ones; a bare name is for editors that are told by a prompt."""
    kind: Any = editors.editor_class(editor)
    bare = tuple(word for word in config.model if "=" not in word) if "prompt" in kind.knobs else ()
    return _for((*bare, *(word for word in config.model if "=" in word)), editor)


def weights_of(config: BenchmarkConfig) -> dict[str, str]:
    """Name -> folder of the weights that metrics are given.

    Raises:
        ConfigError: One is not of the form NAME=FOLDER, or not there.
    """
    found = {}
    for item in config.weights:
        name, _, folder = item.partition("=")
        if not name or not folder or not Path(folder).exists():
            raise ConfigError(
                f"`--weights {item}` names no weights. Write NAME=FOLDER, and give a folder that is there."
            )
        found[name] = folder
    return found


def chat_of(config: BenchmarkConfig) -> ChatConfig:
    """The settings of language models.

    Raises:
        ConfigError: There is no such setting.
    """
    values = {}
    for item in config.chat:
        name, equals, text = item.partition("=")
        if not (name and equals and text):
            raise ConfigError(f"`--chat {item}` is not a setting. Write it as NAME=VALUE.")
        values[name] = _value(text)
    found: ChatConfig = editors.make_config(ChatConfig, values, "chat")
    return found


def given(config: BenchmarkConfig, editor: str) -> dict[str, object]:
    """The settings that are given one by one."""
    found: dict[str, object] = {}
    for item in config.settings:
        owner, name, text = _assignment(item)
        if owner == editor:
            found[name] = _value(text)
    return found


def seeded(settings: Mapping[str, Any], seed: int) -> dict[str, int]:
    """The settings by which an editor draws, those whose names end in `seed`, moved on by a job's seed."""
    return {name: value + seed for name, value in settings.items() if name == "seed" or name.endswith("_seed")}


def import_modules(names: Sequence[str]) -> None:
    """Import modules that register editors or metrics.

    Raises:
        ConfigError: One cannot be imported.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(f"The module `{name}` cannot be imported: {error}.") from error


def refuse_unknown(what: str, asked: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a name that there is not, with the known ones and the nearest."""
    for name in asked:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            raise ConfigError(f"There is no {what} `{name}`. There are: {', '.join(known)}.{hint}")


def _refuse_strangers(config: BenchmarkConfig) -> None:
    """Refuse settings, presets and models of editors that do not take part."""
    owners = [_assignment(item)[0] for item in config.settings]
    owners += [word.partition("=")[0] for word in (*config.preset, *config.model) if "=" in word]
    for owner in owners:
        if owner not in config.editors:
            raise ConfigError(f"`{owner}` does not take part: its settings change nothing. Add it to --editors.")
    for word in config.preset:
        if "=" not in word and not any(word in editors.presets(name) for name in config.editors):
            raise ConfigError(
                f"None of the editors has a preset `{word}`. `countervid editors show EDITOR` lists them."
            )


def _assignment(item: str) -> tuple[str, str, str]:
    left, equals, text = item.partition("=")
    owner, dot, name = left.rpartition(".")
    if not (owner and dot and name and equals and text):
        raise ConfigError(f"`--set {item}` is not a setting. Write it as EDITOR.NAME=VALUE.")
    return owner.strip(), name.strip(), text.strip()


def _value(text: str) -> object:
    """A number, true, false or null as JSON has them; any other text as it is."""
    try:
        return cast(object, json.loads(text))
    except ValueError:
        return text


def _for(words: Sequence[str], editor: str) -> str | None:
    """What a list of `VALUE` and `EDITOR=VALUE` says of one editor."""
    own = [word.partition("=")[2] for word in words if word.partition("=")[0] == editor and "=" in word]
    bare = [word for word in words if "=" not in word]
    found = own or bare
    return found[-1] if found else None
