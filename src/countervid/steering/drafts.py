"""What a language model wrote as a prompt: where it stands in the answer, and why it cannot be used.

A refusal, a label, a thought, an "OK" or an echo of what was asked is no prompt. What is one is read back in the
graph's language: it must say what is wanted, and nothing against it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from countervid.causal.lexicon import read
from countervid.chat.answers import object_in, takes_back, without_thoughts
from countervid.errors import InterventionError
from countervid.steering.rewrite import Task

LONGEST = 24  # words of a prompt
ECHO = 5  # words in a row that repeat the instructions

_PROMPT = (
    "prompt",
    "improved_prompt",
    "new_prompt",
    "rewritten_prompt",
    "improved prompt",
    "new prompt",
    "description",
)
_LABEL = re.compile(
    r"\A[\s*_#>-]*(?:(?:the|my|your|here is the|here's the|improved|new|rewritten|revised|updated|final|reworded)\s+)*"
    r"(?:prompt|description|output|answer|result|rewrite|version)\b[\s*_]*(?:is\b)?\s*(?::|=|\u2013|\u2014|-)[\s*_]*",
    re.IGNORECASE,
)
_DECLINES = re.compile(
    r"\b(?:sorry|apologi[sz]e|as an? (?:ai|language model|assistant)|"
    r"(?:can(?:no|')t|can not|won't|unable to|not able to)\s+"
    r"(?:help|assist|do|comply|write|provide|create|generate|rewrite|fulfil\w*|answer|continue|identify)|"
    r"against (?:my|the) (?:policy|policies|guidelines)|content policy)\b",
    re.IGNORECASE,
)
_SPEAKS = re.compile(  # to somebody, or of itself
    r"\b(?:i|i'm|i'll|i've|i'd|me|my|myself|you|your|we|our|us|let's)\b"
    r"|\A\W*(?:ok|okay|sure|certainly|of course|absolutely|understood|done|yes|thanks?|please|hmm+|well|note|here)\b"
    r"|\b(?:prompts?|json|instructions?|feedback|rewrite|rewritten|reword(?:ed|ing)?|null|undefined|n/a|lorem)\b",
    re.IGNORECASE,
)
_MARKS = re.compile(r"[{}<>=|\[\]`]|\*\*|\.\.\.|\u2026|\A\W*[\w ]{1,30}:|\w+://")


def written(text: str) -> str:
    """The prompt in an answer: of a JSON object, of tags, or the text itself without fence, label and quotes.

    Raises:
        InterventionError: There is a JSON object, and no prompt in it that counts; in words for whoever answered.
    """
    said = without_thoughts(text)
    try:
        content = {str(name).strip().lower(): value for name, value in object_in(said).items()}
    except InterventionError:
        if "{" in said:
            raise
    else:
        prompt = next((content[name] for name in _PROMPT if name in content), None)
        if not isinstance(prompt, str):
            raise InterventionError('The object has no "prompt" that is a text.')
        return " ".join(prompt.split())
    tagged = re.search(r"<(\w*improved\w*|prompt|answer)>(.*?)</", said, re.IGNORECASE | re.DOTALL)
    body = tagged[2] if tagged else re.sub(r"```\w*", " ", said)
    lines = [line.strip() for line in body.strip().splitlines() if line.strip()]
    while len(lines) > 1 and lines[0].endswith(":"):  # "Here is the improved prompt:"
        lines.pop(0)
    one = _LABEL.sub("", " ".join(lines)).strip()
    if len(one) > 1 and one[0] in "\"'`*\u201c\u2018" and one[-1] in "\"'`*\u201d\u2019":
        one = one.strip("\"'`*\u201c\u201d\u2018\u2019")
    return " ".join(one.split())


def declines(text: str) -> bool:
    """Whether a text refuses instead of answering."""
    return _DECLINES.search(_straight(text)) is not None


def no_description(prompt: str, instructions: Iterable[str] = ()) -> str:
    """Why a text describes nobody, in a sentence; empty where it may.

    Args:
        prompt: The text.
        instructions: What the writer was told, so that an echo of it is known.
    """
    plain = _straight(prompt)
    words = _words(plain)
    if not words:
        return "it is empty."
    if _DECLINES.search(plain) or _SPEAKS.search(plain) or takes_back(plain):
        return "it speaks to somebody instead of describing a person."
    if _MARKS.search(plain):
        return "it holds labels or marks. Write a plain sentence."
    if len(words) < 2:
        return "it is a single word."
    for told in map(_words, instructions):
        runs = {tuple(told[at : at + ECHO]) for at in range(len(told) - ECHO + 1)}
        if any(tuple(words[at : at + ECHO]) in runs for at in range(len(words) - ECHO + 1)):
            return "it repeats the instructions."
    return ""


def fault_of(prompt: str, task: Task, instructions: Iterable[str] = ()) -> str:
    """Why a prompt cannot be used, in a sentence; empty where it can.

    It is read back in the graph's language: what changed, is missing or was lost must be stated, as far as the graph
    has words for it and it is not to be left unsaid.
    """
    if fault := no_description(prompt, instructions):
        return fault
    if len(prompt.split()) > LONGEST:
        return f"it has {len(prompt.split())} words, more than {LONGEST}."
    try:
        stated = read(prompt, task.graph).stated
    except InterventionError as error:
        return str(error)
    for name, value in stated.items():
        if name in task.unsaid:
            return f"it names {name}, which it should not."
        if task.wanted.get(name) != value:
            return f"it says {name.replace('_', ' ')} = {value}, and {task.wanted.get(name)} is wanted."
    for name in _needed(task):
        if stated.get(name) != task.wanted[name]:
            return f"it does not say that {name.replace('_', ' ')} = {task.wanted[name]}."
    return ""


def _needed(task: Task) -> list[str]:
    """The variables that a prompt has to state."""
    changed = {name for name, value in task.factual.items() if task.wanted.get(name, value) != value}
    found = []
    for name in task.wanted:
        language = task.graph.variables[name].language
        sayable = language.clauses.get(task.wanted[name]) is not None or task.wanted[name] in language.subjects
        if sayable and name not in task.unsaid and name in {*changed, *task.missing, *task.lost}:
            found.append(name)
    return found


def _straight(text: str) -> str:
    return text.replace("\u2019", "'")


def _words(text: str) -> list[str]:
    found: list[str] = re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower())
    return found
