"""Effectiveness by questions: a judge is shown pictures, answers in words, and the answers are held against a key.

After every intervention the judge is asked about every attribute, so the result is a matrix, attribute asked by
attribute intervened on (CSVC, arXiv:2506.14404). Of the 1072 published answer keys 14 contradict the prompt that they
belong to; here a key also follows from the prompt itself, and both are told.

Who judges is left open: anything that takes pictures and questions and answers in words (`Judge`). The published
judge is LLaVA-NeXT, through `ChatJudge`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import cv2
import torch
from torch import Tensor

from countervid.causal.graph import CausalGraph
from countervid.causal.language import parse
from countervid.causal.questions import LETTERS, Question, question
from countervid.chat.answers import without_thoughts
from countervid.chat.base import Chat, Message
from countervid.errors import CallError, ConfigError, InterventionError
from countervid.metrics.calibration import balanced_accuracy, calibrated

Key = Literal["published", "corrected"]
Reading = Literal["published", "tolerant"]
Matrix = dict[str, dict[str, float]]  # [attribute asked][attribute intervened on]

PUBLISHED_FRAMES: Mapping[str, int] = {"steering": 6, "effectiveness": 5, "minimality": 4}
"""Which frame, counted from 0, each of CSVC's models is shown of one and the same clip."""
PUBLISHED_SIDE = 512  # px
END_OF_QUESTION = "[/INST]"  # where the question ends and the answer begins, in LLaVA-NeXT's chat form


class Judge(Protocol):
    """Looks at pictures of one clip and answers."""

    name: str

    def answer(self, pictures: Tensor, questions: Sequence[Question]) -> Sequence[str | None]:
        """One answer a question, in words; None where none could be had.

        Args:
            pictures: `(n, H, W, 3)` uint8 RGB.
            questions: What is asked.
        """
        ...


class ChatJudge:
    """A language model with eyes, asked each question by itself for one word, as published.

    Args:
        chat: Who is asked.
    """

    def __init__(self, chat: Chat) -> None:
        self.chat, self.name = chat, chat.name

    def answer(self, pictures: Tensor, questions: Sequence[Question]) -> list[str | None]:
        answers: list[str | None] = []
        for asked in questions:
            try:
                reply = self.chat.complete([Message("user", in_brackets(asked), list(pictures))])
                answers.append(without_thoughts(reply.text))
            except CallError:
                answers.append(None)
        return answers


def in_brackets(asked: Question) -> str:
    """A question with its options in brackets, to be answered by one of them.

    >>> in_brackets(Question("bald", "Is this person bald?", {"A": "Yes", "B": "No"}, {"A": "yes", "B": "no"}))
    'Is this person bald? (Yes, No) Answer with one of these words alone.'
    """
    return f"{asked.text} ({', '.join(asked.options.values())}) Answer with one of these words alone."


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question of a question file."""

    clip: str
    intervention: str  # the attribute intervened on
    question: Question
    published: str  # the answer that the file calls right
    corrected: str  # the answer that follows from the file's own prompt

    @property
    def attribute(self) -> str:
        """What is asked about."""
        return self.question.variable

    def key(self, which: Key) -> str:
        """The right answer by one of the two keys."""
        return self.published if which == "published" else self.corrected


def read_questions(entries: Mapping[str, Any], graph: CausalGraph) -> list[Item]:
    """The questions of a file in the form of CSVC's `questions_explicit.json`, in its order.

    Options keep the letters and the order of the file: 129 of its 268 questions about gender offer the woman first, and
    a judge that prefers the first option answers them otherwise.

    Args:
        entries: The file's content: clip -> variable intervened on -> `prompt` and `questions`.
        graph: Whose words the prompts are read by, and whose questions are asked.

    Raises:
        ConfigError: The content is not of that form, or does not fit the graph.
    """
    known = {question(name, graph).text: question(name, graph) for name in graph.variables}
    items = []
    for clip, interventions in entries.items():
        try:
            for variable, entry in interventions.items():
                said = parse(entry["prompt"], graph)
                for asked in entry["questions"]:
                    about = _in_order(known[asked["question"]], asked.get("options"))
                    items.append(
                        Item(
                            clip=clip,
                            intervention=variable,
                            question=about,
                            published=asked["correctAnswer"],
                            corrected=about.options[about.letter(said[about.variable])],
                        )
                    )
        except KeyError as error:
            raise ConfigError(f"The questions of `{clip}` do not fit graph {graph.name}: {error} is missing.") from None
        except (TypeError, AttributeError, InterventionError) as error:
            raise ConfigError(f"The questions of `{clip}` cannot be read: {error}") from None
    return items


def _in_order(known: Question, options: Any) -> Question:
    """The question with a file's own options, letter -> text; as the graph has it where the file names none.

    Raises:
        InterventionError: They are not the values of the variable, each once.
    """
    if options is None:
        return known
    if isinstance(options, list):
        options = dict(zip(LETTERS, options, strict=False))
    values = {str(letter): known.value(str(text)) for letter, text in options.items()}
    if sorted(values.values()) != sorted(known.values.values()):
        raise InterventionError(f"the options of `{known.variable}` are {', '.join(map(str, options.values()))}.")
    return replace(known, options={str(letter): str(text) for letter, text in options.items()}, values=values)


def answers_of(judge: Judge, items: Sequence[Item], pictures: Callable[[str, str], Tensor | None]) -> list[str | None]:
    """What a judge says to every question, asked once for each clip and intervention.

    Args:
        judge: Who is asked.
        items: What is asked.
        pictures: Clip and intervention -> the pictures that are shown, `(n, H, W, 3)` uint8 RGB; None where there are
            none, which is a failure.
    """
    answers: list[str | None] = [None] * len(items)
    groups: dict[tuple[str, str], list[int]] = {}
    for number, item in enumerate(items):
        groups.setdefault((item.clip, item.intervention), []).append(number)
    for group, numbers in groups.items():
        shown = pictures(*group)
        if shown is not None:
            said = judge.answer(shown, [items[number].question for number in numbers])
            for number, answer in zip(numbers, said, strict=True):
                answers[number] = answer
    return answers


def disputed(items: Sequence[Item]) -> list[Item]:
    """Those whose published key contradicts their own prompt."""
    return [item for item in items if spelt(item.published) != spelt(item.corrected)]


def after_marker(text: str, marker: str = END_OF_QUESTION) -> str:
    """What a model wrote itself: what follows the last end marker of its chat form, or all of it.

    >>> after_marker("[INST] Is this person bald? [/INST] Yes.")
    ' Yes.'
    """
    return text.rpartition(marker)[2]


def spelt(answer: str) -> str:
    """An answer as it is compared in the published script: lower case, blanks stripped, then full stops deleted.

    >>> spelt(" Yes.\\n"), spelt("YES, clearly"), spelt("yes .")
    ('yes', 'yes, clearly', 'yes ')
    """
    return answer.lower().strip().replace(".", "")


def right(item: Item, answer: str | None, *, key: Key = "corrected", reading: Reading = "tolerant") -> bool:
    """Whether an answer is the right one.

    Args:
        item: The question.
        answer: What the judge said; None, no answer, is never right.
        key: Which of the two keys counts.
        reading: "published" wants the option itself and nothing else; "tolerant" also takes its letter, and marks
            around it.
    """
    if answer is None:
        return False
    if reading == "published":
        return spelt(answer) == spelt(item.key(key))
    value = valued(item, answer)
    return value is not None and value == item.question.value(item.key(key))


def valued(item: Item, answer: str | None) -> str | None:
    """The variable's value that an answer means; None where it means none."""
    try:
        return None if answer is None else item.question.value(answer)
    except InterventionError:
        return None


def accuracy_matrix(
    items: Sequence[Item],
    answers: Sequence[str | None],
    *,
    key: Key = "corrected",
    reading: Reading = "tolerant",
    failures: Literal["counted", "left out"] = "counted",
    decimals: int | None = None,
) -> Matrix:
    """Share of right answers by attribute asked and attribute intervened on: `matrix[asked][intervened]`, 0..1.

    The diagonal says whether the intervention took. Off it, an attribute upstream of the intervention or unrelated to
    it was kept; one downstream of it shows what the graph says follows.

    Args:
        items: What was asked.
        answers: What the judge said, one each; None is a failure.
        key, reading: As for `right`; the published numbers take "published" for both.
        failures: Whether a failure counts as wrong, or vanishes from the denominator as published.
        decimals: Round to so many; the published script keeps 3.

    Returns:
        Cells in which nothing was asked are absent.
    """
    if len(items) != len(answers):
        raise ValueError(f"Every question needs its answer: {len(items)} questions, {len(answers)} answers.")
    counts: dict[str, dict[str, list[bool]]] = {}
    for item, answer in zip(items, answers, strict=True):
        if answer is None and failures == "left out":
            continue
        row = counts.setdefault(item.attribute, {}).setdefault(item.intervention, [])
        row.append(right(item, answer, key=key, reading=reading))
    return {
        asked: {
            intervened: sum(cell) / len(cell) if decimals is None else round(sum(cell) / len(cell), decimals)
            for intervened, cell in row.items()
        }
        for asked, row in counts.items()
    }


def balanced_matrix(items: Sequence[Item], answers: Sequence[str | None], *, key: Key = "corrected") -> Matrix:
    """As `accuracy_matrix`, but in each cell the mean over the values that are right how often each is recognised.

    A judge that always gives the commonest answer reaches 0.91 in a cell of the published questions by accuracy, 0.5 by
    this. Failures count as wrong.
    """
    cells: dict[str, dict[str, list[tuple[str, str | None]]]] = {}
    for item, answer in zip(items, answers, strict=True):
        pair = item.question.value(item.key(key)), valued(item, answer)
        cells.setdefault(item.attribute, {}).setdefault(item.intervention, []).append(pair)
    return {
        asked: {intervened: balanced_accuracy(*zip(*pairs, strict=True)) for intervened, pairs in row.items()}
        for asked, row in cells.items()
    }


def calibrated_matrix(edits: Matrix, truths: Matrix) -> Matrix:
    """Accuracy on edits over the same judge's accuracy on the true counterfactuals, cell by cell.

    >>> calibrated_matrix({"age": {"age": 0.5}}, {"age": {"age": 0.8}})
    {'age': {'age': 0.625}}
    """
    return {
        asked: {intervened: calibrated(value, truths[asked][intervened]) for intervened, value in row.items()}
        for asked, row in edits.items()
    }


def published_index(asked: int) -> int | None:
    """The frame, counted from 0, that CSVC's helper returns when asked for the n-th; None where it fails.

    It skips n - 1 frames and then decodes the last one that it skipped.

    >>> published_index(7), published_index(6), published_index(1)
    (5, 4, None)
    """
    return asked - 2 if asked >= 2 else None


def published_picture(frames: Tensor, index: int) -> Tensor:
    """What CSVC shows its judges: one frame squeezed to 512 x 512, blue and red exchanged.

    Args:
        frames: `(F, H, W, 3)` uint8 RGB.
        index: Counted from 0; the last frame where the clip is shorter.

    Returns:
        `(512, 512, 3)` uint8: OpenCV's BGR, which the models take for RGB.
    """
    frame = frames[min(index, len(frames) - 1)].numpy()
    squeezed = cv2.resize(frame, (PUBLISHED_SIDE, PUBLISHED_SIDE), interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(squeezed).flip(-1)
