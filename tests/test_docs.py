"""The documents tell the truth: every command, option, make target, link and import in them exists."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from countervid.cli import main as cli

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CARDS = sorted((ROOT / "src" / "countervid" / "models" / "bundled").glob("*/README.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


def blocks(document: Path, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(document.read_text(encoding="utf-8")) if language in languages]


def shell_lines() -> list[tuple[str, str]]:
    """(document, command) of every `countervid` and `make` line in blocks of commands."""
    found = []
    for document in DOCUMENTS:
        for body in blocks(document, "", "sh", "bash", "console"):
            for line in body.replace("\\\n", " ").splitlines():
                line = line.strip().removeprefix("$ ")
                if re.match(r"(countervid|make) ", line):
                    found.append((document.name, line))
    return found


def options_of(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts} | {"--help"}


@pytest.mark.parametrize(("document", "line"), shell_lines())
def test_commands_in_documents_exist(document: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert all(word in targets for word in words[1:] if "=" not in word), line
        return
    assert words[1] in cli.COMMANDS, line
    command, rest = cli.load(words[1]), words[2:]
    if commands := getattr(command, "commands", None):
        assert rest and rest[0] in commands, line
        command, rest = commands[rest[0]], rest[1:]
    unknown = [w for w in (word.split("=")[0] for word in rest) if w.startswith("--") and w not in options_of(command)]
    assert not unknown, f"{line}: {unknown}"


@pytest.mark.parametrize("document", [*DOCUMENTS, *CARDS], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_python_in_documents_imports_what_exists(document: Path) -> None:
    for body in blocks(document, "python"):
        tree = ast.parse(body)
        names: dict[str, Any] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    names[alias.asname or alias.name.split(".")[0]] = importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
                assert hasattr(names[node.value.id], node.attr), ast.unparse(node)
