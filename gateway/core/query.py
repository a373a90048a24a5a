"""The query of a stream: what `/events` and configured routes take behind the `?`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from gateway.core.cursor import parse_cursor
from gateway.core.errors import BadRequest
from gateway.core.start import Start, parse_since
from gateway.core.subjects import Filter, parse_filter

_SWITCH = {"true": True, "1": True, "": True, "false": False, "0": False}

COMES_BACK = "lastEventId"
"""What event-source-polyfill appends to its URL when it comes back, as browsers send the header."""

PARAMETERS = (
    "subject", "since", "snapshot", "until", "named", "last_event_id", COMES_BACK, "control", "ticket", "access_token",
)  # fmt: skip
"""Every parameter that means something, here or (`ticket`, `access_token`) where tokens are looked for."""


def _folded(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").rstrip("s")


_BY_FOLDED = {_folded(name): name for name in reversed(PARAMETERS)}
MOST_NAME_CHARS = 40
"""Nobody misspells a parameter so that it gets longer than this."""


@dataclass(frozen=True, slots=True)
class StreamQuery:
    """One stream's query.

    Attributes:
        subjects: filters as the client wrote them, percent-decoded once.
        start: where the feed begins.
        named: whether events carry their type as a name (SSE).
        control: whether control frames come between raw events (WebSocket).
    """

    subjects: tuple[str, ...]
    start: Start
    named: bool = False
    control: bool = False


def parse_query(
    items: Sequence[tuple[str, str]], *, last_event_id: str | None = None, snapshot: bool = False
) -> StreamQuery:
    """Read a query, as percent-decoded pairs. Unknown names are ignored: caches and proxies add their own. A known one
    in other letters, or in the plural, is nobody's but the client's, and would be missed in silence.

    Args:
        items: the pairs.
        last_event_id: the header of that name; it wins over the parameter. Empty is as good as absent.
        snapshot: what holds when the query does not say.

    Raises:
        BadRequest: a name is misspelt, a value means nothing, or two exclude each other; the detail names them.
    """
    for name, _ in items:
        meant = _BY_FOLDED.get(_folded(name)) if len(name) <= MOST_NAME_CHARS else None
        if meant is not None and name not in PARAMETERS:
            raise BadRequest(f"There is no parameter {name!a}; did you mean {meant}?")
    subjects = tuple(value for name, value in items if name == "subject")
    cursor = last_event_id or _once(items, COMES_BACK) or _once(items, "last_event_id")
    asked = _switch(items, "snapshot", None)
    start = parse_start(
        cursor=cursor, since=_once(items, "since"), snapshot=asked, by_default=snapshot, until=_once(items, "until")
    )
    return StreamQuery(
        subjects, start, named=bool(_switch(items, "named", False)), control=bool(_switch(items, "control", False))
    )


def parse_start(
    *, cursor: str | None, since: str | None, snapshot: bool | None, by_default: bool = False, until: str | None = None
) -> Start:
    """Read where a feed begins.

    Raises:
        BadRequest: a value means nothing, or `since` and `snapshot` are both asked for.
    """
    if since is not None and snapshot:
        raise BadRequest("since and snapshot exclude each other: a snapshot is the present, whatever came before.")
    if until not in (None, "head"):
        raise BadRequest("until is to be head, or left out.")
    return Start(
        cursor=parse_cursor(cursor) if cursor else None,
        since=parse_since(since) if since is not None else None,
        snapshot=by_default and since is None if snapshot is None else snapshot,
        until_head=until is not None,
    )


def _once(items: Sequence[tuple[str, str]], name: str) -> str | None:
    values = [value for each, value in items if each == name]
    if len(values) > 1:
        raise BadRequest(f"{name} is given twice.")
    return values[0] if values else None


def _switch(items: Sequence[tuple[str, str]], name: str, absent: bool | None) -> bool | None:
    value = _once(items, name)
    if value is None:
        return absent
    if value not in _SWITCH:
        raise BadRequest(f"{name} is to be true or false.")
    return _SWITCH[value]


def parse_filters(subjects: Sequence[str], roots: Collection[str], most: int) -> list[Filter]:
    """Read the filters of one feed.

    Args:
        subjects: as the client wrote them.
        roots: this gateway's roots.
        most: how many a feed may have; 0 means no limit.

    Raises:
        BadRequest: there is none, too many, or a bad one.
        Forbidden: one asks for what is never served.
    """
    if not subjects:
        raise BadRequest("Say what you want: ?subject=repo.42.> (several are one feed: &subject=user.7.>).")
    if most and len(subjects) > most:
        raise BadRequest(
            f"A feed has at most {most} filters; use wildcards, or a second stream.", code="too_many_filters"
        )
    return [parse_filter(each, roots) for each in subjects]
