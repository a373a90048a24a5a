"""A stream ends when its token does, and a client with a newer one goes on as if nothing had been."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest
from nats.aio.client import Client

from tests.conftest import ShareGateway
from tests.support.crowd import Crowd
from tests.support.eventually import eventually
from tests.support.flow import Flow
from tests.support.follower import Follower, assert_same
from tests.support.gateway import Gateway
from tests.support.producer import flood
from tests.support.sse import SseClient
from tests.support.stored import sequence_of, stored
from tests.support.tickets import get_ticket
from tests.support.tokens import JWT, bearer, claims, sign, token
from tests.support.ws import ws_client

STREAMS = 200


@pytest.fixture(scope="module")
def strict(share_gateway: ShareGateway) -> Gateway:
    """A gateway for which no clock is wrong: what has expired is refused at once."""
    return share_gateway(JWT | {"JWT_LEEWAY_S": 0, "MAX_CONNECTIONS_PER_SUB": 0})


async def test_both_transports_end_with_the_token(strict: Gateway, own_id: str) -> None:
    """At `exp`, and not before it, a stream is told `token_expired` with leave to come back, and a WebSocket is closed
    with 3000."""
    content = claims(subscribe=[f"repo.{own_id}.>"], ttl_s=2)
    headers = bearer(sign(content))
    async with (
        SseClient(strict.url, f"repo.{own_id}.>", headers=headers) as sse,
        ws_client(strict.ws_url, headers=headers) as ws,
    ):
        await sse.ready()
        await ws.subscribe(f"repo.{own_id}.>")
        closing = await sse.next_event()
        assert time.time() >= content["exp"]
        assert closing.type == "natsgate.closing"
        assert closing.json()["reason"] == "token_expired"
        assert closing.json()["reconnect"] is True
        assert await sse.rest() == []
        close, ops = await ws.closed()
        assert close is not None
        assert (close.code, close.reason) == (3000, "token_expired")
        assert [op["op"] for op in ops] == ["closing"]
        assert ops[0]["reconnect"] is True


async def test_a_client_that_does_not_read_ends_too(strict: Gateway, nc: Client, own_id: str) -> None:
    """A stream whose client stalls does not outlive its token."""
    headers = bearer(token(subscribe=[f"repo.{own_id}.>"], ttl_s=2))
    before = (await asyncio.to_thread(strict.metrics)).by("natsgate_connections_closed_total", "reason")
    sse = SseClient(strict.url, f"repo.{own_id}.>", headers=headers, receive_buffer_bytes=4096)
    async with sse:
        await sse.ready()
        pad = "x" * 50_000
        await flood(nc, f"repo.{own_id}.x", [f'{{"pad":"{pad}"}}'] * 40)

        async def ended() -> bool:
            closed = (await asyncio.to_thread(strict.metrics)).by("natsgate_connections_closed_total", "reason")
            return closed.get("token_expired", 0) == before.get("token_expired", 0) + 1

        await eventually(ended, "the stalled stream has ended with token_expired")


async def test_streams_of_one_token_end_one_after_another(strict: Gateway, own_id: str) -> None:
    """Two hundred streams whose tokens end in the same second end spread over about two, none before it: their clients
    do not come back all at once."""
    content = claims(subscribe=[f"repo.{own_id}.>"], ttl_s=4)
    ticket = await get_ticket(strict, sign(content))
    targets = [(f"repo.{own_id}.>", "")] * STREAMS
    async with Crowd(strict.url, targets, query=f"&ticket={ticket}") as crowd:
        await crowd.until_ready()
        await crowd.until_lost()
        assert all(member.closings == 1 for member in crowd.members)
        ends = sorted(member.lost_at for member in crowd.members)
    assert ends[0] >= content["exp"]
    assert ends[-1] - ends[0] > 1.0
    at_once = max(Counter(int(end * 4) for end in ends).values())
    assert at_once < STREAMS * 0.6, "most of them ended within a quarter of a second"


async def test_an_eventsource_with_fresh_cookies_loses_nothing(strict: Gateway, nc: Client, own_id: str) -> None:
    """A bare EventSource whose cookie is refreshed meanwhile comes back by itself each time its token ends, and hears
    every event once; when the cookie is refreshed no more it gets 401, and stops."""
    rights = [f"repo.{own_id}.>"]
    jar = {"Cookie": ""}
    signed_in = True

    def cookies() -> dict[str, str]:
        if signed_in:  # the page's application has refreshed it a moment ago
            ttl_s = 2 if page.connects < 2 else 5
            jar["Cookie"] = f"natsgate_token={token(subscribe=rights, ttl_s=ttl_s)}"
        return jar

    page = Follower(lambda: strict.url, *rights, headers=cookies)
    async with page, Flow(nc, [f"repo.{own_id}.x"], pause_s=0.02) as flow:
        await page.until_ready(3)
        signed_in = False
        await flow.stop()
        # What comes while the first connection is made may be told before its `ready`.
        began = min(sequence_of(page.told_of("ready")[0]["cursor"]), page.sequences[0] - 1)
        expected = await stored(nc, *rights, after=began)
        await page.until_heard(len(expected))
        assert_same(page.heard, expected)
        assert {closing["reason"] for closing in page.told_of("closing")} == {"token_expired"}
        refused = await page.until_refused()
    assert refused.status == 401
    assert "expired" in refused.problem()["detail"]
    assert page.connects == 3
