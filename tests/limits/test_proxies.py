"""Whose address counts behind proxies: the right-most hop that is not one of ours."""

from __future__ import annotations

import asyncio

from tests.conftest import StartGateway
from tests.limits.counts import until_counts, until_nobody
from tests.limits.refusals import Asking, refused, refused_stream
from tests.support.raw_ws import RawWebSocket
from tests.support.sse import SseClient
from tests.support.tcp import TcpStream

FEED = "repo.limits.>"
REFUSED = "limit_connections"


def via(*hops: str) -> dict[str, str]:
    """The header that proxies append to."""
    return {"X-Forwarded-For": ", ".join(hops)}


async def test_each_client_behind_a_trusted_proxy_counts_as_itself(start_gateway: StartGateway) -> None:
    """By the address that our outermost proxy saw, whatever the client claims to its left; with a port or in brackets;
    a /64 of IPv6 is one."""
    gateway = await start_gateway(MAX_CONNECTIONS_PER_IP=1, TRUSTED_PROXIES="127.0.0.1, 10.0.0.0/8")
    clients = [
        (via("203.0.113.9"), via("198.51.100.1", "203.0.113.9:4711")),
        (via("203.0.113.10", "10.1.2.3"), via("10.9.9.9", "203.0.113.10", "10.0.0.1", "10.1.2.3")),
        (via("2001:db8::1"), via("[2001:db8::ffff:2]:443")),
        (via("2001:db8:0:1::1"), via("2001:db8:0:1:9::1%eth0")),
        (via("203.0.113.11"), via("unknown", "::ffff:203.0.113.11")),
    ]
    for first, again in clients:
        async with SseClient(gateway.url, FEED, headers=first) as page:
            await page.ready()
            await refused(gateway, Asking(headers=again), REFUSED, status=429)
            async with RawWebSocket(gateway.url, headers=dict(via("192.0.2.77"))) as other:
                await other.subscribe(FEED)
                await until_counts(gateway, connections=2, addresses=2)
    remotes = {line["remote"] for line in gateway.logs("connection_opened")}
    assert remotes == {"203.0.113.9", "203.0.113.10", "2001:db8::1", "2001:db8:0:1::1", "203.0.113.11", "192.0.2.77"}
    await until_nobody(gateway)


async def test_what_is_no_address_counts_as_the_proxy(start_gateway: StartGateway) -> None:
    """A proxy of ours would not have written it: nobody gets a count of his own by it, and the log shows the proxy."""
    gateway = await start_gateway(MAX_CONNECTIONS_PER_IP=1, TRUSTED_PROXIES="127.0.0.0/8")
    async with SseClient(gateway.url, FEED, headers=via("203.0.113.9", "unknown")) as page:
        await page.ready()
        for nonsense in ("1.2.3", "203.0.113.9;x", "", "a" * 3000, "[::1", "203.0.113.9 10.0.0.1"):
            await refused_stream(gateway, Asking(headers=via("203.0.113.8", nonsense)), REFUSED)
        await refused_stream(gateway, Asking(), REFUSED)
    assert {line["remote"] for line in gateway.logs("connection_opened")} == {"127.0.0.1"}


async def test_who_is_no_proxy_of_ours_is_not_believed(start_gateway: StartGateway) -> None:
    """A client that writes the header itself is counted, and logged, by the address that it has."""
    gateway = await start_gateway(MAX_CONNECTIONS_PER_IP=1, TRUSTED_PROXIES="10.0.0.0/8")
    async with SseClient(gateway.url, FEED, headers=via("203.0.113.9")) as page:
        await page.ready()
        await refused(gateway, Asking(headers=via("203.0.113.10")), REFUSED, status=429)
    (line,) = gateway.logs("connection_opened")
    assert line["remote"] == "127.0.0.1"
    (line,) = gateway.logs("request_rejected")
    assert (line["reason"], line["remote"]) == (REFUSED, "127.0.0.1")


async def test_a_trailer_is_no_header(start_gateway: StartGateway) -> None:
    """A proxy appends to the header and passes trailers on: what stands in those is the client's own word."""
    gateway = await start_gateway(MAX_CONNECTIONS_PER_IP=1, TRUSTED_PROXIES="127.0.0.1")
    request = (
        "GET /events?subject=repo.limits.%3E HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.9\r\n"
        "Transfer-Encoding: chunked\r\n\r\n0\r\nX-Forwarded-For: 203.0.113.77\r\n\r\n"
    )
    async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
        await tcp.send(request.encode())
        await tcp.read_until(b"natsgate.ready")
        await refused_stream(gateway, Asking(headers=via("203.0.113.9")), REFUSED)
    (line,) = gateway.logs("connection_opened")
    assert line["remote"] == "203.0.113.9"
