"""Where a feed begins: what a client asks for, before anybody knows whether it can be had."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.core.cursor import Cursor
from gateway.core.errors import BadRequest

_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,6})?(?:ms|s|m|h|d))+", re.ASCII)
_PART = re.compile(r"([\d.]+)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", re.ASCII)


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_YEAR = 2262
"""NATS counts nanoseconds in 64 bits: what was before the one is clamped, and the other is out of reach."""


@dataclass(frozen=True, slots=True)
class Since:
    """A point in time, or the very beginning (neither field set).

    Attributes:
        ago_s: so many seconds before now.
        time: an RFC 3339 time, in UTC.
    """

    ago_s: float | None = None
    time: str | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """Where a feed begins. All absent: from now.

    Attributes:
        cursor: behind what the client has seen; wins over `since` and `snapshot`.
        since: behind a point in time.
        snapshot: with the last event of every subject first, and again after a gap.
        until_head: end, instead of going live.
    """

    cursor: Cursor | None = None
    since: Since | None = None
    snapshot: bool = False
    until_head: bool = False


NOW = Start()


def parse_since(text: str) -> Since:
    """Read `all`, a duration (`15m`, `1h30m`, `2d`) or an RFC 3339 time.

    Raises:
        BadRequest: it is none of them.
    """
    if text == "all":
        return Since()
    if len(text) <= 64 and _DURATION.fullmatch(text):
        return Since(ago_s=sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text)))
    if _TIME.fullmatch(text):
        try:
            time = datetime.fromisoformat(text.upper())
            if time.year < LAST_YEAR:
                return Since(time=max(time, EPOCH).astimezone(UTC).isoformat().replace("+00:00", "Z"))
        except ValueError:
            pass  # the shape is right, the date is not
    raise BadRequest(
        "since is to be all, a duration such as 15m, 1h30m or 2d, or an RFC 3339 time such as 2030-01-31T12:00:00Z "
        "(in a URL the + of an offset is sent as %2B)."
    )
