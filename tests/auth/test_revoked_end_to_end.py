"""A revoked user is out on every replica: connections end, older tokens are refused; newer ones and others are not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path

import pytest
from nats.aio.client import Client

from gateway.core.revoked import BUCKET
from tests.auth.following import make_bucket
from tests.auth.test_bucket_troubles import configuration
from tests.conftest import StartGateway
from tests.support.command import natsgate
from tests.support.eventually import eventually, wait_until
from tests.support.gateway import Gateway, routes
from tests.support.http_reply import fetch_async
from tests.support.nats_proxy import NatsProxy
from tests.support.nats_server import NatsServer
from tests.support.producer import publish
from tests.support.raw_ws import RawWebSocket, encode_text
from tests.support.service import Service
from tests.support.sse import SseClient
from tests.support.stored import stored
from tests.support.tokens import JWT, bearer, token
from tests.support.ws import ws_client

ConnectNats = Callable[[str], Awaitable[Client]]
ALL = ["repo.>"]
ASKED = routes(
    ['name = "asked"', 'path = "/asked/{id}"', 'subjects = ["repo.{id}.>"]', 'authorize = "service"'],
    [
        'name = "board"',
        'path = "/board/{id}"',
        'transports = ["ws"]',
        'framing = "raw"',
        'subjects = ["repo.{id}.>"]',
        'publish = "inbox.board.{type}"',
        'authorize = "service"',
    ],
)
RAW = routes(
    [
        'name = "board"',
        'path = "/board"',
        'transports = ["ws"]',
        'framing = "raw"',
        'subjects = ["repo.1.>"]',
        'publish = "inbox.board.{type}"',
    ]
)


@pytest.fixture
async def proxy(own_nats: NatsServer) -> AsyncIterator[NatsProxy]:
    """The second replica's way to NATS, which can be cut."""
    async with NatsProxy(own_nats.port, prefix="$KV.") as running:
        yield running


async def run(server: NatsServer, *arguments: str) -> str:
    """A command that has to end with 0; what it printed."""
    done = await asyncio.to_thread(natsgate, *arguments, settings={"NATS_URL": server.url}, timeout_s=40)
    assert done.returncode == 0, done
    return done.stdout


async def statuses(gateways: list[Gateway], text: str) -> set[int]:
    """What a token is answered with at each of them."""
    found = set()
    for gateway in gateways:
        async with SseClient(gateway.url, "repo.1.>", headers=bearer(text)) as client:
            found.add(client.status)
    return found


async def revoked_sse(client: SseClient) -> bool:
    """Whether it ends, with that word and no invitation to come back."""
    last = (await client.rest(timeout_s=20))[-1]
    return last.type == "natsgate.closing" and (last.json()["reason"], last.json()["reconnect"]) == ("revoked", False)


async def test_every_replica_ends_them_also_one_that_was_cut_off(
    own_nats: NatsServer, proxy: NatsProxy, start_gateway: StartGateway, connect_nats: ConnectNats
) -> None:
    """Two replicas, one cut off from NATS while alice is revoked. The first one closes her SSE and WebSocket
    connections at once, the second one when it is back; bob's go on. Her old token is refused then, a later one is
    taken, and after `--lift` the old one, too."""
    near = await start_gateway(nats_url=own_nats.url, settings=JWT)
    far = await start_gateway(nats_url=proxy.url, settings=JWT)
    nc = await connect_nats(own_nats.url)
    alice, bob = token("alice", subscribe=ALL), token("bob", subscribe=ALL)
    async with AsyncExitStack() as stack:
        streams, boards, others = [], [], []
        for gateway in (near, far):
            streams.append(await stack.enter_async_context(SseClient(gateway.url, "repo.>", headers=bearer(alice))))
            boards.append(await stack.enter_async_context(ws_client(gateway.ws_url, headers=bearer(alice))))
            others.append(await stack.enter_async_context(SseClient(gateway.url, "repo.>", headers=bearer(bob))))
            await asyncio.gather(streams[-1].ready(), boards[-1].subscribe("repo.>"), others[-1].ready())
        proxy.hold()
        proxy.cut()
        told = await run(own_nats, "revoke", "alice")
        assert await revoked_sse(streams[0])
        close, ops = await boards[0].closed(timeout_s=20)
        assert close is not None
        assert (close.code, close.reason) == (3003, "revoked")
        assert ops[-1]["reason"] == "revoked"
        assert await statuses([near], alice) == {401}
        assert await statuses([far], alice) == {200}, "it cannot know yet"
        proxy.go_on()
        assert await revoked_sse(streams[1])
        close, _ = await boards[1].closed(timeout_s=20)
        assert close is not None
        assert (close.code, close.reason) == (3003, "revoked")
        assert await statuses([near, far], alice) == {401}
        await publish(nc, "repo.1.x", '{"n":1}')
        for each in others:
            assert (await each.next_message()).json() == {"n": 1}
    later = datetime.fromisoformat(told.partition(" before ")[2].split()[0]).timestamp()
    assert await statuses([near, far], token("alice", subscribe=ALL, iat=int(later) - 1)) == {401}
    assert await statuses([near, far], token("alice", subscribe=ALL, iat=int(later))) == {200}
    await run(own_nats, "revoke", "--lift", "alice")

    async def taken() -> bool:
        return await statuses([near, far], alice) == {200}

    await eventually(taken, "the old token is taken again")


async def test_what_a_token_made_is_revoked_with_it(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats
) -> None:
    """A ticket from before is refused, a stream that it opened ends, and a WebSocket that presents the token in its
    first frame, or as a subprotocol, is closed as revoked. So is a token that does not say when it was issued."""
    gateway = await start_gateway(nats_url=own_nats.url, settings=JWT)
    alice = token("alice", subscribe=ALL)
    answer = await fetch_async(gateway.host, gateway.port, "/auth/ticket", method="POST", headers=bearer(alice))
    assert answer.status == 200, answer
    ticket = {"ticket": answer.json()["ticket"]}
    kv = await (await connect_nats(own_nats.url)).jetstream().key_value(BUCKET)
    async with SseClient(gateway.url, "repo.>", query=ticket) as stream:
        await stream.ready()
        await kv.put("alice", str(int(time.time()) + 1).encode())
        assert await revoked_sse(stream)
    async with SseClient(gateway.url, "repo.>", query=ticket) as stream:
        assert stream.status == 401
    for subprotocols in (("natsgate.v1",), ("natsgate.v1", f"natsgate.bearer.{alice}")):
        async with ws_client(gateway.ws_url, subprotocols=subprotocols, hello=False) as ws:
            if len(subprotocols) == 1:
                await ws.send(op="auth", ref=1, token=alice)
            close, _ = await ws.closed()
            assert close is not None
            assert (close.code, close.reason) == (3003, "revoked")
    assert await statuses([gateway], token("alice", subscribe=ALL, iat=None)) == {401}


async def test_a_replica_that_starts_knows_before_it_is_ready(
    own_nats: NatsServer, start_gateway: StartGateway
) -> None:
    """Who was revoked before it started is refused from its first ready moment on."""
    alice = token("alice", subscribe=ALL)
    await run(own_nats, "revoke", "alice")
    for _ in range(3):
        gateway = await start_gateway(nats_url=own_nats.url, settings=JWT)
        assert await statuses([gateway], alice) == {401}


@pytest.mark.parametrize("path", ["/asked/1?since=all", "/board/1?since=all"], ids=["sse", "raw"])
async def test_who_is_revoked_while_a_service_is_asked_gets_nothing(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, path: str
) -> None:
    """A token that was good when it came, and is revoked before the service has answered, opens nothing: not one event,
    and what was said with the handshake is not stored."""
    nc = await connect_nats(own_nats.url)
    bucket = await make_bucket(nc)
    gateway = await start_gateway(nats_url=own_nats.url, settings=JWT, config=ASKED)
    await publish(nc, "repo.1.x", '{"n":1}')
    alice = bearer(token("alice", subscribe=ALL))
    client: SseClient | RawWebSocket
    if path.startswith("/asked"):
        client = SseClient(gateway.url, target=path, headers=alice)
    else:
        client = RawWebSocket(gateway.url, path, subprotocol=None, headers=alice, early=encode_text('{"type":"said"}'))
    async with Service(nc, path.split("/")[1], {"allow": True}) as service:
        service.opens.clear()
        opening = asyncio.create_task(client.open())
        await service.until_asked(1)
        await bucket.put("alice", b"%d" % (time.time() + 60))

        async def known() -> bool:
            return (await asyncio.to_thread(gateway.metrics)).total("natsgate_revoked_users") == 1

        await eventually(known, "the gateway knows it")
        service.opens.set()
        await opening
        try:
            if isinstance(client, SseClient):
                assert [each.type for each in await client.rest()] == ["natsgate.closing"]
            else:
                assert (await client.next_frame()).close_code == 3003
        finally:
            client.close()
    assert await stored(nc, "inbox.>") == []


async def test_a_replica_that_cannot_know_is_not_ready(tmp_path: Path, start_gateway: StartGateway) -> None:
    """Its login may not read the bucket: `/readyz` says so, with the mend, and 503."""
    lacking = "$JS.API.DIRECT.GET.KV_natsgate_revoked"
    config = configuration(tmp_path / "nats", lacking, "live.>", "$JS.API.STREAM.INFO.EVENTS")
    async with NatsServer(tmp_path / "nats", arguments=["-c", str(config)]) as server:
        operator = {"NATS_URL": server.url, "NATS_USER": "operator", "NATS_PASSWORD": "pw"}
        for command in (["provision"], ["revoke", "bob"]):
            done = await asyncio.to_thread(natsgate, *command, settings=operator, timeout_s=40)
            assert done.returncode == 0, done
        login = {"NATS_USER": "follower", "NATS_PASSWORD": "pw", **JWT}
        gateway = await start_gateway(nats_url=server.url, settings=login, ready=False)

        def named() -> bool:
            reply = gateway.get("/readyz")
            return reply.status == 503 and lacking in reply.body.decode() and '"usable":true' in reply.body.decode()

        await asyncio.to_thread(wait_until, named, "/readyz names the right that lacks", timeout_s=20)


async def test_nobody_gets_anything_before_it_is_known_who_is_revoked(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats
) -> None:
    """A replica that starts while NATS is away takes clients in, and they wait. When NATS is there, alice, who was
    revoked, is put out before she gets one event, whatever she asked for, and what she said is not stored; bob gets
    it all."""
    nc = await connect_nats(own_nats.url)
    for number in range(20):
        await publish(nc, "repo.1.x", json.dumps({"n": number}))
    await run(own_nats, "revoke", "alice")
    await nc.close()
    await asyncio.to_thread(own_nats.stop)
    gateway = await start_gateway(nats_url=own_nats.url, settings=JWT, config=RAW, ready=False)
    before = int(time.time()) - 60
    alice = bearer(token("alice", subscribe=ALL, publish=["inbox.>"], iat=before))
    bob = bearer(token("bob", subscribe=ALL, iat=before))
    query = {"since": "all"}
    async with (
        SseClient(gateway.url, "repo.>", headers=alice, query=query) as one,
        SseClient(gateway.url, "repo.>", headers=alice, query={"snapshot": "true"}) as two,
        SseClient(gateway.url, "repo.>", headers=bob, query=query) as other,
        RawWebSocket(gateway.url, "/board", subprotocol=None, headers=alice) as board,
    ):
        assert (one.status, two.status, other.status, board.status) == (200, 200, 200, 101)
        await board.send(encode_text('{"type":"said"}'))
        await asyncio.to_thread(own_nats.start)
        assert [(await other.next_message()).json()["n"] for _ in range(20)] == list(range(20))
        for client in (one, two):
            events = [each for each in await client.rest(timeout_s=20) if each.type != "natsgate.state"]
            assert [each.type for each in events] == ["natsgate.closing"]
            assert events[0].json()["reason"] == "revoked"
        assert (await board.close_frame()).close_code == 3003
    nc = await connect_nats(own_nats.url)
    assert await stored(nc, "inbox.>") == []


async def test_a_replica_that_cannot_know_who_is_revoked_serves_nothing(
    tmp_path: Path, start_gateway: StartGateway
) -> None:
    """Where the login may not read the bucket, clients wait, /readyz says what lacks, and nothing is subscribed to."""
    rights = ("$JS.API.STREAM.INFO.EVENTS", "$JS.API.DIRECT.GET.EVENTS", "live.>", "_INBOX.>")
    config = configuration(tmp_path / "nats", "$JS.API.STREAM.INFO.KV_natsgate_revoked", *rights)
    async with NatsServer(tmp_path / "nats", arguments=["-c", str(config)]) as server:
        operator = {"NATS_USER": "operator", "NATS_PASSWORD": "pw"}
        done = await asyncio.to_thread(natsgate, "provision", settings={"NATS_URL": server.url, **operator})
        assert done.returncode == 0, done
        done = await asyncio.to_thread(
            natsgate, "publish", "repo.1.x", '{"n":1}', settings={"NATS_URL": server.url, **operator}
        )
        assert done.returncode == 0, done
        login = {"NATS_USER": "follower", "NATS_PASSWORD": "pw", "LINGER_S": 0}
        gateway = await start_gateway(nats_url=server.url, settings=JWT | login, ready=False)
        async with SseClient(gateway.url, "repo.>", headers=bearer(token("bob", subscribe=ALL))) as client:
            assert client.status == 200

            async def told() -> bool:
                reply = await fetch_async(gateway.host, gateway.port, "/readyz")
                reasons = " ".join(reply.json()["reasons"])
                return reply.status == 503 and "it is not known who is revoked" in reasons

            await eventually(told, "it says so", timeout_s=20)
            metrics = await asyncio.to_thread(gateway.metrics)
            assert metrics.total("natsgate_feeds") == metrics.total("natsgate_connections_behind") == 1
            assert metrics.total("natsgate_nats_subscriptions") <= 1, "no tap beside the bucket's"
            assert metrics.total("natsgate_log_events") == 0
