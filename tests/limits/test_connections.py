"""How many connections there may be: of all, of one user, of one address."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from gateway.settings import Settings
from tests.conftest import StartGateway
from tests.limits.counts import until_counts, until_nobody
from tests.limits.refusals import Asking, refused, refused_stream, rejected, told_and_closed, vanish
from tests.support.gateway import Gateway
from tests.support.http_reply import fetch_async
from tests.support.raw_ws import RawWebSocket, encode_op
from tests.support.sse import SseClient
from tests.support.tokens import JWT, bearer, token

FEED = "repo.limits.>"


def of(user: str) -> dict[str, str]:
    """The header of a user's token."""
    return bearer(token(user, subscribe=[FEED]))


def test_defaults() -> None:
    """The contract names them."""
    settings = Settings(auth="none")
    assert settings.max_connections == 20000
    assert settings.max_connections_per_sub == 50
    assert settings.max_connections_per_ip == 0


async def test_of_all(start_gateway: StartGateway) -> None:
    """`MAX_CONNECTIONS`, whatever their transport: who is one too many is told to come again, others stay, and a place
    that is given up is had by the next one. What is no stream is served all the same."""
    gateway = await start_gateway(MAX_CONNECTIONS=2)
    async with SseClient(gateway.url, FEED) as page:
        await page.ready()
        async with RawWebSocket(gateway.url) as board:
            await board.subscribe(FEED)
            await refused(gateway, Asking(), "limit_connections", status=503)
            assert (await fetch_async(gateway.host, gateway.port, "/readyz")).status == 200
            await board.ping_op()
        await until_counts(gateway, connections=1)
        async with SseClient(gateway.url, FEED) as next_one:
            await next_one.ready()
    await until_nobody(gateway)


async def test_of_one_user(start_gateway: StartGateway) -> None:
    """`MAX_CONNECTIONS_PER_SUB`, over both transports: this user is told, others are not concerned."""
    gateway = await start_gateway(settings=JWT, MAX_CONNECTIONS_PER_SUB=2)
    alice = of("alice")
    async with SseClient(gateway.url, FEED, headers=alice) as page, RawWebSocket(gateway.url, headers=alice) as board:
        await page.ready()
        await board.subscribe(FEED)
        await refused(gateway, Asking(headers=alice), "limit_connections", status=429)
        async with SseClient(gateway.url, FEED, headers=of("bob")) as other:
            await other.ready()
            await until_counts(gateway, connections=3, subs=2, addresses=1)
    await until_nobody(gateway)


async def test_of_one_user_who_says_so_later(start_gateway: StartGateway) -> None:
    """A WebSocket that says who it is in its first message is counted then, and closed when it is one too many."""
    gateway = await start_gateway(settings=JWT, MAX_CONNECTIONS_PER_SUB=1)
    alice = token("alice", subscribe=[FEED])
    async with RawWebSocket(gateway.url) as first, RawWebSocket(gateway.url) as second:
        for board in (first, second):
            await board.send(encode_op(op="auth", ref=1, token=alice))
            await board.next_op("authenticated")
        await told_and_closed(second, "limit_connections")
        await first.send(encode_op(op="auth", ref=2, token=alice))
        await first.next_op("authenticated")
        await first.subscribe(FEED)
        await until_counts(gateway, connections=1, subs=1)
    assert gateway.metrics().total("natsgate_connections_closed_total", transport="ws", reason="limit_connections") == 1
    await until_nobody(gateway)


async def test_of_one_address(start_gateway: StartGateway) -> None:
    """`MAX_CONNECTIONS_PER_IP`, before anybody looks at tokens: also of those who have not said who they are."""
    gateway = await start_gateway(settings=JWT, MAX_CONNECTIONS_PER_IP=2)
    async with RawWebSocket(gateway.url) as nobody, SseClient(gateway.url, FEED, headers=of("alice")) as page:
        await nobody.next_op("hello")
        await page.ready()
        await refused(gateway, Asking(headers=of("bob")), "limit_connections", status=429)
        await refused(gateway, Asking(), "limit_connections", status=429)
    await until_nobody(gateway)


async def test_a_route_is_within_the_limits(start_gateway: StartGateway) -> None:
    """Configured paths are not beside them."""
    route = '[[route]]\nname = "mine"\npath = "/mine/{id}"\nsubjects = ["repo.{id}.>"]\n'
    gateway = await start_gateway(config=route, MAX_CONNECTIONS=1)
    async with SseClient(gateway.url, FEED) as page:
        await page.ready()
        await refused(gateway, Asking("/mine/7"), "limit_connections", status=503)


async def test_zero_is_no_limit(start_gateway: StartGateway) -> None:
    """0 for all three: sixty of one user come in."""
    gateway = await start_gateway(settings=JWT, MAX_CONNECTIONS=0, MAX_CONNECTIONS_PER_SUB=0, MAX_CONNECTIONS_PER_IP=0)
    async with AsyncExitStack() as stack:
        for _ in range(60):
            page = await stack.enter_async_context(SseClient(gateway.url, FEED, headers=of("alice")))
            await page.ready()
        await until_counts(gateway, connections=60, subs=1, addresses=1)
    await until_nobody(gateway)


async def test_a_place_is_free_again_however_a_connection_ends(start_gateway: StartGateway) -> None:
    """By the client, in order or not; by a breach of its; by the server, because the token is over; after a refusal."""
    gateway = await start_gateway(settings=JWT, MAX_CONNECTIONS=2, MAX_CONNECTIONS_PER_SUB=1, MAX_CONNECTIONS_PER_IP=2)
    for end in ("closes", "resets", "breaks the protocol", "has an old token", "is refused"):
        ttl_s = -3 if end == "has an old token" else 60  # within the leeway: it is over in two to four seconds
        alice = bearer(token(f"alice who {end}", subscribe=[FEED], ttl_s=ttl_s))
        bob = of(f"bob while alice {end}")
        async with (
            SseClient(gateway.url, FEED, headers=alice) as page,
            RawWebSocket(gateway.url, headers=bob) as board,
        ):
            await page.ready()
            await board.subscribe(FEED)
            await until_counts(gateway, connections=2, subs=2, addresses=1)
            match end:
                case "resets":
                    await vanish(page)
                    await vanish(board)
                case "breaks the protocol":
                    await board.send(b"\xff" * 20)
                    await board.end()
                case "has an old token":
                    (told,) = await page.rest()
                    assert told.json()["reason"] == "token_expired"
                case "is refused":
                    await refused_stream(gateway, Asking(headers=alice), "limit_connections")
        await until_nobody(gateway)


async def test_who_comes_in_one_moment_does_not_slip_through(start_gateway: StartGateway) -> None:
    """Forty requests at once, and room for five: five are served, the others are told."""
    gateway = await start_gateway(MAX_CONNECTIONS=5)

    async def come() -> tuple[SseClient, str]:
        page = SseClient(gateway.url, FEED)
        await page.open()
        return page, (await page.next_event()).type

    came = await asyncio.gather(*(come() for _ in range(40)))
    assert sorted(kind for _, kind in came) == ["natsgate.closing"] * 35 + ["natsgate.ready"] * 5
    assert rejected(gateway.metrics(), "limit_connections") == 35
    for page, _ in came:
        page.close()
    await until_nobody(gateway)


async def test_reloading_moves_the_limits_and_drops_nobody(start_gateway: StartGateway) -> None:
    """After SIGHUP with a lower limit those inside stay; with a higher one others come in."""
    gateway: Gateway = await start_gateway(config="max_connections = 2\n")
    async with SseClient(gateway.url, FEED) as one, SseClient(gateway.url, FEED) as two:
        await one.ready()
        await two.ready()
        gateway.config_file.write_text("max_connections = 1\n")
        await asyncio.to_thread(gateway.reload)
        await refused_stream(gateway, Asking(), "limit_connections")
        await until_counts(gateway, connections=2)
        gateway.config_file.write_text("max_connections = 3\n")
        await asyncio.to_thread(gateway.reload)
        async with SseClient(gateway.url, FEED) as three:
            await three.ready()
