"""Whatever headers and subjects a publisher gives an event: nobody loses another one by it, and nothing is forged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from nats.aio.client import Client

from tests.auth.test_hostile_bucket import HEADERS, publish_raw
from tests.conftest import StartGateway
from tests.support.flow import store
from tests.support.nats_server import NatsServer
from tests.support.sse import SseClient
from tests.support.ws import ws_client

ConnectNats = Callable[[str], Awaitable[Client]]

FORGED = [
    b'0\r\n\r\nMSG live.repo.1.forged 1 9\r\n{"n":666}\r\n',
    b'0\r\n\r\nHMSG live.repo.1.forged 1 12 21\r\nNATS/1.0\r\n\r\n{"n":666}\r\n',
    b" 5\r\n",
    b"7\r\n\r\n",
]
"""Headers that a parser which does not stay in its line takes for the protocol."""


async def test_events_with_hostile_headers(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats
) -> None:
    """Headers like an answer of the server, like its own block, like the protocol: each event comes once and in order,
    live and from the stream, over the connections that were there from the start."""
    gateway = await start_gateway(nats_url=own_nats.url)
    nc = await connect_nats(own_nats.url)
    # A header of one byte is left out: where a stream republishes, nats-server 2.15.1 itself dies of it.
    headers = [each for each in [*HEADERS, *FORGED] if len(each) > 1]
    expected = list(range(len(headers) + 2))
    async with SseClient(gateway.url, "repo.>") as live:
        await live.ready()
        await store(nc, ["repo.1.x"], 1)
        events = [(b"repo.1.x", each, b'{"n":%d}' % (n + 1)) for n, each in enumerate(headers)]
        await publish_raw(own_nats, events)
        await store(nc, ["repo.1.x"], 1, begin=expected[-1])
        assert [(await live.next_message()).json()["n"] for _ in expected] == expected
    restarted = await start_gateway(nats_url=own_nats.url, WARM_S=0)
    async with SseClient(restarted.url, "repo.>", query={"since": "all", "until": "head"}) as stored:
        got = [event.json()["n"] for event in await stored.rest() if not event.type.startswith("natsgate.")]
        assert got == expected
    for each in (gateway, restarted):
        assert each.metrics().total("natsgate_nats_reconnects_total") == 0


SUBJECTS = [
    *(
        b"repo.1.a%bb" % byte
        for byte in (b"\v", b"\f", b"\0", b"\x1c", b"\x7f", b"\x85", b"\xff", "\u2028".encode(), b'"')
    ),
    b"repo.1.a\v9\f3",
    b"repo.1.\v",
    b"repo.1." + b"x" * 3500,
]
"""Subjects that nats-server takes as one word, and Python or JavaScript may not."""


@pytest.mark.parametrize("size", [0, 6000], ids=["small", "larger than a line of the protocol"])
async def test_events_under_hostile_subjects(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, size: int
) -> None:
    """Each of them comes, and what comes behind it, over the connections that were there from the start."""
    gateway = await start_gateway(nats_url=own_nats.url)
    nc = await connect_nats(own_nats.url)
    expected = list(range(len(SUBJECTS) + 1))
    async with SseClient(gateway.url, "repo.>") as page, ws_client(gateway.ws_url) as board:
        await page.ready()
        await board.subscribe("repo.>")
        for n, subject in enumerate(SUBJECTS):
            await publish_raw(own_nats, [(subject, b"NATS/1.0\r\n\r\n", b'{"n":%d,"pad":"%b"}' % (n, b"x" * size))])
        await store(nc, ["repo.1.x"], 1, begin=expected[-1])
        assert [(await page.next_message()).json()["n"] for _ in expected] == expected
        ops = [await board.event() for _ in expected]
    assert [op["event"]["n"] for op in ops] == expected
    assert ops[0]["subject"] == "repo.1.a\vb"
    metrics = gateway.metrics()
    assert metrics.total("natsgate_nats_reconnects_total") == metrics.total("natsgate_events_dropped_total") == 0
