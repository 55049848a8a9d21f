"""The command line's frame: quick help, commands found lazily, one line for every mistake."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import types
from collections.abc import Callable, Iterator

import pytest
import typer
from typer.testing import CliRunner

from countervid.cli import main as cli
from countervid.cli.common import parse_do, progress
from countervid.errors import ClipError, InterventionError

runner = CliRunner()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Adds a command `probe` that does as it is told, in a module of its own as the real ones are."""

    def add(body: Callable[[], None]) -> None:
        app = typer.Typer()
        app.command()(body)
        module = types.ModuleType("countervid.cli.probe")
        module.__spec__ = importlib_spec("countervid.cli.probe")
        module.app = app  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(cli.COMMANDS, "probe", cli.Entry(module.__name__, "Does as told."))

    yield add


def importlib_spec(name: str) -> object:
    from importlib.machinery import ModuleSpec

    return ModuleSpec(name, None)


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom countervid.cli.main import COMMANDS, app\n"
        "text = CliRunner().invoke(app, ['--help']).output\n"
        "heavy = {'torch', 'numpy', 'av', 'cv2', 'numba', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "loaded = [e.module for e in COMMANDS.values() if e.module in sys.modules]\n"
        "assert not loaded, loaded\n"
        "assert all(name in text for name in COMMANDS), text\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_explains_itself(name: str) -> None:
    result = runner.invoke(cli.app, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage" in result.output
    assert "install-completion" not in result.output


def test_importing_the_package_is_light() -> None:
    script = "import countervid, sys; assert 'torch' not in sys.modules; countervid.CountervidError; dir(countervid)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


def test_the_public_names_exist() -> None:
    import countervid

    for name in countervid.__all__:
        assert getattr(countervid, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = countervid.nonsense


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["edti"], "edit"),
        (["--nonsense"], "--nonsense"),
        (["models", "lsit"], "lsit"),
        (["models", "list", "--nonsense"], "countervid models list --help"),
    ],
)
def test_a_usage_error_is_one_line(arguments: list[str], words: str) -> None:
    result = runner.invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("countervid: ") and result.stderr.count("\n") == 1
    assert words in result.stderr


def test_a_users_error_is_one_line_and_code_2(command: Callable[[Callable[[], None]], None]) -> None:
    def body() -> None:
        raise ClipError("`talk.mp4` is\nempty.")

    command(body)
    result = runner.invoke(cli.app, ["probe"])
    assert (result.exit_code, result.stderr) == (2, "countervid: `talk.mp4` is empty.\n")


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "No permission"), (errno.EROFS, "read-only")]
)
def test_the_machines_errors_are_one_line(
    command: Callable[[Callable[[], None]], None], number: int, words: str
) -> None:
    def body() -> None:
        raise OSError(number, "so it is", "out/run.json")

    command(body)
    result = runner.invoke(cli.app, ["probe"])
    assert result.exit_code == 2
    assert words in result.stderr and "out/run.json" in result.stderr and result.stderr.count("\n") == 1


def test_an_interruption_says_that_it_resumes(command: Callable[[Callable[[], None]], None]) -> None:
    def body() -> None:
        raise KeyboardInterrupt

    command(body)
    result = runner.invoke(cli.app, ["probe"])
    assert result.exit_code == 130
    assert "same command" in result.stderr and result.stderr.count("\n") == 1


def test_a_defect_of_ours_keeps_its_traceback(command: Callable[[Callable[[], None]], None]) -> None:
    def body() -> None:
        raise ZeroDivisionError("ours")

    command(body)
    assert isinstance(runner.invoke(cli.app, ["probe"]).exception, ZeroDivisionError)


def test_exit_codes_pass_through(command: Callable[[Callable[[], None]], None]) -> None:
    def body() -> None:
        raise typer.Exit(7)

    command(body)
    assert runner.invoke(cli.app, ["probe"]).exit_code == 7


def test_a_missing_module_hides_its_command_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.COMMANDS, "later", cli.Entry("countervid.cli.no_such_module", "Not there yet."))
    assert "later" not in runner.invoke(cli.app, ["--help"]).output
    assert runner.invoke(cli.app, ["later"]).exit_code == 2
    assert runner.invoke(cli.app, ["models", "list"]).exit_code == 0


def test_version() -> None:
    assert runner.invoke(cli.app, ["--version"]).output.startswith("countervid")


def test_models_list_as_table_and_json() -> None:
    assert "yunet" in runner.invoke(cli.app, ["models", "list"]).output
    rows = json.loads(runner.invoke(cli.app, ["models", "list", "--json"]).output)
    assert {"name", "what", "licence", "source", "size", "checksum", "folder"} <= rows[0].keys()
    assert next(row for row in rows if row["name"] == "yunet")["licence"] == "MIT"


def test_parse_do() -> None:
    assert parse_do(["age=old", " beard = no "]) == {"age": "old", "beard": "no"}
    assert parse_do(["age=old", "age=old"]) == {"age": "old"}
    assert parse_do([]) == {}


@pytest.mark.parametrize("items", [["age"], ["=old"], ["age="], [""], ["age=old", "age=young"]])
def test_parse_do_refuses_what_is_no_intervention(items: list[str]) -> None:
    with pytest.raises(InterventionError, match="--do"):
        parse_do(items)


def test_progress_draws_nothing_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("editing") as report:
        report(1, 2)
    assert capsys.readouterr() == ("", "")
