"""`natsgate top`: replicas side by side in the terminal, from their `/metrics`."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TextIO

from gateway.commands.address import Address, parse_address
from gateway.commands.outcome import EXIT_DONE, EXIT_NOT_REACHED
from gateway.commands.scrape import TIMED_OUT, TIMEOUT_S, Look, Unseen, client, look
from gateway.commands.top_table import Row, table

WAITING = "…"
"""What stands for a replica that has not answered yet."""

_HOME, _CLEAR, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[2J", "\x1b[K", "\x1b[J"
_HIDE_CURSOR, _SHOW_CURSOR, _BOLD, _PLAIN = "\x1b[?25l", "\x1b[?25h", "\x1b[1m", "\x1b[0m"


class Top:
    """Looks at replicas again and again, each in a thread of its own: one that hangs holds up no other.

    Args:
        urls: where they are.
        interval_s: the time between two looks.

    Raises:
        CommandFailed: a URL is none.
    """

    def __init__(self, urls: Sequence[str], interval_s: float) -> None:
        addresses = [parse_address(url) for url in urls]
        self._interval_s = interval_s
        self._changed = threading.Condition()
        self._rows = [Row(address.authority, None, trouble=WAITING) for address in addresses]
        self._looks = [0] * len(addresses)
        for number, address in enumerate(addresses):
            threading.Thread(target=self._watch, args=(number, address), daemon=True).start()

    def _watch(self, number: int, address: Address) -> None:
        http = client()
        while True:
            before = self._rows[number].now
            now: Look | None = None
            trouble = ""
            try:
                now = look(http, address)
            except Unseen as unseen:
                trouble = str(unseen)
            with self._changed:
                self._rows[number] = Row(address.authority, now, before, trouble)
                self._looks[number] += 1
                self._changed.notify_all()
            time.sleep(self._interval_s)

    def _seen_twice(self) -> bool:
        return all(
            looks >= 2 or (looks and row.now is None) for looks, row in zip(self._looks, self._rows, strict=True)
        )

    def _seen_again(self, before: int) -> bool:
        return min(self._looks) > before

    def once(self, show: Callable[[list[str]], object]) -> int:
        """Show one table, as soon as it has rates; the exit code: 3 when a replica was not seen."""
        with self._changed:
            # A replica may send its page a byte at a time, and each of them in time.
            self._changed.wait_for(self._seen_twice, self._interval_s + 3 * TIMEOUT_S)
            rows = [replace(row, trouble=TIMED_OUT) if row.trouble == WAITING else row for row in self._rows]
        show(table(rows))
        return EXIT_DONE if all(row.now is not None for row in rows) else EXIT_NOT_REACHED

    def live(self, show: Callable[[list[str]], object]) -> None:
        """Show a table again and again, until an exception ends it: KeyboardInterrupt, BrokenPipeError."""
        shown = 0
        while True:
            with self._changed:
                # One that hangs does not hold up the table, once it is known to hang.
                self._changed.wait_for(partial(self._seen_again, shown), self._interval_s if shown else None)
                shown = min(self._looks)
                rows = list(self._rows)
            show(table(rows))


class Screen:
    """Shows a table in place of the one before, on a terminal; elsewhere below it.

    Args:
        out: where.
        tty: whether that is a terminal.
    """

    def __init__(self, out: TextIO, *, tty: bool) -> None:
        self._out = out
        self._tty = tty
        self._begun = False

    def show(self, lines: list[str]) -> None:
        """Show these lines."""
        if self._tty:
            size = shutil.get_terminal_size()
            head, *rest = [line[: size.columns] for line in lines[: max(1, size.lines - 1)]]
            begin = "" if self._begun else _HIDE_CURSOR + _CLEAR
            shown = [f"{_BOLD}{head}{_PLAIN}", *rest]
            self._out.write(begin + _HOME + "".join(f"{line}{_CLEAR_LINE}\n" for line in shown) + _CLEAR_BELOW)
        else:
            self._out.write("".join(f"{line}\n" for line in lines) + "\n")
        self._begun = True
        self._out.flush()

    def leave(self) -> None:
        """Give the terminal back."""
        if self._tty and self._begun:
            self._out.write(_SHOW_CURSOR)
            self._out.flush()
