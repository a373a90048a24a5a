"""Recent answers: what was found out a moment ago and need not be found out again, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

OVERHEAD_BYTES = 300
"""What an entry costs beside what its keeper counts: the dictionary's slot, the key, the tuple."""


class Recent(Generic[Key, Value]):
    """A bounded memory; the least recently used goes first.

    Args:
        limit_bytes: the most that all entries together may cost.

    Attributes:
        bytes: what they cost now, as their keeper counted.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._entries: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Value | None:
        """What is remembered, as the most recently used."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: Key, value: Value, size: int) -> None:
        """Remember. `size`: what the value costs, in bytes."""
        self.forget(key)
        size += OVERHEAD_BYTES
        self._entries[key] = (value, size)
        self.bytes += size
        while self.bytes > self._limit_bytes:
            self.bytes -= self._entries.popitem(last=False)[1][1]

    def forget(self, key: Key) -> None:
        """Forget one entry, if it is there."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry[1]

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.bytes = 0
