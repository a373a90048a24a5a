"""Who a raw WebSocket client is, and what it may say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from nats.aio.client import Client

from tests.auth.boards import RAW_BOARD
from tests.conftest import ShareGateway
from tests.support.eventually import eventually
from tests.support.gateway import Gateway, routes
from tests.support.producer import publish
from tests.support.raw_ws import CLOSE, Frame, RawWebSocket, encode_frame, encode_text
from tests.support.stored import stored
from tests.support.tokens import JWT, bearer, token


@pytest.fixture(scope="module")
def boards(share_gateway: ShareGateway) -> Gateway:
    """A gateway with AUTH=jwt and a raw route that takes messages."""
    return share_gateway(JWT, routes(RAW_BOARD))


@asynccontextmanager
async def board(
    gateway: Gateway, own_id: str, *, text: str | None = None, control: bool = True
) -> AsyncIterator[RawWebSocket]:
    """A raw client of the own board; with a token in its headers when there is one."""
    query = "?control=true" if control else ""
    headers = {} if text is None else bearer(text)
    async with RawWebSocket(gateway.url, f"/boards/{own_id}{query}", subprotocol=None, headers={**headers}) as ws:
        assert ws.status == 101, ws.body
        yield ws


async def say(ws: RawWebSocket, **content: object) -> None:
    await ws.send(encode_text(json.dumps(content)))


async def told(ws: RawWebSocket, name: str) -> dict[str, object]:
    """The next control frame, which has to be of this name."""
    content: dict[str, object] = (await ws.next_text()).json()
    assert content.get("natsgate") == name, content
    return content


def reason(frame: Frame) -> tuple[int, str]:
    return frame.close_code, frame.payload[2:].decode()


async def inbox(nc: Client, own_id: str) -> list[str]:
    """The subjects of what is stored for the own board's service."""
    return [event.subject for event in await stored(nc, f"inbox.project.{own_id}.>")]


async def until_stored(nc: Client, own_id: str, *subjects: str) -> None:
    async def there() -> bool:
        return set(subjects) <= set(await inbox(nc, own_id))

    await eventually(there, f"{subjects} are stored")


async def test_a_first_frame_is_answered_where_control_is_asked_for(boards: Gateway, nc: Client, own_id: str) -> None:
    """`{"op":"auth","token":…}` as the first frame lets a raw client in; with `control=true` it is told."""
    text = token(subscribe=[f"project.{own_id}.>"], ttl_s=600)
    async with board(boards, own_id) as ws:
        await say(ws, op="auth", token=text)
        answer = await told(ws, "authenticated")
        assert isinstance(answer["expires_at"], int)
        await told(ws, "ready")
        await publish(nc, f"project.{own_id}.x", '{"n":1}')
        assert (await ws.next_text()).payload == b'{"n":1}'


async def test_a_first_frame_is_silent_without(boards: Gateway, nc: Client, own_id: str) -> None:
    """Without `control=true` nothing but events comes."""
    text = token(subscribe=[f"project.{own_id}.>"], publish=[f"inbox.project.{own_id}.>"])
    async with board(boards, own_id, control=False) as ws:
        await say(ws, op="auth", token=text)
        await say(ws, type="hello")
        await until_stored(nc, own_id, f"inbox.project.{own_id}.hello")  # so it was let in before
        await publish(nc, f"project.{own_id}.x", '{"n":1}')
        assert (await ws.next_text()).payload == b'{"n":1}'


@pytest.mark.parametrize("control", [True, False])
async def test_a_bad_first_frame_ends_the_connection(boards: Gateway, own_id: str, control: bool) -> None:
    """A token that is not taken: 3000 `unauthorized`, with an error before it where control is asked for."""
    async with board(boards, own_id, control=control) as ws:
        await say(ws, op="auth", token="a.b.c")
        if control:
            assert (await told(ws, "error"))["code"] == "unauthorized"
            assert (await told(ws, "closing"))["reason"] == "unauthorized"
        assert reason(await ws.next_frame()) == (3000, "unauthorized")


async def test_a_token_without_the_right_ends_the_connection(boards: Gateway, own_id: str) -> None:
    """A token that gives no right to the route's subjects: 3003 `forbidden`, by first frame and by header."""
    text = token(subscribe=["project.other.>"])
    async with board(boards, own_id) as ws:
        await say(ws, op="auth", token=text)
        assert (await told(ws, "error"))["code"] == "forbidden"
        assert reason(await ws.close_frame()) == (3003, "forbidden")
    async with board(boards, own_id, text=text) as ws:
        assert reason(await ws.close_frame()) == (3003, "forbidden")


async def test_messages_before_auth_go_nowhere(boards: Gateway, nc: Client, own_id: str) -> None:
    """What a client sends before it has said who it is is refused and stored nowhere; what it sends behind `auth`
    waits for it."""
    text = token(subscribe=[f"project.{own_id}.>"], publish=[f"inbox.project.{own_id}.>"])
    async with board(boards, own_id) as ws:
        await say(ws, type="early")
        assert (await told(ws, "error"))["code"] == "unauthorized"
        await say(ws, op="auth", token=text)
        await say(ws, type="behind")
        await told(ws, "authenticated")
        await until_stored(nc, own_id, f"inbox.project.{own_id}.behind")
        assert await inbox(nc, own_id) == [f"inbox.project.{own_id}.behind"]


async def test_a_client_that_says_it_all_and_goes(boards: Gateway, nc: Client, own_id: str) -> None:
    """`auth`, a message and a close in one segment: the message is stored, although the client is gone by then."""
    text = token(subscribe=[f"project.{own_id}.>"], publish=[f"inbox.project.{own_id}.>"])
    async with board(boards, own_id) as ws:
        await ws.send(
            encode_text(json.dumps({"op": "auth", "token": text})),
            encode_text('{"type":"last_words"}'),
            encode_frame(CLOSE, b"\x03\xe8"),
        )
        await ws.end()
    await until_stored(nc, own_id, f"inbox.project.{own_id}.last_words")


# What it may say


async def test_messages_need_the_right_to_publish(boards: Gateway, nc: Client, own_id: str) -> None:
    """The route's `publish` subject has to be covered by the token's `publish` rights; else the message is refused
    with `forbidden`, is stored nowhere, and the connection goes on."""
    text = token(subscribe=[f"project.{own_id}.>"], publish=[f"inbox.project.{own_id}.task_move"])
    async with board(boards, own_id, text=text) as ws:
        await told(ws, "ready")
        await say(ws, type="task_delete")
        error = await told(ws, "error")
        assert error["code"] == "forbidden"
        assert f"inbox.project.{own_id}.task_delete" in str(error["message"])
        await say(ws, type="task_move", data={"to": 1})
        await until_stored(nc, own_id, f"inbox.project.{own_id}.task_move")
        assert await inbox(nc, own_id) == [f"inbox.project.{own_id}.task_move"]


@pytest.mark.parametrize(
    "kind", [">", "*", "task_move.>", "task_move.x", "task_move ", "x.task_move", "..", "%74ask_move"]
)
async def test_a_type_cannot_widen_the_subject(boards: Gateway, nc: Client, own_id: str, kind: str) -> None:
    """Whatever a message's `type` holds, it fills one token: none of these is the type that is allowed."""
    text = token(subscribe=[f"project.{own_id}.>"], publish=[f"inbox.project.{own_id}.task_move"])
    async with board(boards, own_id, text=text) as ws:
        await told(ws, "ready")
        await say(ws, type=kind)
        assert (await told(ws, "error"))["code"] == "forbidden"
        await say(ws, type="task_move")
        await until_stored(nc, own_id, f"inbox.project.{own_id}.task_move")
        assert await inbox(nc, own_id) == [f"inbox.project.{own_id}.task_move"]


async def test_a_huge_type_harms_nobody(boards: Gateway, nc: Client, own_id: str) -> None:
    """A `type` that makes a subject longer than NATS takes is refused; the gateway's connection to NATS stays."""
    text = token(subscribe=[f"project.{own_id}.>"], publish=[f"inbox.project.{own_id}.>"])
    before = boards.metrics().total("natsgate_nats_reconnects_total")
    async with board(boards, own_id, text=text) as ws:
        await told(ws, "ready")
        for size in (2_000, 60_000):
            await say(ws, type="x" * size)
            assert (await told(ws, "error"))["code"] == "bad_request"
        await say(ws, type="fine")
        await until_stored(nc, own_id, f"inbox.project.{own_id}.fine")
    assert boards.metrics().total("natsgate_nats_reconnects_total") == before


# Later tokens


async def test_a_renewal_changes_what_may_be_said(boards: Gateway, nc: Client, own_id: str) -> None:
    """The newest token's `publish` rights count: what it took away is refused, what it gave is stored."""
    feed, subject = [f"project.{own_id}.>"], f"inbox.project.{own_id}"
    async with board(boards, own_id, text=token(subscribe=feed, publish=[f"{subject}.a"])) as ws:
        await told(ws, "ready")
        await say(ws, op="auth", token=token(subscribe=feed, publish=[f"{subject}.b"]))
        await told(ws, "authenticated")
        await say(ws, type="a")
        assert (await told(ws, "error"))["code"] == "forbidden"
        await say(ws, type="b")
        await until_stored(nc, own_id, f"{subject}.b")
        assert await inbox(nc, own_id) == [f"{subject}.b"]


async def test_a_renewal_that_takes_the_feed_ends_the_connection(boards: Gateway, own_id: str) -> None:
    """A raw connection is its feed: a token that gives no right to it any more ends it with 3003 `forbidden`."""
    async with board(boards, own_id, text=token(subscribe=[f"project.{own_id}.>"])) as ws:
        await told(ws, "ready")
        await say(ws, op="auth", token=token(subscribe=["project.other.>"]))
        await told(ws, "authenticated")
        assert (await told(ws, "closing"))["reason"] == "forbidden"
        assert reason(await ws.next_frame()) == (3003, "forbidden")


async def test_a_refused_renewal_is_an_error(boards: Gateway, nc: Client, own_id: str) -> None:
    """A renewal that is not taken leaves the connection as it is."""
    async with board(boards, own_id, text=token(subscribe=[f"project.{own_id}.>"])) as ws:
        await told(ws, "ready")
        await say(ws, op="auth", token="a.b.c")
        assert (await told(ws, "error"))["code"] == "unauthorized"
        await publish(nc, f"project.{own_id}.x", '{"n":1}')
        assert (await ws.next_text()).payload == b'{"n":1}'
