"""A critic that is a language model with eyes: it is asked every variable's question about several frames at once.

One call a verdict: all frames, all questions, a structured answer where the provider promises one. What comes back is
read tolerantly (`reading.py`); what cannot be read is asked for once more, with what was wrong with it, and what was
cut off with more room (`chat/asking.py`).

The frames are of one clip, so the model is asked for each frame's answer, and the frames vote.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from countervid.causal.graph import CausalGraph
from countervid.causal.questions import Question
from countervid.chat.asking import ask
from countervid.chat.base import Chat, Message
from countervid.critics.base import Request, Verdict
from countervid.critics.reading import read_answers
from countervid.errors import ConfigError

SURE = 0.6

SYSTEM = (
    "You look at frames of one short video of one person and report what can be seen. Judge only what you are asked "
    "about, from the pictures alone; what a prompt wished for is no evidence. When a feature is faint, partial or "
    "disputable, say so by a lower confidence."
)


class AskedCritic:
    """Any language model that sees, through `Chat`.

    Args:
        chat: Who is asked.
        sure: Confidence from which an answer counts.
    """

    looks = 5

    def __init__(self, chat: Chat, *, sure: float = SURE) -> None:
        if not chat.sees:
            raise ConfigError(f"`{chat.name}` takes no pictures, so it cannot be a critic. Name a model that sees.")
        self.chat, self.sure, self.name = chat, sure, chat.name
        self.size = int(chat.account.config.side)

    def check(self, graph: CausalGraph) -> None:
        """Nothing to refuse: every variable of a graph has a question."""

    def judge(self, request: Request) -> Verdict:
        question = [Message("system", SYSTEM), Message("user", asked_in_words(request), list(request.pictures))]
        (answers, critique), raw = ask(
            self.chat, question, schema_of(request), lambda text: read_answers(text, request)
        )
        return Verdict(
            critic=self.name, frames=request.frames, answers=answers, critique=critique, sure=self.sure, raw=raw
        )

    def costs(self) -> dict[str, Any]:
        return self.chat.account.to_json()

    def carry(self, spent: Mapping[str, float]) -> None:
        """Count what an earlier process of the same run spent."""
        self.chat.account.carry(spent)


def asked_in_words(request: Request) -> str:
    """The questions, and how to answer them."""
    lines = [f"Here are {len(request.frames)} frames of one video, in order."]
    lines.append("Answer each question for every frame by its letter, or null where that frame does not show it:")
    for question in request.questions:
        lines.append(f"- {question.variable}: {question.shown()}")
    if request.prompt:
        lines.append(f"The video was made by an editor that was told: {json.dumps(request.prompt)}")
        lines.append(
            "For each variable that does not clearly show what the editor was told, say in a few words why not."
        )
    example = {
        "answers": {
            request.questions[0].variable: {
                "frames": [next(iter(request.questions[0].options))] * len(request.frames),
                "confidence": 0.9, "critique": "",
            }
        },
        "critique": "one or two sentences about all of it",
    }  # fmt: skip
    lines.append("Answer with one JSON object of this form, with an entry for every variable, and nothing else:")
    lines.append(json.dumps(example))
    lines.append("`confidence` lies in 0..1: how sure it is over all frames.")
    return "\n".join(lines)


def schema_of(request: Request) -> dict[str, Any]:
    """JSON schema of the answer, in the strict form that providers take: everything required, nothing more allowed."""

    def closed(properties: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "type": "object", "properties": dict(properties), "required": list(properties),
            "additionalProperties": False,
        }  # fmt: skip

    def entry(question: Question) -> dict[str, Any]:
        letters = {"type": "array", "items": {"type": ["string", "null"], "enum": [*question.options, None]}}
        return closed({"frames": letters, "confidence": {"type": "number"}, "critique": {"type": "string"}})

    entries = closed({question.variable: entry(question) for question in request.questions})
    return closed({"answers": entries, "critique": {"type": "string"}})
