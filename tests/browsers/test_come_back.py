"""Answers that ask to come back: an EventSource lives on through them, as it would through no error status."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from nats.aio.client import Client

from tests.browsers.conftest import Visit, settings
from tests.conftest import StartGateway
from tests.support.ports import free_port
from tests.support.tokens import claims, jwk, sign

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@asynccontextmanager
async def issuer(port: int) -> AsyncIterator[None]:
    """The issuer of tokens is there and publishes its key."""
    body = json.dumps({"keys": [jwk("RS256", "k1")]}).encode()
    reply = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", port):
        yield


async def test_an_event_source_outlives_an_issuer_that_is_away(
    visit: Visit, start_gateway: StartGateway, nc: Client, own_id: str
) -> None:
    """While the issuer's keys cannot be had, an EventSource, of an allowed origin too, is told `overloaded` and comes
    back by itself; once they are there it is served."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/jwks.json"
    gateway = await start_gateway(settings=settings(visit.site, JWKS_URL=url), ready=False)
    visit.site.gateway = gateway
    content = claims(subscribe=[f"repo.{own_id}.>"])
    visit.site.mint = lambda: sign(content, algorithm="RS256", headers={"kid": "k1"})
    page = await visit.own()
    await page.run("await signIn()")
    page = await visit.sibling()
    script = "watchEvents(args.url, {withCredentials: true})"
    await page.run(script, url=f"{visit.url}/events?subject=repo.{own_id}.>")
    closings = await page.until("natsgate.closing", 2)
    assert {(each["data"]["reason"], each["data"]["reconnect"]) for each in closings} == {("overloaded", True)}
    await page.until("error", 2)
    assert {each["state"] for each in page.reports("error")} == {0}
    assert not page.reports("natsgate.ready")
    async with issuer(port):
        await page.until("natsgate.ready", timeout_s=40)
    await nc.publish(f"repo.{own_id}.x", b'{"n":1}')
    assert (await page.until("message"))[0]["data"] == {"n": 1}
    assert {each.status for each in visit.site.exchanges} == {200}
    metrics = await asyncio.to_thread(gateway.metrics)
    refused = metrics.total("natsgate_requests_rejected_total", reason="overloaded")
    assert refused == len(visit.site.exchanges) - 1 == len(page.reports("natsgate.closing"))
    assert metrics.total("natsgate_connections_opened_total", transport="sse") == 1
