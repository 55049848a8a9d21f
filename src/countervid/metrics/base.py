"""What a metric is, the registry that finds one, and the one pass over a clip that feeds them all.

A metric is written twice over the same two steps: a pure function of tensors, and a class that is given windows of
frames and asked at the end. The classes share what they look at: a `Window` computes embeddings, answers and landmarks
once, whoever asks first, and `Eyes` loads each model once.

Adding a metric is adding a class under `@register` in a file of this package.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from countervid import metrics, models
from countervid.causal.graph import CausalGraph
from countervid.errors import ConfigError, ModelError

Better = Literal["higher", "lower", "one", "zero", "neither"]  # what a good edit has; the latter: tells, not judges
Need = Literal["truth", "face", "attributes", "prompt", "world"]
CLIPS = ("factual", "counterfactual", "truth")


@dataclass(frozen=True, kw_only=True)
class About:
    """What one reported number means."""

    title: str
    better: Better
    low: float = -math.inf  # of what it can be
    high: float = math.inf
    unit: str = ""
    formula: str
    source: str  # paper and equation, or the system whose behaviour it is
    weights: str = ""  # the models it needs, how to get them, their licence; "" for none


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an edit was asked for, as far as metrics care."""

    factual: Mapping[str, str]
    do: Mapping[str, str]
    counterfactual: Mapping[str, str]
    prompt: str = ""
    factual_prompt: str = ""  # the same of the clip as it is, where somebody can say it
    graph: CausalGraph | None = None  # says what may follow from what

    @property
    def changed(self) -> dict[str, str]:
        """The attributes that must change, with their new values."""
        return {k: v for k, v in self.counterfactual.items() if self.factual.get(k) != v}

    @property
    def kept(self) -> dict[str, str]:
        """The attributes that must stay, with their values."""
        return {k: v for k, v in self.counterfactual.items() if self.factual.get(k) == v}


@dataclass(frozen=True, kw_only=True)
class World:
    """What only a renderer knows of the true counterfactual clip, frame by frame."""

    flow: Tensor | None = None  # (F - 1, H, W, 2), pixels, from frame t of the truth to t + 1
    visible: Tensor | None = None  # (F - 1, H, W) bool: seen in both frames
    occluder: Tensor | None = None  # (F, H, W) bool: something passes before the face
    background: Tensor | None = None  # (F, H, W) bool: neither person nor occluder

    def part(self, frames: slice) -> World:
        """The same for some frames; flow reaches into the frame after them, where there is one."""
        fields = {name: getattr(self, name) for name in ("flow", "visible", "occluder", "background")}
        return World(**{name: None if value is None else value[frames] for name, value in fields.items()})


class Eyes:
    """The models that metrics look with, each loaded once, when first asked for.

    Args:
        device: Where they run.
        folders: Name -> folder of weights, in place of the bundled or registered ones.
    """

    def __init__(self, device: torch.device | str = "cpu", folders: Mapping[str, str] | None = None) -> None:
        self.device = torch.device(device)
        self.folders = dict(folders or {})
        self._loaded: dict[str, Any] = {}

    def get(self, name: str, load: Callable[[Any], Any]) -> Any:
        """The model `name`, made by `load(folder)` at first: the given folder, else the bundled one.

        Raises:
            ModelError: Its weights are missing or damaged.
        """
        if name not in self._loaded:
            folder = self.folders[name] if name in self.folders else models.bundled(name)
            model = load(folder)
            self._loaded[name] = model.to(self.device).eval() if isinstance(model, torch.nn.Module) else model
        return self._loaded[name]

    def unused(self) -> frozenset[str]:
        """Names of given weights that nobody has looked with so far."""
        return frozenset(self.folders) - frozenset(self._loaded)

    def has(self, name: str) -> bool:
        """Whether weights of that name are given or bundled."""
        if name in self.folders or name in self._loaded:
            return True
        try:
            models.bundled(name)
        except ModelError:
            return False
        return True


@dataclass(kw_only=True)
class Window:
    """Some consecutive frames of a clip's triple, and everything that was computed of them so far.

    `frames` are whole pictures, `faces` square crops of those frames (`rows`) that show the face; both `(n, 3, H, W)`,
    floats in 0..1, by the names in `CLIPS`; the truth only where it is known. A window without any face has crops of
    no rows; a clip in which faces were not looked for has no crops.
    """

    start: int
    frames: Mapping[str, Tensor]
    eyes: Eyes
    asked: Asked | None = None
    faces: Mapping[str, Tensor] = field(default_factory=dict)
    rows: Tensor | None = None  # which of the window's frames the face crops are of
    square: Tensor | None = None  # (n, H, W) bool: inside the face square, nowhere in frames without a face
    world: World | None = None
    _kept: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.frames["factual"])

    def once(self, what: str, clip: str, compute: Callable[[], Any]) -> Any:
        """`compute()` at most once for each thing (`what`) of each clip."""
        if (what, clip) not in self._kept:
            self._kept[what, clip] = compute()
        return self._kept[what, clip]

    def every(self, rows: Tensor) -> Tensor:
        """One row a face crop -> one row a frame, `(len(self), ...)`; NaN where no face was found."""
        full = rows.new_full((len(self), *rows.shape[1:]), torch.nan)
        full[self.rows] = rows
        return full


class Metric(Protocol):
    """Fed window by window, asked once. `about` describes every number that `compute` can return, by full name."""

    about: ClassVar[Mapping[str, About]]
    needs: ClassVar[frozenset[Need]]

    def update(self, window: Window) -> None: ...

    def compute(self) -> Mapping[str, float]:
        """Name -> number; NaN where it is not defined for this clip."""
        ...


MetricClass = TypeVar("MetricClass", bound=type)
_FAMILIES: dict[str, type] = {}


def register(family: MetricClass) -> MetricClass:
    """Class decorator: make a metric known, under the names in its `about`."""
    for name in family.about:  # type: ignore[attr-defined]
        _FAMILIES[name] = family
    return family


def catalogue() -> dict[str, About]:
    """Every number that can be measured of one clip, by name."""
    _modules()
    return {name: family.about[name] for name, family in sorted(_FAMILIES.items())}  # type: ignore[attr-defined]


def of_several() -> dict[str, About]:
    """Every number that takes several clips, several edits of one, or a graph, by name: measured from Python alone."""
    return {name: about for module in _modules() for name, about in getattr(module, "ABOUT", {}).items()}


def _modules() -> list[ModuleType]:
    found = pkgutil.iter_modules(metrics.__path__)
    return [importlib.import_module(f"{metrics.__name__}.{module.name}") for module in found]


def chosen(names: Sequence[str]) -> dict[str, type]:
    """The classes behind names, each name kept. `truth` names all that begin with `truth.`, `all` everything.

    Raises:
        ConfigError: Nothing is called so.
    """
    known = catalogue()
    found: dict[str, type] = {}
    for name in names:
        matching = [one for one in known if name in (one, "all") or one.startswith(f"{name}.")]
        if name in of_several():
            raise ConfigError(
                f"`{name}` takes several clips, several edits of one, or a graph: from Python, see docs/truth.md."
            )
        if not matching:
            families = sorted({one.partition(".")[0] for one in known})
            raise ConfigError(f"There is no metric `{name}`. There are: {', '.join(families)}, or `all`.")
        found.update({one: _FAMILIES[one] for one in matching})
    return found


def measured(
    names: Sequence[str],
    windows: Iterable[Window],
    has: Iterable[Need] = (),
    missing: dict[str, str] | None = None,
) -> dict[str, float]:
    """The numbers of that name, in one pass over a clip's windows.

    Args:
        names: As for `chosen`.
        windows: In order, without gaps.
        has: What this clip comes with; numbers that need more are left out.
        missing: Takes name -> why of the numbers whose weights are missing, and the others are measured all the same.

    Raises:
        ConfigError: Unknown names.
        ModelError: A metric's weights are missing, and `missing` was not given.
    """
    meters = Meters(names, has, missing)
    for window in windows:
        meters.update(window)
    return meters.compute()


class Meters:
    """The metrics behind names, fed windows as they come; see `measured`."""

    def __init__(self, names: Sequence[str], has: Iterable[Need] = (), missing: dict[str, str] | None = None) -> None:
        there = frozenset(has)
        self._wanted = {name: family for name, family in chosen(names).items() if family.needs <= there}  # type: ignore[attr-defined]
        self._meters: dict[type, Metric] = {family: family() for family in dict.fromkeys(self._wanted.values())}
        self._missing = missing

    @torch.inference_mode()
    def update(self, window: Window) -> None:
        """Look at the next window.

        Raises:
            ModelError: A metric's weights are missing, and `missing` was not given.
        """
        for family in list(self._meters):
            try:
                self._meters[family].update(window)
            except ModelError as error:
                if self._missing is None:
                    raise
                del self._meters[family]
                self._missing.update({name: str(error) for name, other in self._wanted.items() if other is family})

    @torch.inference_mode()
    def compute(self) -> dict[str, float]:
        """The numbers, by name."""
        said = {family: meter.compute() for family, meter in self._meters.items()}
        return {
            name: float(said[family][name])
            for name, family in self._wanted.items()
            if family in said and name in said[family]
        }
