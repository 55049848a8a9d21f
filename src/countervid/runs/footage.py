"""Clips by name, and what is asked of them, in the form of CSVC's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from countervid.errors import ConfigError
from countervid.files.names import safe_name

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif")


def read_entries(path: Path) -> dict[str, Any]:
    """A JSON file with one entry a clip, by name.

    Raises:
        ConfigError: It is something else, or a name could not be that of a file.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"`{path}` is not JSON ({error}).") from None
    if not isinstance(entries, dict) or not entries:
        raise ConfigError(f"`{path}` holds no names. It should be a JSON object with one entry a clip.")
    for name in entries:
        safe_name(name, "clip", path)
    return entries


def read_prompts(path: Path) -> dict[str, dict[str, Any]]:
    """A file as CSVC's `counterfactual_explicit.json`: name -> `factual`, and `counterfactual` by variable.

    Raises:
        ConfigError: It is not of that form, or a name could not be that of a file.
    """
    entries = read_entries(path)
    for name, entry in entries.items():
        fits = isinstance(entry, dict) and isinstance(entry.get("factual"), str)
        asked = entry.get("counterfactual") if fits else None
        if not isinstance(asked, dict) or not all(isinstance(prompt, str) for prompt in asked.values()):
            raise ConfigError(
                f"`{path}`: the entry `{name}` is not of the kind "
                '{"factual": "He is young.", "counterfactual": {"age": "He is old."}}.'
            )
        for attribute in asked:
            safe_name(attribute, "attribute", path)
    return entries


def clip_of(folder: Path, name: str) -> Path | None:
    """The video or the folder of pictures of that name, if it is there."""
    places = [folder / name, *(folder / f"{name}{end}" for end in VIDEOS)]
    return next((place for place in places if place.exists()), None)
