"""A benchmark that takes seconds: one small editor, one or two people, few frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from countervid.cli import main

SMALL = (
    "--editors tint --import benchmark.tint --steering none --interventions age,beard --frames 4 --size 128 "
    "--metrics psnr,truth.skill --device cpu"
).split()


def command(out: Path, *more: str, clips: str = "phantom:1", references: bool = False) -> list[str]:
    """The arguments of `countervid` for a small benchmark."""
    least = [] if references else ["--no-references"]
    return ["benchmark", "run", "--out", str(out), "--clips", clips, *SMALL, *least, *more]


@pytest.fixture(scope="session")
def benchmark_run() -> Callable[..., Result]:
    """`benchmark_run(out, "--seeds", "2", clips=...)`: the command in this process; exit code and output."""

    def run(out: Path, *more: str, **which: object) -> Result:
        return CliRunner().invoke(main.app, command(out, *more, **which))  # type: ignore[arg-type]

    return run


@pytest.fixture(scope="session")
def finished(benchmark_run: Callable[..., Result], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished benchmark of two people. Not to be changed: copy it."""
    out = tmp_path_factory.mktemp("benchmark") / "out"
    result = benchmark_run(out, clips="phantom:2")
    assert result.exit_code == 0, result.output
    return out
