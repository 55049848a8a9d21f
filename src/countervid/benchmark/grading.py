"""A judge beside the examiner: asked every variable's question about every result, by the published files or our own.

`judge.VARIABLE` is 1 where the answer is right by the key that follows from the prompt, 0 where it is not, and not
defined where the judge gave none. With a question file there is also `judge.published.VARIABLE`: the file's own key,
read to the letter, about the one frame that is shown there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from countervid.benchmark.clips import Ask, Footage, Subject
from countervid.causal.graph import CausalGraph
from countervid.causal.questions import questions
from countervid.chat.base import ChatConfig, load_chat
from countervid.critics.base import load_critic, spread
from countervid.errors import ConfigError
from countervid.face import align
from countervid.metrics.judged import (
    PUBLISHED_FRAMES,
    ChatJudge,
    Item,
    Judge,
    published_picture,
    read_questions,
    right,
    valued,
)
from countervid.runs.footage import read_entries
from countervid.runs.judging import CriticJudge

SHOWN = PUBLISHED_FRAMES["effectiveness"]
Items = dict[tuple[str, str], list[Item]]  # (clip, variable intervened on) -> its questions


class Grader:
    """Asks about results, and holds the answers against the keys.

    Args:
        judge: Who is asked.
        published: The questions of a file; None asks our own.
    """

    def __init__(self, judge: Judge, published: Items | None = None) -> None:
        self.judge, self.published = judge, published

    def scores(self, subject: Subject, ask: Ask, edited: Footage) -> dict[str, float | None]:
        """`judge.*` of one result."""
        items = own_items(subject, ask)
        if self.published is not None:
            items = self.published[subject.name, ask.variable]
        answers = self.judge.answer(self._pictures(edited), [item.question for item in items])
        scores: dict[str, float | None] = {}
        for item, answer in zip(items, answers, strict=True):
            name, told = item.attribute, answer is not None
            understood = valued(item, answer) is not None
            scores[f"judge.{name}"] = float(right(item, answer)) if understood else None
            if self.published is not None:
                exact = right(item, answer, key="published", reading="published")
                scores[f"judge.published.{name}"] = float(exact) if told else None
        return scores

    def _pictures(self, edited: Footage) -> Tensor:
        """What the judge is shown, `(n, S, S, 3)` uint8."""
        if isinstance(self.judge, CriticJudge) and len(edited.rows):
            critic = self.judge.critic
            places = np.asarray(spread(range(len(edited.rows)), critic.looks))
            frames = edited.frames[torch.from_numpy(edited.rows[places])]
            return align.crop(frames, edited.squares[places], critic.size)
        if self.published is not None:
            return published_picture(edited.frames, SHOWN)[None]
        return edited.frames[min(SHOWN, len(edited.frames) - 1)][None]


def own_items(subject: Subject, ask: Ask) -> list[Item]:
    """Every variable's question, with the answers that the counterfactual gives."""
    items = []
    for one in questions(subject.graph, ask.counterfactual):
        answer = one.options[one.letter(ask.counterfactual[one.variable])]
        items.append(
            Item(clip=subject.name, intervention=ask.variable, question=one, published=answer, corrected=answer)
        )
    return items


def load_judge(name: str, config: ChatConfig | None = None) -> Judge:
    """A judge by name: a critic (`bundled`), or a language model asked as published (`openai:`, `transformers:MODEL`).

    Raises:
        ConfigError: There is no such judge.
    """
    if name.partition(":")[0] in ("openai", "transformers"):
        return ChatJudge(load_chat(name, config))
    return CriticJudge(load_critic(name, config))


def read_items(path: Path, graph: CausalGraph) -> Items:
    """The questions of a file as CSVC's `questions_explicit.json`.

    Raises:
        ConfigError: It is not of that form.
    """
    found: Items = {}
    for item in read_questions(read_entries(path), graph):
        found.setdefault((item.clip, item.intervention), []).append(item)
    return found


def check_items(found: Items, subjects: list[Subject], path: Path) -> None:
    """Refuse an answer key that says nothing of some result.

    Raises:
        ConfigError: It does not fit the clips.
    """
    wanted = [(subject.name, ask.variable) for subject in subjects for ask in subject.asks]
    absent = [f"{clip} under {variable}" for clip, variable in wanted if (clip, variable) not in found]
    if absent:
        more = f", and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise ConfigError(
            f"`{path}` does not fit the clips: it asks nothing of {', '.join(absent[:3])}{more}. "
            "Give the file that belongs to the prompts, or leave --questions out."
        )
