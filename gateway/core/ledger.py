"""The ledger: what the bucket of revoked users holds as far as it was read, and what was heard live beyond that.

A live message is no proof that it was stored, so it never takes anything back: a put counts at once beside what was
read, the later time of both; a deletion only ends what was merely heard. Reading settles the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.core.revoked import Entry, Revoked

HEARD_BYTES = 2**20
"""The most that is kept of what was heard and not read yet. Beyond it, what was stored counts once it was read."""

HEARD_OVERHEAD_BYTES = 200


@dataclass(slots=True)
class Content:
    """Subjects of the bucket with what their last message says.

    Attributes:
        times: by `sub`: from when on its tokens count; None where the entry is deleted.
        strange: subjects whose key is no `sub`'s.
    """

    times: dict[str, float | None] = field(default_factory=dict)
    strange: set[bytes] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.times) + len(self.strange)

    def take(self, subject: bytes, entry: Entry) -> None:
        """Take in the next message of the bucket."""
        if entry.sub is None:
            self.strange.add(subject)
        else:
            self.times[entry.sub] = entry.not_before


class _Heard(NamedTuple):
    not_before: float
    at: float


class Ledger:
    """Keeps a table of revoked users.

    Args:
        table: what is kept.
    """

    def __init__(self, table: Revoked) -> None:
        self._table = table
        self._read = Content()
        self._heard: dict[str, _Heard] = {}
        self.heard_bytes = 0

    @property
    def subjects(self) -> int:
        """How many subjects the bucket has, going by what was read: with deleted entries, and keys of nobody."""
        return len(self._read)

    def hear(self, entry: Entry, *, at: float) -> None:
        """Take in a live message.

        Args:
            at: now, monotonic seconds.
        """
        sub, not_before, _ = entry
        if sub is None or (not_before is not None and self._read.times.get(sub) == not_before):
            return
        if not_before is None:
            self._forget(sub)
        elif sub in self._heard:
            self._heard[sub] = _Heard(max(not_before, self._heard[sub].not_before), at)
        elif self.heard_bytes + len(sub) + HEARD_OVERHEAD_BYTES <= HEARD_BYTES:
            self.heard_bytes += len(sub) + HEARD_OVERHEAD_BYTES
            self._heard[sub] = _Heard(not_before, at)
        self._tell([sub])

    def add(self, content: Content) -> None:
        """Take in what was read of the bucket, newer than what was read before."""
        self._read.times |= content.times
        self._read.strange |= content.strange
        self._settled(content)
        self._tell(content.times)

    def replace(self, content: Content) -> None:
        """Take in the whole bucket: what it does not hold is not revoked."""
        self._read = content
        self._settled(content)
        entries = {sub: time for sub, time in content.times.items() if time is not None}
        for sub in self._heard:
            time = self._effective(sub)
            if time is not None:
                entries[sub] = time
        self._table.replace(entries)

    def settle(self, before: float) -> None:
        """What was heard before this moment and was not read since is not in the bucket.

        Args:
            before: monotonic seconds.
        """
        lost = [sub for sub, heard in self._heard.items() if heard.at < before]
        for sub in lost:
            self._forget(sub)
        self._tell(lost)

    def _settled(self, content: Content) -> None:
        for sub in [each for each in self._heard if each in content.times]:
            if content.times[sub] == self._heard[sub].not_before:
                self._forget(sub)

    def _forget(self, sub: str) -> None:
        if self._heard.pop(sub, None) is not None:
            self.heard_bytes -= len(sub) + HEARD_OVERHEAD_BYTES

    def _effective(self, sub: str) -> float | None:
        heard, read = self._heard.get(sub), self._read.times.get(sub)
        if heard is None or read is None:
            return read if heard is None else heard.not_before
        return max(read, heard.not_before)

    def _tell(self, subs: Iterable[str]) -> None:
        entries = {sub: self._effective(sub) for sub in subs}
        if entries:
            self._table.update(entries)
