"""Finding a graph's attributes in a sentence: words, phrases, negation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from countervid.causal.counterfactual import Attributes
from countervid.causal.graph import CausalGraph
from countervid.causal.mechanisms import likeliest
from countervid.errors import InterventionError

Phrases = dict[tuple[str, ...], tuple[tuple[str, str], ...]]

VERBS = frozenset(
    ["is", "are", "was", "has", "have", "had", "wears", "wear", "wore", "does", "isn't", "hasn't", "doesn't"]
)
DEFINITE = frozenset(["the", "this", "that"])
ARTICLES = frozenset(["a", "an"]) | DEFINITE
NEUTRAL_NOUNS = ("person", "individual", "someone", "somebody")

_TOKEN = re.compile(r"\d+\s+years?\s+old|[^\W_]+(?:'(?!s\b)[^\W_]+)*|'s\b|[,.;:!?]")
_NEGATORS = frozenset(["no", "not", "without", "never", "neither", "nor", "lacks", "lacking", "cannot"])
_LONG_NEGATORS = frozenset(
    ["without", "neither", "nor", "lacks", "lacking"]
)  # reach over "and a": without a beard and a hat
_STOPS = frozenset([",", ".", ";", ":", "!", "?", "but", "with", "while", "though", "although"])


@dataclass(frozen=True)
class Mention:
    """A place of a text that says something of a variable; `start` and `end` count characters."""

    variable: str
    value: str
    negated: bool
    start: int
    end: int


@dataclass(frozen=True)
class Reading:
    """What a text says.

    Attributes:
        mentions: In the order of the text.
        stated: Variable -> value, of what the text says itself.
        excluded: Variable -> values that the text denies without saying which of several others it is.
    """

    mentions: tuple[Mention, ...]
    stated: Attributes
    excluded: dict[str, frozenset[str]] = field(default_factory=dict)


def phrases(graph: CausalGraph) -> Phrases:
    """Every phrase that the graph knows -> the (variable, value) pairs that it means."""
    found: dict[tuple[str, ...], dict[tuple[str, str], None]] = {}
    for name, variable in graph.variables.items():
        language = variable.language
        for value in variable.values:
            clause = (language.clauses.get(value) or "").replace("(a)", " ")
            words = [*language.words.get(value, ()), " ".join(w for w in clause.split() if w not in VERBS)]
            if value in language.subjects:
                subject = language.subjects[value]
                words += [subject.pronoun, subject.noun, *subject.also]
            for phrase in words:
                tokens = tuple(token for token, _, _ in tokenise(phrase))
                if tokens:
                    found.setdefault(tokens, {})[name, value] = None
    return {tokens: tuple(pairs) for tokens, pairs in found.items()}


def tokenise(text: str) -> list[tuple[str, int, int]]:
    """(token, start, end) of words and marks, in small letters; hyphens part words, a number of years is one token."""
    plain = text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").replace("-", " ").replace("\n", " ")
    return [(match.group(), match.start(), match.end()) for match in _TOKEN.finditer(plain)]


def read(text: str, graph: CausalGraph) -> Reading:
    """Find what a text says of the graph's variables; the longest phrase wins.

    Raises:
        InterventionError: The text says two different things of one variable.
    """
    known = phrases(graph)
    longest = max(map(len, known), default=0)
    tokens = tokenise(text)
    words = [token for token, _, _ in tokens]
    mentions: list[Mention] = []
    negator = ""
    at = 0
    while at < len(words):
        size = next((n for n in range(min(longest, len(words) - at), 0, -1) if tuple(words[at : at + n]) in known), 0)
        if size:
            span = tokens[at][1], tokens[at + size - 1][2]
            pairs = known[tuple(words[at : at + size])]
            denied = bool(negator)
            if words[at] in _NEGATORS:  # "no hair" denies nothing of what it means, but reaches on as "no" does
                denied, negator = False, words[at]
            mentions += [Mention(variable, value, denied, *span) for variable, value in pairs]
            at += size
            continue
        word = words[at]
        if word in _NEGATORS or word.endswith("n't"):
            negator = word
        elif word in _STOPS or (word == "and" and _ends(words[at + 1 : at + 2], negator, graph)):
            negator = ""
        at += 1
    stated: Attributes = {}
    excluded: dict[str, frozenset[str]] = {}
    for mention in mentions:
        value, values = mention.value, graph.variables[mention.variable].values
        if graph.variables[mention.variable].language.subjects:
            pass  # "this is not a man with a beard" still speaks of a man
        elif mention.negated and len(values) == 2:
            value = next(other for other in values if other != value)
        elif mention.negated:
            excluded[mention.variable] = excluded.get(mention.variable, frozenset()) | {value}
            continue
        if stated.setdefault(mention.variable, value) != value:
            raise InterventionError(
                f'The prompt "{text}" says of `{mention.variable}` both `{stated[mention.variable]}` and `{value}`. '
                f"Describe one person, with one value each."
            )
    return Reading(tuple(mentions), stated, excluded)


def parse(prompt: str, graph: CausalGraph) -> Attributes:
    """The attributes that a prompt states, and those that its silence implies.

    A variable that is not mentioned gets its silent value ("no" of a beard), or what the graph's file says under
    `unmentioned`; a variable that has neither (age, gender) is left out.

    Args:
        prompt: "He is young, he has beard.", "an elderly woman without glasses", and the like.
        graph: Whose words count.

    Raises:
        InterventionError: The prompt contradicts itself.
    """
    reading = read(prompt, graph)
    found = dict(reading.stated)
    for name in graph.sampling_order:
        if name not in found:
            value = implied(name, found, graph, reading.excluded.get(name, ()))
            if value is not None:
                found[name] = value
    return graph.in_order(found)


def implied(name: str, known: Mapping[str, str], graph: CausalGraph, excluded: Iterable[str] = ()) -> str | None:
    """The value of a variable that a prompt does not state, or none where silence says nothing.

    Args:
        name: The variable.
        known: Values of the variables before it in `graph.sampling_order`, as far as they are known.
        graph: The graph.
        excluded: Values that the prompt denies.
    """
    variable, mechanism = graph.variables[name], graph.mechanisms[name]
    if variable.language.unmentioned != "likeliest":
        return variable.language.unmentioned or variable.language.silent
    if mechanism.probabilities is None or not all(p in known for p in (*graph.parents(name), *mechanism.associated)):
        return None
    shares = {value: share for value, share in mechanism.row(known).items() if value not in set(excluded)}
    return likeliest(shares) if shares else None


def _ends(following: list[str], negator: str, graph: CausalGraph) -> bool:
    """Whether an "and" ends what a negator denies: before a verb or a subject, mostly also before an article."""
    subjects = {s.pronoun for v in graph.variables.values() for s in v.language.subjects.values()}
    starts = VERBS | subjects | {"wearing", "having"} | (DEFINITE if negator in _LONG_NEGATORS else ARTICLES)
    return bool(following) and following[0] in starts
