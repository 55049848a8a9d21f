"""What is known of the person before the intervention: what the caller says, and what is read off the clip."""

from __future__ import annotations

from collections.abc import Mapping

from countervid.causal.counterfactual import Attributes
from countervid.causal.graph import CausalGraph
from countervid.causal.lexicon import parse, read
from countervid.clip import Clip
from countervid.editors.base import Editor, Reader, Report, Seen
from countervid.errors import InterventionError


def stated_by(factual: str | Mapping[str, str] | None, graph: CausalGraph) -> Attributes:
    """What the caller says of the person; of a sentence, what it says itself (silence is read off the clip)."""
    if factual is None:
        return {}
    stated = dict(read(factual, graph).stated) if isinstance(factual, str) else dict(factual)
    graph.check(stated)
    return stated


def seen_in(
    editor: Editor, clip: Clip, graph: CausalGraph, stated: Attributes, report: Report | None
) -> dict[str, Seen]:
    """What the editor reads off the clip of the graph's variables that were not stated.

    Raises:
        InterventionError: A variable is neither stated nor readable.
    """
    missing = [name for name in graph.variables if name not in stated]
    readings: Mapping[str, Seen] = {}
    if missing and isinstance(editor, Reader):
        readings = editor.read(editor.look(clip, report=report))
    found = {}
    for name in missing:
        reading = readings.get(name)
        if reading is None or reading.value not in graph.variables[name].values:
            implied = parse("", graph).get(name)
            if implied is None:
                values = ", ".join(graph.variables[name].values)
                raise InterventionError(
                    f"`{name}` cannot be read off the clip with these weights. Say which of {values} it is, "
                    'for example with `--factual "She is young."`.'
                )
            reading = Seen(value=implied, confidence=0.0)  # nobody looked: what silence means
        found[name] = reading
    return found
