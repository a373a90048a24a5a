"""Whose connection one is for the limits, and for how long: until its socket is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.conftest import StartGateway
from tests.support.eventually import eventually
from tests.support.raw_ws import PING, RawWebSocket, encode_frame, encode_op
from tests.support.sse import SseClient
from tests.support.tokens import SECRET, bearer, token

FEED = "repo.late.>"


async def test_a_user_gains_no_connection_by_it(start_gateway: StartGateway) -> None:
    """A client that resets its connection while its token is looked at takes nothing from its user's count, and
    `MAX_CONNECTIONS_PER_SUB` holds."""
    gateway = await start_gateway(AUTH="jwt", JWT_SECRET=SECRET, MAX_CONNECTIONS_PER_SUB=2)
    alice = token("alice", subscribe=[FEED])
    # The answer to the ping is what meets the reset: just before the token's turn.
    said = encode_frame(PING) + encode_op(op="auth", ref=1, token=alice)
    async with SseClient(gateway.url, FEED, headers=bearer(alice)) as page:
        await page.ready()
        for _ in range(20):
            async with RawWebSocket(gateway.url) as late:
                await late.next_op("hello")
                await late.send(said)
                late.tcp.abort()

        async def gone() -> bool:
            seen = await asyncio.to_thread(gateway.metrics)
            return seen.total("natsgate_admitted", what="connections") == 1

        await eventually(gone, "the others have gone")
        seen = await asyncio.to_thread(gateway.metrics)
        assert seen.total("natsgate_admitted", what="subs") == 1
        async with SseClient(gateway.url, FEED, headers=bearer(alice)) as second:
            await second.ready()
            async with SseClient(gateway.url, FEED, headers=bearer(alice) | {"Accept": "text/event-stream"}) as third:
                assert (await third.next_event()).json()["reason"] == "limit_connections"


async def test_who_is_ended_and_stays_still_counts(start_gateway: StartGateway) -> None:
    """A connection that was told to go counts against the limits until its socket is gone: by not going nobody gains
    another one."""
    gateway = await start_gateway(AUTH="jwt", JWT_SECRET=SECRET, MAX_CONNECTIONS_PER_SUB=1)
    alice = token("alice", subscribe=[FEED])

    async def admitted() -> dict[str, float]:
        return (await asyncio.to_thread(gateway.metrics)).by("natsgate_admitted", "what")

    async with RawWebSocket(gateway.url, headers=dict(bearer(alice))) as board:
        await board.next_op("hello")
        await board.send(encode_op(op="auth", ref=1, token=token("bob", subscribe=[FEED])))
        assert (await board.close_frame()).close_code == 3003
        assert await admitted() == {"connections": 1, "subs": 1, "addresses": 1}
        async with SseClient(gateway.url, FEED, headers=bearer(alice)) as second:
            assert (await second.next_event()).json()["reason"] == "limit_connections"
    await eventually(lambda: _none(admitted), "it has gone")


async def _none(counts: Callable[[], Awaitable[dict[str, float]]]) -> bool:
    return not any((await counts()).values())
