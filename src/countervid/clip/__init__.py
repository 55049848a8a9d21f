"""Video in and out: `Clip`, lazily read, with frame times and sound kept."""

from __future__ import annotations

from countervid.clip.clip import Clip

__all__ = ["Clip"]
