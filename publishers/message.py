"""What the caller gave, checked and made ready for the wire: payload and header block as bytes."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from publishers import wire

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def encode(subject: str, event: Mapping[str, Any] | bytes, *, max_event_bytes: int) -> bytes:
    """The payload: a mapping as JSON, bytes as they are once they prove to be a JSON object.

    Raises:
        InvalidSubject, InvalidEvent: see `wire`.
    """
    _check_subject(subject)
    if not isinstance(event, bytes):
        # Copied, since orjson leaves the result in an allocation of 4 KiB or more, and a buffer holds thousands.
        return bytes(memoryview(wire.encode_event(event, max_event_bytes=max_event_bytes)))
    try:
        known = orjson.loads(event)
    except orjson.JSONDecodeError as err:
        raise wire.InvalidEvent(f"the bytes for {subject} are not JSON in UTF-8: {err}") from err
    if not isinstance(known, dict):
        raise wire.InvalidEvent(f"the bytes for {subject} are no JSON object: publish one, e.g. {{...}}")
    if max_event_bytes and len(event) > max_event_bytes:
        raise wire.InvalidEvent(
            f"the event for {subject} has {len(event)} bytes, more than the {max_event_bytes} that gateways "
            "forward: publish a reference to big data, or raise max_event_bytes here and there"
        )
    return event


def header_block(
    subject: str,
    event: Mapping[str, Any] | bytes,
    *,
    msg_id: str | None,
    own: Mapping[str, str] | None,
) -> bytes:
    """The message's header block with `Nats-Msg-Id` first, then the caller's own.

    Raises:
        InvalidEvent: a name or value that no NATS header can hold, or `Nats-Msg-Id` among the own ones.
    """
    if msg_id is None:
        msg_id = _msg_id_of(subject, event)
    else:
        _check_value(subject, "Nats-Msg-Id", msg_id)
    lines = f"NATS/1.0\r\nNats-Msg-Id: {msg_id}\r\n"
    for name, value in (own or {}).items():
        if not _is_text(name):
            raise wire.InvalidEvent(f"header name {name!a} of {subject} is no string: give a name, e.g. 'traceparent'")
        if name.lower() == "nats-msg-id":
            raise wire.InvalidEvent(f"header {name!r} of {subject}: give its value as msg_id instead")
        if not _HEADER_NAME.fullmatch(name):
            raise wire.InvalidEvent(f"header name {name!a} of {subject}: use letters, digits and -, e.g. traceparent")
        _check_value(subject, name, value)
        lines += f"{name}: {value}\r\n"
    return f"{lines}\r\n".encode()


def _check_value(subject: str, name: str, value: str) -> None:
    if not _is_text(value):
        raise wire.InvalidEvent(
            f"header {name!r} of {subject} has a {type(value).__name__} as its value: give a string"
        )
    # A line break would end the header, and whatever follows would be read as the next one.
    if not value.strip() or not value.isprintable():
        raise wire.InvalidEvent(
            f"header {name!r} of {subject} has the value {value!a}: give one line of printable text"
        )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


@lru_cache(maxsize=4096)
def _check_subject(subject: str) -> None:
    wire.parse_subject(subject)


def _msg_id_of(subject: str, event: Mapping[str, Any] | bytes) -> str:
    # Taken only from the canonical shape: in a foreign one `id` is often that of a thing, not of the event.
    # Together with the subject, since one event may go out on several.
    if not isinstance(event, bytes) and isinstance(event.get("ts"), int):
        id = event.get("id")
        if isinstance(id, str) and id and id.isprintable() and isinstance(event.get("payload"), Mapping):
            return f"{subject}:{id}"
    return secrets.token_hex(16)
