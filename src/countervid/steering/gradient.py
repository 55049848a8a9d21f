"""The textual gradient by a language model (CSVC, arXiv:2506.14404; TextGrad, arXiv:2406.07496): words as gradients.

Loss, gradient, update: the verdict says what is wrong, one call turns that into feedback on the prompt, another writes
the new prompt. The constraints of the published instructions hold, in words of our own; what it must not do (bring in
moods, scenery, brackets of age; grow without end; contradict the target or keep silent about it) is checked afterwards
(`drafts.py`), and a draft that breaks it is asked for once more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from countervid.causal.graph import CausalGraph
from countervid.causal.lexicon import read
from countervid.chat.answers import without_thoughts
from countervid.chat.asking import ask
from countervid.chat.base import Chat, Message
from countervid.errors import InterventionError
from countervid.steering.drafts import LONGEST, declines, fault_of, written
from countervid.steering.rewrite import Draft, Task, against

SCHEMA = {
    "type": "object", "properties": {"prompt": {"type": "string"}}, "required": ["prompt"],
    "additionalProperties": False,
}  # fmt: skip

CRITIC = (
    "You help to improve the prompt of a video editor. You hear what its video should show of a person and what a "
    "viewer saw in it. Give short, concrete feedback on the prompt: which words would make the missing features show. "
    "Speak of nothing but the features named: not of expression, hair style, background, clothing or light. Of age, "
    "speak in general words from child to elderly, never in numbers. Do not write a new prompt."
)
WRITER = (
    "You rewrite the prompt of a video editor by the feedback on it. Keep its structure: a description of one person, "
    f"no instruction to anybody, at most {LONGEST} words. State what should be seen, negate nothing. Add no mood, "
    'scenery, style or feature that was not asked for. Answer with one JSON object, {"prompt": "..."}.'
)
EXPRESSIVE = (
    "Reword the description of a person in expressive, vivid language. Keep just what it states of the person and add "
    f'no other feature. At most {LONGEST} words. Answer with one JSON object, {{"prompt": "..."}}.'
)


class ChatWriter:
    """Any language model, through `Chat`; it need not be the one that judges, and need not see."""

    def __init__(self, chat: Chat) -> None:
        self.chat, self.name = chat, chat.name

    def rewrite(self, task: Task) -> Draft:
        situation = described(task)
        reply = self.chat.complete([Message("system", CRITIC), Message("user", situation)])
        feedback = without_thoughts(reply.text).strip()
        feedback = "" if declines(feedback) else feedback
        heard = f"\n\nFeedback: {feedback}" if feedback else ""
        asked = f"{situation}{heard}\n\nWrite the improved prompt."
        prompt = self._prompt([Message("system", WRITER), Message("user", asked)], task)
        return Draft(prompt=prompt, negative=against(task), feedback=feedback)

    def paraphrase(self, prompt: str, wanted: Mapping[str, str], graph: CausalGraph) -> str:
        asked = [Message("system", EXPRESSIVE), Message("user", prompt)]
        said = read(prompt, graph).stated  # what the prompt says, its paraphrase has to say
        task = Task(
            goal=prompt, prompt=prompt, factual={}, wanted=wanted, missing=said, lost={}, unsaid=frozenset(),
            verdict=None, graph=graph, turn=0,
        )  # fmt: skip
        return self._prompt(asked, task)

    def carry(self, spent: Mapping[str, float]) -> None:
        """Count what an earlier process of the same run spent."""
        self.chat.account.carry(spent)

    def costs(self) -> dict[str, Any]:
        return self.chat.account.to_json()

    def _prompt(self, conversation: list[Message], task: Task) -> str:
        def usable(text: str) -> str:
            prompt = written(text)
            fault = fault_of(prompt, task, (CRITIC, WRITER, EXPRESSIVE))
            if fault:
                raise InterventionError(fault)
            return prompt

        retort = "That cannot be used: {fault} Write it again."
        prompt, _ = ask(
            self.chat, conversation, SCHEMA, usable, lacking="wrote no prompt that can be used", retort=retort
        )
        return prompt


def described(task: Task) -> str:
    """What a writer is told of the edit so far."""
    graph, lines = task.graph, [f"The goal, as it was first put: {json.dumps(task.goal)}"]
    lines.append(f"The prompt of the last edit: {json.dumps(task.prompt)}")
    lines.append("The video should show: " + _listed(task.wanted))
    if task.missing:
        lines.append("Not seen yet: " + _listed(task.missing))
    if task.lost:
        lines.append("Should have stayed and did not: " + _listed(task.lost))
    if task.verdict is not None and task.verdict.critique:
        lines.append(f"The viewer wrote: {task.verdict.critique}")
    if task.unsaid:
        names = ", ".join(sorted(task.unsaid))
        subject = next((n for n, v in graph.variables.items() if v.language.subjects), None)
        neutral = " Use a neutral subject (a person, an individual)." if subject in task.unsaid else ""
        lines.append(f"The prompt should not mention {names}, which pull against what is set.{neutral}")
    return "\n".join(lines)


def _listed(attributes: Mapping[str, str]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} = {value}" for name, value in attributes.items())
