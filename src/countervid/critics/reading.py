"""What a language model's answer says of each variable: letters, names and lists in the forms that models give them.

Nothing is read as surer than it is said. A frame without a clear answer has no vote, one letter for five frames is one
frame's vote, and an answer that contradicts itself counts as not knowing.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from countervid.causal.questions import Question
from countervid.chat.answers import object_in
from countervid.critics.base import Answer, Request
from countervid.errors import InterventionError

UNSURE = 0.5  # confidence of an answer that states none
SPOKEN = {"low": 0.3, "medium": 0.5, "moderate": 0.5, "high": 0.8}  # confidences in words

_ENTRIES = (
    "answers",
    "answer",
    "variables",
    "results",
    "result",
    "response",
    "output",
    "frames",
    "questions",
    "verdict",
)
_VARIABLE = ("variable", "attribute", "question", "name", "key", "id", "feature")
_FRAMES = ("frames", "answers", "votes", "letters", "per_frame", "frame_answers")
_SINGLE = ("answer", "value", "letter", "choice", "option", "selected", "label", "overall", "verdict")
_FRAME = re.compile(r"(?:frame|image|picture|f)?_?\d+")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:[.,]\d+)?")
_RATIO = re.compile(r"(\d+(?:\.\d+)?)\s*(?:/|out of|of)\s*(\d+(?:\.\d+)?)")


def read_answers(text: str, request: Request) -> tuple[dict[str, Answer], str]:
    """What a model's answer says.

    Raises:
        InterventionError: It cannot be read, or says nothing of some variable; in words for whoever answered.
    """
    content = _plain(object_in(text))
    names = {_key(question.variable): question.variable for question in request.questions}
    entries = _entries(content, names)
    found: dict[str, Answer] = {}
    for question in request.questions:
        name = _key(question.variable)
        if name not in entries:
            raise InterventionError(f"There is no answer for `{question.variable}`.")
        stated = content.get("confidence") if not isinstance(content.get("confidence"), Mapping) else None
        found[question.variable] = _answer(entries[name], question, len(request.frames), stated)
    said = content.get("critique", "")
    return found, said.strip() if isinstance(said, str) else ""


def _entries(content: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
    """Variable -> what is said of it: at the top, under a name of its own, or spread over a list."""
    if any(name in names for name in content):
        return content
    inner = next((content[name] for name in _ENTRIES if isinstance(content.get(name), (Mapping, list))), content)
    if isinstance(inner, Mapping):
        inner = _plain(inner)
        frames = [part for name, part in inner.items() if _FRAME.fullmatch(name) and isinstance(part, Mapping)]
        if any(name in names for name in inner) or not frames:
            return inner
        inner = frames
    parts = [_plain(part) for part in inner if isinstance(part, Mapping)]
    if not parts or len(parts) < len(inner):
        raise InterventionError('"answers" must be an object with an entry for every variable.')
    gathered: dict[str, list[Any]] = {}
    for part in parts:
        named = next((_key(str(part[kind])) for kind in _VARIABLE if _key(str(part.get(kind))) in names), None)
        if named is not None:  # [{"variable": "age", "frames": [...]}, ...]
            gathered.setdefault(named, []).append({k: v for k, v in part.items() if k not in _VARIABLE})
            continue
        inside = part.get("answers")
        for name, value in (_plain(inside) if isinstance(inside, Mapping) else part).items():
            if name in names:  # [{"age": "A", ...}, ...]: one object a frame, or one a variable
                gathered.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else {"frames": values} for name, values in gathered.items()}


def _answer(entry: Any, question: Question, frames: int, stated: Any) -> Answer:
    """What is said of one variable; `stated` is the confidence of the whole answer, where it has one."""
    if not isinstance(entry, Mapping):
        entry = {"frames": entry}
    entry = _plain(entry)
    many = next((entry[name] for name in _FRAMES if name in entry), None)
    single = next((entry[name] for name in _SINGLE if name in entry), None)
    votes = _votes(single if many is None else many, question, frames) if entry.keys() & {*_FRAMES, *_SINGLE} else []
    if not votes:
        raise InterventionError(f"The entry of `{question.variable}` needs `frames`: a list of letters.")
    counted = Counter(vote for vote in votes if vote is not None)
    looks = max(frames, len(votes))
    shares = {name: round(count / looks, 4) for name, count in counted.items()}
    critique = entry.get("critique", entry.get("reason", ""))
    words = critique.strip() if isinstance(critique, str) else ""
    nothing = Answer(value=None, confidence=0.0, votes=shares, critique=words)
    if not counted:
        return nothing
    (value, most), *others = counted.most_common(2)
    tie = bool(others) and others[0][1] == most
    torn = many is not None and single is not None and _vote(single, question) != value
    corrected = any(str(entry[name] or "").strip() for name in entry if name.startswith(("correct", "revis")))
    if tie or torn or corrected or 2 * most < looks:
        return nothing
    confidence = min(most / looks, _confidence(entry.get("confidence", stated)))
    return nothing.model_copy(update={"value": value, "confidence": round(confidence, 4)})


def _votes(given: Any, question: Question, frames: int) -> list[str | None]:
    """One value a frame that is spoken of; None where it cannot be told."""
    if isinstance(given, Mapping):
        counts = [
            (name, count) for name, count in given.items() if isinstance(count, int) and not isinstance(count, bool)
        ]
        if counts and len(counts) == len(given):  # {"A": 3, "B": 2}
            if any(count < 0 for _, count in counts) or sum(count for _, count in counts) > max(frames, 1):
                raise InterventionError(f"`{question.variable}` counts more frames than there are.")
            return [vote for name, count in counts for vote in [_vote(name, question)] * count]
        given = list(given.values())  # {"1": "A", "2": "B"}
    if isinstance(given, str):
        given = _split(given, question, frames)
    if not isinstance(given, list):
        given = [given]
    return [_vote(one, question) for one in given]


def _split(text: str, question: Question, frames: int) -> list[Any]:
    """A list that was written as one string: "A, A, B" or "AAB"; else the string alone."""
    letters = "".join(question.options)
    if re.fullmatch(rf"\W*[{letters}](?:[\s,;|/>\u2192-]+[{letters}])+\W*", text):
        found: list[Any] = re.findall(rf"[{letters}]", text)
        return found if len(found) == frames or "/" not in text else [text]
    if frames > 1 and re.fullmatch(rf"[{letters}]{{{frames}}}", text.strip()):
        return list(text.strip())
    parts = [part.strip() for part in re.split(r"[,;|\n]", text) if part.strip()]
    if len(parts) == frames and frames > 1 and all(_reads(part, question) for part in parts):
        return list(parts)
    return [text]


def _reads(text: str, question: Question) -> bool:
    try:
        question.value(text)
    except InterventionError:
        return False
    return True


def _vote(one: Any, question: Question) -> str | None:
    """What one frame shows.

    Raises:
        InterventionError: It is no answer to the question.
    """
    if one is None:
        return None
    if isinstance(one, Mapping):
        one = _plain(one)
        return _vote(next((one[name] for name in (*_SINGLE, question.variable) if name in one), None), question)
    if isinstance(one, bool):
        one = "true" if one else "false"
    if isinstance(one, list) and len(one) == 1:
        return _vote(one[0], question)
    if not isinstance(one, str):
        raise InterventionError(f"The entry of `{question.variable}` needs `frames`: a list of letters.")
    return question.read(one)


def _confidence(stated: Any) -> float:
    """0..1 of a number, a percentage, a ratio, or their spelling; `UNSURE` of anything else.

    Of several in one text the smallest counts, of a list the mean.
    """
    if isinstance(stated, (list, Mapping)):
        values = list(stated.values()) if isinstance(stated, Mapping) else list(stated)
        each = [_confidence(value) for value in values if not isinstance(value, (list, Mapping))]
        return sum(each) / len(each) if each else UNSURE
    if isinstance(stated, str):
        text = stated.lower().replace("\u2212", "-")
        if (ratio := _RATIO.search(text)) is not None and float(ratio[2]) > 0:
            return min(1.0, float(ratio[1]) / float(ratio[2]))
        scale = 100 if "%" in text or "percent" in text else None
        numbers = [float(number.replace(",", ".")) for number in _NUMBER.findall(text)]
        if not numbers or re.search(r"\b(?:not|un\w+|less|below|under|at most)\b|<", text):
            return min([_unit(number, scale) for number in numbers] + [SPOKEN.get(text.strip(" ."), UNSURE)])
        return min(_unit(number, scale) for number in numbers)
    if isinstance(stated, bool) or not isinstance(stated, (int, float)):
        return UNSURE
    return _unit(float(stated), None)


def _unit(number: float, scale: float | None) -> float:
    """A number as a share; above 1 it is of a hundred."""
    if not math.isfinite(number):
        return UNSURE
    share = number / (scale or (100 if number > 1 else 1))
    return UNSURE if share > 1 else max(0.0, share)


def _plain(content: Mapping[str, Any]) -> dict[str, Any]:
    """The same with names in one spelling; what two spellings of one name say differently becomes None."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        key = _key(str(name))
        found[key] = None if key in found and found[key] != value else value
    return found


def _key(name: str) -> str:
    """A name as it is compared: small letters, `_` between words, British and American spelling alike."""
    return re.sub(r"[\W_]+", "_", name.lower()).strip("_").replace("colour", "color")
