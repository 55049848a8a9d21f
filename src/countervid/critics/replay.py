"""A critic that repeats what another said: the verdicts of an earlier run, without asking anybody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from countervid.causal.graph import CausalGraph
from countervid.critics.base import Request, Verdict
from countervid.errors import CallError, ConfigError


class ReplayCritic:
    """Answers from a `verdicts.jsonl`: by what was shown and asked; pictures must be the same to the bit.

    Raises:
        ConfigError: The file is missing or holds no verdicts.
    """

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            path = path / "verdicts.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ConfigError(
                f"`{path}` cannot be read ({error.strerror}). Give the verdicts.jsonl of a run."
            ) from None
        except UnicodeDecodeError:
            raise ConfigError(f"`{path}` is no text. Give the verdicts.jsonl of a run.") from None
        self._verdicts: dict[str, Verdict] = {}
        self.name, self.size, self.looks = f"replay:{path}", 128, 5
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                if (source := entry.get("source")) is not None:
                    self._verdicts[source["request"]] = Verdict.model_validate(source["verdict"])
                if entry.get("verdict") is None:
                    continue  # a call that failed
                self._verdicts[entry["request"]] = Verdict.model_validate(entry["verdict"])
                self.size, self.looks = int(entry["size"]), len(entry["verdict"]["frames"])
            except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
                raise ConfigError(
                    f"`{path}`, line {number}, is no verdict. Give the verdicts.jsonl of a steered run."
                ) from None
        if not self._verdicts:
            raise ConfigError(f"`{path}` holds no verdicts: that run had no critic. Give one of a steered run.")

    def check(self, graph: CausalGraph) -> None:
        known = set.intersection(*(set(verdict.answers) for verdict in self._verdicts.values()))
        unknown = [name for name in graph.variables if name not in known]
        if unknown:
            raise ConfigError(
                f"The verdicts of `{self.name}` say nothing of {', '.join(unknown)}. Use the run's graph."
            )

    def judge(self, request: Request) -> Verdict:
        verdict = self._verdicts.get(request.key())
        if verdict is None:
            raise CallError(
                f"`{self.name}` has no verdict on this edit: it is another clip, another target, or other settings."
            )
        return verdict

    def costs(self) -> dict[str, Any]:
        return {"calls": 0, "cost_usd": 0.0}
