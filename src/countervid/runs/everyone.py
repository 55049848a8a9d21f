"""Every person of a clip under one intervention: a graph state each, and edits laid one over another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from countervid.causal.counterfactual import Counterfactual
from countervid.causal.graph import CausalGraph
from countervid.causal.language import describe
from countervid.clip import Clip
from countervid.editors.base import Editor, Prepared, Report, Seen, Target
from countervid.errors import ConfigError
from countervid.runs.abduction import seen_in


@dataclass(frozen=True, kw_only=True)
class PersonEdit:
    """One person of a clip: what is seen of them, what follows, and what the editor is asked for."""

    person: int  # its number, from the largest
    seen: Mapping[str, Seen]
    outcome: Counterfactual
    prepared: Prepared
    target: Target

    def to_json(self) -> dict[str, Any]:
        """For `run.json` and `target.json`."""
        return {
            "person": self.person,
            "factual": dict(self.outcome.factual),
            "counterfactual": dict(self.outcome.attributes),
            "changes": [asdict(change) for change in self.outcome.changes],
            "noise": self.outcome.noise.to_dict(),
            "prompt": self.target.prompt,
            "seen": {name: asdict(reading) for name, reading in self.seen.items()},
            "prepared": self.prepared.key,
        }


def check_everyone(editor: Editor, steered: bool, guided: bool, stated: bool, noise: bool) -> None:
    """Refuse what goes with one person only.

    Raises:
        ConfigError: It cannot be had for everyone.
    """
    if steered:
        raise ConfigError("`--everyone` does not go with `--critic`: a critic steers one person. Use `--person N`.")
    if guided:
        raise ConfigError("`--everyone` goes with `--do`: `--attribute` and `--target-text` are of one person.")
    if stated or noise:
        raise ConfigError(
            "`--everyone` reads each person's attributes off the clip: `--factual` describes one. Use `--person N`."
        )
    if getattr(editor.config, "region", "face") != "face" or not hasattr(editor.config, "face"):
        raise ConfigError("`--everyone` needs an editor that works on faces: use `--region face`.")
    if editor.config.face:
        raise ConfigError(f"`--everyone` and `--person {editor.config.face}` ask for different people. Give one.")


def others(
    editor: Editor, clip: Clip, graph: CausalGraph, first: PersonEdit, report: Report | None
) -> list[PersonEdit]:
    """Everybody but the first, each abducted and prepared by itself."""
    track, found = first.prepared.track, []
    assert track is not None
    for person in range(1, track.faces):
        with looking_at(editor, person):
            seen = seen_in(editor, clip, graph, {}, report)
            outcome = graph.counterfactual({name: reading.value for name, reading in seen.items()}, first.outcome.do)
            said = describe(outcome.factual, graph)
            prepared = editor.prepare(clip, outcome.factual, prompt=said, report=report)
        target = replace(
            first.target,
            factual=outcome.factual,
            do=outcome.do,
            counterfactual=outcome.attributes,
            prompt=describe(outcome.attributes, graph),
        )
        found.append(PersonEdit(person=person, seen=seen, outcome=outcome, prepared=prepared, target=target))
    return found


@contextmanager
def looking_at(editor: Editor, person: int) -> Iterator[None]:
    """The editor with another person in its settings."""
    config = editor.config
    editor.config = replace(config, face=person)
    try:
        yield
    finally:
        editor.config = config


def composed(editor: Editor, clip: Clip, people: Sequence[PersonEdit], report: Report | None) -> Clip:
    """The clip with every person's edit in it, lazily: each is pasted over the result of those before."""
    for one in people:
        clip = editor.edit(replace(one.prepared, clip=clip), one.target, report=report)
    return clip


def told(people: Sequence[PersonEdit]) -> list[str]:
    """A sentence a person: what changes."""
    lines = []
    for one in people:
        changes = [f"{change.variable.replace('_', ' ')} {change.before} to {change.after} ({change.reason})"
                   for change in one.outcome.changes]  # fmt: skip
        lines.append(f"person {one.person}: {', '.join(changes) or 'nothing changes'}")
    return lines
