"""Reading what a language model wrote: without its thoughts, and the last complete object in it.

Models answer with JSON, or with something like it: in fences, in single quotes, with trailing commas, with a draft
before it and a remark after it. `object_in` reads all of these, and nothing else counts: no thought, no draft, nothing
that a later word takes back. Nothing is evaluated; the reader below knows objects, lists, strings and words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from countervid.errors import InterventionError

DEEPEST = 32  # objects and lists within one another; deeper is no answer
MOST_TRIES = 1000  # braces that begin no object; more are no answer

_NAMES = r"think|thinking|thoughts?|reasoning|reflection|scratchpad|analysis"
_THOUGHT = re.compile(  # as models and their chat forms mark it
    rf"""
    (?P<open> <(?:{_NAMES})\b[^<>]*> | \[THINK\] | \u25c1think\u25b7 | <\|begin_of_thought\|>
      | <\|channel\|>\s*analysis )
    | (?P<close> </(?:{_NAMES})\s*> | \[/THINK\] | \u25c1/think\u25b7 | <\|end_of_thought\|>
      | <\|channel\|>\s*final(?:\s*<\|message\|>)? )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_MARKS = re.compile(r"<\|[a-z_]+\|>", re.IGNORECASE)  # of chat forms: <|im_end|>, <|begin_of_box|>
_BACK = re.compile(
    r"""(?: \A | [.!?;:)\n*_#>] | [-\u2013\u2014] ) [\s*_#>-]*
        (?: (?:hmm+|oh|no|oops|but|so|and|edit|update|sorry|apologies|my\ apologies|my\ mistake)\b [\s,.:!\u2014-]* )*
        (?: correct(?:ion|ed|ing)\b | wait\b | actually\b | scratch\ that\b | strike\ that\b | on\ second\ thoughts?\b
          | on\ reflection\b | looking\ again\b | i\ (?:made\ a\ mistake|was\ wrong|misread|take\ that\ back)\b
          | let\ me\ (?:re\w*|correct|fix|look\ again|check|try\ again|start\ over)\b | that\ (?:is|was)\ wrong\b
          | that's\ wrong\b | oops\b | my\ mistake\b | revised\b | ignore\ (?:that|the\ above)\b )
    """,
    re.IGNORECASE | re.VERBOSE,
)  # fmt: skip
_CORRECTING = re.compile(r"(?:correct(?:ion|ed)|revis(?:ion|ed)|final)(?:_\w+)?", re.IGNORECASE)
_NOTHING = ("", "none", "n/a", "no", "null", "-", "not needed")
_OPENING, _BRACE, _LISTED = re.compile(r"[{\[]"), re.compile(r"\{"), re.compile(r"\[\s*\{")
_KEY = re.compile(r"[A-Za-z_][\w \-]{0,60}(?=\s*:)")
_WORD = re.compile(r"[^,:{}\[\]\"\n]{1,200}")
_SPACE = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_CLOSING = {
    '"': '"',
    "'": "'",
    "\u201c": '\u201d"',
    "\u201d": '\u201d"',
    "\u2018": "\u2019'",
    "`": "`",
}  # opening -> what closes it
_ENDS = re.compile(r"\s*(?:[,:}\]]|\Z|\n\s*[\"'\u201c\u201d\u2018])|\s*\n\s*[\"'\u201c\u201d\u2018]")
_WORDS = {"true": True, "false": False, "null": None, "none": None, "undefined": None}


class _BrokenError(Exception):
    """This is no object."""


class _TooDeepError(_BrokenError):
    """It goes on and on."""


class _UnfinishedError(Exception):
    """The text ends within an object."""


@dataclass(frozen=True)
class _Piece:
    """An object, or a list of objects, and where it stands in the text."""

    content: Any
    start: int
    end: int


def without_thoughts(text: str) -> str:
    """What a model says to whoever asked: what it thinks aloud is left out, whether the thought is closed or not.

    >>> without_thoughts("<think>A? No, B.</think> B"), without_thoughts("B, says the template</think>A")
    (' B', 'A')
    >>> without_thoughts("A <think>or is it")
    'A '
    """
    said: list[str] = []
    depth, at = 0, 0
    for match in _THOUGHT.finditer(text):
        if match["open"]:
            if not depth:
                said.append(text[at : match.start()])
            depth += 1
        elif depth:
            depth = 0 if "channel" in match["close"].lower() else depth - 1
        else:  # opened by the chat template, before the answer begins
            said.clear()
        at = match.end()
    if not depth:
        said.append(text[at:])
    return _MARKS.sub(" ", "".join(said))


def object_in(text: str) -> dict[str, Any]:
    """The last complete object in an answer, with nothing in it that is taken back.

    Objects that follow one another with nothing but blanks between them, and that have no key in common, are one. A
    list of objects is an object with the key `answers`. Two different values of one key become None: that answer
    contradicts itself.

    Raises:
        InterventionError: There is none, it ends within one, or a correction follows; in words for whoever answered.

    >>> object_in('{"a": 1} or rather {"a": 2}')
    {'a': 2}
    """
    said = without_thoughts(text)
    pieces, unfinished = _pieces(said)
    if unfinished:
        raise InterventionError("It ends within a JSON object.")
    if not pieces:
        raise InterventionError("It holds no JSON object.")
    last = len(pieces) - 1
    if takes_back(said[pieces[last].end :]):
        raise InterventionError("It takes back its JSON object.")
    content = pieces[last].content
    while last and isinstance(content, dict):
        before = pieces[last - 1]
        between = said[before.end : pieces[last].start]
        if between.strip(" \t\r\n,") or not isinstance(before.content, dict) or before.content.keys() & content.keys():
            break
        content, last = {**before.content, **content}, last - 1
    found: dict[str, Any] = content if isinstance(content, dict) else {"answers": content}
    return _corrected(found)


def takes_back(text: str) -> bool:
    """Whether a text corrects what stands before it.

    >>> takes_back("Wait, that is wrong."), takes_back("Note: the light is dim.")
    (True, False)
    """
    return _BACK.search(text) is not None


def ends_complete(text: str) -> bool:
    """Whether an answer ends with a complete object, so that nothing is missing though it was cut off."""
    said = without_thoughts(text)
    pieces, unfinished = _pieces(said)
    return bool(pieces) and not unfinished and not said[pieces[-1].end :].strip(" \t\r\n`")


def _corrected(content: dict[str, Any]) -> dict[str, Any]:
    """What the object's own correction says, where it has one."""
    for name, value in content.items():
        if not _CORRECTING.fullmatch(name.strip()):
            continue
        if isinstance(value, Mapping):
            return dict(value)
        if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
            return {"answers": value}
        if name.lower().startswith(("correct", "revis")) and str(value or "").strip(" .").lower() not in _NOTHING:
            raise InterventionError("It corrects itself. Give the corrected object alone.")
    return content


def _pieces(text: str) -> tuple[list[_Piece], bool]:
    """The outermost objects and lists of objects, and whether the text ends within one more."""
    pieces: list[_Piece] = []
    at, tries, opening = 0, 0, _OPENING
    while tries < MOST_TRIES and (match := opening.search(text, at)) is not None:
        reader, tries = _Reader(text, match.start()), tries + 1
        try:
            content = reader.value()
        except _TooDeepError:
            at = reader.at
            continue
        except _BrokenError:
            at = match.end()
            continue
        except _UnfinishedError:
            if match.group() == "{" or _LISTED.match(text, match.start()):
                return pieces, True
            at, opening = match.end(), _BRACE
            continue
        if isinstance(content, dict) or any(isinstance(one, dict) for one in content):
            pieces.append(_Piece(content, match.start(), reader.at))
            at = reader.at
        else:  # [1], [INST]
            at = match.end()
    return pieces, False


class _Reader:
    """Reads one value that begins at `at`, and leaves `at` behind it."""

    def __init__(self, text: str, at: int) -> None:
        self.text, self.at = text, at

    def value(self, depth: int = 0) -> Any:
        self._skip()
        first = self._next()
        if first in "{[":
            if depth >= DEEPEST:
                raise _TooDeepError
            return self._object(depth) if first == "{" else self._list(depth)
        if first in _CLOSING:
            return self._string()
        match = _WORD.match(self.text, self.at)
        if match is None or not match.group().strip():
            raise _BrokenError
        self.at = match.end()
        if self.at >= len(self.text):
            raise _UnfinishedError
        word = re.split(r"//|/\*", match.group())[0].strip()
        if word.lower() in _WORDS:
            return _WORDS[word.lower()]
        try:
            number = json.loads(word)
        except (ValueError, RecursionError):
            return word.strip("'\u2019`")
        return number if isinstance(number, (int, float)) else word

    def _object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self.at += 1
        while True:
            self._skip()
            if self._next() == "}":
                self.at += 1
                return found
            name = self._name()
            self._skip()
            if self._next() != ":":
                raise _BrokenError
            self.at += 1
            value = self.value(depth + 1)
            found[name] = None if name in found and found[name] != value else value
            self._part("}")

    def _list(self, depth: int) -> list[Any]:
        found: list[Any] = []
        self.at += 1
        while True:
            self._skip()
            if self._next() == "]":
                self.at += 1
                return found
            found.append(self.value(depth + 1))
            self._part("]")

    def _part(self, closing: str) -> None:
        """Past a comma, or to the closing mark; a comma may be missing at the end of a line."""
        self._skip()
        mark = self._next()
        if mark == ",":
            self.at += 1
        elif mark != closing and not (mark in _CLOSING and self.text[self.at - 1].isspace()):
            raise _BrokenError

    def _name(self) -> str:
        if self._next() in _CLOSING:
            return self._string()
        match = _KEY.match(self.text, self.at)
        if match is None:
            if re.fullmatch(r"[A-Za-z_][\w \-]{0,60}\s*", self.text[self.at : self.at + 80]) is not None:
                raise _UnfinishedError
            raise _BrokenError
        self.at = match.end()
        return match.group().strip()

    def _string(self) -> str:
        """A string in any quotes; a quote within it that nothing fitting follows belongs to it."""
        quote = _CLOSING[self.text[self.at]]
        closing = re.compile(rf"(?:\\.|[^\\{quote}])*+[{quote}]", re.DOTALL)
        start = self.at + 1
        while (match := closing.match(self.text, self.at + 1)) is not None:
            self.at = match.end() - 1
            if _ENDS.match(self.text, match.end()):
                self.at = match.end()
                return _unescaped(self.text[start : match.end() - 1])
        raise _UnfinishedError

    def _skip(self) -> None:
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def _next(self) -> str:
        if self.at >= len(self.text):
            raise _UnfinishedError
        return self.text[self.at]


def _unescaped(text: str) -> str:
    """A string without its backslashes; escapes that JSON does not know stand for the character that follows."""

    def plain(match: re.Match[str]) -> str:
        try:
            return str(json.loads(f'"{match.group()}"'))
        except ValueError:
            return match.group()[1:]

    text = re.sub(r"(?:\\u[0-9a-fA-F]{4})+|\\.", plain, text, flags=re.DOTALL)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
