"""Whatever headers a publisher gives an event: nobody loses another one by it, and nothing is forged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nats.aio.client import Client

from tests.auth.test_hostile_bucket import HEADERS, publish_raw
from tests.conftest import StartGateway
from tests.support.flow import store
from tests.support.nats_server import NatsServer
from tests.support.sse import SseClient

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
