"""The file of a causal graph: its shape, how it is read, and what `extends` means.

A file has the sections `variables`, `edges` and `mechanisms` (docs/causal-graphs.md). This module reads YAML into
plain, typed records and refuses what has the wrong shape; `validation.py` checks that the records make sense together.
"""

from __future__ import annotations

from collections.abc import Hashable
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from countervid.causal.mechanisms import Mechanism, ValueName, ValueNames, value_name
from countervid.errors import GraphError

Kind = Literal["binary", "categorical", "ordered"]


def _by_value(raw: Any) -> Any:
    return {value_name(key): item for key, item in raw.items()} if isinstance(raw, dict) else raw


class Subject(BaseModel):
    """How a person of one value is called: `he`, `man`, and other nouns for the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pronoun: str
    noun: str
    also: tuple[str, ...] = ()


class Language(BaseModel):
    """How a variable is spoken of.

    Attributes:
        subjects: Value -> what the person is called; for the one variable that names the sentence's subject.
        clauses: Value -> what a sentence says of the person, "has (a) beard"; null: silence says it.
        words: Value -> further words and phrases that mean it ("bearded", "clean shaven").
        unmentioned: The value of a prompt that does not mention the variable, or `likeliest` (by the mechanism's
            probabilities). By default the silent value, if there is one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subjects: Annotated[dict[str, Subject], BeforeValidator(_by_value)] = Field(default_factory=dict)
    clauses: Annotated[dict[str, str | None], BeforeValidator(_by_value)] = Field(default_factory=dict)
    words: Annotated[dict[str, tuple[str, ...]], BeforeValidator(_by_value)] = Field(default_factory=dict)
    unmentioned: ValueName | None = None

    @property
    def silent(self) -> str | None:
        """The value that is expressed by saying nothing."""
        return next((value for value, clause in self.clauses.items() if clause is None), None)


class Variable(BaseModel):
    """One variable of a graph.

    Attributes:
        name: As in the file.
        values: Its domain; in order where the kind is `ordered`, (no, yes) where it is `binary`.
        kind: `binary`, `categorical` or `ordered`.
        question: What a critic is asked of a picture.
        options: The answers in the order in which they are offered; all values.
        language: How prompts speak of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Kind
    values: ValueNames = ("no", "yes")
    question: str | None = None
    options: ValueNames | None = None
    language: Language = Field(default_factory=Language)


class GraphFile(BaseModel):
    """A whole file, its sections not yet checked against each other.

    `cut` names variables of the extended graph whose causes there are left out, as an intervention would.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str = ""
    extends: str | None = None
    cut: tuple[str, ...] = ()
    person: str = "this person"
    variables: dict[str, Variable] = Field(default_factory=dict)
    edges: tuple[str, ...] = ()
    mechanisms: dict[str, Mechanism] = Field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """Safe YAML in which `yes`, `no`, `on` and `off` are words, and no key may stand twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in seen:
                    raise GraphError(f"`{key}` stands twice, again in line {key_node.start_mark.line + 1}. Keep one.")
                seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":bool") or letter in "tTfF"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def bundled() -> tuple[str, ...]:
    """Names of the graphs that come with the package."""
    folder = resources.files("countervid.causal") / "graphs"
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def find(graph: str | Path, beside: Path | None = None) -> Path | Traversable:
    """The file of a graph: a bundled name, or a path (relative to the folder `beside`, if given).

    Raises:
        GraphError: There is neither.
    """
    if str(graph) in bundled():
        return resources.files("countervid.causal") / "graphs" / f"{graph}.yaml"
    path = Path(graph) if beside is None else beside / graph
    if path.is_file():
        return path
    raise GraphError(
        f"There is no graph `{graph}`. Bundled ones are {', '.join(bundled())}; or give the path of a YAML file."
    )


def read(graph: str | Path) -> GraphFile:
    """Read a graph's file, with all that it extends.

    Raises:
        GraphError: The file is missing, is not YAML, or has the wrong shape; the message names the place.
    """
    return _read(find(graph), ())


def parse(text: str, source: str = "graph") -> GraphFile:
    """Read a graph from YAML text that extends nothing but bundled graphs."""
    return _extended(_shape(text, source), source, None, (source,))


def _read(path: Path | Traversable, above: tuple[str, ...]) -> GraphFile:
    if str(path) in above:
        raise GraphError(f"{path} extends itself. Remove one `extends`.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GraphError(f"{path} cannot be read as a graph: {error}. Give a YAML file in UTF-8.") from error
    beside = path.parent if isinstance(path, Path) else None
    return _extended(_shape(text, str(path)), str(path), beside, (*above, str(path)))


def _shape(text: str, source: str) -> GraphFile:
    try:
        data = yaml.load(text, Loader=_Loader)  # a subclass of SafeLoader
    except yaml.YAMLError as error:
        raise GraphError(f"{source} is not YAML: {' '.join(str(error).split())}") from error
    except GraphError as error:
        raise GraphError(f"{source}: {error}") from None
    if not isinstance(data, dict):
        raise GraphError(f"{source} holds no graph. It needs the sections variables, edges and mechanisms.")
    data.setdefault("name", Path(source).stem)
    variables = data.get("variables")
    if isinstance(variables, dict):
        for name, variable in variables.items():
            if isinstance(variable, dict):
                variable.setdefault("name", name)
    try:
        return GraphFile.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        hint = "Remove or rename this key." if first["type"] == "extra_forbidden" else "See docs/causal-graphs.md."
        raise GraphError(f"{source}: `{place}`: {first['msg']}. {hint}") from error


def _without(edge: str, cut: tuple[str, ...]) -> str:
    """An edge of a file without the effects that are cut; empty where none is left."""
    causes, arrow, effects = edge.partition("->")
    left = [effect for effect in map(str.strip, effects.split(",")) if effect not in cut]
    return f"{causes}{arrow} {', '.join(left)}" if left else ""


def _extended(file: GraphFile, source: str, beside: Path | None, above: tuple[str, ...]) -> GraphFile:
    if file.extends is None:
        if file.cut:
            raise GraphError(f"{source} has `cut`, which leaves out edges of the graph that it extends. Add `extends`.")
        return file
    try:
        base = _read(find(file.extends, beside), above)
    except GraphError as error:
        raise GraphError(f"{source} extends `{file.extends}`: {error}") from error
    for name in file.cut:
        if name not in base.variables:
            raise GraphError(f"{source} cuts `{name}`, which is no variable of `{file.extends}`. Remove it.")
    kept = [edge for edge in (_without(edge, file.cut) for edge in base.edges) if edge]
    return file.model_copy(
        update={
            "variables": {**base.variables, **file.variables},
            "edges": (*kept, *file.edges),
            "mechanisms": {**base.mechanisms, **file.mechanisms},
        }
    )
