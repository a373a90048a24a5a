"""What nats-server says when a login may not do something."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_VIOLATION = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE)


class Violation(NamedTuple):
    """Something that the server refused.

    Attributes:
        verb: `publish` or `subscribe`.
        subject: what to, in lower case: nats-py tells it so.
    """

    verb: str
    subject: str


def read_violation(text: str) -> Violation | None:
    """The violation in an error text of the server; None when it is about something else."""
    found = _VIOLATION.search(text)
    if found is None:
        return None
    return Violation("publish" if found[1].lower() == "publish" else "subscribe", found[2].lower())


class Lacking:
    """What of a login's needs the server has refused.

    Args:
        needed: verb and subject of each need.
    """

    def __init__(self, needed: Iterable[tuple[str, str]]) -> None:
        self._needed = {Violation(verb, subject.lower()): f"{verb} to {subject}" for verb, subject in needed}
        self._refused: set[str] = set()

    def hear(self, text: str) -> None:
        """Take an error text of the server in; what it says of anything else is left aside."""
        violation = read_violation(text)
        if violation in self._needed:
            self._refused.add(self._needed[violation])
        elif violation is not None and violation.verb == "subscribe" and violation.subject.startswith("_inbox."):
            self._refused.add("subscribe to _INBOX.>")

    def forget(self) -> None:
        """The next login may have other rights, and is told what it lacks."""
        self._refused.clear()

    def reasons(self) -> list[str]:
        """Each need that was refused, with the mend."""
        mend = "allow it as in deploy/nats/permissions.conf"
        return [f"the NATS login may not {each}; {mend}" for each in sorted(self._refused)]
