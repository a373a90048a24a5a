"""What counts as an event: any JSON object (RFC 8259) in UTF-8, forwarded as the text that it is.

The text is checked once and never written anew, so key order, big integers and escapes survive. Only raw CR and LF,
which JSON allows between tokens alone, become spaces: they would break the framing of Server-Sent Events.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import orjson

from gateway.core.json_text import no_constant

_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_UNNAMED = frozenset({"open", "error", "message"})
_RESERVED_PREFIX = "natsgate."
_MAX_TYPE_CHARS = 256


DropReason = Literal[
    "not_utf8", "not_json", "not_object", "too_deep", "too_large", "not_from_stream", "bad_sequence", "fault"
]  # fmt: skip
"""Why a message reaches nobody: what it holds, that the stream did not send it, or a fault of ours in reading it."""


class BadEvent(ValueError):
    """The payload is no event. `reason` is the label of `natsgate_events_dropped_total`."""

    def __init__(self, reason: DropReason) -> None:
        super().__init__(reason)
        self.reason = reason


def check(payload: bytes) -> tuple[bytes, dict[str, Any]]:
    """Check that a payload is a JSON object.

    Returns:
        the text on one line, and the object it means (for reading fields; never for writing it again).

    Raises:
        BadEvent: `not_utf8`, `not_json`, `not_object` or `too_deep`.
    """
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError:
        value = _second_opinion(payload)
    if not isinstance(value, dict):
        raise BadEvent("not_object")
    if b"\n" in payload or b"\r" in payload:
        payload = payload.translate(_LINE_BREAKS)
    return payload, value


def _second_opinion(payload: bytes) -> Any:
    # orjson refuses a few texts that RFC 8259 allows and browsers read: escaped lone surrogates, for one.
    # Integers are read as floats: their size must not matter, and nobody computes with them here.
    try:
        return json.loads(payload.decode("utf-8"), parse_int=float, parse_constant=no_constant)
    except UnicodeDecodeError:
        raise BadEvent("not_utf8") from None
    except ValueError:
        raise BadEvent("not_json") from None
    except RecursionError:
        raise BadEvent("too_deep") from None


def event_name(envelope: dict[str, Any], subject: str) -> bytes:
    """The name for an SSE `event:` line, or nothing where the event has to stay unnamed.

    It is the envelope's `type`, else the subject's tail. Names that EventSource or natsgate use themselves, and names
    with control characters (which could end the line), are not given: such an event reaches `onmessage`.
    """
    name = envelope.get("type")
    if not isinstance(name, str) or not name:
        name = subject.split(".", 2)[-1]
    if len(name) > _MAX_TYPE_CHARS or name in _UNNAMED or name.startswith(_RESERVED_PREFIX) or _CONTROL.search(name):
        return b""
    try:
        return name.encode("utf-8")
    except UnicodeEncodeError:
        return b""
