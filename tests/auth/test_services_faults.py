"""Services that are away, slow or wrong: nobody is let in by a silence, and nobody else waits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from nats.aio.client import Client

from gateway.auth.verdict import MAX_ANSWER_BYTES, read_verdict
from gateway.core.cursor import Cursor
from tests.conftest import StartGateway
from tests.support.eventually import eventually
from tests.support.flow import store
from tests.support.frozen import frozen
from tests.support.gateway import Gateway
from tests.support.http_reply import fetch_async
from tests.support.nats_server import NatsServer
from tests.support.producer import publish
from tests.support.service import Answer, Question, Service
from tests.support.sse import SseClient
from tests.support.tokens import JWT, SECRET, bearer, token
from tests.support.ws import ws_client

ALLOW = {"allow": True}
GARBAGE: dict[str, Answer] = {
    "empty": b"",
    "words": b"yes, of course",
    "true": b"true",
    "a list": b'[{"allow":true}]',
    "no allow": {"ok": True},
    "allow is a text": {"allow": "yes"},
    "allow is 1": {"allow": 1},
    "allow is null": {"allow": None},
    "a 200 for a no": {"allow": False, "status": 200},
    "a status as text": {"allow": True, "status": "403"},
    "a status with a fraction": b'{"allow":false,"status":403.5}',
    "a list for a status": {"allow": True, "status": [404]},
    "no seconds": {"allow": True, "ttl_s": "soon"},
    "no time at all": {"allow": True, "ttl_s": 0},
    "negative seconds": {"allow": True, "ttl_s": -5},
    "true seconds": {"allow": True, "ttl_s": True},
    "endless": b'{"allow":true,"ttl_s":Infinity}',
    "initial is an object": {"allow": True, "initial": {"type": "x"}},
    "initial holds a text": {"allow": True, "initial": [{}, "x"]},
    "initial holds no JSON": b'{"allow":true,"initial":[{"n":NaN}]}',
    "initial is too large": {"allow": True, "initial": [{"pad": "x" * 300_000}]},
    "cut off": b'{"allow":true',
    "more behind it": b'{"allow":true}{"allow":true}',
    "a comma too many": b'{"allow":true,}',
    "not UTF-8": b'{"allow":true,"x":"\xff"}',
    "deep": b'{"allow":true,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "with a mark": b'\xef\xbb\xbf{"allow":true}',
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE.keys())
async def test_nonsense_lets_nobody_in(served: Gateway, nc: Client, own_id: str, answer: Answer) -> None:
    """What is no answer is taken for none: the client is to come again, and is not let in. An EventSource hears it in
    a stream, a script as a status, a WebSocket as a close code."""
    headers = bearer(token())
    async with Service(nc, "task", answer):
        async with SseClient(served.url, target=f"/tasks/{own_id}", headers=headers) as sse:
            assert sse.status == 200
            (closing,) = await sse.rest()
            assert (closing.type, closing.json()["reason"]) == ("natsgate.closing", "overloaded")
            assert closing.json()["reconnect"] is True
        reply = await fetch_async(served.host, served.port, f"/tasks/{own_id}", headers=headers)
        assert reply.status == 503
        assert int(reply.headers["retry-after"]) >= 1
        assert "come again" in reply.problem()["detail"]
        async with ws_client(served.ws_url, f"/tasks/{own_id}", headers=headers) as ws:
            close, _ = await ws.closed()
            assert close is not None
            assert (close.code, close.reason) == (1013, "overloaded")


def test_an_answer_has_a_largest_size() -> None:
    """An answer beyond what NATS carries by default is none, whatever the server at hand would carry."""
    cursor = Cursor("life", 1)
    padded = b'{"allow":true' + b" " * (MAX_ANSWER_BYTES - 14) + b"}"
    assert read_verdict(padded, cursor, max_event_bytes=0).allowed is True
    with pytest.raises(ValueError, match="larger than"):
        read_verdict(padded + b" ", cursor, max_event_bytes=0)


async def test_nobody_there_lets_nobody_in(served: Gateway, own_id: str) -> None:
    """Without a responder the client is to come again, at once and not after a time-out."""
    async with SseClient(served.url, target=f"/tasks/{own_id}", headers=bearer(token())) as sse:
        (closing,) = await sse.rest()
        assert closing.json()["reason"] == "overloaded"


async def test_no_answer_in_time_lets_nobody_in(served: Gateway, nc: Client, own_id: str) -> None:
    """A service that says nothing is waited for two seconds, and its late answer counts for nothing."""
    async with Service(nc, "task", ALLOW) as service:
        service.opens.clear()
        async with SseClient(served.url, target=f"/tasks/{own_id}", headers=bearer(token())) as sse:
            (closing,) = await sse.rest()
            assert closing.json()["reason"] == "overloaded"
        service.answer = {"allow": False}
        service.opens.set()
        async with SseClient(served.url, target=f"/tasks/{own_id}", headers=bearer(token())) as sse:
            assert sse.status == 403


async def test_a_bad_service_is_told_to_operators_once(
    start_gateway: StartGateway, nc: Client, own_id: str, service_routes: str
) -> None:
    """Fifty bad answers are one line of the log, that names the route and the fault and shows nothing of them."""
    gateway = await start_gateway(config=service_routes, AUTH="jwt", JWT_SECRET=SECRET)
    secret = f"secret-{own_id}"
    async with Service(nc, "task", {"allow": secret, "initial": [{"x": secret}]}) as service:
        for number in range(50):
            headers = bearer(token(f"user-{number}"))
            reply = await fetch_async(gateway.host, gateway.port, f"/tasks/{own_id}", headers=headers)
            assert reply.status == 503
        assert len(service.questions) == 50
    lines = gateway.logs("authorize_failed")
    assert 1 <= len(lines) < 10
    assert lines[0]["route"] == "task"
    assert '"allow"' in lines[0]["error"]
    assert secret not in gateway.log_text


def come(gateway: Gateway, own_id: str, number: int) -> list[asyncio.Task[None]]:
    """So many users come, each of whom has to be asked about."""

    async def one(headers: dict[str, str]) -> None:
        async with SseClient(gateway.url, target=f"/tasks/{own_id}", headers=headers) as sse:
            await sse.ready()

    return [asyncio.create_task(one(bearer(token(f"user-{own_id}-{each}")))) for each in range(number)]


async def test_a_hanging_service_holds_up_no_other_one(served: Gateway, nc: Client, own_id: str) -> None:
    """While as many questions as may be in flight wait for one service, another one is asked and answers."""
    async with Service(nc, "task", ALLOW) as hanging, Service(nc, "other", ALLOW):
        hanging.opens.clear()
        waiting = come(served, own_id, 80)
        await hanging.until_asked(64)
        async with SseClient(served.url, target=f"/others/{own_id}", headers=bearer(token())) as other:
            await other.ready()
        hanging.opens.set()
        await asyncio.gather(*waiting)


async def test_a_slow_service_holds_up_nobody_else(served: Gateway, nc: Client, own_id: str) -> None:
    """While questions wait for a slow service, replays and live events of everybody else go on."""
    mine = bearer(token(subscribe=[f"repo.{own_id}.>"]))
    last = await store(nc, [f"repo.{own_id}.x"], 500)
    async with Service(nc, "task", ALLOW) as slow:
        slow.delay_s = 1.5
        waiting = come(served, own_id, 100)
        await slow.until_asked(64)
        async with SseClient(served.url, f"repo.{own_id}.>", headers=mine, query={"since": "all"}) as replay:
            replayed = [await replay.next_message() for _ in range(500)]
            assert replayed[-1].id is not None
            assert replayed[-1].id.endswith(f"-{last}")
            await publish(nc, f"repo.{own_id}.x", '{"live":true}')
            assert (await replay.next_message()).json() == {"live": True}
        assert not all(task.done() for task in waiting), "the slow service was not slow enough to tell"
        await asyncio.gather(*waiting)
        assert len(slow.questions) == 100


async def test_who_is_in_waits_for_the_questions_about_others(
    start_gateway: StartGateway, service_routes: str, nc: Client, own_id: str
) -> None:
    """When hundreds are due at once and the service takes its time, but answers everything, nobody is sent away: that
    the gateway asks of so many is not their fault."""
    settings = {"AUTH": "jwt", "JWT_SECRET": SECRET, "MAX_CONNECTIONS_PER_SUB": 0}
    gateway = await start_gateway(config=service_routes, settings=settings)
    targets = [(f"/tasks/{own_id}-{number}", token()) for number in range(400)]
    async with Service(nc, "task", ALLOW | {"ttl_s": 4}) as service, AsyncExitStack() as clients:
        followers = [
            await clients.enter_async_context(SseClient(gateway.url, target=target, headers=bearer(mine)))
            for target, mine in targets
        ]
        for each in followers:
            await each.ready()
        service.answer = ALLOW
        service.delay_s = 0.5  # 400 questions, 32 at a time: over six seconds
        await service.until_asked(500, timeout_s=30)
        async with SseClient(gateway.url, target=f"/tasks/{own_id}-new", headers=bearer(token())) as newcomer:
            await newcomer.ready()  # nor does anybody who comes wait for them
        await service.until_asked(801, timeout_s=30)
        metrics = await asyncio.to_thread(gateway.metrics)
        assert metrics.total("natsgate_connections_closed_total", reason="overloaded") == 0
        assert metrics.total("natsgate_connections", transport="sse") == 400


# NATS itself is away


@pytest.fixture
async def alone(start_gateway: StartGateway, own_nats: NatsServer, service_routes: str) -> Gateway:
    """A gateway on a nats-server of its own."""
    return await start_gateway(nats_url=own_nats.url, config=service_routes, settings=JWT)


async def test_while_nats_is_away_connections_stay(
    alone: Gateway, own_nats: NatsServer, connect_nats: Callable[[str], Awaitable[Client]], own_id: str
) -> None:
    """A question that is due while NATS is away is put off: the connection stays, and is asked about when NATS is
    back. Who comes meanwhile is to come again."""
    nc = await connect_nats(own_nats.url)
    headers = bearer(token())
    async with (
        Service(nc, "task", ALLOW | {"ttl_s": 1}) as service,
        SseClient(alone.url, target=f"/tasks/{own_id}", headers=headers) as sse,
    ):
        await sse.ready()
        await service.until_asked(2)
        await asyncio.to_thread(own_nats.kill)
        state = await sse.next_event()
        assert (state.type, state.json()) == ("natsgate.state", {"upstream": "down"})
        async with SseClient(alone.url, target=f"/tasks/{own_id}-x", headers=headers) as late:
            assert [event.json()["reason"] for event in await late.rest()] == ["overloaded"]
        await stays(sse, 2.5)  # in which the question is due
        await asyncio.to_thread(own_nats.start)
        state = await sse.next_event(timeout_s=30)
        assert (state.type, state.json()) == ("natsgate.state", {"upstream": "up"})
        await service.until_asked(len(service.questions) + 1)
        service.answer = {"allow": False}
        closing = await sse.next_event()
        assert (closing.type, closing.json()["reason"]) == ("natsgate.closing", "forbidden")


async def test_questions_of_an_outage_are_spread(
    alone: Gateway, own_nats: NatsServer, connect_nats: Callable[[str], Awaitable[Client]], own_id: str
) -> None:
    """Forty clients whose questions were due while NATS was away ask one after another when it is back: the service,
    which may just have come back itself, does not hear from everybody at once."""
    nc = await connect_nats(own_nats.url)
    asked_at: list[float] = []

    def answer(question: Question) -> Answer:
        asked_at.append(time.monotonic())
        return ALLOW | {"ttl_s": 2}

    async with Service(nc, "task", answer) as service, AsyncExitStack() as clients:
        for number in range(40):
            sse = SseClient(alone.url, target=f"/tasks/{own_id}-{number}", headers=bearer(token()))
            await clients.enter_async_context(sse)
            await sse.ready()
        await asyncio.to_thread(own_nats.kill)
        assert (await sse.next_event()).json() == {"upstream": "down"}
        await stays(sse, 3)  # by then every question is due
        asked_at.clear()
        await asyncio.to_thread(own_nats.start)
        await service.until_asked(len(service.questions) + 40)
    first_round = sorted(asked_at)[:40]
    assert first_round[-1] - first_round[0] > 1.5


async def test_a_frozen_nats_is_away_too(
    alone: Gateway, own_nats: NatsServer, connect_nats: Callable[[str], Awaitable[Client]], own_id: str
) -> None:
    """When NATS hangs without a word, the question that nobody answered ends no connection: it is not the service
    that failed."""
    nc = await connect_nats(own_nats.url)
    async with (
        Service(nc, "task", ALLOW | {"ttl_s": 1}) as service,
        SseClient(alone.url, target=f"/tasks/{own_id}", headers=bearer(token())) as sse,
    ):
        await sse.ready()
        await service.until_asked(2)
        with frozen(own_nats.pid):
            await eventually(asked_in_vain(alone), "a question was not answered")
            await stays(sse, 2.5)  # in which it is found out why
        await publish(nc, f"task.{own_id}.x", json.dumps({"n": 1}))
        assert (await sse.next_message()).json() == {"n": 1}


async def test_a_service_that_is_gone_ends_connections(served: Gateway, nc: Client, own_id: str) -> None:
    """When it is the service that does not answer any more, and NATS does, the connection ends as overloaded: it is
    never taken for a yes."""
    async with Service(nc, "task", ALLOW | {"ttl_s": 1}):
        sse = SseClient(served.url, target=f"/tasks/{own_id}", headers=bearer(token()))
        await sse.open()
        await sse.ready()
    closing = await sse.next_event()
    sse.close()
    assert (closing.type, closing.json()["reason"]) == ("natsgate.closing", "overloaded")
    assert closing.json()["reconnect"] is True


async def stays(sse: SseClient, seconds: float) -> None:
    """For so long the stream does not end, and says nothing but how NATS is."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                assert (await sse.next_event()).type == "natsgate.state"


def asked_in_vain(gateway: Gateway) -> Callable[[], Awaitable[bool]]:
    async def logged() -> bool:
        return bool(gateway.logs("authorize_failed"))

    return logged
