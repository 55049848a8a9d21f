"""Model cards: what a bundled model is, what it learned from, how good it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from countervid.files.whole import write_whole

CARD = """\
---
license: apache-2.0
tags: [countervid, phantom]
---

# {stage}: {summary}

Part of the miniature that comes with `countervid`. It has only ever seen people rendered by the phantom
world; on photographs it is a demonstration, not a tool.

| | |
|---|---|
| parameters | {parameters:,} |
| file | {megabytes:.1f} MB, float16 |
| data | {crops:,} crops of {people:,} rendered people |
| training | {training} |
| measured on | {validation_people:,} people never trained on |
| licence | Apache-2.0 |

Made by:

```
{commands}
```

## Measured

| what | value |
|---|---|
{rows}
"""


def write_card(folder: Path, facts: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write `folder/README.md` from the facts of a finished run (see `training.run.train_stage`).

    Args:
        folder: The model's.
        facts: Of the stage that wrote the model.
        earlier: Of the stages that it went on from, first to last.
    """
    rows = "\n".join(f"| {name} | {value:.2f} |" for name, value in facts["figures"].items())
    stages = [*earlier, facts]
    text = CARD.format(
        stage=facts["stage"],
        summary=facts["summary"],
        parameters=facts["parameters"],
        megabytes=facts["bytes"] / 1e6,
        crops=facts["crops"],
        people=facts["people"],
        training="; then ".join(_training(one) for one in stages),
        validation_people=facts["validation_people"],
        commands="\n".join(_command(one) for one in stages),
        rows=rows,
    )
    write_whole(folder / "README.md", text)


def _training(facts: Mapping[str, Any]) -> str:
    loop = facts["loop"]
    if not facts["batch"]:
        return "a convex problem, solved by L-BFGS"
    text = f"{loop['steps']:,} steps of {facts['batch']}, AdamW, learning rate {loop['lr']:g}, seed {loop['seed']}"
    begun = facts.get("started_from")
    return f"{text}, from the weights with SHA-256 {begun[:16]}..." if begun else text


def _command(facts: Mapping[str, Any]) -> str:
    command = f"countervid train miniature --stage {facts['stage']} --people {facts['people']}"
    if not facts["batch"]:
        return command
    command += f" --steps {facts['loop']['steps']} --batch {facts['batch']} --seed {facts['loop']['seed']}"
    return f"{command} --start FOLDER" if facts.get("started_from") else command


def add_section(folder: Path, heading: str, figures: Mapping[str, float]) -> None:
    """Put a table of figures under `## heading` at the end of a card, in place of an earlier one of that name."""
    path = folder / "README.md"
    text = path.read_text().split(f"\n## {heading}\n")[0] if path.exists() else ""
    rows = "\n".join(f"| {name.strip()} | {value:.3f} |" for name, value in figures.items())
    write_whole(path, f"{text.rstrip()}\n\n## {heading}\n\n| what | value |\n|---|---|\n{rows}\n")
