"""Model cards: what a bundled model is, what it learned from, how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from countervid.models.folder import write_whole

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
| training | {steps:,} steps of {batch}, AdamW, learning rate {lr:g}, seed {seed} |
| measured on | {validation_people:,} people never trained on |
| licence | Apache-2.0 |

Made by:

```
countervid train miniature --stage {stage} --people {people} --steps {steps} --batch {batch} --seed {seed}
```

## Measured

| what | value |
|---|---|
{rows}
"""


def write_card(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write `folder/README.md` from the facts of a finished run (see `training.run.train_stage`)."""
    rows = "\n".join(f"| {name} | {value:.2f} |" for name, value in facts["figures"].items())
    text = CARD.format(
        **{name: value for name, value in facts.items() if name not in ("figures", "loop", "bytes")},
        megabytes=facts["bytes"] / 1e6,
        steps=facts["loop"]["steps"],
        lr=facts["loop"]["lr"],
        seed=facts["loop"]["seed"],
        rows=rows,
    )
    write_whole(folder / "README.md", text)


def add_section(folder: Path, heading: str, figures: Mapping[str, float]) -> None:
    """Put a table of figures under `## heading` at the end of a card, in place of an earlier one of that name."""
    path = folder / "README.md"
    text = path.read_text().split(f"\n## {heading}\n")[0] if path.exists() else ""
    rows = "\n".join(f"| {name.strip()} | {value:.3f} |" for name, value in figures.items())
    write_whole(path, f"{text.rstrip()}\n\n## {heading}\n\n| what | value |\n|---|---|\n{rows}\n")
