"""The clips of a benchmark: rendered people whose truth is known, or footage with the prompts of a published file.

Each gives the same things: its factual footage, what is asked of it, and, where a world knows it, the true
counterfactual. Exact frames are kept in the benchmark's folder beside a video to look at, so that whoever measures a
job, whenever, measures the same pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from countervid.causal.graph import CausalGraph
from countervid.causal.language import describe
from countervid.causal.lexicon import parse
from countervid.clip import Clip
from countervid.errors import ClipError, ConfigError, FaceError
from countervid.face.align import PORTRAIT, quads
from countervid.face.pipeline import FacePipeline
from countervid.files.whole import write_whole
from countervid.metrics.base import World
from countervid.phantom.dataset import SPLITS
from countervid.phantom.render import Rendering
from countervid.phantom.scm import DOMAINS
from countervid.phantom.world import Person, render_clip, sample_person
from countervid.runs.footage import VIDEOS, clip_of, read_prompts

ANOTHER = 500_000  # people further on in the test split: whom `copy-target` shows
BACKGROUND, OCCLUDER = 0, 8  # of the renderer's masks
SUM = ".sha256"  # beside a clip's frames: their checksum, missing in benchmarks of older versions
LOOKING_CRF = 8  # of the videos that are only looked at


@dataclass(frozen=True, kw_only=True)
class Filming:
    """How clips are rendered or read."""

    frames: int = 16  # of each clip; footage is cut to so many
    fps: float = 8.0  # of rendered clips
    size: int = 256  # of rendered clips, px


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One intervention on one clip."""

    variable: str
    value: str
    counterfactual: Mapping[str, str]
    prompt: str

    @property
    def intervention(self) -> str:
        return f"{self.variable}={self.value}"


@dataclass(frozen=True, kw_only=True)
class Footage:
    """The frames of a clip, where the face is in them, and what a renderer knows besides."""

    frames: Tensor  # (F, H, W, 3) uint8
    fps: float
    rows: npt.NDArray[np.int64]  # (n,) the frames that show the face
    squares: npt.NDArray[np.float64]  # (n, 4, 2) pixels
    world: World | None = None

    def clip(self) -> Clip:
        return Clip.from_frames(self.frames, self.fps)


class Subject(Protocol):
    """One clip of the benchmark."""

    @property
    def name(self) -> str: ...

    @property
    def factual(self) -> dict[str, str]: ...

    @property
    def prompt(self) -> str:
        """Says the factual attributes."""
        ...

    @property
    def asks(self) -> tuple[Ask, ...]: ...

    @property
    def true(self) -> bool:
        """Whether the true counterfactual is known."""
        ...

    @property
    def graph(self) -> CausalGraph: ...

    def footage(self) -> Footage: ...

    def truth(self, ask: Ask, factual: Footage) -> Footage | None:
        """The true counterfactual, through the factual squares."""
        ...

    def another(self, ask: Ask) -> Footage | None:
        """Somebody else who is as the counterfactual should be."""
        ...


@dataclass(frozen=True)
class Phantom:
    """A rendered person."""

    person: Person
    asks: tuple[Ask, ...]
    filming: Filming
    true: bool = True

    @property
    def name(self) -> str:
        return f"phantom-{self.person.seed}"

    @property
    def factual(self) -> dict[str, str]:
        return self.person.attributes

    @property
    def prompt(self) -> str:
        return describe(self.person.attributes, self.graph)

    @property
    def graph(self) -> CausalGraph:
        return self.person.graph

    def footage(self) -> Footage:
        return self._filmed(self._rendered(self.person, self.factual))

    def truth(self, ask: Ask, factual: Footage) -> Footage:
        return self._filmed(self._rendered(self.person, ask.counterfactual, layers=True), factual.squares)

    def another(self, ask: Ask) -> Footage:
        return self._filmed(self._rendered(sample_person(self.person.seed + ANOTHER), ask.counterfactual))

    def _rendered(self, person: Person, attributes: Mapping[str, str], layers: bool = False) -> Rendering:
        film = self.filming
        return render_clip(
            person, frames=film.frames, fps=film.fps, size=film.size, attributes=attributes, layers=layers
        )

    def _filmed(self, made: Rendering, squares: npt.NDArray[np.float64] | None = None) -> Footage:
        world = None
        if made.masks is not None and made.flow is not None and made.visible is not None:
            masks = torch.from_numpy(made.masks)
            world = World(
                flow=torch.from_numpy(made.flow), visible=torch.from_numpy(made.visible) > 0,
                occluder=masks == OCCLUDER, background=masks == BACKGROUND,
            )  # fmt: skip
        if squares is None:
            landmarks = made.landmarks - np.float32(0.5)  # the face pipeline counts from pixel centres
            squares = np.asarray(quads(landmarks, framing=PORTRAIT), dtype=np.float64)
        return Footage(
            frames=torch.from_numpy(made.frames), fps=self.filming.fps, rows=np.arange(len(made.frames)),
            squares=squares, world=world,
        )  # fmt: skip


@dataclass(frozen=True)
class Filmed:
    """A clip of a folder, with the prompts of a published file; its truth is not known."""

    name: str
    path: Path
    graph_name: str
    factual: dict[str, str]
    prompt: str
    asks: tuple[Ask, ...]
    filming: Filming
    true: bool = False

    @property
    def graph(self) -> CausalGraph:
        return CausalGraph.load(self.graph_name)

    def footage(self) -> Footage:
        clip = Clip.read(self.path).first(self.filming.frames)
        rows, squares = np.empty(0, np.int64), np.empty((0, 4, 2))
        try:
            track = FacePipeline().analyze(clip)
            rows = track.frames()
            squares = np.asarray(track.quads[rows], dtype=np.float64)
        except FaceError:
            pass  # numbers of the face are left out
        return Footage(frames=clip.frames, fps=clip.fps, rows=rows, squares=squares)

    def truth(self, ask: Ask, factual: Footage) -> None:
        return None

    def another(self, ask: Ask) -> None:
        return None


def people(count: int, first: int = 0) -> list[Person]:
    """People of the test split, a man and a woman by turns, so that every direction of an edit is there.

    Args:
        count: How many.
        first: So many are passed over before, by the same turns.
    """
    found: dict[str, list[Person]] = {"man": [], "woman": []}
    index, wanted = 0, first + count
    while min(map(len, found.values())) < (wanted + 1) // 2:
        person = sample_person(SPLITS["test"] + index)
        found[person.attributes["gender"]].append(person)
        index += 1
    return [found["woman" if turn % 2 else "man"][turn // 2] for turn in range(first, wanted)]


def subjects(
    named: Sequence[str], filming: Filming, *, interventions: Sequence[str], prompts: Path | None, graph: str
) -> tuple[list[Subject], dict[str, str]]:
    """The clips behind words such as `phantom:8`, `phantom:4@8`, `celebv:DIR` or a folder.

    Args:
        named: The words.
        filming: How they are rendered or read.
        interventions: Variables, each to be set to its other value, or `name=value`.
        prompts: What is asked of footage: JSON as CSVC's `counterfactual_explicit.json`.
        graph: By which its prompts are read.

    Returns:
        The clips, and what was left out: name -> why.

    Raises:
        ConfigError: Unknown words, interventions that no clip can have, or prompts that do not fit the clips.
        ClipError: There is no such folder.
    """
    found: dict[str, Subject] = {}
    left_out: dict[str, str] = {}
    for word in named:
        kind, _, rest = word.partition(":")
        if kind == "phantom":
            for person in people(*_counted(rest, word)):
                found[f"phantom-{person.seed}"] = Phantom(person, _asks_of(person, interventions), filming)
            continue
        folder = Path(rest if kind == "celebv" and rest else word)
        if not folder.is_dir():
            raise ClipError(f"`{word}` names no clips. Use phantom:N, phantom:N@M, celebv:DIR or a folder of clips.")
        if prompts is None:
            raise ConfigError(
                f"What is asked of the clips in `{folder}`? Give `--prompts counterfactual_explicit.json`."
            )
        made, absent = _filmed(folder, prompts, filming, interventions, graph)
        found.update({subject.name: subject for subject in made})
        left_out.update(absent)
    if not found:
        raise ConfigError("There are no clips. Name some: --clips phantom:8.")
    return list(found.values()), left_out


def _counted(text: str, word: str) -> tuple[int, int]:
    count, _, first = text.partition("@")
    if not count.isdecimal() or int(count) < 1 or (first and not first.isdecimal()) or text.endswith("@"):
        raise ConfigError(f"`{word}` is no number of people. Write phantom:8, or phantom:8@4 to begin with the 5th.")
    return int(count), int(first or 0)


def _asks_of(person: Person, interventions: Sequence[str]) -> tuple[Ask, ...]:
    asks = []
    for wanted in interventions:
        variable, _, value = wanted.partition("=")
        if variable not in DOMAINS or (value and value not in DOMAINS[variable]):
            values = ", ".join(DOMAINS.get(variable, DOMAINS))
            raise ConfigError(f"`{wanted}` is no intervention on a rendered person. There are: {values}.")
        value = value or next(v for v in DOMAINS[variable] if v != person.attributes[variable])
        if value == person.attributes[variable]:
            continue  # they are so already
        after = person.counterfactual({variable: value}).attributes
        prompt = describe(after, person.graph)
        asks.append(Ask(variable=variable, value=value, counterfactual=after, prompt=prompt))
    return tuple(asks)


def _filmed(
    folder: Path, prompts: Path, filming: Filming, interventions: Sequence[str], graph_name: str
) -> tuple[list[Filmed], dict[str, str]]:
    entries, graph = read_prompts(prompts), CausalGraph.load(graph_name)
    made, left_out = [], {}
    for name, entry in entries.items():
        path = clip_of(folder, name)
        if path is None:
            left_out[name] = f"not in {folder.name}"
            continue
        factual, asks = parse(entry["factual"], graph), []
        for variable, prompt in entry["counterfactual"].items():
            after = parse(prompt, graph)
            if variable not in graph.variables:
                raise ConfigError(
                    f"`{prompts}`: `{name}` intervenes on `{variable}`, which graph {graph.name} does not have."
                )
            if interventions and not {variable, f"{variable}={after[variable]}"} & set(interventions):
                continue
            asks.append(Ask(variable=variable, value=after[variable], counterfactual=after, prompt=prompt))
        made.append(Filmed(name, path, graph_name, factual, entry["factual"], tuple(asks), filming))
    for path in sorted(folder.iterdir()):
        stem = path.stem if path.suffix.lower() in VIDEOS else path.name if path.is_dir() else ""
        if stem and stem not in entries:
            left_out[stem] = f"{prompts.name} asks nothing of it"
    if not made:
        raise ConfigError(f"`{prompts}` does not fit the clips: none of its {len(entries)} names is in `{folder}`.")
    if not any(subject.asks for subject in made):
        raise ConfigError(f"`{prompts}` asks for none of the interventions {', '.join(interventions)}.")
    return made, left_out


@dataclass
class Shelf:
    """Footage kept in a benchmark's `clips` folder, made at most once; damaged files are made again."""

    folder: Path
    _last: dict[str, Footage] = field(default_factory=dict)

    def footage(self, subject: Subject) -> Footage:
        return self._kept(subject.name, "factual", subject.footage)

    def truth(self, subject: Subject, ask: Ask) -> Footage | None:
        if not subject.true:
            return None
        factual = self.footage(subject)
        return self._kept(subject.name, f"truth-{ask.intervention}", lambda: _known(subject.truth(ask, factual)))

    def _kept(self, name: str, what: str, make: Callable[[], Footage]) -> Footage:
        key = f"{name}/{what}"
        if key in self._last:
            return self._last[key]
        path = self.folder / name / f"{what}.safetensors"
        found = _load(path)
        if found is None:
            found = make()
            content = save(_tensors(found))
            write_whole(path, content)
            write_whole(path.with_suffix(SUM), hashlib.sha256(content).hexdigest() + "\n")
            found.clip().write(path.with_suffix(".mp4"), crf=LOOKING_CRF)
        if not any(other.startswith(f"{name}/") for other in self._last):
            self._last.clear()  # one clip at a time is in memory
        self._last[key] = found
        return found


def _known(footage: Footage | None) -> Footage:
    assert footage is not None
    return footage


def _tensors(footage: Footage) -> dict[str, Tensor]:
    tensors = {
        "frames": footage.frames, "fps": torch.tensor(footage.fps, dtype=torch.float64),
        "rows": torch.from_numpy(footage.rows), "squares": torch.from_numpy(footage.squares),
    }  # fmt: skip
    if footage.world is not None:
        assert footage.world.flow is not None
        tensors["flow"] = footage.world.flow.half()  # to a thousandth of a pixel
        for name in ("visible", "occluder", "background"):
            tensors[name] = getattr(footage.world, name).to(torch.uint8)
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _load(path: Path) -> Footage | None:
    try:
        content, known = path.read_bytes(), path.with_suffix(SUM)
        if known.is_file() and known.read_text("utf-8", "replace").strip() != hashlib.sha256(content).hexdigest():
            return None
        tensors = load(content)
        world = None
        if "flow" in tensors:
            masks = {name: tensors[name] > 0 for name in ("visible", "occluder", "background")}
            world = World(flow=tensors["flow"].float(), **masks)
        return Footage(
            frames=tensors["frames"], fps=float(tensors["fps"]), rows=tensors["rows"].numpy(),
            squares=tensors["squares"].numpy(), world=world,
        )  # fmt: skip
    except (OSError, SafetensorError, KeyError):
        return None
