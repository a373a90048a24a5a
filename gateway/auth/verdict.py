"""A verdict: what a service says of a client that wants a route."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from gateway.core import json_text
from gateway.core.cursor import Cursor

LEAST_TTL_S = 1.0
MAX_ANSWER_BYTES = 2**20
"""What a service may answer: what NATS carries unless it is told otherwise."""


class Verdict(NamedTuple):
    """What a service said.

    Attributes:
        allowed: whether the client may have the route.
        hidden: whether it is not to learn that there is one (404 instead of 403).
        initial: events that show the present state, each the text of a JSON object as the service wrote it; None: the
            service gives none.
        ttl_s: after how many seconds it wants to be asked again; None: never.
        cursor: where the stream stood before it was asked.
    """

    allowed: bool
    hidden: bool
    initial: tuple[bytes, ...] | None
    ttl_s: float | None
    cursor: Cursor


def read_verdict(answer: bytes, cursor: Cursor, *, max_event_bytes: int) -> Verdict:
    """Read a service's answer.

    Args:
        answer: as it came.
        cursor: where the stream stood before it was asked.
        max_event_bytes: the most that an initial event may have; 0 means no limit.

    Raises:
        ValueError: it is none; the text says what is wrong, and shows nothing of it.
    """
    if len(answer) > MAX_ANSWER_BYTES:
        raise ValueError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
    try:
        content = json_text.members(answer.decode("utf-8"))
        status = json.loads(content.get("status", "403"))
        ttl_s = json.loads(content.get("ttl_s", "null"))
    except (ValueError, RecursionError):
        raise ValueError("the answer is no JSON object") from None
    if content.get("allow") not in ("true", "false"):
        raise ValueError('the answer is to hold "allow": true or false')
    if isinstance(status, float) or status not in (403, 404):
        raise ValueError("status is to be 403 or 404")
    if ttl_s is not None and not _is_duration(ttl_s):
        raise ValueError("ttl_s is to be a number of seconds above 0")
    return Verdict(
        allowed=content["allow"] == "true",
        hidden=status == 404,
        initial=_initial(content.get("initial", "null"), max_event_bytes),
        ttl_s=None if ttl_s is None else max(LEAST_TTL_S, float(ttl_s)),
        cursor=cursor,
    )


def _is_duration(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 < value < 1e9


def _initial(text: str, max_event_bytes: int) -> tuple[bytes, ...] | None:
    if text == "null":
        return None
    try:
        found = list(json_text.elements(text))
    except (ValueError, RecursionError):
        found = [(None, "")]
    if not all(isinstance(value, dict) for value, _ in found):
        raise ValueError("initial is to be a list of events, each a JSON object")
    events = tuple(event.encode("utf-8") for _, event in found)
    if max_event_bytes and any(len(event) > max_event_bytes for event in events):
        raise ValueError(f"an event of initial is larger than {max_event_bytes} bytes (NATSGATE_MAX_EVENT_BYTES)")
    return events
