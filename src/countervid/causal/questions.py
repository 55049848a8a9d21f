"""Multiple-choice questions about a picture, one a variable: what critics and judges are asked.

The four questions of the `face` graph are worded as the published benchmark words them (CSVC, arXiv:2506.14404).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from countervid.causal.graph import CausalGraph
from countervid.errors import InterventionError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


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

    def shown(self) -> str:
        """The question and its options in one line."""
        return f"{self.text} " + " ".join(f"{letter}. {option}" for letter, option in self.options.items())

    def to_dict(self, truth: str | None = None) -> dict[str, object]:
        """As in the published question files; `correctAnswer` where `truth`, the right value, is given."""
        entry: dict[str, object] = {"question": self.text, "options": self.options}
        return entry if truth is None else {**entry, "correctAnswer": self.options[self.letter(truth)]}


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
