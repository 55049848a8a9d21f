"""A run's folder: which of its files are finished, so that a run that was stopped goes on where it stopped.

`run.json` is there from the first moment on and is rewritten, whole, after every file. It holds the settings,
which must be the same for the run to go on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from countervid.errors import OutputError
from countervid.files.whole import write_whole

RECORD = "run.json"


class OtherRunError(OutputError):
    """The folder holds a run with other settings."""


class RunFolder:
    """Files of one run, each made at most once.

    Args:
        path: The folder; made when missing.
        settings: Everything the files depend on, as JSON values.
        about: What else `run.json` says (versions, source, notes); may differ when a run goes on.

    Raises:
        OutputError: The folder cannot be made, holds something else, or holds a run with other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        self.path = path
        settings = json.loads(json.dumps(settings))  # tuples become lists, as they will be when read again
        try:
            path.mkdir(parents=True, exist_ok=True)
            occupied = any(path.iterdir())
        except (FileExistsError, NotADirectoryError) as error:
            raise OutputError(
                f"`{path}` cannot be a run's folder: a file is in the way. Choose another `--out`."
            ) from error
        except OSError as error:
            raise OutputError(f"`{path}` cannot be made ({error.strerror}). Choose another `--out`.") from error
        previous = read_record(path)
        if previous is None and occupied:
            raise OutputError(f"`{path}` is not empty and holds no run. Choose another `--out`, or empty it.")
        if previous is not None and (differing := differences(previous["settings"], settings)):
            more = f", and {len(differing) - 3} more" if len(differing) > 3 else ""
            raise OtherRunError(
                f"`{path}` holds a run with other settings: {'; '.join(differing[:3])}{more}. "
                "Choose another `--out`, or remove that folder."
            )
        seconds = dict(previous["seconds"]) if previous else {}
        files = dict(previous["files"]) if previous else {}
        self.resumed = previous is not None
        self.record: dict[str, Any] = {
            **about, "settings": settings, "facts": {}, "files": files, "seconds": seconds, "finished": False,
        }  # fmt: skip
        self._write_record()

    def make(self, name: str, write: Callable[[Path], object]) -> Path:
        """The file of that name, written by `write(path)` unless it is finished already."""
        path = self.path / name
        if self.has(name):
            return path
        started = time.perf_counter()
        write(path)
        self.record["files"][name] = path.stat().st_size
        self.took(name, time.perf_counter() - started)
        return path

    def keep(self, name: str) -> None:
        """Note a file that was written without `make` as finished."""
        path = self.path / name
        if path.is_file():
            self.record["files"][name] = path.stat().st_size
            self._write_record()

    def has(self, name: str) -> bool:
        """Whether a file is finished and still as it was left."""
        path = self.path / name
        return path.is_file() and self.record["files"].get(name) == path.stat().st_size

    def took(self, what: str, seconds: float) -> None:
        """Note how long something took, in seconds."""
        self.record["seconds"][what] = round(seconds, 3)
        self._write_record()

    def note(self, **entries: Any) -> None:
        """Add to the record."""
        self.record.update(entries)
        self._write_record()

    def finish(self) -> None:
        self.note(finished=True)

    def _write_record(self) -> None:
        try:
            write_json(self.path / RECORD, self.record)
        except PermissionError as error:
            raise OutputError(f"`{self.path}` cannot be written ({error.strerror}). Choose another `--out`.") from error


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


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:12] + "…"
