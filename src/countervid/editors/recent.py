"""The values last used, by key: what is used again soon is not computed or loaded again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """A cache of bounded size; the value used longest ago is dropped first.

    Args:
        size: Values kept, at least 1.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"`size` must be at least 1, got {size}.")
        self._size, self._values = size, OrderedDict[Key, Value]()

    def get(self, key: Key, compute: Callable[[], Value]) -> Value:
        """The value of a key, computed where it is not held; `compute` may ask for other keys."""
        if key not in self._values:
            value = compute()
            self._values[key] = value
        self._values.move_to_end(key)
        value = self._values[key]
        while len(self._values) > self._size:
            self._values.popitem(last=False)
        return value
