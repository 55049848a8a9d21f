"""A critic that is a language model with eyes: it is asked every variable's question about several frames at once.

One call a verdict: all frames, all questions, a structured answer where the provider promises one. What comes back is
read tolerantly (prose around JSON, letters or words for options); what cannot be read is asked for once more, with what
was wrong with it. An answer that contradicts itself counts as not knowing.

The frames are of one clip, so the model is asked for each frame's answer, and the frames vote.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from countervid.causal.graph import CausalGraph
from countervid.causal.questions import Question
from countervid.chat.base import Chat, Message
from countervid.critics.base import Answer, Request, Verdict
from countervid.errors import CallError, ConfigError, InterventionError

SURE = 0.6
UNSURE = 0.5  # of an answer without a confidence of its own

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
        conversation = [Message("system", SYSTEM), Message("user", asked_in_words(request), list(request.pictures))]
        schema = schema_of(request)
        reply = self.chat.complete(conversation, schema)
        raw = [reply.text]
        try:
            return self._verdict(reply.text, request, raw)
        except InterventionError as error:
            conversation += [
                Message("assistant", reply.text),
                Message("user", f"That cannot be read: {error} Answer again with the JSON object alone."),
            ]
        reply = self.chat.complete(conversation, schema)
        raw.append(reply.text)
        try:
            return self._verdict(reply.text, request, raw)
        except InterventionError as error:
            raise CallError(f"`{self.name}` gave no answer that can be read, asked twice: {error}") from None

    def costs(self) -> dict[str, Any]:
        return self.chat.account.to_json()

    def _verdict(self, text: str, request: Request, raw: Sequence[str]) -> Verdict:
        answers, critique = read_answers(text, request)
        return Verdict(
            critic=self.name, frames=request.frames, answers=answers, critique=critique, sure=self.sure, raw=tuple(raw)
        )


def asked_in_words(request: Request) -> str:
    """The questions, and how to answer them."""
    lines = [f"Here are {len(request.frames)} frames of one video, in order."]
    lines.append("Answer each question for every frame by its letter:")
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
        letters = {"type": "array", "items": {"type": "string", "enum": list(question.options)}}
        return closed({"frames": letters, "confidence": {"type": "number"}, "critique": {"type": "string"}})

    entries = closed({question.variable: entry(question) for question in request.questions})
    return closed({"answers": entries, "critique": {"type": "string"}})


def read_answers(text: str, request: Request) -> tuple[dict[str, Answer], str]:
    """What a model's answer says.

    Raises:
        InterventionError: It cannot be read, or says nothing of some variable; in words for whoever answered.
    """
    content = json_in(text)
    entries = content.get("answers", content)
    if not isinstance(entries, Mapping):
        raise InterventionError('"answers" must be an object with an entry for every variable.')
    found: dict[str, Answer] = {}
    plain = {str(key).strip().lower().replace(" ", "_"): value for key, value in entries.items()}
    for question in request.questions:
        if question.variable not in plain:
            raise InterventionError(f"There is no answer for `{question.variable}`.")
        found[question.variable] = _answer(plain[question.variable], question)
    said = content.get("critique", "")
    return found, said.strip() if isinstance(said, str) else ""


def _answer(entry: Any, question: Question) -> Answer:
    if isinstance(entry, (str, list)):
        entry = {"frames": entry}
    if not isinstance(entry, Mapping):
        raise InterventionError(f"The entry of `{question.variable}` must be an object.")
    given = entry.get("frames", entry.get("answer", entry.get("value")))
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or not given or not all(isinstance(one, str) for one in given):
        raise InterventionError(f"The entry of `{question.variable}` needs `frames`: a list of letters.")
    counted = Counter(question.value(letter) for letter in given)
    value, most = counted.most_common(1)[0]
    share = most / len(given)
    stated = _confidence(entry.get("confidence"))
    single = entry.get("value", entry.get("answer"))
    torn = isinstance(single, str) and "frames" in entry and question.value(single) != value
    tie = len(counted) > 1 and counted.most_common(2)[1][1] == most
    critique = entry.get("critique", "")
    return Answer(
        value=None if torn or tie else value,
        confidence=0.0 if torn or tie else round(min(share, max(stated, 0.0)), 4),
        votes={name: round(count / len(given), 4) for name, count in counted.items()},
        critique=critique.strip() if isinstance(critique, str) else "",
    )


def _confidence(stated: Any) -> float:
    """0..1 of a number, a percentage, or their spelling; `UNSURE` of anything else."""
    if isinstance(stated, str):
        match = re.search(r"\d+(?:\.\d+)?", stated)
        stated = float(match.group()) if match else None
    if isinstance(stated, bool) or not isinstance(stated, (int, float)) or stated != stated:
        return UNSURE
    return min(1.0, float(stated) / 100 if stated > 1 else float(stated))


def json_in(text: str) -> dict[str, Any]:
    """The first JSON object in a text; fences and prose around it are passed over.

    Raises:
        InterventionError: There is none.
    """
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\{", text):
        try:
            content, _ = decoder.raw_decode(text, match.start())
        except ValueError:
            continue
        if isinstance(content, dict):
            return content
    raise InterventionError("It holds no JSON object.")
