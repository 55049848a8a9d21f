"""The one function that says whether a name may become part of a path."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countervid.errors import ConfigError
from countervid.files.names import LONGEST, printable, safe_name

GOOD = ["talk", "-0lZZzq3_1", "M2Ohb0FAaJU_1", "phantom-2000010", "age=old", "Mr. X (2)", "naïve 日本", "a..b", "con-1"]


@pytest.mark.parametrize("name", [*GOOD, os.fsdecode(b"caf\xe9")])
def test_plain_names_are_given_back(name):
    assert safe_name(name, "clip", "file.json") is name


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("../../../x", "separator"), ("/etc/passwd", "separator"), ("a/b", "separator"), ("a\\b", "separator"),
        ("..", "dot in front"), (".", "dot in front"), (".hidden", "dot in front"), ("", "empty"),
        ("C:x", "drive letter"), ("a\0b", "control"), ("a\nb", "control"), ("a\x1b[2Jb", "control"),
        ("a\u2028b", "control"),
        ("NUL", "reserved"), ("con.mp4", "reserved"), ("Lpt1.tar.gz", "reserved"), (" a", "space"), ("a ", "space"),
        ("n" * (LONGEST + 1), "longer"), ("é" * LONGEST, "longer"), ("\ud800", "file system"), (7, "not a text"),
        (None, "not a text"), (["a"], "not a text"),
    ],
)  # fmt: skip
def test_others_are_refused_in_one_printable_line(name, fault):
    with pytest.raises(ConfigError) as caught:
        safe_name(name, "clip", "prompts.json")
    message = str(caught.value)
    assert fault in message and "`prompts.json` names the clip" in message and message.isprintable()


@given(st.text(max_size=200) | st.text(alphabet="./\\:aC~\0\n ", max_size=8))
def test_what_passes_never_leaves_the_folder(name):
    folder = Path("/srv/out")
    try:
        kept = safe_name(name, "clip", "x")
    except ConfigError:
        return
    assert kept == name == safe_name(kept, "clip", "x")
    path = folder / f"{kept}.mp4"
    assert os.path.normpath(folder / kept) == str(folder / kept) and path.parent == folder
    assert Path(os.path.abspath(folder / kept)).parent == folder and len(os.fsencode(path.name)) < 255


@given(st.binary(max_size=60))
def test_any_file_name_can_be_shown(raw):
    text = printable(os.fsdecode(raw))
    assert text.encode("utf-8").decode("utf-8") == text
    assert printable(text) == text
