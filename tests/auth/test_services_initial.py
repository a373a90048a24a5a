"""The present state by a service: shown first, then what came after the question, with nothing lost in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from nats.aio.client import Client

from tests.auth.test_raw_auth import told
from tests.conftest import StartGateway
from tests.support.eventually import eventually
from tests.support.flow import store
from tests.support.gateway import Gateway, routes
from tests.support.nats_server import NatsServer
from tests.support.producer import publish
from tests.support.raw_ws import RawWebSocket
from tests.support.service import Question, Service
from tests.support.sse import SseClient
from tests.support.stored import sequence_of
from tests.support.tokens import JWT, SECRET, bearer, token
from tests.support.ws import ws_client

STATE = {"type": "status_update", "data": {"status": "running"}}
SHOWN = {"allow": True, "initial": [STATE]}
EXACT = [
    '{"z":1,"a":[1.0,1e400,1E5,-0.0],"big":1208925819614629174706176,"wide":12345678901234567890.12345678901234567890}',
    '{  "spaces" : "\\u00e9\\/\\ud800" , "text":"正在翻译" }',
    '{"twice":1,"twice":2}',
    "{}",
]


def stream(gateway: Gateway, target: str, cursor: str | None = None, *, sub: str = "alice") -> SseClient:
    headers = bearer(token(sub, subscribe=["task.>"])) | ({} if cursor is None else {"Last-Event-ID": cursor})
    return SseClient(gateway.url, target=target, headers=headers)


async def messages(sse: SseClient, count: int) -> list[Any]:
    return [(await sse.next_message()).json() for _ in range(count)]


# First


async def test_the_state_comes_first_and_then_what_came_after_the_question(
    served: Gateway, nc: Client, own_id: str
) -> None:
    """`initial` comes at once and without `id:`, then `ready`; what was stored between the question and its answer
    follows, what was stored before does not."""
    await store(nc, [f"task.{own_id}.x"], 3)
    behind = 0

    async def meanwhile(question: Question) -> None:
        nonlocal behind
        behind = await store(nc, [f"task.{own_id}.x"], 2, begin=3)

    async with Service(nc, "task", {"allow": True, "initial": [STATE, STATE | {"n": 2}]}) as service:
        service.before = meanwhile  # type: ignore[method-assign]
        async with stream(served, f"/tasks/{own_id}") as sse:
            shown = [await sse.next_event() for _ in range(2)]
            assert [event.json() for event in shown] == [STATE, STATE | {"n": 2}]
            assert {(event.type, event.id) for event in shown} == {("message", None)}
            ready = await sse.ready()
            assert ready.json()["snapshot"] == 2
            later = [await sse.next_event() for _ in range(2)]
            assert [event.json() for event in later] == [{"n": 3}, {"n": 4}]
            assert sequence_of(ready.id) < sequence_of(later[0].id)
            assert sequence_of(later[1].id) == behind
            await store(nc, [f"task.{own_id}.x"], 1, begin=5)
            assert await messages(sse, 1) == [{"n": 5}]


async def test_without_a_state_nothing_is_lost_either(served: Gateway, nc: Client, own_id: str) -> None:
    """A service that shows no state still has the client hear what was stored since it was asked."""

    async def meanwhile(question: Question) -> None:
        await store(nc, [f"task.{own_id}.x"], 2)

    async with Service(nc, "task", {"allow": True}) as service:
        service.before = meanwhile  # type: ignore[method-assign]
        async with stream(served, f"/tasks/{own_id}") as sse:
            assert await messages(sse, 2) == [{"n": 0}, {"n": 1}]


async def test_an_empty_state_is_one(served: Gateway, nc: Client, own_id: str) -> None:
    """An empty list shows nothing, and `ready` says so."""
    async with Service(nc, "task", {"allow": True, "initial": []}), stream(served, f"/tasks/{own_id}") as sse:
        assert (await sse.ready()).json()["snapshot"] == 0
        await store(nc, [f"task.{own_id}.x"], 1)
        assert await messages(sse, 1) == [{"n": 0}]


async def test_every_transport_shows_it_as_it_was_written(served: Gateway, nc: Client, own_id: str) -> None:
    """Events of a state reach the client as the text that they are: key order, integers of any size, escapes. Over
    `natsgate.v1` they are events of a snapshot without subject and cursor, over raw WebSocket they come bare."""
    answer = '{"allow":true, "initial": [\n' + " ,\t".join(EXACT) + "\r\n] }"
    headers = bearer(token())
    async with Service(nc, "task", answer), Service(nc, "board", answer):
        async with stream(served, f"/tasks/{own_id}") as sse:
            assert [(await sse.next_event()).data for _ in EXACT] == EXACT
        async with RawWebSocket(served.url, f"/tasks/{own_id}", headers={**headers}) as ws:
            assert [(await ws.next_text()).json()["op"] for _ in range(2)] == ["hello", "subscribed"]
            for text in EXACT:
                frame = (await ws.next_text()).payload.decode()
                head = f'{{"op":"event","feed":"task.{own_id}.>","subject":null,"snapshot":true,"event":'
                assert frame == head + text + "}"
            assert (await ws.next_text()).json()["op"] == "ready"
        target = f"/boards/{own_id}?control=true"
        async with RawWebSocket(served.url, target, subprotocol=None, headers={**headers}) as raw:
            assert [(await raw.next_text()).payload.decode() for _ in EXACT] == EXACT
            assert (await told(raw, "ready"))["snapshot"] == len(EXACT)


async def test_names_are_for_those_who_ask(served: Gateway, nc: Client, own_id: str) -> None:
    """With `named=true` events of a state carry their type, too."""
    async with Service(nc, "task", SHOWN), stream(served, f"/tasks/{own_id}?named=true") as sse:
        assert (await sse.next_event()).type == "status_update"


async def test_who_asks_for_the_past_gets_that(served: Gateway, nc: Client, own_id: str) -> None:
    """With `since` or `until=head` the history is what was asked for: no state comes before it."""
    await store(nc, [f"task.{own_id}.x"], 2)
    async with Service(nc, "task", SHOWN):
        for query in ("since=all", "since=all&until=head"):
            async with stream(served, f"/tasks/{own_id}?{query}") as sse:
                assert await messages(sse, 2) == [{"n": 0}, {"n": 1}]


# Again, or not


async def test_a_resume_shows_no_state(served: Gateway, nc: Client, own_id: str) -> None:
    """A client that comes back with its cursor gets what it missed and nothing else; the service is asked all the
    same."""
    async with Service(nc, "task", SHOWN) as service:
        async with stream(served, f"/tasks/{own_id}") as sse:
            assert await messages(sse, 1) == [STATE]
            cursor = (await sse.ready()).id
        await store(nc, [f"task.{own_id}.x"], 2)
        async with stream(served, f"/tasks/{own_id}", cursor) as sse:
            assert await messages(sse, 2) == [{"n": 0}, {"n": 1}]
        service.answer = {"allow": False}
        async with stream(served, f"/tasks/{own_id}-other", cursor) as sse:
            assert sse.status == 403


@pytest.fixture
async def purgeable(start_gateway: StartGateway, own_nats: NatsServer, service_routes: str) -> Gateway:
    """A gateway on a nats-server of its own, that remembers nothing once the last client is gone."""
    settings = JWT | {"LINGER_S": 0}
    return await start_gateway(nats_url=own_nats.url, config=service_routes, settings=settings)


async def test_after_a_gap_the_state_is_shown_again(
    purgeable: Gateway, own_nats: NatsServer, connect_nats: Callable[[str], Awaitable[Client]], own_id: str
) -> None:
    """When what a client missed is gone it gets the `gap`, then the state as it is now, then what came since that was
    asked for. The service may take its time for it: nobody else's replay or live event waits."""
    nc = await connect_nats(own_nats.url)
    answered = asyncio.Event()

    async def slow_after_a_gap(question: Question) -> None:
        if len(service.questions) > asked + 1:  # the first one lets the client in
            await answered.wait()

    async def subscriptions() -> float:
        return (await asyncio.to_thread(purgeable.metrics)).total("natsgate_nats_subscriptions")

    async def forgotten() -> bool:
        return await subscriptions() == idle

    idle = await subscriptions()
    async with Service(nc, "task", SHOWN) as service:
        async with stream(purgeable, f"/tasks/{own_id}") as first:
            assert await messages(first, 1) == [STATE]
            cursor = (await first.ready()).id
        await eventually(forgotten, "the tap is closed")
        await store(nc, [f"task.{own_id}.x"], 5)
        await nc.jetstream().purge_stream("EVENTS")
        await store(nc, [f"task.{own_id}.x"], 3)
        asked = len(service.questions)
        service.answer = {"allow": True, "initial": [STATE | {"n": 3}]}
        service.before = slow_after_a_gap  # type: ignore[method-assign]
        # As somebody else, or the answer of a moment ago would let the client in.
        async with stream(purgeable, f"/tasks/{own_id}", cursor, sub="bob") as sse:
            await service.until_asked(asked + 2)
            async with stream(purgeable, f"/events?subject=task.{own_id}.%3E&since=all") as other:
                assert await messages(other, 3) == [{"n": n} for n in range(3)]
                await other.ready()
                last = await store(nc, [f"task.{own_id}.x"], 1, begin=3)
                assert await messages(other, 1) == [{"n": 3}]
            answered.set()
            gap = await sse.next_event()
            assert (gap.type, gap.json()["reason"], gap.json()["from"]) == ("natsgate.gap", "expired", cursor)
            state = await sse.next_event()
            assert (state.json(), state.id) == (STATE | {"n": 3}, None)
            assert (await sse.ready()).id == gap.json()["to"]
            event = await sse.next_event()
            assert (event.json(), sequence_of(event.id)) == ({"n": 3}, last)
        path = f"/tasks/{own_id}?last_event_id={cursor}"
        async with ws_client(purgeable.ws_url, path, headers=bearer(token(subscribe=["task.>"]))) as ws:
            ops = [await ws.next() for _ in range(4)]
            assert [op["op"] for op in ops] == ["subscribed", "gap", "event", "ready"]
            assert ops[2]["event"] == STATE | {"n": 3}


async def test_a_page_of_one_task(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """A page that follows one task: 401 without a user, 404 when the task is not the user's or does not exist, then at
    once its state and each change, all of them unnamed."""
    route = [
        'name = "task-page"',
        'path = "/api/sse/tasks/{task_id}"',
        'transports = ["sse"]',
        'subjects = ["task.{task_id}.>"]',
        'authorize = "service"',
    ]
    gateway = await start_gateway(config=routes(route), AUTH="jwt", JWT_SECRET=SECRET)
    owners = {f"t-{own_id}": "alice"}

    def update(task_id: str, progress: int) -> dict[str, Any]:
        data = {"taskId": task_id, "status": "PROCESSING", "progress": progress, "message": "正在翻译"}
        return {"type": "status_update", "data": data}

    def decide(question: Question) -> dict[str, Any]:
        task_id = question["params"]["task_id"]
        if owners.get(task_id) != question["sub"]:
            return {"allow": False, "status": 404}
        return {"allow": True, "initial": [update(task_id, 10)], "ttl_s": 60}

    task_id = f"t-{own_id}"
    async with Service(nc, "task-page", decide):
        for sub, path, status in ((None, task_id, 401), ("bob", task_id, 404), ("alice", f"{task_id}x", 404)):
            headers = {} if sub is None else {"Cookie": f"natsgate_token={token(sub)}"}
            async with SseClient(gateway.url, target=f"/api/sse/tasks/{path}", headers=headers) as sse:
                assert sse.status == status
        headers = {"Cookie": f"natsgate_token={token('alice')}", "Sec-Fetch-Site": "same-origin"}
        async with SseClient(gateway.url, target=f"/api/sse/tasks/{task_id}", headers=headers) as page:
            state = await page.next_event()
            assert (state.type, state.json()) == ("message", update(task_id, 10))
            await page.ready()
            await publish(nc, f"task.{task_id}.status_update", json.dumps(update(task_id, 20)))
            change = await page.next_event()
            assert (change.type, change.json()) == ("message", update(task_id, 20))
