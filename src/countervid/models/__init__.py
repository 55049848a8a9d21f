"""Weights: where they are, what licence they carry, whether they are the released ones. Knows files, not classes."""

from __future__ import annotations

from countervid.models.registry import available, bundled, bundled_folder, checksums, listings, resolve, seal, sha256

__all__ = ["available", "bundled", "bundled_folder", "checksums", "listings", "resolve", "seal", "sha256"]
