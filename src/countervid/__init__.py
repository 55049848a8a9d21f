"""What would this video have looked like, had one thing about the person been different?"""

from __future__ import annotations

import importlib
from typing import Any

# Name -> module. Imported on first use, so that `import countervid` stays quick and pulls in no torch.
_PUBLIC = {
    "Clip": "countervid.clip",
    "CausalGraph": "countervid.causal",
    "load_editor": "countervid.editors",
    "bundled": "countervid.models",
    "CountervidError": "countervid.errors",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'countervid' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
