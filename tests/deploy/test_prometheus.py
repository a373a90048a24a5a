"""Prometheus with the files of deploy/ on two replicas at work: it scrapes them, and the dashboard's queries answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.deploy.dashboard import asked, dashboard, queries
from tests.deploy.prometheus import Prometheus
from tests.support.eventually import Never, eventually
from tests.support.flow import store
from tests.support.follower import Follower
from tests.support.gateway import Gateway, routes
from tests.support.http_reply import fetch_async
from tests.support.nats_proxy import NatsProxy
from tests.support.nats_server import NatsServer
from tests.support.ports import free_port
from tests.support.producer import publish
from tests.support.sse import SseClient
from tests.support.ws import ws_client

ConnectNats = Callable[[str], Awaitable[Client]]

SECRET = "a secret of at least thirty-two bytes"
DRAIN = {"DRAIN_DELAY_S": 0, "DRAIN_S": 10}
ROUTES = routes(
    [
        'name = "board"',
        'path = "/board/{id}"',
        'transports = ["ws"]',
        'framing = "raw"',
        'subjects = ["project.{id}.>"]',
        'publish = "inbox.project.{id}.{type}"',
    ]
)


async def everything_happens(
    nc: Client, link: NatsProxy, gateway: Gateway, strict: Gateway | None, own_id: str
) -> None:
    """Each kind of thing that a panel shows, once, the good and the bad."""
    subject = f"repo.{own_id}.x"
    async with (
        Follower(lambda: gateway.url, f"repo.{own_id}.>") as page,
        ws_client(gateway.ws_url, f"/board/{own_id}", subprotocols=(), hello=False) as board,
    ):
        await page.until_ready()
        await store(nc, [subject], 5)
        await publish(nc, subject, "no JSON")
        link.losing = 3
        await store(nc, [subject], 5)  # three of them are a hole
        await page.until_heard(10)
        await board.connection.send('{"type":"hello"}')
        link.cut()
        await store(nc, [subject], 1)
        await page.until_heard(11)
    missed = {"Last-Event-ID": str(page.heard[0].id)}
    async with SseClient(gateway.url, f"repo.{own_id}.>", headers=missed) as resumed:
        assert (await resumed.next_message()).data == page.heard[1].data
    strangers = {"Last-Event-ID": "000000000000-1"}
    async with SseClient(gateway.url, f"repo.{own_id}.>", headers=strangers) as returned:
        assert (await returned.next_event()).type == "natsgate.gap"
    assert (await fetch_async(gateway.host, gateway.port, "/events?subject=*")).status == 400
    if strict is not None:
        forged = {"Authorization": "Bearer e30.e30.e30"}
        path = f"/events?subject=repo.{own_id}.x"
        assert (await fetch_async(strict.host, strict.port, path, headers=forged)).status == 401


def shown(prometheus: Prometheus, expression: str) -> bool:
    """Whether a query has a number above 0; any number where it is of clients that are behind, which soon are not."""
    numbers = [float(each["value"][1]) for each in prometheus.query(asked(expression, interval="15s"))]
    return any(number > 0 for number in numbers) or ("natsgate_connections_behind" in expression and bool(numbers))


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_two_replicas_are_scraped_and_every_query_answers(
    stack: AsyncExitStack,
    own_nats: NatsServer,
    start_gateway: StartGateway,
    connect_nats: ConnectNats,
    tmp_path: Path,
    own_id: str,
) -> None:
    """Both targets are up, no rule fails, and each query of the dashboard shows more than 0 once everything that it is
    about has happened, for the first time in the life of the replicas."""
    link = await stack.enter_async_context(NatsProxy(own_nats.port))
    metrics_ports = [free_port(), free_port()]
    replicas = [
        await start_gateway(nats_url=link.url, METRICS_LISTEN=f"127.0.0.1:{port}", config=ROUTES, settings=DRAIN)
        for port in metrics_ports
    ]
    metrics_ports.append(free_port())
    strict = await start_gateway(
        nats_url=link.url, METRICS_LISTEN=f"127.0.0.1:{metrics_ports[-1]}", AUTH="jwt", JWT_SECRET=SECRET
    )
    prometheus = Prometheus(tmp_path / "prometheus", metrics_ports)
    await asyncio.to_thread(stack.enter_context, prometheus)

    async def all_up() -> bool:
        targets = prometheus.ask("/targets")["activeTargets"]
        return [each["health"] for each in targets] == ["up"] * len(metrics_ports)

    await eventually(all_up, "all targets are up", timeout_s=20)

    await everything_happens(await connect_nats(own_nats.url), link, replicas[0], strict, own_id)
    waiting = {expression for _, expression in queries()}
    assert len(waiting) > 30

    async def all_answered() -> bool:
        waiting.difference_update({each for each in waiting if shown(prometheus, each)})
        return not waiting

    async with AsyncExitStack() as leaving:
        for _ in range(20):  # spread over DRAIN_S: the first ones are counted before the last one ends the replica
            await leaving.enter_async_context(SseClient(replicas[1].url, f"repo.{own_id}.>"))
        replicas[1].terminate()
        with contextlib.suppress(Never):
            await eventually(all_answered, "each query shows something", timeout_s=20)
    assert waiting == set(), "queries that show nothing"
    assert {each["metric"]["instance"] for each in prometheus.query('up{job="natsgate"}')} == {
        f"127.0.0.1:{port}" for port in metrics_ports
    }
    for group in prometheus.ask("/rules")["groups"]:
        for rule in group["rules"]:
            assert rule["health"] == "ok", rule


def test_the_dashboard_answers_the_five_questions() -> None:
    """Its rows are the questions; each has panels, each panel says what it shows, and no two share an id."""
    panels = dashboard()["panels"]
    rows = [panel["title"] for panel in panels if panel["type"] == "row"]
    assert rows == [
        "Who is connected?",
        "Is it fast?",
        "Is anything lost?",
        "Is NATS well?",
        "Is a drain going on?",
    ]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            assert panel["description"], panel["title"]
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
