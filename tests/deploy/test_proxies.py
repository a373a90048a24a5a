"""nginx and HAProxy before two real replicas, with the files of deploy/: what a client gets through them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
from nats.aio.client import Client

from tests.deploy.conftest import Front, FrontFactory
from tests.deploy.proxy import Certificate, Nginx, Proxy
from tests.deploy.recorder import BEGINNING, Recorder
from tests.deploy.tls_relay import TlsRelay
from tests.support.eventually import eventually
from tests.support.flow import Flow
from tests.support.follower import Follower, assert_same
from tests.support.ports import free_port
from tests.support.producer import publish
from tests.support.sse import SseClient
from tests.support.stored import stored
from tests.support.tcp import TcpStream
from tests.support.ws import ws_client

pytestmark = pytest.mark.slow

CLIENT = "127.0.0.77"
"""The whole of 127.0.0.0/8 is this machine: an address to be told apart from the proxy's."""


async def test_an_event_passes_at_once_over_sse(front: Front, nc: Client, own_id: str) -> None:
    """The stream's first bytes and a single small event arrive while the stream goes on: nothing is held back."""
    async with SseClient(front.relay.url, f"repo.{own_id}.>") as sse:
        assert sse.headers["content-type"].startswith("text/event-stream")
        await sse.ready()
        await publish(nc, f"repo.{own_id}.x", '{"n":1}')
        assert (await sse.next_message()).data == '{"n":1}'
        assert not sse.ended


async def test_an_event_passes_at_once_over_websocket(front: Front, nc: Client, own_id: str) -> None:
    """The handshake upgrades with its subprotocol, and frames pass both ways one by one."""
    async with ws_client(front.relay.ws_url) as ws:
        assert ws.connection.subprotocol == "natsgate.v1"
        await ws.subscribe(f"repo.{own_id}.>")
        await publish(nc, f"repo.{own_id}.x", '{"n":1}')
        assert (await ws.event())["event"] == {"n": 1}


async def test_what_a_replica_gets_to_see(
    stack: AsyncExitStack, proxy_kind: type[Proxy], certificate: Certificate, tmp_path: Path
) -> None:
    """The client's address comes last in X-Forwarded-For, behind what the client claims; the host is the browser's,
    port included; the scheme is https. The first bytes pass though nothing in the answer asks for it."""
    recorder = await stack.enter_async_context(Recorder())
    proxy = proxy_kind(tmp_path / proxy_kind.name, certificate, [recorder.port, recorder.port])
    await asyncio.to_thread(stack.enter_context, proxy)
    relay = await stack.enter_async_context(TlsRelay(proxy.port, certificate.authority, address=CLIENT))
    tcp = await stack.enter_async_context(TcpStream("127.0.0.1", relay.port))
    await tcp.send(b"GET /events?subject=a HTTP/1.1\r\nHost: localhost:8443\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n")

    async with asyncio.timeout(10):
        await tcp.read_until(BEGINNING)
    forwarded = [part.strip() for value in recorder.headers("X-Forwarded-For") for part in value.split(",")]
    assert forwarded == ["1.2.3.4", CLIENT]
    assert recorder.headers("X-Forwarded-Proto") == ["https"]
    assert recorder.headers("Host") == ["localhost:8443"]
    assert "close" not in recorder.headers("Connection")
    assert recorder.requests[0].startswith("GET /events?subject=a HTTP/1.1\r\n")


async def test_the_gateway_takes_the_clients_address(start_front: FrontFactory, own_id: str) -> None:
    """With the proxy trusted, MAX_CONNECTIONS_PER_IP counts clients by their own addresses, whatever they claim."""
    front = await start_front(TRUSTED_PROXIES="127.0.0.1", MAX_CONNECTIONS_PER_IP=2)
    other = await start_front.relay(front.proxy, address=CLIENT)
    forged = {"X-Forwarded-For": "9.9.9.9"}
    async with AsyncExitStack() as clients:
        ended = 0
        for relay in (front.relay, other):
            for _ in range(6):  # least connections: three each to two replicas, which count for themselves
                sse = SseClient(relay.url, f"repo.{own_id}.>", headers=forged)
                await clients.enter_async_context(sse)
                ended += (await sse.next_event()).type == "natsgate.closing"
    assert ended == 4


async def test_connections_go_where_there_are_fewest(front: Front, own_id: str) -> None:
    """Of two dozen streams each replica holds about half."""
    async with AsyncExitStack() as clients:
        counts: Counter[str] = Counter()
        for _ in range(24):
            sse = await clients.enter_async_context(SseClient(front.relay.url, f"repo.{own_id}.>"))
            counts[(await sse.ready()).json()["replica"]] += 1
    assert set(counts) == {"one", "two"}
    assert min(counts.values()) >= 8


async def test_a_killed_replica_is_left_at_once(front: Front, nc: Client, own_id: str) -> None:
    """Clients of a replica that is killed under a flow are on the other one, and nothing is lost or doubled; new
    clients do not meet the dead one either."""
    subject = f"repo.{own_id}.x"
    async with AsyncExitStack() as clients:
        followers = [Follower(lambda: front.relay.url, f"repo.{own_id}.>") for _ in range(10)]
        for follower in followers:
            await clients.enter_async_context(follower)
            await follower.until_ready()
        assert {each.told_of("ready")[-1]["replica"] for each in followers} == {"one", "two"}
        async with Flow(nc, [subject], pause_s=0.02) as flow:
            await flow.more(50)
            front.replicas["one"].kill()
            for _ in range(10):
                async with SseClient(front.relay.url, f"repo.{own_id}.>") as sse:
                    event = await sse.next_event()
                    while not event.type.startswith("natsgate."):  # the flow goes on
                        event = await sse.next_event()
                    assert event.type == "natsgate.ready", event
                    assert event.json()["replica"] == "two"
            await flow.more(100)
        expected = await stored(nc, subject)
        for follower in followers:
            await follower.until_heard(len(expected))
            assert_same(follower.heard, expected)
            assert follower.told_of("gap") == []
            assert follower.told_of("ready")[-1]["replica"] == "two"


async def test_a_websocket_of_a_killed_replica_ends(front: Front, own_id: str) -> None:
    """The client learns at once that its replica is gone, and comes back to the other one."""
    async with ws_client(front.relay.ws_url) as ws:
        mine = ws.hello["replica"]
        await ws.subscribe(f"repo.{own_id}.>")
        front.replicas[mine].kill()
        close, _ = await ws.closed()
        assert close is None, "a killed process says nothing"
    async with ws_client(front.relay.ws_url) as again:
        assert again.hello["replica"] != mine


async def test_a_roll_loses_nothing(start_front: FrontFactory, nc: Client, own_id: str) -> None:
    """One replica after the other is ended with SIGTERM and started anew at its port, under a flow: every client has
    every event once, and none was refused."""
    front = await start_front(DRAIN_DELAY_S=2, DRAIN_S=1)
    subject = f"repo.{own_id}.x"
    async with AsyncExitStack() as clients:
        followers = [Follower(lambda: front.relay.url, f"repo.{own_id}.>") for _ in range(10)]
        for follower in followers:
            await clients.enter_async_context(follower)
            await follower.until_ready()
        async with Flow(nc, [subject], pause_s=0.02) as flow:
            for replica in front.replicas.values():
                replica.settings["LISTEN"] = f"127.0.0.1:{replica.port}"
                replica.terminate()
                assert await asyncio.to_thread(replica.wait, timeout_s=20) == 0
                await asyncio.to_thread(replica.start)
                await asyncio.to_thread(replica.wait_ready)
                await flow.more(100)
        expected = await stored(nc, subject)
        for follower in followers:
            await follower.until_heard(len(expected))
            assert_same(follower.heard, expected)
            assert follower.told_of("gap") == []


async def test_without_any_replica_an_eventsource_lives(front: Front, certificate: Certificate, own_id: str) -> None:
    """With both replicas dead, an EventSource gets 200 and a stream that says when to come back (any other status would
    end it for good); others get 503. When a replica is there again, it is used at once."""
    for replica in front.replicas.values():
        replica.kill()
    retries = set()
    for _ in range(20):
        async with SseClient(front.relay.url, f"repo.{own_id}.>") as sse:
            assert sse.status == 200
            (closing,) = await sse.rest()
        assert closing.type == "natsgate.closing"
        assert closing.json() == {"reason": "overloaded", "reconnect": True, "retry_ms": sse.retry_ms}
        retries.add(sse.retry_ms)
    assert len(retries) > 1, "all would come back at once"
    trust = ssl.create_default_context(cafile=certificate.authority)
    async with httpx.AsyncClient(verify=trust, base_url=front.proxy.origin) as client:
        assert (await client.get("/events", params={"subject": "repo.1.x"})).status_code == 503
    replica = front.replicas["one"]
    replica.settings["LISTEN"] = f"127.0.0.1:{replica.port}"
    await asyncio.to_thread(replica.start)
    await asyncio.to_thread(replica.wait_ready)

    async def served() -> bool:
        async with SseClient(front.relay.url, f"repo.{own_id}.>") as again:
            return (await again.next_event()).type == "natsgate.ready"

    await eventually(served, "the replica is used again")


async def test_quiet_streams_outlive_the_time_outs(start_front: FrontFactory, nc: Client, own_id: str) -> None:
    """With the files' 60 s and the heartbeats scaled down alike, streams without any event stay for three times the
    time-outs."""
    front = await start_front(timeout_s=2, HEARTBEAT_S=0.5, WS_PING_S=0.5)
    async with SseClient(front.relay.url, f"repo.{own_id}.>") as sse, ws_client(front.relay.ws_url) as ws:
        await sse.ready()
        await ws.subscribe(f"repo.{own_id}.>")
        for _ in range(12):
            await sse.next_comment()
        await publish(nc, f"repo.{own_id}.x", '{"n":1}')
        assert (await sse.next_message()).data == '{"n":1}'
        assert (await ws.event())["event"] == {"n": 1}


async def test_a_frozen_replica_is_left(start_front: FrontFactory, own_id: str) -> None:
    """A replica that says nothing for as long as the time-out is cut off, and its client comes back to the other."""
    front = await start_front(timeout_s=2, HEARTBEAT_S=0.5)
    async with Follower(lambda: front.relay.url, f"repo.{own_id}.>") as follower:
        await follower.until_ready()
        mine = follower.told_of("ready")[-1]["replica"]
        os.kill(front.replicas[mine].pid, signal.SIGSTOP)
        try:
            await follower.until_ready(2, timeout_s=30)
            assert follower.told_of("ready")[-1]["replica"] != mine
        finally:
            os.kill(front.replicas[mine].pid, signal.SIGCONT)


async def test_metrics_and_probes_stay_inside(front: Front, certificate: Certificate) -> None:
    """/metrics, /livez and /readyz are not to be had through the proxy; refusals of the gateway are."""
    trust = ssl.create_default_context(cafile=certificate.authority)
    async with httpx.AsyncClient(verify=trust, base_url=front.proxy.origin) as client:
        for path in ("/metrics", "/livez", "/readyz", *OTHER_SPELLINGS):
            assert (await client.get(path)).status_code == 404, path
            assert await status_of(front.relay, path) == 404, path
        refusal = await client.get("/events?subject=*.x")
    assert refusal.status_code == 400
    assert refusal.headers["content-type"] == "application/problem+json"


OTHER_SPELLINGS = ("/%6Detrics", "/%6detrics", "/%6D%65%74%72%69%63%73", "/l%69vez", "/ready%7A", "/readyz?x=1")


async def test_metrics_and_probes_are_known_in_every_spelling(
    stack: AsyncExitStack, proxy_kind: type[Proxy], certificate: Certificate, tmp_path: Path
) -> None:
    """The proxy itself keeps them back, encoded too: no replica is asked, however it would take such a path."""
    recorder = await stack.enter_async_context(Recorder())
    proxy = proxy_kind(tmp_path / proxy_kind.name, certificate, [recorder.port, recorder.port])
    await asyncio.to_thread(stack.enter_context, proxy)
    relay = await stack.enter_async_context(TlsRelay(proxy.port, certificate.authority))
    for path in OTHER_SPELLINGS:
        assert await status_of(relay, path) == 404, path
    assert recorder.requests == []
    assert await status_of(relay, "/%65vents") == 200
    assert [each.partition(" HTTP")[0] for each in recorder.requests] == ["GET /%65vents"], "as it was written"


async def status_of(relay: TlsRelay, path: str) -> int:
    """The status of an answer to this path, which goes out as it is."""
    async with TcpStream("127.0.0.1", relay.port) as tcp, asyncio.timeout(10):
        await tcp.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return int((await tcp.read_until(b"\r\n")).split(b" ")[1])


async def test_plain_http_is_sent_to_https(front: Front) -> None:
    """Whoever comes over HTTP is told where HTTPS is."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{front.proxy.plain_port}") as client:
        reply = await client.get("/events?subject=repo.1.x", headers={"Host": "localhost"})
    assert reply.status_code == 308
    assert reply.headers["location"] == "https://localhost/events?subject=repo.1.x"


async def test_the_log_has_no_query(front: Front, own_id: str) -> None:
    """The proxy's log says which path, not which query: that may hold a token. Its lines are JSON."""
    async with SseClient(front.relay.url, f"repo.{own_id}.>", query={"access_token": "hush-hush"}) as sse:
        assert sse.status
    await logged(front.proxy, "/events", 1)
    assert "hush" not in front.proxy.output
    assert own_id not in front.proxy.output


async def test_no_log_has_a_query_when_replicas_are_down(front: Front, own_id: str) -> None:
    """No word of a ticket or an access token is in what the proxy says of replicas that are gone, or of a client that
    came over HTTP; the replicas that nginx asked in vain are named."""
    for replica in front.replicas.values():
        replica.kill()
    query = "ticket=hush-hush&access_token=hush-hush"
    for _ in range(3):
        assert await status_of(front.relay, f"/events?{query}&subject=repo.{own_id}.x") == 503
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{front.proxy.plain_port}") as client:
        assert (await client.get(f"/events?{query}")).status_code == 308
    lines = await logged(front.proxy, "/events", 4 if front.proxy.name == "nginx" else 3)
    assert [each["status"] for each in lines].count(503) == 3
    if front.proxy.name == "nginx":
        assert any("502" in str(each["replica_status"]) for each in lines)
        assert 308 in [each["status"] for each in lines], "nginx would log it elsewhere, with its query"
    assert "hush" not in front.proxy.output
    assert own_id not in front.proxy.output


class CrowdedNginx(Nginx):
    """Each worker has connections for its listening sockets, its master and one client, and none for a replica."""

    connections: ClassVar[Mapping[str, str]] = {"worker_connections 32768": "worker_connections 4"}


async def test_no_log_has_a_query_when_connections_run_out(
    stack: AsyncExitStack, certificate: Certificate, tmp_path: Path
) -> None:
    """nginx raises its voice then, and still says nothing of the query."""
    proxy = CrowdedNginx(tmp_path / "nginx", certificate, [free_port(), free_port()])
    await asyncio.to_thread(stack.enter_context, proxy)
    relay = await stack.enter_async_context(TlsRelay(proxy.port, certificate.authority))
    assert await status_of(relay, "/events?ticket=hush-hush") == 500
    assert [each["status"] for each in await logged(proxy, "/events", 1)] == [500]
    assert "hush" not in proxy.output


async def logged(proxy: Proxy, path: str, count: int) -> list[dict[str, object]]:
    """The log's lines about a path, once there are so many."""

    async def are() -> list[dict[str, object]] | None:
        lines = [json.loads(line) for line in proxy.output.splitlines() if line.startswith("{") and line.endswith("}")]
        found = [each for each in lines if each["path"] == path]
        return found if len(found) >= count else None

    return await eventually(are, f"{count} requests are logged")


async def test_nobody_is_turned_away_while_a_drain_is_announced(start_front: FrontFactory, own_id: str) -> None:
    """For DRAIN_DELAY_S the replica's streams stay and new clients are served. HAProxy asks /readyz, and sends them to
    the other one within that time; nginx does not ask."""
    front = await start_front(DRAIN_DELAY_S=5, DRAIN_S=30)
    async with SseClient(front.relay.url, f"repo.{own_id}.>") as sse:
        mine = (await sse.ready()).json()["replica"]
        front.replicas[mine].terminate()
        others: list[bool] = []

        async def left() -> bool:
            async with SseClient(front.relay.url, f"repo.{own_id}.>") as another:
                others.append((await another.ready()).json()["replica"] != mine)
            return others[-6:] == [True] * 6 or (front.proxy.name == "nginx" and len(others) == 20)

        await eventually(left, "new clients are on the other replica", timeout_s=4.5)
        assert not sse.ended


async def test_who_is_sent_away_is_taken_elsewhere(start_front: FrontFactory, nc: Client, own_id: str) -> None:
    """The clients of a replica that drains end up on the other one, with what comes then. HAProxy, which asks /readyz,
    takes them there at once; nginx, which does not, may send some back to the one that gets emptier, which tells them
    to come again until it has gone."""
    front = await start_front(DRAIN_DELAY_S=2.5, DRAIN_S=5)
    async with AsyncExitStack() as clients:
        followers = [Follower(lambda: front.relay.url, f"repo.{own_id}.>") for _ in range(20)]
        for follower in followers:
            await clients.enter_async_context(follower)
            await follower.until_ready()
        front.replicas["one"].terminate()
        assert await asyncio.to_thread(front.replicas["one"].wait, timeout_s=20) == 0
        if front.proxy.name == "haproxy":
            for follower in followers:
                assert len(follower.told_of("closing")) <= 1
        await publish(nc, f"repo.{own_id}.x", '{"n":1}')
        for follower in followers:
            await follower.until_heard(1)
            assert follower.told_of("ready")[-1]["replica"] == "two"
