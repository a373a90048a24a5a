"""Clients of others, unchanged: httpx-sse and websockets."""

from __future__ import annotations

import json

import httpx
from httpx_sse import aconnect_sse
from nats.aio.client import Client
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.support.gateway import Gateway
from tests.support.producer import publish


async def test_httpx_sse_consumes_the_stream(gateway: Gateway, nc: Client, own_id: str) -> None:
    """httpx-sse gets `natsgate.ready`, then events, named as asked, with their ids."""
    async with (
        httpx.AsyncClient(timeout=10, trust_env=False) as client,
        aconnect_sse(
            client,
            "GET",
            f"{gateway.url}/events",
            params={"subject": [f"repo.{own_id}.>", f"task.{own_id}.>"], "named": "true"},
        ) as source,
    ):
        heard = source.aiter_sse()
        ready = await anext(heard)
        assert ready.event == "natsgate.ready"
        assert ready.id == ready.json()["cursor"]
        for n in range(3):
            await publish(nc, f"repo.{own_id}.x", json.dumps({"type": "doc.created", "title": f"架构 {n}"}))
            event = await anext(heard)
            assert event.event == "doc.created"
            assert event.json() == {"type": "doc.created", "title": f"架构 {n}"}
            assert event.id.rpartition("-")[0] == ready.id.rpartition("-")[0]
            assert event.retry is None
        await source.response.aclose()
        await heard.aclose()


async def test_websockets_consumes_the_ops(gateway: Gateway, nc: Client, own_id: str) -> None:
    """The `websockets` client with its defaults (compression, keepalive pings) gets everything."""
    async with connect(
        f"{gateway.ws_url}/ws", subprotocols=[Subprotocol("natsgate.v1")], ping_interval=0.1, ping_timeout=5
    ) as page:
        assert json.loads(await page.recv())["op"] == "hello"
        await page.send(json.dumps({"op": "subscribe", "ref": 1, "subject": f"repo.{own_id}.>"}))
        assert json.loads(await page.recv())["op"] == "subscribed"
        assert json.loads(await page.recv())["op"] == "ready"
        for n in range(3):
            await publish(nc, f"repo.{own_id}.x", json.dumps({"n": n}))
            assert json.loads(await page.recv())["event"] == {"n": n}
        await (await page.ping())
    assert page.close_code == 1000
