"""/livez, /readyz, /metrics, and how a replica starts before NATS does and ends on SIGTERM."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from nats.aio.client import Client

from tests.conftest import StartGateway, provision
from tests.support.eventually import eventually, wait_until
from tests.support.flow import Flow
from tests.support.gateway import Gateway
from tests.support.http_reply import fetch_async
from tests.support.nats_server import NatsServer
from tests.support.ports import address_of, free_port
from tests.support.producer import flood, publish
from tests.support.raw_ws import RawWebSocket
from tests.support.sse import SseClient
from tests.support.tcp import TcpStream
from tests.support.ws import ws_client

ConnectNats = Callable[[str], Awaitable[Client]]


async def test_livez_and_readyz_of_a_working_gateway(gateway: Gateway) -> None:
    """Both answer 200, /readyz as JSON, neither to be cached."""
    assert (await fetch_async(gateway.host, gateway.port, "/livez")).status == 200
    ready = await fetch_async(gateway.host, gateway.port, "/readyz")
    assert ready.status == 200
    assert ready.headers["content-type"].startswith("application/json")
    ready.json()


async def test_metrics_are_prometheus_text(gateway: Gateway, nc: Client, own_id: str) -> None:
    """The page parses, and what exists so far is there under the names of the contract."""
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse, ws_client(gateway.ws_url) as ws:
        await sse.ready()
        await ws.subscribe(f"repo.{own_id}.>")
        before = await asyncio.to_thread(gateway.metrics)
        await publish(nc, f"repo.{own_id}.x", "{}")
        await sse.next_event()
        await ws.event()
        after = await asyncio.to_thread(gateway.metrics)
    for name, labels in {
        "natsgate_events_received_total": {"root": "repo"},
        "natsgate_deliveries_total": {"transport": "sse"},
    }.items():
        assert after.total(name, **labels) > before.total(name, **labels), name
    assert after.total("natsgate_deliveries_total", transport="ws") > 0
    assert after.total("natsgate_sent_bytes_total", transport="sse") > 0
    assert after.total("natsgate_sent_bytes_total", transport="ws") > 0
    assert after.total("natsgate_nats_connected") == 1
    assert after.total("natsgate_feeds") >= 1
    assert after.total("natsgate_build_info") == 1
    present = {sample.name for sample in after.samples}
    assert {"natsgate_connections", "natsgate_connections_behind", "natsgate_log_bytes"} <= present
    assert {"natsgate_log_events", "natsgate_nats_subscriptions"} <= present


async def test_labels_never_hold_a_subject_or_an_id(gateway: Gateway, nc: Client, own_id: str) -> None:
    """Label values are from closed sets, whatever clients and producers send."""
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        await sse.ready()
        await publish(nc, f"repo.{own_id}.{own_id}", json.dumps({"type": own_id}))
        await sse.next_event()
        await fetch_async(gateway.host, gateway.port, f"/{own_id}")
        async with SseClient(gateway.url, f"planet.{own_id}.>"):
            pass
        page = await fetch_async(gateway.host, gateway.port, "/metrics")
    assert own_id.encode() not in page.body


async def test_metrics_may_listen_elsewhere(start_gateway: StartGateway) -> None:
    """With `METRICS_LISTEN` the page is only there."""
    port = free_port()
    gateway = await start_gateway(METRICS_LISTEN=f"127.0.0.1:{port}")
    assert (await fetch_async("127.0.0.1", port, "/metrics")).status == 200
    assert (await fetch_async(gateway.host, gateway.port, "/metrics")).status == 404


async def test_any_free_port_twice_is_two_ports(start_gateway: StartGateway) -> None:
    """With the same `host:0` for `LISTEN` and `METRICS_LISTEN` there are two ports, and the page is on the second; with
    one and the same port it is among the rest."""
    gateway = await start_gateway(LISTEN="127.0.0.1:0", METRICS_LISTEN="127.0.0.1:0")
    (said,) = gateway.logs("metrics_listening")
    assert (await fetch_async(*address_of(said["url"]), "/metrics")).status == 200
    assert gateway.get("/metrics").status == 404
    same = f"127.0.0.1:{free_port()}"
    gateway = await start_gateway(LISTEN=same, METRICS_LISTEN=same)
    assert gateway.get("/metrics").status == 200


async def test_serve_waits_for_nats_and_the_stream(
    tmp_path: Path, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """Started before NATS, a gateway lives, says why it is not ready, and gets ready by itself."""
    server = NatsServer(tmp_path / "nats")
    gateway = await start_gateway(nats_url=server.url, ready=False)
    assert gateway.get("/livez").status == 200
    unready = gateway.get("/readyz")
    assert unready.status == 503
    assert "nats" in unready.body.decode().lower()
    async with server:

        def says_stream() -> bool:
            reply = gateway.get("/readyz")
            return reply.status == 503 and "EVENTS" in reply.body.decode()

        await asyncio.to_thread(wait_until, says_stream, "/readyz names the missing stream")
        assert gateway.get("/livez").status == 200
        await asyncio.to_thread(provision, server.url)
        await asyncio.to_thread(gateway.wait_ready)
        nc = await connect_nats(server.url)
        async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
            await sse.ready()
            await publish(nc, f"repo.{own_id}.x", '{"n":1}')
            assert (await sse.next_event()).data == '{"n":1}'
        await nc.close()


async def test_clients_that_come_before_nats_wait_and_are_served(
    tmp_path: Path, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """While NATS is away new clients are accepted; when it comes they get `ready` and events."""
    server = NatsServer(tmp_path / "nats")
    gateway = await start_gateway(nats_url=server.url, ready=False)
    async with (
        SseClient(gateway.url, f"repo.{own_id}.>") as sse,
        RawWebSocket(gateway.url) as ws,
        server,
    ):
        assert sse.status == 200
        await asyncio.to_thread(provision, server.url)

        async def page_ready() -> bool:
            return (await sse.next_event(timeout_s=20)).type == "natsgate.ready"

        await eventually(page_ready, "natsgate.ready", timeout_s=20)
        await ws.subscribe(f"repo.{own_id}.>")
        nc = await connect_nats(server.url)
        await publish(nc, f"repo.{own_id}.x", '{"n":1}')
        assert (await sse.next_message()).data == '{"n":1}'
        assert (await ws.next_op("event"))["event"] == {"n": 1}
        await nc.close()


async def test_connections_outlive_a_restart_of_nats(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """A NATS crash closes no client and fails no probe; afterwards the same connections get events."""
    gateway = await start_gateway(nats_url=own_nats.url)
    nc = await connect_nats(own_nats.url)
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse, RawWebSocket(gateway.url) as ws:
        await sse.ready()
        await ws.subscribe(f"repo.{own_id}.>")
        await publish(nc, f"repo.{own_id}.x", '{"n":1}')
        assert (await sse.next_message()).data == '{"n":1}'
        await nc.close()
        await asyncio.to_thread(own_nats.kill)

        async def disconnected() -> bool:
            metrics = await asyncio.to_thread(gateway.metrics)
            return metrics.total("natsgate_nats_connected") == 0

        await eventually(disconnected, "the gateway knows that NATS is gone")
        assert gateway.get("/livez").status == 200
        assert gateway.get("/readyz").status == 200
        await asyncio.to_thread(own_nats.start)
        again = await connect_nats(own_nats.url)

        async def live_again() -> bool:
            metrics = await asyncio.to_thread(gateway.metrics)
            return metrics.total("natsgate_nats_connected") == 1 and any(
                subject == "live.>" for subject in own_nats.subscriptions()
            )

        await eventually(live_again, "the tap is back", timeout_s=20)
        await publish(again, f"repo.{own_id}.x", '{"n":2}')
        assert (await sse.next_message()).data == '{"n":2}'
        numbers = []
        while 2 not in numbers:
            numbers.append((await ws.next_op("event"))["event"]["n"])
        assert numbers == [1, 2]
        await again.close()


async def test_sigterm_tells_everybody_and_ends_with_0(start_gateway: StartGateway, own_id: str) -> None:
    """SSE ends with `natsgate.closing`, WebSocket with `closing` and 1012; the exit code is 0 within 3 s."""
    gateway = await start_gateway()
    async with AsyncExitStack() as clients:
        sse = await clients.enter_async_context(SseClient(gateway.url, f"repo.{own_id}.>"))
        await sse.ready()
        ws = await clients.enter_async_context(ws_client(gateway.ws_url))
        await ws.subscribe(f"repo.{own_id}.>")
        gateway.terminate()
        events, (close, ops), code = await asyncio.gather(
            sse.rest(), ws.closed(), asyncio.to_thread(gateway.wait, timeout_s=3)
        )
    assert code == 0
    closing = events[-1]
    assert closing.type == "natsgate.closing"
    assert closing.id is None
    data = closing.json()
    assert data.keys() == {"reason", "reconnect", "retry_ms"}
    assert (data["reason"], data["reconnect"]) == ("draining", True)
    assert data["retry_ms"] >= 0
    assert sse.ended, "the last chunk was sent"
    assert ops[-1]["op"] == "closing"
    assert ops[-1].keys() == {"op", "reason", "reconnect", "retry_ms"}
    assert close is not None
    assert close.code == 1012


async def test_sigterm_does_not_wait_for_stalled_or_half_open_clients(
    start_gateway: StartGateway, nc: Client, own_id: str
) -> None:
    """Clients that do not read, or sent half a request, do not hold the process: 0 within 3 s."""
    gateway = await start_gateway()
    async with (
        SseClient(gateway.url, f"repo.{own_id}.>", receive_buffer_bytes=4096) as page,
        RawWebSocket(gateway.url, receive_buffer_bytes=4096) as board,
        TcpStream(gateway.host, gateway.port) as half,
    ):
        await half.send(b"GET /livez HT")
        await page.ready()
        await board.subscribe(f"repo.{own_id}.>")
        await flood(nc, f"repo.{own_id}.x", [json.dumps({"pad": "x" * 8000})] * 600)
        gateway.terminate()
        assert await asyncio.to_thread(gateway.wait, timeout_s=3) == 0


async def test_sigterm_while_nats_is_away_ends_with_0(tmp_path: Path, start_gateway: StartGateway, own_id: str) -> None:
    """A gateway that never saw NATS ends as quickly, its waiting client told."""
    gateway = await start_gateway(nats_url=NatsServer(tmp_path / "nats").url, ready=False)
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        gateway.terminate()
        events, code = await asyncio.gather(sse.rest(), asyncio.to_thread(gateway.wait, timeout_s=3))
    assert code == 0
    assert events[-1].type == "natsgate.closing"


@pytest.mark.parametrize("clients", [0, 300])
async def test_a_busy_gateway_ends_in_time(start_gateway: StartGateway, nc: Client, own_id: str, clients: int) -> None:
    """Without clients or with hundreds of them, amid events, every one is told and the exit is 0 within 3 s."""
    gateway = await start_gateway()
    async with AsyncExitStack() as open_clients:
        pages = [SseClient(gateway.url, f"repo.{own_id}.>") for _ in range(clients)]
        for page in pages:
            await open_clients.enter_async_context(page)
        for page in pages:
            await page.ready()
        await open_clients.enter_async_context(Flow(nc, [f"repo.{own_id}.x"]))
        for page in pages[:1]:
            await page.next_event()
        gateway.terminate()
        *endings, code = await asyncio.gather(
            *(page.rest() for page in pages), asyncio.to_thread(gateway.wait, timeout_s=3)
        )
    assert code == 0
    reasons = {ending[-1].type for ending in endings if isinstance(ending, list)}
    assert reasons == ({"natsgate.closing"} if clients else set())


async def test_log_lines_are_json_and_hold_no_surprise(gateway: Gateway) -> None:
    """With `LOG_FORMAT=json` each line on stderr is an object with an event, and no error was logged."""
    lines = gateway.logs()
    assert all(isinstance(line.get("event"), str) for line in lines)
    assert [line for line in lines if "Traceback" in json.dumps(line)] == []
