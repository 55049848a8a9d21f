"""Everything that can go wrong for a reason the user can mend.

Each message says what was got, what is needed and what to do. The command line prints it as one
line and exits with code 2; Python callers catch `CountervidError` or a narrower kind.
"""

from __future__ import annotations


class CountervidError(Exception):
    """Base of every error that this package raises on purpose."""


class ClipError(CountervidError):
    """A video, or a folder of frames, cannot be read as asked."""


class OutputError(CountervidError):
    """A result cannot be written where it was asked for."""


class GraphError(CountervidError):
    """A causal graph is not well formed."""


class InterventionError(CountervidError):
    """An attribute, a value or an intervention does not fit the graph."""


class FaceError(CountervidError):
    """No usable face was found."""


class ModelError(CountervidError):
    """Weights are missing, damaged, or not of the kind that is needed."""


class ConfigError(CountervidError):
    """A setting is unknown or out of range."""


class MissingExtraError(CountervidError):
    """An optional package is needed for what was asked."""


class CallError(CountervidError):
    """A language model gave no answer, or none that can be used."""
