"""The history of one client: every event and every mark that each of its connections brought, in order."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import NamedTuple


class Mark(NamedTuple):
    """What a connection said beside events.

    Attributes:
        name: `ready`, `cursor`, `gap`, `state`, `closing`, or how it ended.
        upto: the position that it states; None for none.
        after: of a gap: from where.
        detail: the reason.
    """

    name: str
    upto: int | None = None
    after: int | None = None
    detail: str = ""


@dataclass(slots=True)
class Visit:
    """One connection.

    Attributes:
        began_s: when, from the start of the run.
        replica: at which one.
        asked: the position that the client came back with.
        numbers, sequences: of each event; the sequence is 0 where the transport does not say it.
        marks: each with the number of events that came before it.
        refused: an answer that no good client may get.
    """

    began_s: float
    replica: int
    asked: int | None
    numbers: array[int] = field(default_factory=lambda: array("q"))
    sequences: array[int] = field(default_factory=lambda: array("q"))
    marks: list[tuple[int, Mark]] = field(default_factory=list)
    refused: str = ""

    def event(self, number: int, sequence: int) -> None:
        self.numbers.append(number)
        self.sequences.append(sequence)

    def mark(self, mark: Mark) -> None:
        self.marks.append((len(self.numbers), mark))

    def around(self, event: int, most: int = 6) -> str:
        """The visit in one line, and what came around one of its events."""
        begin, end = max(0, event - most), event + most
        shown: list[str] = []
        for position in range(begin, min(end, len(self.numbers)) + 1):
            shown += [_said(mark) for at, mark in self.marks if at == position]
            if position < len(self.numbers):
                pointer = "→" if position == event else ""
                shown.append(f"{pointer}#{self.numbers[position]}@{self.sequences[position] or '?'}")
        dots = "… " if begin else ""
        more = " …" if end < len(self.numbers) else ""
        return f"{self.summary()}: {dots}{' '.join(shown)}{more}"

    def summary(self) -> str:
        ends = self.marks[-1][1] if self.marks else None
        return (
            f"{self.began_s:.2f} s, replica {self.replica}, asked {self.asked}, {len(self.numbers)} events, "
            f"last {_said(ends) if ends else 'nothing said'}{', refused: ' + self.refused if self.refused else ''}"
        )


def _said(mark: Mark) -> str:
    if mark.name == "gap":
        return f"[gap {mark.detail} ({mark.after}, {mark.upto}]]"
    place = "" if mark.upto is None else f" {mark.upto}"
    return f"[{mark.name}{place}{' ' + mark.detail if mark.detail else ''}]"


@dataclass(slots=True)
class History:
    """One client's connections.

    Attributes:
        client: its name.
        filters: its feed.
        visits: in order of time.
    """

    client: str
    filters: tuple[str, ...]
    visits: list[Visit] = field(default_factory=list)
