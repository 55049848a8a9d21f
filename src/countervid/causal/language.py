"""Prompts and attributes, both ways.

`describe` writes the sentence that an editor gets; `parse` (in `lexicon.py`) reads one. Given a prompt to be `like`,
`describe` keeps its surface form: he or a man or this woman, "has beard" or "has a beard", the order of the clauses,
the wording of what does not change, and what is said beside the attributes. That is how the published counterfactual
prompts relate to their source prompts (CSVC, arXiv:2506.14404).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from countervid.causal.graph import CausalGraph
from countervid.causal.lexicon import ARTICLES, NEUTRAL_NOUNS, VERBS, implied, parse, read

__all__ = ["describe", "parse"]


@dataclass(frozen=True)
class Form:
    """How a clause names the person: a pronoun (`word` is none), or a determiner and a noun."""

    determiner: str | None = None
    word: str | None = None  # the noun or pronoun of the source, kept while what it says still holds
    pronoun: bool = True


@dataclass(frozen=True)
class Clause:
    """One clause of a prompt: `form` is none where it has no subject; `variable` where it states no attribute."""

    form: Form | None
    text: str
    variable: str | None
    bare: bool = False  # a fragment that stands without a subject: "studio light"


@dataclass(frozen=True)
class Style:
    """The surface form of a prompt."""

    clauses: tuple[Clause, ...] = ()
    lead: Form = Form()
    articles: bool = False  # "has a beard" rather than "has beard"
    capital: bool = True
    stop: bool = True
    joiner: str = ", "


def describe(
    attributes: Mapping[str, str], graph: CausalGraph, like: str | None = None, without: Collection[str] = ()
) -> str:
    """Say attributes in a sentence.

    `parse` reads back exactly the attributes that were given, if all were and none is left out.

    Args:
        attributes: Variable -> value; not all need be there.
        graph: The graph whose file has the words.
        like: A prompt whose surface form is kept. Clauses about effects of what changed follow the clause about the
            cause; new ones come last, in the graph's order; what the prompt says beside attributes stays, as long as
            every clause of it has its own subject or states no attribute.
        without: Variables not to be named (see `CausalGraph.decoupled`); without the one that names the subject
            the sentence speaks of "this person".

    Raises:
        InterventionError: An attribute or value that the graph does not have, or `like` contradicts itself.
    """
    graph.check(attributes)
    attributes = graph.in_order(attributes)
    said = {name: value for name, value in attributes.items() if name not in without}
    style, before = (Style(), {}) if not (like and like.strip()) else (_style(like, graph), parse(like, graph))
    stated = {} if not like else read(like, graph).stated
    if like and like.strip() and not without and attributes == before:
        return like.strip()
    changed = [name for name, value in attributes.items() if before.get(name, value) != value]
    moved = graph.descendants(*changed)

    clauses: list[Clause] = []
    kept: dict[str, str] = {}  # wording of the source that still holds, for clauses that move
    for clause in style.clauses:
        name = clause.variable
        if name is None:
            clauses.append(clause)
        elif name in said:
            holds = stated.get(name) == said[name] and bool(clause.text)
            if holds:
                kept.setdefault(name, clause.text)
            text = clause.text if holds else _words(name, said[name], graph, style)
            if text and name not in moved:
                clauses.append(Clause(clause.form, text, name))
    present = {clause.variable for clause in clauses}
    for name, value in said.items():
        if name in present:
            continue
        text = kept.get(name) or _words(name, value, graph, style)
        silence = like and name not in (*stated, *changed) and implied(name, attributes, graph) == value
        if text and not silence:
            clauses.append(Clause(None, text, name))
    return _sentence(clauses, style, said, before, graph)


def _words(name: str, value: str, graph: CausalGraph, style: Style) -> str | None:
    clause = graph.variables[name].language.clauses.get(value)
    if clause is None:
        return None
    return " ".join(clause.replace("(a)", "a" if style.articles else " ").split())


def _sentence(
    clauses: list[Clause], style: Style, said: Mapping[str, str], before: Mapping[str, str], graph: CausalGraph
) -> str:
    forms = [clause.form for clause in style.clauses if clause.form is not None]
    follow = style.lead if len(forms) > 1 and len(set(forms)) == 1 else Form()
    subject_variable = _subject_variable(graph)
    unchanged = subject_variable is None or before.get(subject_variable) == said.get(subject_variable)
    if not any(not clause.bare for clause in clauses) and subject_variable in said:
        clauses = [Clause(None, "is here", None), *clauses]  # somebody of whom nothing else is said
    parts: list[str] = []
    subjects = 0
    for clause in clauses:
        if clause.bare:
            parts.append(clause.text)
            continue
        form = style.lead if not subjects else (clause.form or follow)
        parts.append(f"{_subject(form, said, graph, unchanged)} {clause.text}")
        subjects += 1
    if style.capital:
        raised = parts if style.joiner == ". " else parts[:1]
        parts[: len(raised)] = [part[:1].upper() + part[1:] for part in raised]
    return style.joiner.join(parts) + ("." if style.stop else "")


def _subject_variable(graph: CausalGraph) -> str | None:
    return next((name for name, variable in graph.variables.items() if variable.language.subjects), None)


def _subject(form: Form, said: Mapping[str, str], graph: CausalGraph, unchanged: bool) -> str:
    variable = _subject_variable(graph)
    if variable is None or variable not in said:
        return graph.person if form.pronoun else _noun_phrase(form.determiner, graph.person.split()[-1])
    subject = graph.variables[variable].language.subjects[said[variable]]
    if form.pronoun:
        return subject.pronoun
    return _noun_phrase(form.determiner, form.word if unchanged and form.word else subject.noun)


def _noun_phrase(determiner: str | None, noun: str) -> str:
    if determiner in ("a", "an"):
        determiner = "an" if noun[0] in "aeiou" else "a"
    return f"{determiner} {noun}" if determiner else noun


def _style(like: str, graph: CausalGraph) -> Style:
    text = like.strip()
    body = text.rstrip(".")
    marks = re.findall(r"[,.;](?=\s)", body)
    clauses = _clauses(body, graph)
    lead = next((clause.form for clause in clauses or () if clause.form is not None), None) or _lead(body, graph)
    return Style(
        clauses=clauses if clauses is not None else _order_of_mention(body, graph),
        lead=lead,
        articles=re.search(r"\b(?:has|have|wears?|with|wearing|having) an? ", text, re.IGNORECASE) is not None,
        capital=not body[:1].islower(),
        stop=text.endswith("."),
        joiner=". " if marks and set(marks) == {"."} else ", ",
    )


def _nouns(graph: CausalGraph) -> tuple[list[str], list[str]]:
    """Pronouns, and nouns with the longest first."""
    subjects = [s for variable in graph.variables.values() for s in variable.language.subjects.values()]
    nouns = {*NEUTRAL_NOUNS, graph.person.split()[-1], *(n for s in subjects for n in (s.noun, *s.also))}
    return [s.pronoun for s in subjects], sorted(nouns, key=lambda noun: (-len(noun), noun))


def _clauses(body: str, graph: CausalGraph) -> tuple[Clause, ...] | None:
    """The clauses of a prompt, or none if one of them states more than one attribute or states it without a verb."""
    pronouns, nouns = _nouns(graph)
    verbs = "|".join(sorted(VERBS))
    names = "|".join(re.escape(word) for word in (*pronouns, *nouns))
    subject = re.compile(
        rf"(?:(?P<determiner>{'|'.join(sorted(ARTICLES))})\s+)?(?P<word>{names})(?=\s|'s\b)", re.IGNORECASE
    )
    pieces = re.split(rf"[,.;]\s+|\s+(?:and|but)\s+(?=(?:{verbs})\b|(?:{'|'.join(pronouns) or verbs})\b)", body)
    clauses: list[Clause] = []
    for piece in pieces:
        piece = re.sub(r"\A(?:and|but)\s+", "", piece.strip())
        match = subject.match(piece)
        form, rest = None, piece
        if match:
            word, determiner = match["word"].lower(), match["determiner"]
            form = Form() if word in pronouns else Form(determiner.lower() if determiner else None, word, False)
            rest = re.sub(r"\A's\b", "is", piece[match.end() :].strip())
        mentioned = tuple(dict.fromkeys(mention.variable for mention in read(rest, graph).mentions))
        verbal = rest.split(" ")[0].lower() in VERBS
        if len(mentioned) > 1 or (mentioned and not verbal) or (not mentioned and not match and not rest):
            return None
        if _subject_variable(graph) in mentioned:
            return None
        name = mentioned[0] if mentioned else None
        clauses.append(Clause(form, rest, name, bare=form is None and not verbal))
    return tuple(clauses)


def _order_of_mention(body: str, graph: CausalGraph) -> tuple[Clause, ...]:
    named = dict.fromkeys(mention.variable for mention in read(body, graph).mentions)
    return tuple(Clause(None, "", name) for name in named if name != _subject_variable(graph))


def _lead(body: str, graph: CausalGraph) -> Form:
    """The first noun that a free text calls the person, with its determiner; else a pronoun."""
    pronouns, nouns = _nouns(graph)
    match = re.search(rf"\b(?:{'|'.join(re.escape(word) for word in (*pronouns, *nouns))})\b", body, re.IGNORECASE)
    if match is None or match.group().lower() in pronouns:
        return Form()
    first = body.split(" ")[0].lower()
    return Form(first if first in ARTICLES else "a", match.group().lower(), False)
