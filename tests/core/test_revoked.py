"""Revoked users: keys that never collide, times that are times, a table that forgets nothing on hearsay."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.ledger import HEARD_BYTES, Content, Ledger
from gateway.core.revoked import (
    MAX_KEY_CHARS,
    PREFIX,
    Entry,
    Revoked,
    format_not_before,
    key_of,
    parse_not_before,
    read_entry,
    split_headers,
    sub_of,
)
from gateway.core.rights import Principal

SUBS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(SUBS)
def test_every_sub_has_a_key(sub: str) -> None:
    """The key leads back to the `sub`, and is one that KV clients take: one token, no wildcard."""
    key = key_of(sub)
    assert sub_of(key) == sub
    assert re.fullmatch(r"[-_=A-Za-z0-9]+", key)


@given(st.text(max_size=12) | st.from_regex(r"[a=][=A-F0-9a-f]{1,8}", fullmatch=True))
def test_two_keys_never_mean_one_sub(key: str) -> None:
    """A key is that of its `sub`, or nobody's: what one entry says cannot be lifted by another."""
    sub = sub_of(key)
    assert sub is None or key_of(sub) == key


@pytest.mark.parametrize(
    "key", ["", "a.b", "=61", "=2f", "=", "=ZZ", "a b", "*", ">", "=FF", "=ED=A0=80", "é", "a" * 1025]
)
def test_keys_of_nobody(key: str) -> None:
    """Not encoded, not canonical, not UTF-8, too long."""
    assert sub_of(key) is None


def test_the_longest_key() -> None:
    """OpenID Connect's longest `sub` has a key, whatever it is made of."""
    assert len(key_of("=" * 255)) <= MAX_KEY_CHARS
    assert sub_of("a" * MAX_KEY_CHARS) == "a" * MAX_KEY_CHARS


@pytest.mark.parametrize(
    ("value", "time"),
    [
        (b"0", 0.0),
        (b"1767225600", 1767225600.0),
        (b"1767225600.25", 1767225600.25),
        (b" 1767225600\n", 1767225600.0),
        (b"2026-01-01T00:00:00Z", 1767225600.0),
        (b"2026-01-01T01:00:00+01:00", 1767225600.0),
        (b"2026-01-01T00:00:00.5Z", 1767225600.5),
        (b"2026-01-01T00:00:00.123456789Z", 1767225600.123456),
        (b"", None),
        (b"2026-01-01", None),
        (b"2026-01-01T00:00:00", None),
        (b"2026-02-30T00:00:00Z", None),
        (b"1767225600000", None),
        (b"-1", None),
        (b"1e9", None),
        (b"nan", None),
        (b"\xff", None),
        ("٣".encode(), None),
        (b"0" * 65, None),
    ],
)
def test_values_that_are_times(value: bytes, time: float | None) -> None:
    """Seconds since the epoch, and RFC 3339 with an offset; milliseconds and local times are not guessed at."""
    assert parse_not_before(value) == time


@given(st.floats(0, 999_999_999_999).map(lambda time: round(time, 3)) | st.integers(0, 10**12 - 1).map(float))
def test_a_written_time_is_read_again(time: float) -> None:
    """What is written is a time to the microsecond, also beyond the calendar's end."""
    read = parse_not_before(format_not_before(time).encode())
    assert read is not None
    assert abs(read - time) < (1e-5 if time < 253402300800 else 1)


def test_deletions_are_told_by_headers() -> None:
    """Those of KV clients, and the server's own when an entry expires; not by a value, nor by other operations."""

    def not_before(headers: bytes) -> float | None:
        return read_entry(f"{PREFIX}alice".encode(), headers, b"5", written_at=7.0).not_before

    for line in (
        b"KV-Operation: DEL",
        b"KV-Operation:PURGE",
        b"X: y\r\nKV-Operation: DEL",
        b"Nats-Marker-Reason: MaxAge",
    ):
        assert not_before(b"NATS/1.0\r\n" + line + b"\r\n\r\n") is None
    for line in (b"KV-Operation: PUT", b"X-KV-Operation: DEL", b"X: KV-Operation: DEL", b""):
        assert not_before(b"NATS/1.0\r\n" + line + b"\r\n\r\n") == 5.0
    assert not_before(b"") == 5.0


def test_the_streams_own_headers_are_the_last() -> None:
    """A publisher's `Nats-Time-Stamp` or `Nats-Stream` is not the stream's."""
    own = b"NATS/1.0\r\nNats-Stream: X\r\nNats-Time-Stamp: 1999-01-01T00:00:00Z\r\n"
    block = b"Nats-Stream: KV\r\nNats-Subject: s\r\nNats-Time-Stamp: 2026-01-01T00:00:00.123456789Z\r\n\r\n"
    assert split_headers(own + block) == (own, 1767225600.123456)
    assert split_headers(b"")[1] is None
    assert split_headers(b"Nats-Stream: KV\r\nNats-Time-Stamp: soon\r\n\r\n")[1] is None


def test_tokens_are_refused_by_when_they_were_issued() -> None:
    """Before the time: refused, as are tokens that do not say. At it or later: taken. Others are not concerned."""
    table = Revoked()
    table.update({"alice": 100.0})

    def refused(sub: str, issued_at: float) -> bool:
        return table.refuses(Principal(sub=sub, subscribe=(), issued_at=issued_at))

    assert refused("alice", 99)
    assert refused("alice", 0)
    assert refused("alice", float("nan"))
    assert not refused("alice", 100)
    assert not refused("alice", 101)
    assert not refused("bob", 0)
    table.update({"alice": None})
    assert not refused("alice", 0)


SUB = st.sampled_from(["a", "b", "c"])
TIME = st.integers(1, 5).map(float)


@given(st.lists(st.tuples(st.sampled_from(["stored", "lost", "read", "whole", "settle"]), SUB, st.none() | TIME)))
def test_the_table_is_true_after_reading_and_safe_before(steps: list[tuple[str, str, float | None]]) -> None:
    """Puts and deletions, stored or not, that are heard; readings of what is new, or of everything; and time.

    At every moment: whoever is revoked in what was read last is revoked, at least as far. After a whole reading and
    the time in which unproven puts count: exactly what is stored."""
    table = Revoked()
    ledger = Ledger(table)
    stored: dict[str, float | None] = {}
    new: dict[str, float | None] = {}
    read: dict[str, float | None] = {}
    clock = 0.0

    def content(entries: dict[str, float | None]) -> Content:
        return Content(dict(entries))

    for what, sub, time in steps:
        clock += 1
        if what in ("stored", "lost"):
            if what == "stored":
                stored[sub] = new[sub] = time
            ledger.hear(Entry(sub, time, True), at=clock)
        elif what == "read":
            ledger.add(content(new))
            read |= new
            new = {}
        elif what == "whole":
            ledger.replace(content(stored))
            read, new = dict(stored), {}
        else:
            ledger.settle(clock)
        for each, least in read.items():
            now = table.not_before(each)
            assert least is None or (now is not None and now >= least)
    ledger.replace(content(stored))
    ledger.settle(clock + 1)
    assert {sub: table.not_before(sub) for sub in "abc"} == {sub: stored.get(sub) for sub in "abc"}
    assert ledger.heard_bytes == 0
    assert ledger.subjects == len(stored)


def test_a_put_that_is_heard_counts_at_once() -> None:
    """Before anything is read; the later time of what was read and heard; and what is heard ends when it is read."""
    table = Revoked()
    ledger = Ledger(table)
    ledger.hear(Entry("alice", 100.0, True), at=1)
    assert table.not_before("alice") == 100.0
    ledger.hear(Entry("alice", 50.0, True), at=2)
    assert table.not_before("alice") == 100.0
    ledger.add(Content({"alice": 100.0}))
    assert ledger.heard_bytes == 0
    ledger.hear(Entry("alice", 70.0, True), at=3)
    assert table.not_before("alice") == 100.0
    ledger.add(Content({"alice": 70.0}))
    assert table.not_before("alice") == 70.0
    ledger.hear(Entry("alice", None, True), at=4)
    assert table.not_before("alice") == 70.0


def test_what_is_heard_is_bounded() -> None:
    """A flood of puts that are never stored fills a bounded memory; entries that are read count beside it."""
    ledger = Ledger(table := Revoked())
    for n in range(20_000):
        ledger.hear(Entry(f"{n:0100d}", 1.0, True), at=0)
    assert ledger.heard_bytes <= HEARD_BYTES
    assert len(table) < 20_000
    ledger.add(Content({"alice": 1.0}))
    assert table.not_before("alice") == 1.0
