"""Revoked users: from when on a `sub`'s tokens count, and how that stands in the KV bucket.

An entry's key is the `sub`, every byte outside `A-Z a-z 0-9 _ -` written as `=` and two upper-case hex digits (keys of
NATS KV take no `%`): `alice`, `owner=2Frepo`. Its value is a time: seconds since the epoch, or RFC 3339. Tokens that
were issued before it (`iat`), or do not say when, are refused.
"""

from __future__ import annotations

import re
from datetime import datetime

from gateway.core.rights import Principal

BUCKET = "natsgate_revoked"
"""The KV bucket. Its stream is `KV_natsgate_revoked`, its subjects `$KV.natsgate_revoked.<key>`."""

_SAFE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
_KEY = re.compile(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+")


def key_of(sub: str) -> str:
    """The key of a `sub`."""
    return "".join(chr(byte) if byte in _SAFE else f"={byte:02X}" for byte in sub.encode("utf-8", "surrogatepass"))


def sub_of(key: str) -> str | None:
    """The `sub` of a key; None for a key that is none's."""
    if not _KEY.fullmatch(key):
        return None
    try:
        return re.sub(rb"=([0-9A-F]{2})", lambda hit: bytes.fromhex(hit[1].decode()), key.encode("ascii")).decode()
    except UnicodeDecodeError:
        return None


def parse_not_before(value: bytes) -> float | None:
    """The time in an entry, seconds since the epoch; None when it is none."""
    text = value.decode("utf-8", "replace").strip()
    try:
        if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", text, re.ASCII):
            return float(text)
        time = datetime.fromisoformat(text)
        return time.timestamp() if time.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


class Revoked:
    """What is revoked, as far as this replica knows. New tokens are held against it when they come, those of open
    connections by the sweep."""

    def __init__(self) -> None:
        self._not_before: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._not_before)

    def update(self, entries: dict[str, float | None]) -> None:
        """Take entries in: the time, or None where an entry was deleted."""
        for sub, not_before in entries.items():
            if not_before is None:
                self._not_before.pop(sub, None)
            else:
                self._not_before[sub] = not_before

    def replace(self, entries: dict[str, float]) -> None:
        """Take the whole bucket in: what it does not hold is not revoked any more."""
        self._not_before = dict(entries)

    def refuses(self, principal: Principal) -> bool:
        """Whether this principal's token was issued before its `sub` was revoked."""
        not_before = self._not_before.get(principal.sub)
        return not_before is not None and principal.issued_at < not_before
