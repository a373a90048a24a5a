"""Revoked users: from when on a `sub`'s tokens count, and how that stands in the KV bucket.

An entry's key is the `sub`, every byte outside `A-Z a-z 0-9 _ -` written as `=` and two upper-case hex digits (keys of
NATS KV take no `%`): `alice`, `owner=2Frepo`. Its value is a time: seconds since the epoch, or RFC 3339. Tokens that
were issued before it (`iat`), or do not say when, are refused.

`iat` is mostly whole seconds. A time with a fraction refuses tokens of its own second too, so whoever revokes writes
the next whole second: what was issued in the second of the revocation is refused, before and after it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from gateway.core.rights import Principal

BUCKET = "natsgate_revoked"
"""The KV bucket. Its stream is `KV_natsgate_revoked`, its subjects `$KV.natsgate_revoked.<key>`."""

PREFIX = f"$KV.{BUCKET}."

MAX_KEY_CHARS = 1024
"""The longest key. NATS takes subjects and what goes with them in one line of 4,096 bytes; OpenID Connect allows a
`sub` 255 ASCII characters, which are three times as many at most."""

MAX_VALUE_CHARS = 64

_SAFE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
_KEY_OF_BYTE = [chr(byte) if byte in _SAFE else f"={byte:02X}" for byte in range(256)]
_KEY = re.compile(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+", re.ASCII)
_ESCAPE = re.compile(rb"=([0-9A-F]{2})")
_SECONDS = re.compile(r"\d{1,12}(\.\d{1,9})?", re.ASCII)
_OWN_BLOCK = b"Nats-Stream: "
_STAMP = b"\r\nNats-Time-Stamp: "


def key_of(sub: str) -> str:
    """The key of a `sub`.

    Raises:
        UnicodeEncodeError: it holds a lone surrogate; no token with such a `sub` is taken.
    """
    return "".join([_KEY_OF_BYTE[byte] for byte in sub.encode()])


def sub_of(key: str) -> str | None:
    """The `sub` of a key; None for a key that is none's. Two keys never mean the same `sub`."""
    if len(key) > MAX_KEY_CHARS or not _KEY.fullmatch(key):
        return None
    if "=" not in key:
        return key
    try:
        sub = _ESCAPE.sub(lambda hit: bytes.fromhex(hit[1].decode()), key.encode("ascii")).decode()
    except UnicodeDecodeError:
        return None
    return sub if key_of(sub) == key else None


def parse_not_before(value: bytes) -> float | None:
    """The time in an entry, seconds since the epoch; None when it is none."""
    if len(value) > MAX_VALUE_CHARS:
        return None
    text = value.decode("utf-8", "replace").strip()
    try:
        if _SECONDS.fullmatch(text):
            return float(text)
        time = datetime.fromisoformat(text)
        return time.timestamp() if time.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def format_not_before(not_before: float) -> str:
    """The time as an entry holds it: RFC 3339 in UTC, or seconds where the calendar ends."""
    try:
        return datetime.fromtimestamp(not_before, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return f"{not_before:.0f}"


class Entry(NamedTuple):
    """What one message of the bucket says.

    Attributes:
        sub: whom; None when its key is none's.
        not_before: from when on tokens count, seconds since the epoch; None: the entry is deleted.
        readable: whether its value is a time. If not, `not_before` is when the entry was written.
    """

    sub: str | None
    not_before: float | None
    readable: bool


def read_entry(subject: bytes, headers: bytes, payload: bytes, *, written_at: float) -> Entry:
    """Read a message of the bucket.

    Args:
        headers: its publisher's, as they came; empty where there are none.
        written_at: when it was written, seconds since the epoch.
    """
    sub = sub_of(subject[len(PREFIX) :].decode("utf-8", "replace")) if subject.startswith(PREFIX.encode()) else None
    if _deletes(headers):
        return Entry(sub, None, True)
    not_before = parse_not_before(payload)
    return Entry(sub, written_at if not_before is None else not_before, not_before is not None)


def split_headers(headers: bytes) -> tuple[bytes, float | None]:
    """The headers of a stored message: its publisher's own; and when it was stored, which the stream's own block behind
    them says (seconds since the epoch; None if it does not)."""
    begin = max(0, headers.rfind(_OWN_BLOCK))
    at = headers.find(_STAMP, begin)
    text = headers[at + len(_STAMP) :].split(b"\r", 1)[0] if at >= 0 else b""
    try:
        return headers[:begin], datetime.fromisoformat(text.decode("ascii")).timestamp()
    except (ValueError, OverflowError):
        return headers[:begin], None


def _deletes(headers: bytes) -> bool:
    """Whether these headers mark a deletion: NATS ADR-8; since nats-server 2.11 also the server's own markers."""
    if len(headers) <= len(b"NATS/1.0\r\n\r\n"):
        return False
    for line in headers.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name == b"KV-Operation" and value.strip() in (b"DEL", b"PURGE"):
            return True
        if name == b"Nats-Marker-Reason":
            return True
    return False


class Revoked:
    """What is revoked, as far as this replica knows. New tokens are held against it when they come, those of open
    connections by the sweep."""

    def __init__(self) -> None:
        self._not_before: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._not_before)

    def not_before(self, sub: str) -> float | None:
        """From when on the tokens of a `sub` count, seconds since the epoch; None: it is not revoked."""
        return self._not_before.get(sub)

    def update(self, entries: Mapping[str, float | None]) -> None:
        """Take entries in: the time, or None where an entry was deleted."""
        for sub, not_before in entries.items():
            if not_before is None:
                self._not_before.pop(sub, None)
            else:
                self._not_before[sub] = not_before

    def replace(self, entries: Mapping[str, float]) -> None:
        """Take the whole bucket in: what it does not hold is not revoked any more."""
        self._not_before = dict(entries)

    def refuses(self, principal: Principal) -> bool:
        """Whether this principal's token was issued before its `sub` was revoked."""
        not_before = self._not_before.get(principal.sub)
        return not_before is not None and not principal.issued_at >= not_before  # what is no time (NaN) is refused too
