"""The textual gradient without a language model: a writer that knows the graph's vocabulary.

What a critic misses is said first and in other words, and the negative prompt says how it looks instead, in a sentence
of the same kind: guidance then points from the one to the other. What pulls against the intervention (its causes on
the graph, CSVC's causal decoupling) is left unsaid. Nothing is added that the target does not hold.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from countervid.causal.graph import CausalGraph
from countervid.causal.language import describe
from countervid.causal.lexicon import read
from countervid.critics.base import Verdict
from countervid.errors import InterventionError


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a writer is asked for.

    Attributes:
        goal: The first prompt; it does not drift.
        prompt: The one that the edit was made with.
        factual: All attributes of the clip.
        wanted: All attributes of the target.
        missing, lost: Of these, what is not seen, and what should have stayed and did not.
        unsaid: Variables that the prompt should not name.
        verdict: What the critic saw and wrote.
        graph: Whose words count.
        turn: 0 for the gentlest push, then counted on, so that no wording comes twice.
    """

    goal: str
    prompt: str
    factual: Mapping[str, str]
    wanted: Mapping[str, str]
    missing: Mapping[str, str]
    lost: Mapping[str, str]
    unsaid: frozenset[str]
    verdict: Verdict | None
    graph: CausalGraph
    turn: int


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A new prompt, what should not be shown, and the feedback that led to it (the textual gradient)."""

    prompt: str
    negative: str = ""
    feedback: str = ""


class Writer(Protocol):
    """Rewrites a prompt after a verdict."""

    name: str

    def rewrite(self, task: Task) -> Draft:
        """
        Raises:
            CallError: No usable prompt was written.
            BudgetError: What may be asked is used up.
        """
        ...

    def paraphrase(self, prompt: str, wanted: Mapping[str, str], graph: CausalGraph) -> str:
        """The same said expressively, before anything was seen."""
        ...

    def costs(self) -> dict[str, Any]: ...


class RuleWriter:
    """Emphasis, paraphrase, order, decoupling and a negative prompt, from the graph's own words.

    The first time the prompt stays, and the negative prompt says how it looks: the gentlest push. Then what is missing
    is said first, in other words each time.
    """

    name = "rules"

    def rewrite(self, task: Task) -> Draft:
        how = "say it first and otherwise" if task.turn else "the negative prompt says how it looks"
        parts = [f"{name.replace('_', ' ')} = {value} is not seen: {how}" for name, value in task.missing.items()]
        parts += [f"{name.replace('_', ' ')} = {value} was lost: say it too" for name, value in task.lost.items()]
        if task.unsaid:
            parts.append(f"do not name {', '.join(sorted(task.unsaid))}: it causes what is set")
        urgent = {**task.missing, **task.lost} if task.turn else {}
        prompt = emphasised(task.wanted, urgent, task.graph, max(0, task.turn - 1), without=task.unsaid)
        return Draft(prompt=prompt, negative=against(task), feedback="; ".join(parts))

    def paraphrase(self, prompt: str, wanted: Mapping[str, str], graph: CausalGraph) -> str:
        spoken = [name for name in wanted if phrase(name, wanted[name], graph, 0)]
        return emphasised(wanted, {name: wanted[name] for name in spoken}, graph, 0)

    def costs(self) -> dict[str, Any]:
        return {}


def emphasised(
    wanted: Mapping[str, str], urgent: Mapping[str, str], graph: CausalGraph, turn: int,
    without: Collection[str] = (),
) -> str:  # fmt: skip
    """The graph's sentence, with what is urgent said before it in other words, `turn` choosing among them.

    What can only be said by silence (no beard) is left to the negative prompt unless the graph has words for it.
    """
    plain = describe(wanted, graph, without=without)
    first = listed(wanted, urgent, graph, turn, without)
    if not first:
        return plain
    prompt = f"{first} {plain}"
    try:
        stated = read(prompt, graph).stated
    except InterventionError:
        return plain
    return prompt if all(wanted.get(name) == value for name, value in stated.items()) else plain


def listed(
    attributes: Mapping[str, str], chosen: Mapping[str, str], graph: CausalGraph, turn: int, without: Collection[str]
) -> str:
    """What is chosen, one phrase after another: "A woman, bearded, elderly."; empty where there are no words for it."""
    said = [phrase(name, value, graph, turn) for name, value in chosen.items() if name not in without]
    words = [word for word in said if word]
    noun = next(
        (v.language.subjects[attributes[n]].noun for n, v in graph.variables.items()
         if n in attributes and n not in without and v.language.subjects), graph.person.split()[-1],
    )  # fmt: skip
    return f"{', '.join([f'A {noun}', *words])}." if words else ""


def phrase(name: str, value: str, graph: CausalGraph, turn: int) -> str:
    """Another way to say a value; none where the variable names the subject or the graph has no words."""
    language = graph.variables[name].language
    if language.subjects:
        return ""
    words = [word for word in language.words.get(value, ()) if " his " not in word and " her " not in word]
    return words[turn % len(words)] if words else ""


def against(task: Task) -> str:
    """A negative prompt: how the person looks in what is missing or lost, or was where the critic cannot tell.

    Said in a sentence of the same kind as the prompt, of somebody whose own word is the same in both or in neither, so
    that guidance moves nothing else: where a woman became a man, "this person has lipstick" and neither he nor she.
    What the graph passes over in silence (no beard) it has words for, and they come first.
    Empty where nothing is wrong.
    """
    graph, shown = task.graph, {}
    for name, value in {**task.missing, **task.lost}.items():
        answer = None if task.verdict is None else task.verdict.answers.get(name)
        looks = None if answer is None or answer.value == value else answer.value
        if (wrong := looks or task.factual.get(name)) not in (None, value):
            shown[name] = wrong
    subject = {
        name: value for name, value in task.factual.items()
        if graph.variables[name].language.subjects and (name in task.missing or task.wanted.get(name) == value)
    }  # fmt: skip
    words = {name: graph.variables[name].language for name in shown}
    silent = {n: v for n, v in shown.items() if not words[n].subjects and words[n].clauses.get(v) is None}
    spoken = {name: value for name, value in shown.items() if name not in silent and name not in task.unsaid}
    sentences = [listed({**subject, **shown}, silent, graph, 0, without=task.unsaid)]
    if spoken:
        sentences.append(describe({**subject, **spoken}, graph, without=task.unsaid))
    return " ".join(sentence for sentence in sentences if sentence)
