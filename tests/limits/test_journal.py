"""The journal's lines about connections are bounded, and what is held back is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.core.closing import Closing
from gateway.core.reader import Tally
from gateway.logs import Logger
from gateway.transports.connection import Connection
from gateway.transports.journal import LINES, LINES_OF_ONE, WINDOW_S, Journal

Line = dict[str, Any]


class Book:
    """A journal, and the lines that it has written."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        log: Any = SimpleNamespace(info=self._write("info"), warning=self._write("warning"))
        self.journal = Journal(cast(Logger, log), lambda: 0.0)

    def _write(self, level: str) -> Any:
        return lambda event, **fields: self._lines.append({"event": event, "level": level, **fields})

    def connect(self, remote: str, times: int = 1) -> None:
        """So many connections of an address come and go."""
        for _ in range(times):
            each: Any = SimpleNamespace(id="x", transport_name="sse", route="x", sub="", remote=remote, began_at=0.0)
            self.journal.opened(cast(Connection, each))
            self.journal.closed(cast(Connection, each), Closing.CLIENT_CLOSED, Tally())

    def lines(self) -> list[Line]:
        """What came since the last time."""
        said, self._lines = self._lines, []
        return said


@pytest.fixture
def book() -> Book:
    return Book()


def test_one_address_does_not_fill_the_log(book: Book) -> None:
    """Of one address there are at most `LINES_OF_ONE` in a window, and one that says how many were held back; what
    other addresses do is told all the same."""
    book.connect("203.0.113.9", LINES_OF_ONE)
    book.connect("198.51.100.4", 3)
    lines = book.lines()
    assert [line["remote"] for line in lines[:LINES_OF_ONE]] == ["203.0.113.9"] * LINES_OF_ONE
    assert [line["remote"] for line in lines[LINES_OF_ONE:]] == ["198.51.100.4"] * 6
    book.journal.swept(WINDOW_S - 1)
    assert book.lines() == []
    book.journal.swept(WINDOW_S)
    (held,) = book.lines()
    assert (held["event"], held["level"]) == ("connection_lines_held_back", "warning")
    assert (held["lines"], held["most_of"]) == (LINES_OF_ONE, {"203.0.113.9": LINES_OF_ONE})


def test_a_site_of_ipv6_is_one_address(book: Book) -> None:
    """Whoever has a /64 has 2^64 addresses."""
    for n in range(LINES_OF_ONE):
        book.connect(f"2001:db8::{n:x}")
    assert len(book.lines()) == LINES_OF_ONE


def test_many_addresses_do_not_fill_the_log_either(book: Book) -> None:
    """Of all together there are at most `LINES` in a window, whatever their number."""
    for n in range(LINES):
        book.connect(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
    assert len(book.lines()) == LINES
    book.journal.swept(WINDOW_S)
    (held,) = book.lines()
    assert held["lines"] == LINES
    assert len(held["most_of"]) <= 3


def test_the_next_window_begins_anew(book: Book) -> None:
    """Quiet again, every connection has its lines, and nothing is said to be held back."""
    book.connect("203.0.113.9", LINES_OF_ONE)
    book.journal.swept(WINDOW_S)
    book.lines()
    book.connect("203.0.113.9", 2)
    assert len(book.lines()) == 4
    book.journal.swept(2 * WINDOW_S)
    assert book.lines() == []
