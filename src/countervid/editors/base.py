"""What every video editor is: prepare once a clip, edit once a target. And the registry that finds them.

Adding an editor is adding one file with a class under `@register_editor("name")`, and its module's name to
`_BUILT_IN`; the command line and the contract tests pick it up.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from countervid.autoencoder.clip_guidance import TextGuidance
from countervid.autoencoder.directions import Direction
from countervid.clip import Clip
from countervid.editors.cache import Cache
from countervid.editors.store import Store
from countervid.errors import ConfigError
from countervid.face.pipeline import FaceTrack

Attributes = dict[str, str]  # variable -> value name
Guide = Direction | TextGuidance  # how, for editors that know a way of their own
Report = Callable[[str, int, int], None]  # what is being done, frames done, frames in all


@dataclass(frozen=True, kw_only=True)
class Target:
    """What an editor is asked for.

    `strength` scales the whole edit: 0 is no edit (the source bit for bit), 1 the edit as asked. `strengths`
    scales single attributes on top of that; those not named count 1. `guide` says how instead of what, for editors
    that know a way of their own. `guidance` and `negative_prompt` stand in place of the editor's own settings, for
    editors that are told by a prompt; None leaves them.
    """

    factual: Attributes
    do: Attributes
    counterfactual: Attributes
    prompt: str = ""
    strength: float = 1.0
    strengths: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    guide: Guide | None = None
    guidance: float | None = None
    negative_prompt: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 4:
            raise ConfigError(f"`strength` is {self.strength}; it must lie in 0..4 (0 no edit, 1 the edit as asked).")
        for name, value in self.strengths.items():
            if name not in self.counterfactual:
                known = ", ".join(sorted(self.counterfactual))
                raise ConfigError(f"`strengths` names `{name}`, which the target does not have. It has: {known}.")
            if not 0 <= value <= 4:
                raise ConfigError(f"The strength of `{name}` is {value}; it must lie in 0..4.")

    @property
    def changed(self) -> Attributes:
        """The attributes that must change, with their new values."""
        return {k: v for k, v in self.counterfactual.items() if self.factual.get(k) != v}

    @property
    def kept(self) -> Attributes:
        """The attributes that must stay, with their values."""
        return {k: v for k, v in self.counterfactual.items() if self.factual.get(k) == v}

    def amount(self, attribute: str) -> float:
        """How far one attribute is moved: the overall strength times its own."""
        return self.strength * self.strengths.get(attribute, 1.0)

    @property
    def asks_for_nothing(self) -> bool:
        """Whether the result must be the source, bit for bit."""
        return not any(self.amount(name) for name in self.changed)

    def to_json(self) -> dict[str, object]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A clip after an editor's first step: everything that does not depend on the target.

    `facts` are numbers worth telling (frames without a face, reconstruction quality); `payload` is the
    editor's own and of no meaning to others.
    """

    editor: str
    key: str  # digest of clip, settings and weights
    clip: Clip
    factual: Attributes
    store: Store
    facts: Mapping[str, object]
    track: FaceTrack | None  # where the face is, for editors that work on one
    payload: Any


class Editor(Protocol):
    """Two steps. Everything expensive that does not depend on the target belongs in the first.

    An editor may also have `check(do, guide)`: it raises at once what `edit` would raise after `prepare`. And
    `costs()`: what it has computed so far, for the record of a run.
    """

    name: ClassVar[str]
    config: Any
    knobs: ClassVar[frozenset[str]]  # fields of a target that it answers to, beside the attributes
    miniature: bool  # whether the weights are the bundled ones, which have only ever seen rendered people

    def prepare(self, clip: Clip, factual: Attributes, *, prompt: str = "", report: Report | None = None) -> Prepared:
        """Invert, encode or fine-tune; kept on disk, found again by content, resumed after a stop.

        `prompt` says the factual attributes in words, for editors that are told in words.
        """
        ...

    def edit(self, prepared: Prepared, target: Target, *, report: Report | None = None) -> Clip:
        """The clip with the target's attributes: lazy, of the source's frames, times, size and audio."""
        ...

    def weights(self) -> dict[str, str]:
        """Checksums (SHA-256) of the weights in use, by their role."""
        ...


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a reader sees of one attribute: the likeliest value and its probability, 0..1."""

    value: str
    confidence: float


@runtime_checkable
class Reader(Protocol):
    """An editor that can also tell the factual attributes of a clip."""

    def look(self, clip: Clip, *, report: Report | None = None) -> Prepared:
        """As much of `prepare` as reading needs."""
        ...

    def read(self, prepared: Prepared) -> dict[str, Seen]: ...


EditorClass = TypeVar("EditorClass", bound=type)
_REGISTRY: dict[str, type] = {}
_BUILT_IN = {
    name: f"countervid.editors.{name.replace('-', '_')}" for name in ("dva", "flatten", "tokenflow", "tune-a-video")
}  # imported when asked for: each brings its own networks


def register_editor(name: str) -> Callable[[EditorClass], EditorClass]:
    """Class decorator: make an editor known under a name. The class has `Config`, a frozen dataclass."""

    def register(editor: EditorClass) -> EditorClass:
        if not dataclasses.is_dataclass(getattr(editor, "Config", None)):
            raise ConfigError(f"The editor `{name}` has no `Config` dataclass. Add one: its fields are its settings.")
        editor.name = name  # type: ignore[attr-defined]
        _REGISTRY[name] = editor
        return editor

    return register


def names() -> list[str]:
    """The editors there are."""
    return sorted({*_BUILT_IN, *_REGISTRY})


def editor_class(name: str) -> type:
    """The class behind a name.

    Raises:
        ConfigError: No editor has that name.
    """
    if name not in _REGISTRY and name in _BUILT_IN:
        importlib.import_module(_BUILT_IN[name])
    if name not in _REGISTRY:
        raise ConfigError(f"There is no editor `{name}`. There are: {', '.join(names())}.")
    return _REGISTRY[name]


def presets(name: str) -> dict[str, dict[str, object]]:
    """An editor's named settings; `miniature` is what suits the bundled model."""
    found: dict[str, dict[str, object]] = getattr(editor_class(name), "presets", {})
    return found


def load_editor(
    name: str,
    model: str | Path | None = None,
    *,
    cache: Path | Cache | None = None,
    preset: str | None = None,
    **settings: object,
) -> Editor:
    """An editor ready to use.

    Args:
        name: One of `names()`.
        model: A folder of weights, or None for the bundled miniature.
        cache: Where prepared clips are kept, and how much of it; None is `default_cache()`.
        preset: One of `presets(name)`; with the bundled model, `miniature` where there is one.
        settings: Fields of the editor's `Config`; they go before the preset's.

    Raises:
        ConfigError: Unknown editor, unknown setting, or a value out of range.
        ModelError: The weights are missing or damaged.
    """
    chosen, known = editor_class(name), presets(name)
    if preset is None and model is None and "miniature" in known:
        preset = "miniature"
    if preset is not None:
        if preset not in known:
            raise ConfigError(f"`{name}` has no preset `{preset}`. It has: {', '.join(known) or 'none'}.")
        settings = {**known[preset], **settings}
    editor: Editor = chosen(make_config(chosen.Config, settings, name), model=model, cache=cache)  # type: ignore[attr-defined]
    return editor


def make_config(kind: Any, settings: Mapping[str, object], owner: str) -> Any:
    """A config dataclass from settings; unknown keys are errors that name the known ones."""
    known = [f.name for f in dataclasses.fields(kind)]
    for key in settings:
        if key not in known:
            raise ConfigError(f"`{owner}` has no setting `{key}`. It has: {', '.join(known)}.")
    return kind(**settings)
