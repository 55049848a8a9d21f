"""Video editors: the protocol and the registry (`base`), and one module an editor."""

from __future__ import annotations

from countervid.editors.base import (
    Attributes,
    Editor,
    Prepared,
    Reader,
    Seen,
    Target,
    load_editor,
    names,
    register_editor,
)

__all__ = ["Attributes", "Editor", "Prepared", "Reader", "Seen", "Target", "load_editor", "names", "register_editor"]
