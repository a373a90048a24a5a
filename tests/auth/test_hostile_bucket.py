"""Whatever somebody writes to the bucket's subjects: nothing breaks, and the entries beside it count."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import nats
import pytest
from nats.aio.client import Client
from structlog.testing import capture_logs

from gateway.core.bucket import BUCKET_SHAPE
from gateway.core.revoked import PREFIX
from tests.auth.following import Following, make_bucket
from tests.support.nats_server import NatsServer
from tests.support.tcp import TcpStream


@pytest.fixture
async def nc(bare_nats: NatsServer) -> AsyncIterator[Client]:
    """A client of the server."""
    client = await nats.connect(bare_nats.url)
    yield client
    await client.close()


KEYS = [
    b"a.b",
    b"=61",
    b"=2f",
    b"=ZZ",
    b"=",
    b"%2F",
    b"*x",
    b"x>",
    b"\xff\xfe",
    b"\xc3\xa9",
    b"=FF=FE",
    b"k" * 1500,
    b"=ED=A0=80",
]
"""Keys that mean no `sub`: not encoded, not canonical, no UTF-8, too long."""

HEADERS = [
    b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n",
    b"NATS/1.0 404 No Messages\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
    b"NATS/1.0\r\nNats-Stream: OTHER\r\nNats-Sequence: 99\r\nNats-Subject: $KV.natsgate_revoked.eve\r\n\r\n",
    b"NATS/1.0\r\nNats-Time-Stamp: 2099-01-01T00:00:00Z\r\n\r\n",
    b"NATS/1.0\r\nKV-Operation\r\n:\r\n: x\r\n\r\n",
    b"NATS/1.0\r\nKV-Operation: PUT\r\n\r\n",
    b"\xff\xfe\r\n\r\n",
    b"XATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n",
    b"XATS/1.0 503 x\r\n\r\n",
    b"NATS/1.0  204 EOB\r\n\r\n",
    b"NATS/1.0 204 EOB\n\n",
    b" ",
    b"100\r\n\r\n",
    b"0\r\n\r\nMSG $KV.natsgate_revoked.eve 1 1\r\n5\r\n",
]
"""Headers that look like an answer of the server, like its own block, like the protocol itself, or like nothing."""


async def publish_raw(server: NatsServer, messages: list[tuple[bytes, bytes, bytes]]) -> None:
    """Send (subject, headers, payload) as bytes that no client library would."""
    async with TcpStream("127.0.0.1", server.port) as tcp:
        await tcp.send(b'CONNECT {"verbose":false,"headers":true,"protocol":1}\r\n')
        for subject, headers, payload in messages:
            size = len(headers) + len(payload)
            await tcp.send(b"HPUB %s %d %d\r\n%s%s\r\n" % (subject, len(headers), size, headers, payload))
        await tcp.send(b"PING\r\n")
        await tcp.read_until(b"PONG\r\n")


async def test_hostile_keys_and_headers(bare_nats: NatsServer, nc: Client) -> None:
    """Keys of nobody are passed over, and forged headers change nothing: live and read, each entry has the time that
    its value says."""
    kv = await make_bucket(nc)
    prefix = PREFIX.encode()
    hostile = [(prefix + key, b"NATS/1.0\r\n\r\n", b"100") for key in KEYS]
    hostile += [(prefix + b"h%d" % n, headers, b"100") for n, headers in enumerate(HEADERS)]
    expected = {f"h{n}": 100.0 for n in range(len(HEADERS))} | {"first": 1.0, "last": 2.0}
    await kv.put("first", b"1")
    with capture_logs() as logs:
        async with Following(bare_nats.url) as replica:
            await replica.loaded()
            await publish_raw(bare_nats, hostile)
            await kv.put("last", b"2")
            await replica.holds(expected)
            await replica.until(lambda: not replica.revocations.ledger.heard_bytes, "all of it was read, too")
        async with Following(bare_nats.url) as again:
            await again.loaded()
            await again.holds(expected, timeout_s=0.5)
            assert replica.nats.reconnects == again.nats.reconnects == 0
    assert "nats_callback_failed" not in replica.troubles + again.troubles
    assert {"revocation_key_unknown"} <= {line["event"] for line in logs}
    assert not [line for line in logs if line["log_level"] == "error"]


VALUES = [
    b"",
    b"soon",
    b"shibboleth",
    b"1767225600000",
    b"2026-01-31",
    b"2026-01-31T12:00:00",
    b"-5",
    b"NaN",
    b"1e9",
    b"{}",
    b"\xff" * 40,
    b"9" * 900,
    "٣".encode() * 5,
]


async def test_a_value_that_is_no_time_counts_from_when_it_was_stored(bare_nats: NatsServer, nc: Client) -> None:
    """Whoever wrote it meant to revoke. It is logged, with the key and without the value, and not one by one."""
    kv = await make_bucket(nc)
    for n, value in enumerate(VALUES):
        await kv.put(f"v{n}", value)
    stored = {}
    for n in range(len(VALUES)):
        message = await nc.jetstream().get_last_msg(BUCKET_SHAPE.name, f"{PREFIX}v{n}")
        assert message.time is not None
        stored[f"v{n}"] = message.time.timestamp()
    with capture_logs() as logs:
        async with Following(bare_nats.url) as replica:
            await replica.until(lambda: len(replica.table) == len(VALUES), "all are revoked")
            for sub, at in stored.items():
                not_before = replica.table.not_before(sub)
                assert not_before is not None
                assert abs(not_before - at) < 0.001, sub
            before = time.time()
            await nc.publish(f"{PREFIX}live", b"shibboleth")
            await replica.until(lambda: replica.table.not_before("live") is not None, "revoked at once")
            assert before - 1 <= (replica.table.not_before("live") or 0) <= time.time()
    lines = [line for line in logs if line["event"] == "revocation_time_unreadable"]
    assert len(lines) == 1
    assert lines[0]["key"] == "v0"
    assert "shibboleth" not in str(logs)


async def test_a_flood_of_live_messages_is_bounded(bare_nats: NatsServer, nc: Client) -> None:
    """Puts that nobody stores fill a bounded memory, and no more; the bucket's own entries are followed beside them."""
    kv = await make_bucket(nc)
    wrong = {"Nats-Expected-Last-Subject-Sequence": "77"}
    async with Following(bare_nats.url) as replica:
        await replica.loaded()
        for n in range(8000):
            await nc.publish(f"{PREFIX}{n:0200d}", b"5", headers=wrong)
        await nc.flush(timeout=20)
        await kv.put("alice", b"100")
        await replica.until(lambda: replica.table.not_before("alice") == 100, "alice is revoked")
        assert replica.revocations.ledger.heard_bytes <= 2**20
        assert 1000 < len(replica.table) < 8000
