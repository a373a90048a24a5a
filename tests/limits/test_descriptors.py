"""File descriptors: raised to what the system gives, named when they are too few, and never all given away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from nats.aio.client import Client

from gateway.descriptors import RESERVED, Descriptors
from gateway.transports.limits import MOST_WAITING
from tests.attacks.mob import Mob
from tests.conftest import StartGateway
from tests.limits.counts import until_counts, until_nobody
from tests.limits.refusals import Asking, refused_status, refused_stream, refused_websocket, rejected
from tests.support.eventually import eventually
from tests.support.flow import Flow
from tests.support.gateway import Gateway
from tests.support.nats_server import NatsServer
from tests.support.producer import publish
from tests.support.raw_ws import RawWebSocket
from tests.support.sse import SseClient

ConnectNats = Callable[[str], Awaitable[Client]]

FEW = 400
REQUEST = b"GET /events?subject=repo.limits.%3E HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"


def limits_of(gateway: Gateway) -> tuple[int, int]:
    """Soft and hard limit of a process's open files."""
    for line in Path(f"/proc/{gateway.pid}/limits").read_text().splitlines():
        if line.startswith("Max open files"):
            soft, hard = line.split()[3:5]
            return int(soft), int(hard)
    raise AssertionError("no limit of open files")


def open_files_of(gateway: Gateway) -> int:
    return len(list(Path(f"/proc/{gateway.pid}/fd").iterdir()))


async def test_the_soft_limit_is_raised(start_gateway: StartGateway) -> None:
    """`serve` takes what the hard limit allows; when that is enough nothing is said."""
    gateway = await start_gateway(open_files=(256, 5000), MAX_CONNECTIONS=500)
    assert limits_of(gateway) == (5000, 5000)
    assert gateway.logs("descriptors_short") == []


async def test_too_few_are_one_clear_warning(start_gateway: StartGateway) -> None:
    """The line says how many there are, how many it would take, how many connections are taken now, and the mend."""
    gateway = await start_gateway(open_files=(FEW, FEW), MAX_CONNECTIONS=20000)
    (line,) = gateway.logs("descriptors_short")
    assert line["level"] == "warning"
    assert (line["limit"], line["max_connections"]) == (FEW, 20000)
    assert line["needed"] == 20000 + MOST_WAITING + RESERVED
    assert 0 < line["taken"] < FEW
    for mend in ("LimitNOFILE=", "--ulimit nofile=", "ulimit -Hn", "NATSGATE_MAX_CONNECTIONS"):
        assert mend in line["mend"]


@pytest.mark.parametrize("limit", [20, 64, 256, 1024, 20000, 2**20])
def test_some_are_always_kept_back(limit: int) -> None:
    """However few there are, sockets do not get all of them, and connections not all of the sockets."""
    found = Descriptors(limit)
    able = found.most_connections(0, MOST_WAITING, None)  # type: ignore[arg-type]  # nothing is said where none is wanted
    assert 0 < able <= found.sockets < limit
    assert able == found.sockets or found.sockets - able >= min(MOST_WAITING, found.sockets // 8)


def test_without_a_limit_there_is_none() -> None:
    """What the system does not bound is not bound for its sake."""
    found = Descriptors(0)
    assert found.sockets == 0
    assert found.most_connections(20000, MOST_WAITING, None) == 20000  # type: ignore[arg-type]  # see above


async def test_more_connections_than_descriptors_are_told_to_come_again(
    start_gateway: StartGateway, nc: Client, own_id: str
) -> None:
    """As with `MAX_CONNECTIONS`: who is inside is served on, who is one too many gets an answer and not a dead line,
    and when some go others come in."""
    gateway = await start_gateway(open_files=(FEW, FEW))
    (line,) = gateway.logs("descriptors_short")
    mob = Mob(gateway.host, gateway.port)
    async with SseClient(gateway.url, f"repo.{own_id}.>") as page, RawWebSocket(gateway.url) as board:
        await page.ready()
        await board.subscribe(f"repo.{own_id}.>")
        try:
            await asyncio.to_thread(mob.open, FEW, REQUEST)
            await until_counts(gateway, open=line["taken"])
            await refused_stream(gateway, Asking(), "limit_connections")
            await refused_status(gateway, Asking(), 503)
            await refused_websocket(gateway, {}, "limit_connections")
            await publish(nc, f"repo.{own_id}.x", '{"n":1}')
            assert (await page.next_event()).json() == {"n": 1}
            assert (await board.next_op("event"))["event"] == {"n": 1}
        finally:
            mob.close()
        await until_counts(gateway, open=2)
        async with SseClient(gateway.url, f"repo.{own_id}.>") as other:
            await other.ready()


async def test_what_only_holds_the_door_does_not_take_the_last_ones(
    start_gateway: StartGateway, own_nats: NatsServer, connect_nats: ConnectNats, own_id: str
) -> None:
    """More half requests than descriptors: the oldest are given up, so that NATS is reached again after a restart, who
    is inside gets events, and whoever has a whole request is served. The log has a line every few seconds."""
    gateway = await start_gateway(nats_url=own_nats.url, open_files=(FEW, FEW), REQUEST_TIMEOUT_S=60)
    subject = f"repo.{own_id}.x"
    mob = Mob(gateway.host, gateway.port)
    async with AsyncExitStack() as stack:
        page = await stack.enter_async_context(SseClient(gateway.url, subject))
        await page.ready()
        flow = await stack.enter_async_context(Flow(await connect_nats(own_nats.url), [subject], each=1))
        try:
            await asyncio.to_thread(mob.open, 3 * FEW, REQUEST[:30])

            async def given_up() -> bool:
                return rejected(await asyncio.to_thread(gateway.metrics), "no_descriptors") > FEW

            await eventually(given_up, "the oldest are given up")
            await asyncio.to_thread(own_nats.restart)
            stored = flow.stored
            await flow.more(5)
            while (await page.next_message(timeout_s=20)).json()["n"] < stored + 4:
                pass
            async with SseClient(gateway.url, subject) as other:
                while (await other.next_event()).type != "natsgate.ready":
                    pass  # the flow goes on: an event may come first
            assert open_files_of(gateway) < FEW
        finally:
            mob.close()
        lines = [line for line in gateway.logs("request_rejected") if line["reason"] == "no_descriptors"]
        assert 1 <= len(lines) <= 10
        assert {line["remote"] for line in lines} == {"127.0.0.2"}
        assert "Traceback" not in gateway.log_text
    await until_nobody(gateway)
