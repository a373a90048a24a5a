"""The first frame, and later ones, say who a WebSocket client is: `natsgate.v1`."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from nats.aio.client import Client

from tests.auth.boards import BOARD
from tests.conftest import ShareGateway
from tests.support.eventually import eventually
from tests.support.flow import Flow
from tests.support.gateway import Gateway, routes
from tests.support.producer import publish
from tests.support.raw_ws import RawWebSocket, encode_op
from tests.support.stored import sequence_of, stored
from tests.support.tokens import JWT, bearer, claims, sign, token
from tests.support.ws import Op, WsClient, ws_client

SPREAD_S = 2.0
"""Over how long streams of one `exp` end."""


@pytest.fixture(scope="module")
def routed(share_gateway: ShareGateway) -> Gateway:
    """A gateway with AUTH=jwt and an enveloped WebSocket route."""
    return share_gateway(JWT, routes(BOARD))


@pytest.fixture(scope="module")
def impatient(share_gateway: ShareGateway) -> Gateway:
    """A gateway with AUTH=jwt that waits for nobody and forgives little."""
    return share_gateway(JWT | {"AUTH_TIMEOUT_S": 2, "WS_MAX_ERRORS": 2})


async def until(moment: float) -> None:
    """Wait for the clock to show a moment (seconds since the epoch)."""

    async def there() -> bool:
        return time.time() >= moment

    await eventually(there, "the clock shows it", timeout_s=30, every_s=0.1)


async def assert_closed(ws: WsClient, code: int, reason: str) -> list[Op]:
    """The server closes with this code, having said the reason before; what came until then."""
    close, ops = await ws.closed()
    assert close is not None
    assert (close.code, close.reason) == (code, reason)
    assert ops[-1]["op"] == "closing"
    assert ops[-1]["reason"] == reason
    return ops[:-1]


# The first one


async def test_a_silent_client_is_closed(impatient: Gateway) -> None:
    """A client that does not say who it is within AUTH_TIMEOUT_S is closed with 3000 `unauthorized`; one that did in
    time is not."""
    async with ws_client(impatient.ws_url) as silent, ws_client(impatient.ws_url) as speaking:
        assert silent.hello["authenticated"] is False
        assert (await speaking.request(op="auth", ref=1, token=token()))["op"] == "authenticated"
        assert await assert_closed(silent, 3000, "unauthorized") == []
        assert (await speaking.request(op="ping", ref=2))["op"] == "pong"


BAD_TOKENS = {
    "garbage": ("garbage", "unauthorized"),
    "three parts of garbage": ("a.b.c", "unauthorized"),
    "unsigned": ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIiwiZXhwIjo5OTk5OTk5OTk5fQ.", "unauthorized"),
    "of another secret": (sign(claims(), key="x" * 32), "unauthorized"),
    "expired": (token(ttl_s=-60), "token_expired"),
    "without exp": (sign({"sub": "alice"}), "unauthorized"),
}


@pytest.mark.parametrize(("text", "reason"), BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
async def test_a_bad_token_ends_the_connection(guarded: Gateway, text: str, reason: str) -> None:
    """A first token that is not taken is answered with an error, and the connection ends with 3000."""
    async with ws_client(guarded.ws_url) as ws:
        await ws.send(op="auth", ref="r", token=text)
        await ws.send(op="subscribe", ref=2, subject="repo.1.>")
        (error,) = await assert_closed(ws, 3000, reason)
        assert (error["op"], error["ref"], error["code"]) == ("error", "r", "unauthorized")
        assert text not in error["message"]


MALFORMED: list[dict[str, Any]] = [
    {},
    {"token": None},
    {"token": 5},
    {"token": ""},
    {"token": "x" * 9000},
    {"token": ["a"]},
]


@pytest.mark.parametrize("more", MALFORMED, ids=str)
async def test_a_malformed_auth_may_be_mended(guarded: Gateway, more: dict[str, Any]) -> None:
    """An `auth` that holds no token is an error like any other: the client may still say who it is."""
    async with ws_client(guarded.ws_url) as ws:
        answer = await ws.request(op="auth", ref=1, **more)
        assert (answer["op"], answer["code"]) == ("error", "bad_request")
        assert (await ws.request(op="auth", ref=2, token=token()))["op"] == "authenticated"


async def test_before_auth_there_are_pings_and_nothing_else(impatient: Gateway, own_id: str) -> None:
    """Ops before `auth` are refused with `unauthorized`, `ping` is answered; WS_MAX_ERRORS holds before it too."""
    async with ws_client(impatient.ws_url) as ws:
        assert (await ws.request(op="ping", ref=1))["op"] == "pong"
        for ref in (2, 3):
            answer = await ws.request(op="subscribe", ref=ref, subject=f"repo.{own_id}.>")
            assert (answer["op"], answer["code"]) == ("error", "unauthorized")
            assert '"op":"auth"' in answer["message"]
        await ws.send(op="unsubscribe", ref=4, feed=f"repo.{own_id}.>")
        await assert_closed(ws, 1008, "policy")


async def test_what_comes_behind_auth_waits_for_it(guarded: Gateway, nc: Client, own_id: str) -> None:
    """Frames sent right behind `auth`, in the same segment as the handshake, are answered after it and in order."""
    text = token(subscribe=[f"repo.{own_id}.>"])
    feed = f"repo.{own_id}.>"
    early = b"".join(
        encode_op(ref=ref, **op)
        for ref, op in enumerate(
            (
                {"op": "ping"},
                {"op": "auth", "token": text},
                {"op": "subscribe", "subject": feed},
                {"op": "ping"},
                {"op": "auth", "token": text},
                {"op": "subscribe", "subject": "repo.other.>"},
                {"op": "unsubscribe", "feed": feed},
                {"op": "dance"},
                {"op": "subscribe", "subject": feed},
            )
        )
    )
    async with RawWebSocket(guarded.url, early=early) as ws:
        assert (await ws.next_text()).json()["op"] == "hello"
        answers: list[tuple[int, str]] = []
        while len(answers) < 9:
            op = (await ws.next_text()).json()
            if "ref" in op:
                answers.append((op["ref"], op.get("code", op["op"])))
        assert answers == [
            (0, "pong"),
            (1, "authenticated"),
            (2, "subscribed"),
            (3, "pong"),
            (4, "authenticated"),
            (5, "forbidden"),
            (6, "unsubscribed"),
            (7, "unknown_op"),
            (8, "subscribed"),
        ]
        await ws.next_op("ready")
        await publish(nc, f"repo.{own_id}.x", '{"n":1}')
        assert (await ws.next_op("event"))["event"] == {"n": 1}


async def test_without_authentication_auth_is_answered(gateway: Gateway) -> None:
    """With AUTH=none a page may say who it is all the same; nothing ends."""
    async with ws_client(gateway.ws_url) as ws:
        answer = await ws.request(op="auth", ref=1, token="anything")
        assert answer == {"op": "authenticated", "ref": 1, "expires_at": None}
        assert (await ws.request(op="ping", ref=2))["op"] == "pong"


# Later ones


async def test_a_renewed_token_moves_the_end(guarded: Gateway, nc: Client, own_id: str) -> None:
    """A connection whose token is renewed in time lives on beyond the first one's `exp`; one whose renewal was refused
    stays until then, with an error, and ends with `token_expired`."""
    rights = [f"repo.{own_id}.>"]
    content = claims(subscribe=rights, ttl_s=2)
    headers = bearer(sign(content))
    async with (
        ws_client(guarded.ws_url, headers=headers) as renewed,
        ws_client(guarded.ws_url, headers=headers) as kept,
    ):
        await renewed.subscribe(*rights)
        answer = await renewed.request(op="auth", ref=1, token=token(subscribe=rights, ttl_s=600))
        assert answer["expires_at"] > content["exp"] + 500
        refused = await kept.request(op="auth", ref=1, token=sign(claims(ttl_s=600), key="x" * 32))
        assert (refused["op"], refused["code"]) == ("error", "unauthorized")
        assert (await kept.request(op="ping", ref=2))["op"] == "pong"
        await assert_closed(kept, 3000, "token_expired")
        await until(content["exp"] + SPREAD_S + 1.5)
        await publish(nc, f"repo.{own_id}.x", '{"n":1}')
        assert (await renewed.event())["event"] == {"n": 1}


async def test_a_sooner_end_counts_too(guarded: Gateway) -> None:
    """A renewal may also shorten: the newest token's `exp` is the end."""
    async with ws_client(guarded.ws_url, headers=bearer(token(ttl_s=600))) as ws:
        await ws.request(op="auth", ref=1, token=token(ttl_s=1))
        await assert_closed(ws, 3000, "token_expired")


async def test_another_user_cannot_take_a_connection_over(guarded: Gateway, own_id: str) -> None:
    """A token of another `sub` ends the connection with 3003 `forbidden`, and gets nothing of what it had."""
    async with ws_client(guarded.ws_url, headers=bearer(token("alice", subscribe=["user.{sub}.>"]))) as ws:
        await ws.subscribe("user.alice.>")
        await ws.send(op="auth", ref=1, token=token("bob", subscribe=[">"]))
        await ws.send(op="subscribe", ref=2, subject=f"repo.{own_id}.>")
        assert await assert_closed(ws, 3003, "forbidden") == []


async def test_refused_renewals_count_as_errors(impatient: Gateway) -> None:
    """Nobody may try tokens on one connection without end: WS_MAX_ERRORS ends it."""
    async with ws_client(impatient.ws_url, headers=bearer(token())) as ws:
        for ref in (1, 2):
            assert (await ws.request(op="auth", ref=ref, token="a.b.c"))["code"] == "unauthorized"
        await ws.send(op="auth", ref=3, token="a.b.c")
        await assert_closed(ws, 1008, "policy")


async def test_feeds_that_lose_their_right_end_and_others_go_on(guarded: Gateway, nc: Client, own_id: str) -> None:
    """Under a flow of events, a renewal without the right to one feed ends it with an error that names it; no event of
    it comes afterwards, and the other feed neither loses nor doubles any."""
    kept, lost = f"repo.{own_id}.>", f"task.{own_id}.>"
    subjects = [f"repo.{own_id}.x", f"task.{own_id}.x"]
    async with ws_client(guarded.ws_url, headers=bearer(token(subscribe=[kept, lost]))) as ws:
        await ws.subscribe(kept)
        await ws.subscribe(lost)
        async with Flow(nc, subjects) as flow:
            await flow.more(50)
            await ws.send(op="auth", ref=1, token=token(subscribe=[kept]))
            await flow.more(50)
        expected = [event.sequence for event in await stored(nc, kept)]
        ops: list[Op] = []
        while not ops or ops[-1].get("feed") != kept or sequence_of(ops[-1].get("cursor")) < expected[-1]:
            ops.append(await ws.next())
    names = [(op["op"], op.get("feed")) for op in ops]
    error = names.index(("error", lost))
    assert names[error - 1] == ("authenticated", None)
    assert (ops[error]["code"], ops[error]["ref"]) == ("forbidden", 1)
    assert ("event", lost) in names[:error]
    assert ("event", lost) not in names[error:]
    assert [sequence_of(op["cursor"]) for op in ops if op["op"] == "event" and op["feed"] == kept] == expected


async def test_a_feed_that_ended_may_be_asked_for_again(guarded: Gateway, own_id: str) -> None:
    """What a renewal took is refused until a further renewal gives it back."""
    feed = f"repo.{own_id}.>"
    full, less = token(subscribe=[feed]), token(subscribe=[])
    async with ws_client(guarded.ws_url, headers=bearer(full)) as ws:
        await ws.subscribe(feed)
        await ws.send(op="auth", ref=1, token=less)
        await ws.next_op("authenticated")
        assert (await ws.next_op("error"))["feed"] == feed
        assert (await ws.request(op="subscribe", ref=2, subject=feed))["code"] == "forbidden"
        assert (await ws.request(op="auth", ref=3, token=full))["op"] == "authenticated"
        await ws.subscribe(feed)


async def test_the_feed_of_a_route_needs_its_right_all_along(routed: Gateway, nc: Client, own_id: str) -> None:
    """On a route that goes by the token's rights, the feed that the path serves by itself ends like any other."""
    feed = f"project.{own_id}.>"
    headers = bearer(token(subscribe=[feed]))
    async with ws_client(routed.ws_url, f"/boards/{own_id}", headers=headers) as ws:
        assert [(await ws.next())["op"] for _ in range(2)] == ["subscribed", "ready"]
        other = f"project.{own_id}-other.>"
        assert (await ws.request(op="auth", ref=1, token=token(subscribe=[other])))["op"] == "authenticated"
        error = await ws.next_op("error")
        assert (error["code"], error["feed"]) == ("forbidden", feed)
        await ws.subscribe(other)
        await publish(nc, f"project.{own_id}.x", '{"n":1}')
        await publish(nc, f"project.{own_id}-other.x", '{"n":2}')
        assert (await ws.event())["event"] == {"n": 2}


async def test_a_route_is_entered_by_a_first_frame(routed: Gateway, nc: Client, own_id: str) -> None:
    """A route serves its feed once the client has said who it is; a token without the right ends the connection with
    3003 `forbidden`."""
    async with ws_client(routed.ws_url, f"/boards/{own_id}") as ws:
        assert ws.hello["authenticated"] is False
        await ws.send(op="auth", ref=1, token=token(subscribe=[f"project.{own_id}.>"]))
        assert [(await ws.next())["op"] for _ in range(3)] == ["authenticated", "subscribed", "ready"]
        await publish(nc, f"project.{own_id}.x", '{"n":1}')
        assert (await ws.event())["event"] == {"n": 1}
    async with ws_client(routed.ws_url, f"/boards/{own_id}") as ws:
        await ws.send(op="auth", ref=1, token=token(subscribe=["project.other.>"]))
        (error,) = await assert_closed(ws, 3003, "forbidden")
        assert error["code"] == "forbidden"


async def test_a_path_that_no_token_mends_is_told_so(routed: Gateway) -> None:
    """A path that makes a subject too long is a 400; where the token comes by a first frame, an error and 1008
    `policy`, with which nobody comes back."""
    path = f"/boards/{'x' * 1100}"
    async with ws_client(routed.ws_url, path) as ws:
        await ws.send(op="auth", ref=1, token=token(subscribe=["project.>"]))
        close, ops = await ws.closed()
    assert close is not None
    assert (close.code, close.reason) == (1008, "policy")
    assert [(op["op"], op.get("code"), op.get("reconnect")) for op in ops] == [
        ("error", "bad_request", None),
        ("closing", None, False),
    ]


async def test_many_renewals_at_once_end_with_the_last(guarded: Gateway) -> None:
    """Renewals that come faster than they are looked at are answered one by one, in order."""
    async with ws_client(guarded.ws_url, headers=bearer(token())) as ws:
        ends = [600 + 60 * number for number in range(20)]
        await asyncio.gather(*(ws.send(op="auth", ref=end, token=token(ttl_s=end)) for end in ends))
        answers = [await ws.next() for _ in ends]
        assert [answer["ref"] for answer in answers] == ends
        assert all(answer["op"] == "authenticated" for answer in answers)
