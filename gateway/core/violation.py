"""What nats-server says when a login may not do something."""

from __future__ import annotations

import re
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
