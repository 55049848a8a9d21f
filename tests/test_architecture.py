"""The house stands as it is drawn: floors, size of files, nothing that prints or reaches out."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "countervid").rglob("*.py"))


def test_imports_never_point_upward() -> None:
    code = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_a_file_is_short_and_says_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 450, "split it: a file has one subject"
    assert not text.strip() or text.lstrip().startswith('"""'), "the first line says what the file is for"


def test_no_library_code_prints_or_runs_what_a_file_says() -> None:
    loads = r"torch\.load\((?!.*weights_only=True)|pickle\.load|yaml\.load\((?!.*Loader=)"
    forbidden = rf"^\s*print\(|{loads}|(?<![\w.])(eval|exec)\("
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in SOURCES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(forbidden, line)
    ]
    assert not found, "\n".join(found)
