"""Routes whose clients a service lets in: what it is asked, how often, and what becomes of its answer."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest
from nats.aio.client import Client

from tests.auth.test_raw_auth import reason, say, told, until_stored
from tests.conftest import StartGateway
from tests.support.eventually import eventually
from tests.support.gateway import Gateway
from tests.support.producer import flood, publish
from tests.support.raw_ws import RawWebSocket
from tests.support.service import Service
from tests.support.sse import SseClient
from tests.support.tokens import bearer, claims, sign, token
from tests.support.ws import WsClient, ws_client

ALLOW = {"allow": True}
NO, HIDDEN = {"allow": False}, {"allow": False, "status": 404}


def task_stream(gateway: Gateway, task_id: str, text: str | None, **more: Any) -> SseClient:
    """A client of the route `task`."""
    return SseClient(gateway.url, target=f"/tasks/{task_id}", headers=bearer(text) if text is not None else {}, **more)


async def assert_ends(ws: WsClient, code: int, why: str) -> None:
    close, ops = await ws.closed()
    assert close is not None
    assert (close.code, close.reason) == (code, why)
    assert ops[-1]["op"] == "closing"
    assert ops[-1]["reason"] == why


# The question and its answers


async def test_what_a_service_is_asked(served: Gateway, nc: Client, own_id: str) -> None:
    """`{sub, claims, params, subjects}`: the token's claims whole, parameters decoded, subjects as they are served."""
    content = claims("al.ice", subscribe=["repo.1.>"], role="admin", big=2**70, ends="\ud800", deep=[[[[None]]]])
    async with (
        Service(nc, "task", ALLOW) as service,
        task_stream(served, f"owner%2F{own_id}.js%20%C3%A4", sign(content)) as sse,
    ):
        assert sse.status == 200, sse.reply
        await sse.ready()
        await publish(nc, f"task.owner/{own_id}%2Ejs%20%C3%A4.progress", '{"n":1}')
        assert (await sse.next_message()).json() == {"n": 1}
    assert service.questions == [
        {
            "sub": "al.ice",
            "claims": content,
            "params": {"task_id": f"owner/{own_id}.js ä"},
            "subjects": [f"task.owner/{own_id}%2Ejs%20%C3%A4.>"],
        }
    ]


@pytest.mark.parametrize(
    ("answer", "status", "close"),
    [
        (ALLOW, 200, None),
        ({"allow": True, "status": 404}, 200, None),
        (NO, 403, (3003, "forbidden")),
        ({"allow": False, "status": 403}, 403, (3003, "forbidden")),
        (HIDDEN, 404, (4404, "not_found")),
    ],
    ids=json.dumps,
)
async def test_its_answer_decides(
    served: Gateway, nc: Client, own_id: str, answer: dict[str, Any], status: int, close: tuple[int, str] | None
) -> None:
    """`allow` opens the route, whatever the token's rights; else the status is 403, or 404 where the service says so.
    A WebSocket is accepted and closed with 3003 or 4404, by header and by first frame alike."""
    text = token(subscribe=[])
    async with Service(nc, "task", answer), Service(nc, "board", answer):
        async with task_stream(served, own_id, text) as sse:
            assert sse.status == status
            if status != 200:
                assert own_id not in sse.reply.problem()["detail"]
        for headers in (bearer(text), {}):
            async with ws_client(served.ws_url, f"/tasks/{own_id}", headers=headers) as ws:
                if not headers:
                    await ws.send(op="auth", ref=1, token=text)
                if close is None:
                    assert (await ws.next_op("subscribed"))["feed"] == f"task.{own_id}.>"
                else:
                    await assert_ends(ws, *close)
        if close is not None:
            async with RawWebSocket(served.url, f"/boards/{own_id}", subprotocol=None, headers={**bearer(text)}) as raw:
                assert raw.status == 101
                assert reason(await raw.next_frame()) == close


async def test_nobody_asks_without_a_user(served: Gateway, nc: Client, own_id: str) -> None:
    """Without a token, or with a bad one, the answer is 401, and the service is not bothered."""
    async with Service(nc, "task", ALLOW) as service:
        for text in (None, "a.b.c", token(ttl_s=-60)):
            async with task_stream(served, own_id, text) as sse:
                assert sse.status == 401
        async with ws_client(served.ws_url, f"/tasks/{own_id}") as ws:
            assert (await ws.request(op="ping", ref=1))["op"] == "pong"
        async with task_stream(served, own_id, token()) as sse:
            await sse.ready()
        assert len(service.questions) == 1


async def test_other_feeds_need_the_rights_of_the_token(served: Gateway, nc: Client, own_id: str) -> None:
    """On a route that a service opened, further feeds go by the token's rights, and so does the route's own once it
    was given up."""
    feed = f"task.{own_id}.>"
    async with (
        Service(nc, "task", ALLOW),
        ws_client(served.ws_url, f"/tasks/{own_id}", headers=bearer(token(subscribe=["repo.1.>"]))) as ws,
    ):
        assert [(await ws.next())["op"] for _ in range(2)] == ["subscribed", "ready"]
        assert (await ws.request(op="subscribe", ref=1, subject=f"user.{own_id}.>"))["code"] == "forbidden"
        await ws.subscribe("repo.1.>")
        assert (await ws.request(op="unsubscribe", ref=2, feed=feed))["op"] == "unsubscribed"
        assert (await ws.request(op="subscribe", ref=3, subject=feed))["code"] == "forbidden"


async def test_a_service_answers_for_both_ways(served: Gateway, nc: Client, own_id: str) -> None:
    """Whom the service lets into a raw route may send its messages, without a right of the token."""
    async with (
        Service(nc, "board", ALLOW),
        RawWebSocket(
            served.url, f"/boards/{own_id}?control=true", subprotocol=None, headers={**bearer(token(publish=[]))}
        ) as ws,
    ):
        await told(ws, "ready")
        await say(ws, type="task_move")
        await until_stored(nc, own_id, f"inbox.project.{own_id}.task_move")


# How often


async def test_equal_questions_are_asked_once(served: Gateway, nc: Client, own_id: str) -> None:
    """Fifty tabs of one user that come back at once are one question; other users and other parameters are others."""
    text = token(f"user-{own_id}")
    async with Service(nc, "task", ALLOW) as service, AsyncExitStack() as stack:
        await asyncio.gather(*(stack.enter_async_context(task_stream(served, own_id, text)) for _ in range(50)))
        assert len(service.questions) == 1
        others = [token(f"user-{own_id}-{number}") for number in range(20)]
        await asyncio.gather(*(stack.enter_async_context(task_stream(served, own_id, each)) for each in others))
        assert len(service.questions) == 21
        assert {question["sub"] for question in service.questions[1:]} == {f"user-{own_id}-{n}" for n in range(20)}
        await stack.enter_async_context(task_stream(served, f"{own_id}-x", others[0]))
        assert len(service.questions) == 22


async def test_it_is_asked_again_and_may_change_its_mind(served: Gateway, nc: Client, own_id: str) -> None:
    """Every `ttl_s` the service is asked again for each user; a later no ends the connections with its reason."""
    async with (
        Service(nc, "task", ALLOW | {"ttl_s": 1}) as service,
        task_stream(served, own_id, token("alice")) as sse,
        ws_client(served.ws_url, f"/tasks/{own_id}", headers=bearer(token("bob"))) as ws,
    ):
        await sse.ready()
        await service.until_asked(6)
        assert {question["sub"] for question in service.questions} == {"alice", "bob"}
        await publish(nc, f"task.{own_id}.x", '{"n":1}')
        assert (await sse.next_message()).json() == {"n": 1}
        assert (await ws.event())["event"] == {"n": 1}
        service.answer = lambda question: NO if question["sub"] == "alice" else HIDDEN
        closing = await sse.next_event()
        assert closing.type == "natsgate.closing"
        assert (closing.json()["reason"], closing.json()["reconnect"]) == ("forbidden", False)
        await assert_ends(ws, 4404, "not_found")


async def test_without_a_ttl_it_is_asked_once(served: Gateway, nc: Client, own_id: str) -> None:
    """A service that names no `ttl_s` has said all it will, while one that does is asked again and again."""
    async with (
        Service(nc, "task", lambda question: ALLOW | ({"ttl_s": 1} if question["sub"] == "bob" else {})) as service,
        task_stream(served, own_id, token("alice")) as alice,
        task_stream(served, own_id, token("bob")) as bob,
    ):
        await alice.ready()
        await bob.ready()
        await service.until_asked(4)
        assert [question["sub"] for question in service.questions].count("alice") == 1


async def test_a_client_that_does_not_read_is_asked_about_too(served: Gateway, nc: Client, own_id: str) -> None:
    """A full socket does not put the question off: a client that reads little enough is not to stay for ever."""
    pad = "x" * 50_000

    async def refused() -> bool:
        closed = (await asyncio.to_thread(served.metrics)).by("natsgate_connections_closed_total", "reason")
        return closed.get("forbidden", 0) == before.get("forbidden", 0) + 1

    async with Service(nc, "task", ALLOW | {"ttl_s": 1}) as service:
        before = (await asyncio.to_thread(served.metrics)).by("natsgate_connections_closed_total", "reason")
        async with task_stream(served, own_id, token(), receive_buffer_bytes=4096) as sse:
            await sse.ready()
            await flood(nc, f"task.{own_id}.x", [f'{{"pad":"{pad}"}}'] * 40)
            service.answer = NO
            await eventually(refused, "the stalled client was refused")


async def test_it_hears_of_a_new_token(served: Gateway, nc: Client, own_id: str) -> None:
    """A renewed token is told to the service, whether it wants to be asked again or not; its no ends the connection."""

    def decide(question: dict[str, Any]) -> dict[str, Any]:
        return ALLOW if question["claims"]["role"] != "guest" else NO

    async with Service(nc, "task", decide) as service:
        headers = bearer(token(role="admin"))
        async with ws_client(served.ws_url, f"/tasks/{own_id}", headers=headers) as ws:
            assert [(await ws.next())["op"] for _ in range(2)] == ["subscribed", "ready"]
            for ref, role in ((1, "editor"), (2, "guest")):
                assert (await ws.request(op="auth", ref=ref, token=token(role=role)))["op"] == "authenticated"
                await service.until_asked(ref + 1)
            assert [question["claims"]["role"] for question in service.questions] == ["admin", "editor", "guest"]
            await assert_ends(ws, 3003, "forbidden")


async def test_without_authentication_it_is_asked_of_nobody(
    start_gateway: StartGateway, nc: Client, own_id: str, service_routes: str
) -> None:
    """With AUTH=none the service is asked about nobody in particular, and again every `ttl_s`."""
    gateway = await start_gateway(config=service_routes)
    async with Service(nc, "task", ALLOW | {"ttl_s": 1}) as service, task_stream(gateway, own_id, None) as sse:
        await sse.ready()
        await service.until_asked(2)
        assert service.questions[0]["sub"] == ""
        assert service.questions[0]["claims"] == {}
        service.answer = NO
        assert (await sse.next_event()).json()["reason"] == "forbidden"
