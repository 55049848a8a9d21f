"""A folder of results that do not depend on one another: a record says what each was made from, and its digest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from countervid.errors import OutputError
from countervid.files.digests import entry_of, intact
from countervid.files.locks import alone_in
from countervid.files.whole import clear_partials_below
from countervid.runs.folder import OtherRunError, differences, write_json


class Results:
    """What is finished in a folder.

    Args:
        folder: Where the files lie.
        record: Name of the record in it.
    """

    def __init__(self, folder: Path, record: str) -> None:
        self.folder, self._record = folder, folder / record
        self._entries: dict[str, Any] = {}
        try:
            found = json.loads(self._record.read_text(encoding="utf-8"))
            self._entries = dict(found["files"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none, or damaged: what cannot be told to be finished is made again

    def make(self, name: str, settings: Mapping[str, Any], write: Callable[[Path], object]) -> bool:
        """Write a file by `write(path)` unless it is finished already. Returns whether it was written.

        Args:
            name: Of the file, from the folder on.
            settings: All that it depends on, as JSON values.
            write: Called with the file's path; its folder is there.

        Raises:
            OtherRunError: The file is finished, and was made with other settings.
        """
        path, entry = self.folder / name, self._entries.get(name)
        wanted = json.loads(json.dumps(settings))
        if isinstance(entry, dict) and isinstance(entry.get("settings"), dict) and intact(path, entry):
            if differing := differences(entry["settings"], wanted):
                raise OtherRunError(
                    f"`{path}` was made with other settings: {'; '.join(differing[:3])}. "
                    "Choose another `--out`, or remove that file."
                )
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        self._entries[name] = {**entry_of(path), "settings": wanted}
        write_json(self._record, {"files": self._entries})
        return True


@contextmanager
def results_in(folder: Path, record: str) -> Iterator[Results]:
    """The results of a folder, held by this process for as long as the block lasts.

    Raises:
        OutputError: Another process holds it, or it cannot be made.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(alone_in(folder))
        except OSError as error:
            raise OutputError(f"`{folder}` cannot be made ({error.strerror}). Choose another `--out`.") from error
        clear_partials_below(folder)
        yield Results(folder, record)
