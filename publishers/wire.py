"""What travels between publishers and gateways: ids as subject tokens, subjects, events.

This module is pure and the one place where the three are defined; publishers and gateway both import it.

* A **subject** is `<root>.<id>.<event type>`, e.g. `repo.42.task.progress`. The root is one literal token,
  the id is one token (see below), the event type is one or more tokens.
* An **id** is any non-empty string. As a token it is its UTF-8 with every byte outside `A-Z a-z 0-9` and
  `-_~!$&'()+,;=:@/` written as `%` and two upper-case hex digits: `owner/repo.js` is `owner/repo%2Ejs`.
  Each id has exactly one token and each token at most one id, so comparing tokens is comparing ids.
* An **event** is a JSON object in UTF-8. `envelope` builds the canonical one; others pass as they are.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

DEFAULT_ROOTS: tuple[str, ...] = ("repo", "task", "project", "user", "ci", "inbox")

MAX_SUBJECT_BYTES = 1024
"""Longest subject that is built or accepted. nats-server reads at most 4096 bytes of subjects and sizes per
message; this leaves room for the gateway's own prefix and a reply subject."""

MAX_EVENT_BYTES = 256 * 1024
"""Default limit of one event's JSON in bytes; gateways drop bigger ones unless their setting is raised."""

_SAFE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~!$&'()+,;=:@/"
_TOKEN_OF_BYTE = tuple(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in range(256))
_SAFE_ONLY = re.compile(r"[A-Za-z0-9\-_~!$&'()+,;=:@/]+")
_TOKEN = re.compile(r"(?:[A-Za-z0-9\-_~!$&'()+,;=:@/]|%[0-9A-F]{2})+")
_ESCAPE = re.compile(rb"%([0-9A-F]{2})")
_ROOT = re.compile(r"[A-Za-z0-9_-]+")


class WireError(ValueError):
    """Something that cannot travel: the message says what, where, and how to mend it."""


class InvalidId(WireError):
    """An id that has no token, or a token that is not the canonical one of any id."""


class InvalidSubject(WireError):
    """A subject that is not `<root>.<id>.<event type>` of canonical tokens, or is too long."""


class InvalidEvent(WireError):
    """An event that is not a JSON object within the size limit, or an envelope field of the wrong type."""


class SubjectParts(NamedTuple):
    """A subject taken apart: `root`, the decoded `id`, and `event_type` with its dots (`task.progress`)."""

    root: str
    id: str
    event_type: str


def encode_id(text: str) -> str:
    """The one subject token of an id.

    Args:
        text: any non-empty string that UTF-8 can write.

    Raises:
        InvalidId: the text is empty, is no string, or holds a lone surrogate.
    """
    if not isinstance(text, str):
        raise InvalidId(f"an id must be a string, not {_type_name(text)}: pass str(...) of it")
    if _SAFE_ONLY.fullmatch(text):
        return text
    if not text:
        raise InvalidId("an id must not be empty: a subject has no token for nothing; pass a non-empty string")
    try:
        data = text.encode()
    except UnicodeEncodeError as err:
        raise InvalidId(
            f"id {_shown(text)} holds the lone surrogate U+{ord(text[err.start]):04X} at position "
            f"{err.start}, which UTF-8 cannot write: repair the text where it was decoded "
            "(often errors='surrogateescape')"
        ) from None
    return "".join([_TOKEN_OF_BYTE[byte] for byte in data])


def decode_id(token: str) -> str:
    """The id of a subject token; only the token that `encode_id` makes of an id is accepted.

    Raises:
        InvalidId: the token is not canonical: empty, a byte that should be escaped is bare, an escape is
            malformed, lower-case or not needed, or the bytes are not UTF-8.
    """
    if _SAFE_ONLY.fullmatch(token):
        return token
    if not _TOKEN.fullmatch(token):
        raise InvalidId(
            f"token {_shown(token)} is not an encoded id: {_what_is_wrong(token)}; build tokens with encode_id"
        )
    data = _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), token.encode())
    try:
        text = data.decode()
    except UnicodeDecodeError as err:
        raise InvalidId(
            f"token {_shown(token)} does not decode to UTF-8 ({err.reason}): escape the UTF-8 bytes of the id"
        ) from None
    canonical = encode_id(text)
    if canonical != token:
        raise InvalidId(
            f"token {_shown(token)} escapes bytes that need no escape: the canonical token is {_shown(canonical)}"
        )
    return text


def is_canonical_token(token: str) -> bool:
    """Whether `decode_id` accepts the token."""
    if _SAFE_ONLY.fullmatch(token):
        return True
    try:
        decode_id(token)
    except InvalidId:
        return False
    return True


def check_root(root: str) -> str:
    """The root itself when it is one literal token of `A-Z a-z 0-9 _ -`.

    Raises:
        InvalidSubject: otherwise.
    """
    if not _is_text(root) or not _ROOT.fullmatch(root):
        raise InvalidSubject(
            f"root {_shown(root)} is not one literal token of A-Z a-z 0-9 _ -: "
            f"use a root of the stream, by default one of {', '.join(DEFAULT_ROOTS)}"
        )
    return root


def subject(root: str, id: str, *event_type: str) -> str:
    """Builds `<root>.<id>.<event type>`; the id is encoded, the rest is checked.

    Args:
        root: one literal token, e.g. `repo`.
        id: the id as text; any non-empty string (`owner/repo.js`).
        event_type: one or more parts, dots allowed in each: `"task.progress"` and `"task", "progress"` are
            the same. Every token must already be canonical, so a type never becomes a wildcard; run
            `encode_id` over parts that come from outside.

    Raises:
        InvalidId: the id has no token.
        InvalidSubject: root or event type are malformed, or the result exceeds `MAX_SUBJECT_BYTES`.
    """
    check_root(root)
    token = encode_id(id)
    tail = ".".join(event_type)
    for part in tail.split("."):
        if not is_canonical_token(part):
            raise InvalidSubject(
                f"event type {_shown(tail)} of a {root!r} subject has the token {_shown(part)}, which is "
                f"{'empty' if not part else 'not literal'}: give dot-separated tokens such as "
                "'task.progress', and encode_id(...) what comes from outside"
            )
    return _within_limit(f"{root}.{token}.{tail}")


def parse_subject(text: str) -> SubjectParts:
    """Takes a complete subject apart; the inverse of `subject`.

    Raises:
        InvalidSubject: the text is not `<root>.<id>.<event type>` of canonical tokens (wildcards are none),
            or is longer than `MAX_SUBJECT_BYTES`.
    """
    parts = text.split(".", 2)
    if len(parts) < 3:
        raise InvalidSubject(
            f"subject {_shown(text)} has {len(parts)} of at least 3 tokens: write <root>.<id>.<event type>, "
            "e.g. repo.42.task.progress"
        )
    root, token, tail = parts
    check_root(root)
    try:
        id = decode_id(token)
        for part in tail.split("."):
            decode_id(part)
    except InvalidId as err:
        raise InvalidSubject(f"subject {_shown(text)}: {err}") from None
    _within_limit(text)
    return SubjectParts(root, id, tail)


def envelope(
    type: str,
    payload: Mapping[str, Any] | None = None,
    *,
    ts: int | None = None,
    id: str | None = None,
    repo_id: str | int | None = None,
    task_id: str | int | None = None,
    project_id: str | int | None = None,
    request_id: str | int | None = None,
    **other: Any,
) -> dict[str, Any]:
    """Builds the canonical event: `type`, `ts`, `id`, the ids that were given, `payload`, the other fields.

    Args:
        type: what happened; by custom the event type of the subject (`task.progress`).
        payload: a JSON object; empty when absent.
        ts: ms since the epoch; now when absent.
        id: unique among all events; 32 random hex digits when absent. `Publisher` derives `Nats-Msg-Id` from
            it and the subject.
        repo_id, task_id, project_id, request_id: left out when None.
        other: further top-level fields, passed through as they are.

    Raises:
        InvalidEvent: a field has the wrong type.
    """
    if not _is_text(type) or not type:
        raise InvalidEvent(f"field 'type' must be a non-empty string, not {_shown(type)}: e.g. 'task.progress'")
    if payload is not None and not isinstance(payload, Mapping):
        raise InvalidEvent(
            f"field 'payload' of {_shown(type)} must be an object, not {_type_name(payload)}: "
            "wrap it, e.g. {'value': ...}"
        )
    if ts is None:
        ts = time.time_ns() // 1_000_000
    elif not _is_integer(ts) or ts < 0:
        raise InvalidEvent(
            f"field 'ts' of {_shown(type)} must be whole milliseconds since the epoch, not {_shown(ts)}: "
            "e.g. int(time.time() * 1000)"
        )
    if id is None:
        id = secrets.token_hex(16)
    elif not _is_text(id) or not id:
        raise InvalidEvent(f"field 'id' of {_shown(type)} must be a non-empty string, not {_shown(id)}")
    event: dict[str, Any] = {"type": type, "ts": ts, "id": id}
    for name, value in (
        ("repo_id", repo_id),
        ("task_id", task_id),
        ("project_id", project_id),
        ("request_id", request_id),
    ):
        if value is None:
            continue
        if not (_is_text(value) or _is_integer(value)):
            raise InvalidEvent(
                f"field {name!r} of {_shown(type)} must be a string or an integer, not {_type_name(value)}"
            )
        event[name] = value
    event["payload"] = {} if payload is None else dict(payload)
    event.update(other)
    return event


def encode_event(event: Mapping[str, Any], *, max_event_bytes: int = MAX_EVENT_BYTES) -> bytes:
    """The event's JSON as it is published: UTF-8, one line, at most `max_event_bytes` (0: no limit).

    Values are what orjson writes (datetime, UUID, dataclasses too); NaN and infinities become null.

    Raises:
        InvalidEvent: no object, a value that JSON cannot write, or too big.
    """
    if not isinstance(event, Mapping):
        raise InvalidEvent(f"an event must be a JSON object, not {_type_name(event)}: publish a dict")
    try:
        data = orjson.dumps(event if isinstance(event, dict) else dict(event))
    except TypeError as err:
        raise InvalidEvent(
            f"event of type {_shown(event.get('type'))} cannot be written as JSON: {err}; "
            "use strings as keys and plain JSON values"
        ) from err
    if max_event_bytes and len(data) > max_event_bytes:
        raise InvalidEvent(
            f"event of type {_shown(event.get('type'))} has {len(data)} bytes, more than the "
            f"{max_event_bytes} that gateways forward: publish a reference to big data, "
            "or raise max_event_bytes here and there"
        )
    return data


def _within_limit(text: str) -> str:
    # Canonical tokens are ASCII: characters are bytes.
    if len(text) > MAX_SUBJECT_BYTES:
        raise InvalidSubject(
            f"subject {_shown(text)} has {len(text)} bytes, more than {MAX_SUBJECT_BYTES}: use a shorter id "
            "(a byte outside the plain characters takes three), e.g. a hash of it"
        )
    return text


def _what_is_wrong(token: str) -> str:
    if not token:
        return "it is empty"
    bad = re.sub(_TOKEN, "", token)[0]
    if bad == "%":
        return "'%' must be followed by two upper-case hex digits"
    return f"{bad!a} must be percent-encoded"


# Callers without a type checker pass anything; these look at what is really there.
def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: object) -> str:
    """A value for an error message: ASCII, quoted, at most some 60 characters."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:56]}...{text[-1]}"


def _type_name(value: object) -> str:
    return value.__class__.__name__
