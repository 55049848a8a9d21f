"""Multiple-choice questions about a picture, one a variable: what critics and judges are asked.

The four questions of the `face` graph are worded as the published benchmark words them (CSVC, arXiv:2506.14404).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from countervid.causal.graph import CausalGraph
from countervid.errors import InterventionError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_INTRODUCED = re.compile(
    r"\A(?:in\s+)?(?:frame\s*#?\d+\s*[:.,\u2013-]?\s*)?(?:the\s+)?(?:(?:correct|final|best|right|my)\s+)?"
    r"(?:(?:answer|option|choice|letter|value)\b(?:\s+is\b)?\s*[:=.\u2013-]?\s*)?",
    re.IGNORECASE,
)
_OPEN = re.compile(  # it cannot be told, or only perhaps
    r"\b(?:unclear|unsure|unknown|uncertain|undetermined|indetermina\w+|inconclusive|ambiguous|can\s?not|"
    r"can[\u2019']?t|could(?:n[\u2019']?t| not)?|unable|not (?:visible|clear|sure|certain|possible|applicable|enough|"
    r"discernible|shown|determin\w+|really|quite|entirely|necessarily)|no (?:face|answer|idea|one|person)|n/?a|none|"
    r"null|nothing|neither|both|either|or|hidden|occluded|obscured|covered|blurr\w+|maybe|perhaps|possibl[ey]|probabl[ey]|likely|might|may|"
    r"somewhat|partial\w*|depends|hard to|difficult to|too (?:dark|small|far)|guess\w*|seems?|appears?|but|however|"
    r"although|though|rather|idk|skip)\b|\?",
    re.IGNORECASE,
)
_DENIED = re.compile(r"\b(?:not|never|hardly|barely|without|no longer)\b|n[\u2019']t\b", re.IGNORECASE)


@dataclass(frozen=True)
class Question:
    """A question about one variable.

    Attributes:
        variable: What is asked about.
        text: The question.
        options: Letter -> answer as shown ("A": "Yes").
        values: Letter -> the variable's value ("A": "yes").
    """

    variable: str
    text: str
    options: dict[str, str]
    values: dict[str, str]

    def letter(self, value: str) -> str:
        """The letter of a value."""
        return next(letter for letter, other in self.values.items() if other == value)

    def value(self, answer: str) -> str:
        """The value that an answer means: a letter, an answer as shown, or either with a mark after it.

        Raises:
            InterventionError: It is none of the options.
        """
        plain = answer.strip().strip(".,:;()\"'").lower()
        for letter, value in self.values.items():
            if plain in (letter.lower(), value.lower(), self.options[letter].lower()):
                return value
        raise InterventionError(f"`{answer}` answers no option of `{self.variable}`. {self.shown()}")

    def read(self, answer: str) -> str | None:
        """As `value`, of a language model's words; None where they say that it cannot be told, or name more than one.

        A letter, an option as shown, a value's own name, or a letter with its option, with marks around them and a
        remark behind them that names no other option.

        Raises:
            InterventionError: It says neither.

        >>> asked = Question("age", "How old?", {"A": "old", "B": "young"}, {"A": "old", "B": "young"})
        >>> [asked.read(text) for text in ("(B)", "A. old", "young.", "B: young", "A or B", "can't tell", "A. young")]
        ['young', 'old', 'young', 'young', None, None, None]
        """
        named, bare = self._names(), _bare(answer)
        text = _INTRODUCED.sub("", bare)
        for exact in (bare, text, re.sub(r"\A(?:an?|the) ", "", text)):
            if exact.lower() in named:
                return named[exact.lower()]
        head, mentioned = self._mentions(text, named)
        if len(mentioned) > 1 or not text or _OPEN.search(text) or (head != "no" and _DENIED.search(text)):
            return None
        if head is None or mentioned != {head}:
            raise InterventionError(f"`{answer}` answers no option of `{self.variable}`. {self.shown()}")
        return head

    def _names(self) -> dict[str, str]:
        """Everything that stands for one value alone, in small letters -> the value."""
        found = {letter.lower(): value for letter, value in self.values.items()}
        if "yes" in self.values.values() and "no" in self.values.values():
            found |= {"true": "yes", "false": "no"}
        for letter, value in self.values.items():  # an option's own name counts before a letter that is spelt the same
            found |= dict.fromkeys(
                (value.lower(), value.lower().replace("_", " "), self.options[letter].lower()), value
            )
        return found

    def _mentions(self, text: str, named: Mapping[str, str]) -> tuple[str | None, set[str]]:
        """The value that a text begins with, and all values that it mentions by letter or by name."""
        head, mentioned = None, set[str]()
        words = sorted((name for name in named if name.upper() not in self.values), key=len, reverse=True)
        found = re.compile(
            rf"\b(?:(?P<name>{'|'.join(map(re.escape, words))})|(?P<letter>[{''.join(self.values)}]))\b"
            if words else rf"\b(?P<name>(?!))?(?P<letter>[{''.join(self.values)}])\b",
            re.IGNORECASE,
        )  # fmt: skip
        for match in found.finditer(text):
            first = not text[: match.start()].strip(" \"'([")
            value = named[match.group().lower()]
            if match["letter"]:
                marked = re.match(r"\s*(?:[.:;,)(\]=/|\u2013\u2014-]|\Z)", text[match.end() :]) is not None
                followed = text[match.end() :].strip().lower().startswith(self.options[match["letter"].upper()].lower())
                if not (match["letter"].isupper() and (marked or followed)) and not (first and marked):
                    continue  # an article
            elif re.match(r"\s*[-'\u2019]\s*\w", text[match.end() :]):
                continue  # "old-fashioned"
            head = value if first and head is None else head
            mentioned.add(value)
        return head, mentioned

    def shown(self) -> str:
        """The question and its options in one line."""
        return f"{self.text} " + " ".join(f"{letter}. {option}" for letter, option in self.options.items())

    def to_dict(self, truth: str | None = None) -> dict[str, object]:
        """As in the published question files; `correctAnswer` where `truth`, the right value, is given."""
        entry: dict[str, object] = {"question": self.text, "options": self.options}
        return entry if truth is None else {**entry, "correctAnswer": self.options[self.letter(truth)]}


def _bare(answer: str) -> str:
    """An answer in one line, without marks of emphasis, quotes and stops around it."""
    text = re.sub(r"[*`#<>]|\\[a-z]*|(?<!\w)_|_(?!\w)", " ", answer)
    text = " ".join(text.split())
    while (shorter := text.strip(" .,:;!\"'\u2018\u2019\u201c\u201d|")) != text or _wrapped(shorter):
        text = shorter[1:-1] if _wrapped(shorter) else shorter
    return text[:-1] if len(text) == 2 and text[1] in ")]" else text


def _wrapped(text: str) -> bool:
    return len(text) > 2 and text[0] + text[-1] in ("()", "[]", "{}")


def question(name: str, graph: CausalGraph) -> Question:
    """The question about one variable.

    Raises:
        InterventionError: The graph has no such variable.
    """
    graph.parents(name)  # refuses unknown names
    variable = graph.variables[name]
    readable = name.replace("_", " ")
    order = variable.options or (("yes", "no") if variable.kind == "binary" else variable.values)
    default = (
        f"Is this true of this person: {readable}?"
        if variable.kind == "binary"
        else f"What is the {readable} of this person?"
    )
    values = dict(zip(LETTERS, order, strict=False))
    shown = {
        letter: value.capitalize() if variable.kind == "binary" else value.replace("_", " ")
        for letter, value in values.items()
    }
    return Question(name, variable.question or default, shown, values)


def questions(graph: CausalGraph, names: Iterable[str] | None = None) -> tuple[Question, ...]:
    """The questions about all variables, or those named, in the graph's order."""
    wanted = None if names is None else set(names)
    return tuple(question(name, graph) for name in graph.variables if wanted is None or name in wanted)


def answer_key(attributes: Mapping[str, str], graph: CausalGraph) -> dict[str, str]:
    """Variable -> the letter of the right answer."""
    return {name: question(name, graph).letter(value) for name, value in attributes.items()}
