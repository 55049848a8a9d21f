"""Names that stand in a file, or come from another system, before they become part of a path or of a line of text."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from countervid.errors import ConfigError

LONGEST = 180  # bytes; file systems take 255, and names get endings
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))}  # on Windows


def safe_name(name: object, what: str, where: object) -> str:
    """`name`, if it can be the name of one file or folder on every system; else an error in one line.

    Args:
        name: As it stands in a file, a table or an option.
        what: What it is the name of: "clip", "attribute".
        where: Where it stands, for the message.

    Raises:
        ConfigError: It has a separator, a drive letter, a leading dot, a control character or a space at an end; is
            empty, reserved, too long, or no text.
    """
    fault = _fault(name)
    if fault:
        shown = printable(repr(name) if not isinstance(name, str) or not name.isprintable() else name)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        raise ConfigError(
            f"`{printable(str(where))}` names the {what} `{shown}`: {fault}. It becomes the name of a file or folder: "
            "give it a plain name."
        )
    assert isinstance(name, str)
    return name


def _fault(name: object) -> str:
    """Why a name is not safe, or nothing."""
    if not isinstance(name, str):
        return "not a text"
    if not name:
        return "empty"
    try:
        length = len(os.fsencode(name))
    except UnicodeEncodeError:
        return "not a text that a file system can hold"
    if length > LONGEST:
        return f"longer than {LONGEST} bytes"
    if re.search(r"[/\\]", name):
        return "with a separator of folders"
    if any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in name):
        return "with a control character"
    if name.startswith("."):
        return "with a dot in front"
    if re.match(r"[A-Za-z]:", name):
        return "with a drive letter"
    if name != name.strip():
        return "with a space at an end"
    if name.split(".")[0].strip().upper() in _RESERVED:
        return "reserved on some systems"
    return ""


def printable(text: object) -> str:
    r"""A text, or a path, that every terminal and file can show: bytes that are not UTF-8 become `\xe9`.

    >>> print(printable(b"caf\xe9.mp4".decode("utf-8", "surrogateescape")))
    caf\xe9.mp4
    """
    raw = str(text)
    try:
        return raw.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a pair, which is no byte of a file name either
        return raw.encode("utf-8", "backslashreplace").decode("utf-8")


@contextmanager
def utf8_path(path: Path) -> Iterator[str]:
    """A path for libraries that take UTF-8 alone: the path itself, or the descriptor of the file, opened to read.

    Raises:
        OSError: The file cannot be opened.
    """
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        with path.open("rb") as file:
            yield f"/dev/fd/{file.fileno()}"
    else:
        yield str(path)
