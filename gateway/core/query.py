"""The query of a stream: what `/events` and configured routes take behind the `?`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from gateway.core.errors import BadRequest
from gateway.core.subjects import Filter, parse_filter

_SWITCH = {"true": True, "1": True, "": True, "false": False, "0": False}
_LATER = ("since", "snapshot", "until")


@dataclass(frozen=True, slots=True)
class StreamQuery:
    """One stream's query.

    Attributes:
        subjects: filters as the client wrote them, percent-decoded once.
        named: whether events carry their type as a name (SSE).
        control: whether control frames come between raw events (WebSocket).
    """

    subjects: tuple[str, ...]
    named: bool = False
    control: bool = False


def parse_query(items: Sequence[tuple[str, str]]) -> StreamQuery:
    """Read a query, as percent-decoded pairs. Unknown names are ignored: caches and proxies add their own.

    Raises:
        BadRequest: a value means nothing; the detail names it.
    """
    subjects = tuple(value for name, value in items if name == "subject")
    for name, _ in items:
        if name in _LATER:
            raise BadRequest(f"{name} is not built yet; leave it out.")
    return StreamQuery(subjects, named=_switch(items, "named"), control=_switch(items, "control"))


def _switch(items: Sequence[tuple[str, str]], name: str) -> bool:
    values = [value for each, value in items if each == name]
    if not values:
        return False
    if len(values) > 1 or values[0] not in _SWITCH:
        raise BadRequest(f"{name} is to be true or false, once.")
    return _SWITCH[values[0]]


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
