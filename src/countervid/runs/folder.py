"""A run's folder: which of its files are finished, so that a run that was stopped goes on where it stopped.

`run.json` holds the settings, which must be the same for the run to go on, the SHA-256 of every finished file, and what
the run has cost so far, over however many processes. One process at a time works in the folder. A run that fails before
it has a result leaves nothing, so that the corrected command finds the folder free.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from countervid.errors import OutputError
from countervid.files.digests import entry_of, intact
from countervid.files.locks import LOCK, alone_in
from countervid.files.whole import clear_partials, write_whole

RECORD = "run.json"
GIVEN = ("target.json", "factual.mp4")  # what was asked for, written down: alone these are no result
NOTED_EVERY = 10.0  # seconds, at most, between two notes of what a run that is under way has cost

Costs = Mapping[str, float]


class OtherRunError(OutputError):
    """The folder holds a run with other settings."""


class RunFolder:
    """Files of one run, each made at most once. A context: the folder is held by this process while it lasts.

    Args:
        path: The folder; made when missing.
        settings: Everything the files depend on, as JSON values.
        about: What else `run.json` says (versions, source, notes); may differ when a run goes on.
        costs: What has been computed so far, by whoever computes it in this process; may be counting since long.
        loads: Names among `costs` that count from the process's beginning, such as loads of weights.

    Raises (when entered):
        OutputError: The folder cannot be made, holds something else, is held by another process, or holds a run with
            other settings that has a result (`OtherRunError`).
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], about: Mapping[str, Any],
        costs: Callable[[], Costs] | None = None, loads: tuple[str, ...] = ("model_loads",),
    ) -> None:  # fmt: skip
        self.path = path
        settings = json.loads(json.dumps(settings))  # tuples become lists, as they will be when read again
        self.record: dict[str, Any] = {
            **about, "settings": settings, "facts": {}, "files": {}, "seconds": {}, "finished": False,
        }  # fmt: skip
        self._costs, self._loads = costs or (lambda: {}), loads
        self._at_first = self._costs()
        self._before: dict[str, float] = {}  # costs of earlier processes
        self._counts = True  # a run that was finished before counts no further, unless something is made again
        self._noted = 0.0
        self._stack = ExitStack()

    def __enter__(self) -> RunFolder:
        with ExitStack() as stack:
            self._hold(stack)
            previous = self._previous()
            if previous is not None:
                self.record["files"], self.record["seconds"] = dict(previous["files"]), _numbers(previous["seconds"])
                self._before = _numbers(previous.get("costs"))
                self._counts = not previous.get("finished")
            clear_partials(self.path)
            self._write_record()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is not None and issubclass(kind, Exception) and not self._has_result(self.record):
                self._clear()
            elif self.path.is_dir():
                self._write_record()

    @property
    def resumed(self) -> bool:
        """Whether files of an earlier process were found."""
        return bool(self.record["files"])

    def make(self, name: str, write: Callable[[Path], object]) -> Path:
        """The file of that name, written by `write(path)` unless it is finished already."""
        path = self.path / name
        if self.has(name):
            return path
        self._counts = True
        started = time.perf_counter()
        try:
            write(path)
            self._digested(name)
        finally:
            self.took(name, time.perf_counter() - started)
        return path

    def keep(self, name: str) -> None:
        """Note a file that was written without `make` as finished."""
        if (self.path / name).is_file():
            self._counts = True
            self._digested(name)
            self._write_record()

    def forget(self, *names: str) -> None:
        """Note files as not finished, so that they are made again."""
        for name in names:
            self.record["files"].pop(name, None)
        self._write_record()

    def has(self, name: str) -> bool:
        """Whether a file is finished and still as it was left: its size, and once a process its SHA-256."""
        return intact(self.path / name, self.record["files"].get(name))

    def drop_damaged(self, name: str) -> None:
        """Remove a file that is no longer as it was left, and that nothing would make again."""
        if not self.has(name):
            self.record["files"].pop(name, None)
            (self.path / name).unlink(missing_ok=True)

    def log(self, name: str) -> Path:
        """A file that grows line by line; removed first if what was noted of it is no longer there."""
        path, entry = self.path / name, self.record["files"].get(name)
        if isinstance(entry, dict) and path.is_file():
            with path.open("rb") as file:
                start = file.read(int(entry.get("bytes", 0)))
            if hashlib.sha256(start).hexdigest() != entry.get("sha256"):
                path.unlink()
        return path

    def took(self, what: str, seconds: float) -> None:
        """Add to how long something took, in seconds."""
        if self._counts:
            self.record["seconds"][what] = round(self.record["seconds"].get(what, 0.0) + seconds, 3)
        self._write_record()

    def note(self, **entries: Any) -> None:
        """Add to the record."""
        self.record.update(entries)
        self._write_record()

    def counted(self, *_: object) -> None:
        """Note what the run has cost so far, every few seconds: to be called as it goes on."""
        if time.monotonic() - self._noted > NOTED_EVERY:
            self._write_record()

    def finish(self) -> None:
        self.note(finished=True)

    def _hold(self, stack: ExitStack) -> None:
        try:
            stack.enter_context(alone_in(self.path))
        except (FileExistsError, NotADirectoryError) as error:
            raise OutputError(
                f"`{self.path}` cannot be a run's folder: a file is in the way. Choose another `--out`."
            ) from error
        except OSError as error:
            raise OutputError(f"`{self.path}` cannot be made ({error.strerror}). Choose another `--out`.") from error
        except OutputError:  # another process is there
            other = read_record(self.path)
            if other is not None:
                self._refuse(other)
            raise

    def _previous(self) -> dict[str, Any] | None:
        """What is known of this run from before. A record of another one is cleared if that has no result."""
        previous = read_record(self.path)
        if previous is None:
            clear_partials(self.path)
            if any(path.name != LOCK for path in self.path.iterdir()):
                what = "a run whose `run.json` is damaged" if (self.path / RECORD).is_file() else "no run"
                raise OutputError(f"`{self.path}` is not empty and holds {what}. Choose another `--out`, or empty it.")
            return None
        if self._has_result(previous):
            self._refuse(previous)
        elif differences(previous["settings"], self.record["settings"]):
            self._clear()
            return None
        return previous

    def _refuse(self, previous: Mapping[str, Any]) -> None:
        if differing := differences(previous["settings"], self.record["settings"]):
            more = f", and {len(differing) - 3} more" if len(differing) > 3 else ""
            raise OtherRunError(
                f"`{self.path}` holds a run with other settings: {'; '.join(differing[:3])}{more}. "
                "Choose another `--out`, or remove that folder."
            )

    def _has_result(self, record: Mapping[str, Any]) -> bool:
        paths = [self.path / name for name in record["files"] if name not in GIVEN]
        return any(path.is_file() and path.stat().st_size for path in paths)  # no rounds are no result

    def _clear(self) -> None:
        """Remove what a run without a result has written."""
        for path in [self.path / name for name in (*GIVEN, RECORD)] + sorted(self.path.glob("round-*.png")):
            path.unlink(missing_ok=True)
        (self.path / "verdicts.jsonl").unlink(missing_ok=True)

    def _digested(self, name: str) -> None:
        self.record["files"][name] = entry_of(self.path / name)

    def _spent(self) -> dict[str, float]:
        """Costs of this process and of those before it."""
        now = self._costs() if self._counts else {}
        mine = {
            name: value - (0 if name in self._loads else self._at_first.get(name, 0)) for name, value in now.items()
        }
        return {name: self._before.get(name, 0) + mine.get(name, 0) for name in {**self._before, **mine}}

    def _write_record(self) -> None:
        if costs := self._spent():
            self.record["costs"] = costs
        try:
            write_json(self.path / RECORD, self.record)
        except PermissionError as error:
            raise OutputError(f"`{self.path}` cannot be written ({error.strerror}). Choose another `--out`.") from error
        self._noted = time.monotonic()


def read_record(path: Path) -> dict[str, Any] | None:
    """What `run.json` of a folder says, or None when there is none that can be read."""
    try:
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(record, dict) and all(
        isinstance(record.get(key), dict) for key in ("settings", "files", "seconds")
    )
    return record if known else None


def write_json(path: Path, content: object) -> None:
    """Write JSON for people to read, whole or not at all."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def differences(one: Mapping[str, Any], two: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two settings: `steps was 20, is 10`, nested names joined by dots."""
    found = []
    for name in sorted({*one, *two}):
        before, after = one.get(name), two.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{name}.")
        elif before != after:
            found.append(f"{prefix}{name} was {_short(before)}, is {_short(after)}")
    return found


def _numbers(entries: object) -> dict[str, Any]:
    """The entries that are numbers: a record may have been written by anybody."""
    items = entries.items() if isinstance(entries, dict) else ()
    return {name: value for name, value in items if isinstance(value, (int, float))}


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:12] + "…"
