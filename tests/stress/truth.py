"""The truth: what the stream stored, by the acknowledgements of the publisher, and what was purged from it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence


def matches(pattern: str, subject: str) -> bool:
    """Whether a NATS filter selects a subject."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for position, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > position
        if position >= len(tokens) or token not in ("*", tokens[position]):
            return False
    return len(wanted) == len(tokens)


class Truth:
    """Events by number and by sequence.

    Attributes:
        sequence_of: the stream's sequence of an event's number.
        subject_of: the subject at a sequence.
        purged: everything up to this sequence was purged by the run itself.
    """

    def __init__(self) -> None:
        self.sequence_of: dict[int, int] = {}
        self.subject_of: dict[int, str] = {}
        self.purged = 0
        self._order: dict[Sequence[str], list[int]] = {}

    @property
    def last(self) -> int:
        """The last sequence."""
        return max(self.subject_of, default=0)

    def stored(self, number: int, sequence: int, subject: str) -> None:
        """The stream has acknowledged an event."""
        if (
            self.subject_of.setdefault(sequence, subject) != subject
            or self.sequence_of.get(number, sequence) != sequence
        ):
            raise AssertionError(f"the stream acknowledged event {number} twice, differently, or {sequence} for two")
        self.sequence_of[number] = sequence
        self._order.clear()

    def of(self, filters: Sequence[str]) -> list[int]:
        """The sequences of a feed, ascending."""
        key = tuple(filters)
        if key not in self._order:
            subjects = set(self.subject_of.values())
            wanted = {subject for subject in subjects if any(matches(each, subject) for each in filters)}
            self._order[key] = sorted(at for at, subject in self.subject_of.items() if subject in wanted)
        return self._order[key]

    def between(self, filters: Sequence[str], after: int, upto: int) -> list[int]:
        """The sequences of a feed in (after, upto]."""
        order = self.of(filters)
        return order[bisect_right(order, after) : bisect_right(order, upto)]
