"""A token reaches the gateway in each of the ways that clients have, and is held to what it says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from nats.aio.client import Client

from tests.support.gateway import Gateway
from tests.support.http_reply import fetch_async
from tests.support.sse import SseClient
from tests.support.tokens import bearer, token
from tests.support.ws import ws_client

Carry = Callable[[str], dict[str, str]]


@pytest.mark.parametrize(
    "carry",
    [bearer, lambda text: {"Authorization": f"bearer {text}"}, lambda text: {"Cookie": f"a=b; natsgate_token={text}"}],
    ids=["authorization", "lower case", "cookie"],
)
async def test_headers_open_a_stream(guarded: Gateway, nc: Client, own_id: str, carry: Carry) -> None:
    """`Authorization: Bearer` and the cookie open an SSE stream of what the token allows."""
    subject = f"repo.{own_id}.task.progress"
    headers = carry(token(subscribe=[f"repo.{own_id}.>"]))
    async with SseClient(guarded.url, f"repo.{own_id}.>", headers=headers) as sse:
        await sse.ready()
        await nc.publish(subject, b'{"n":1}')
        assert (await sse.next_message()).json() == {"n": 1}


@pytest.mark.parametrize("carry", [{"Authorization": "Bearer {}"}, {"Cookie": "natsgate_token={}"}])
async def test_handshakes_carry_headers(guarded: Gateway, nc: Client, own_id: str, carry: dict[str, str]) -> None:
    """The same headers authenticate a WebSocket; `hello` says so."""
    text = token(subscribe=["repo.{sub}.>"], sub=own_id)
    headers = {name: value.format(text) for name, value in carry.items()}
    async with ws_client(guarded.ws_url, headers=headers, origin=guarded.url) as ws:
        assert ws.hello["authenticated"] is True
        await ws.subscribe(f"repo.{own_id}.>")
        await nc.publish(f"repo.{own_id}.x", b'{"n":2}')
        assert (await ws.event())["event"] == {"n": 2}


@pytest.mark.parametrize("written", ["{}", "Token {}", "Bearer{}", "Bearer:{}", "Basic {}", "JWT {}"])
@pytest.mark.parametrize("path", ["/events?subject=repo.1.%3E", "/auth/ticket"])
async def test_a_header_without_bearer_is_a_401_that_says_so(guarded: Gateway, written: str, path: str) -> None:
    """A token in `Authorization` without the word in front is told how it is sent, and none of it comes back."""
    text = token(subscribe=["repo.1.>"])
    headers = {"Authorization": written.format(text)}
    method = "POST" if path == "/auth/ticket" else "GET"
    reply = await fetch_async(guarded.host, guarded.port, path, method=method, headers=headers)
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == 'Bearer realm="natsgate"'  # RFC 6750, section 3.1: of no use, no error
    detail = reply.problem()["detail"]
    assert "does not begin with Bearer" in detail
    assert "Authorization: Bearer <token>" in detail
    assert not any(part in reply.body.decode() for part in text.split("."))


async def test_a_subprotocol_carries_the_token(guarded: Gateway, own_id: str) -> None:
    """`natsgate.bearer.<jwt>` beside `natsgate.v1` authenticates and is never echoed."""
    text = token(subscribe=[f"repo.{own_id}.>"])
    async with ws_client(guarded.ws_url, subprotocols=["natsgate.v1", f"natsgate.bearer.{text}"]) as ws:
        assert ws.hello["authenticated"] is True
        assert ws.connection.subprotocol == "natsgate.v1"
        await ws.subscribe(f"repo.{own_id}.>")


async def test_a_first_frame_carries_the_token(guarded: Gateway, nc: Client, own_id: str) -> None:
    """Without a token the connection opens unauthenticated; `auth` and what is sent right behind it are answered in
    order."""
    text = token(subscribe=[f"repo.{own_id}.>"], ttl_s=600)
    async with ws_client(guarded.ws_url) as ws:
        assert ws.hello["authenticated"] is False
        refused = await ws.request(op="subscribe", ref=1, subject=f"repo.{own_id}.>")
        assert refused["code"] == "unauthorized"
        await ws.send(op="auth", ref=2, token=text)
        await ws.send(op="subscribe", ref=3, subject=f"repo.{own_id}.>")
        answer = await ws.next()
        assert answer["op"] == "authenticated"
        assert answer["ref"] == 2
        assert isinstance(answer["expires_at"], int)
        assert (await ws.next())["op"] == "subscribed"
        await ws.next_op("ready")
        await nc.publish(f"repo.{own_id}.x", b'{"n":3}')
        assert (await ws.event())["event"] == {"n": 3}


async def test_tickets_open_streams(guarded: Gateway, own_id: str) -> None:
    """`POST /auth/ticket` gives a ticket that opens the path it was got for, again and again, and no other."""
    text = token(subscribe=[f"repo.{own_id}.>"])
    reply = await fetch_async(
        guarded.host, guarded.port, "/auth/ticket", method="POST", headers=bearer(text), body=b'{"path":"/events"}'
    )
    assert reply.status == 200, reply
    ticket = reply.json()["ticket"]
    for _ in range(2):
        query = {"ticket": ticket}
        async with SseClient(guarded.url, f"repo.{own_id}.>", query=query) as sse:
            await sse.ready()
    async with ws_client(guarded.ws_url, f"/ws?ticket={ticket}") as ws:
        close, _ = await ws.closed()
        assert close is not None
        assert (close.code, close.reason) == (3000, "unauthorized")


async def test_access_token_is_off(guarded: Gateway, own_id: str) -> None:
    """`access_token=` is refused unless the settings take it, and the answer says what to do."""
    client = SseClient(guarded.url, f"repo.{own_id}.>", query={"access_token": token(subscribe=[">"])})
    async with client as sse:
        assert sse.status == 401
        assert "ALLOW_ACCESS_TOKEN" in sse.reply.problem()["detail"]


async def test_the_first_place_decides_and_a_refusal_names_it(guarded: Gateway, own_id: str) -> None:
    """Where a request carries two tokens only the first of the order is looked at; when that one is not taken, the
    answer says which it was and which was passed over."""
    good, old = token(subscribe=["repo.{sub}.>"], sub=own_id), token(subscribe=["repo.{sub}.>"], sub=own_id, ttl_s=-60)
    query = {"access_token": good, "ticket": "no-ticket"}
    async with SseClient(
        guarded.url, f"repo.{own_id}.>", headers={"Cookie": f"natsgate_token={good}"}, query=query
    ) as sse:
        await sse.ready()
    async with SseClient(
        guarded.url, f"repo.{own_id}.>", headers={"Cookie": f"natsgate_token={old}"}, query=query
    ) as sse:
        assert sse.status == 401
        detail = sse.reply.problem()["detail"]
        assert "expired" in detail
        assert "the request's cookie" in detail
        assert "ticket and access_token was not looked at" in detail


async def test_no_token_and_no_right(guarded: Gateway, own_id: str) -> None:
    """No token: 401 with a challenge. A filter that no pattern covers whole: 403 that names it."""
    async with SseClient(guarded.url, f"repo.{own_id}.>") as sse:
        assert sse.status == 401
        assert sse.headers["www-authenticate"] == 'Bearer realm="natsgate"'
    headers = bearer(token(subscribe=[f"repo.{own_id}.task.*"]))
    async with SseClient(guarded.url, f"repo.{own_id}.>", headers=headers) as sse:
        assert sse.status == 403
        assert f"repo.{own_id}.>" in sse.reply.problem()["detail"]


async def test_a_page_is_told_what_is_wrong_with_its_token(guarded: Gateway) -> None:
    """A handshake with a bad token is accepted, told in words what HTTP would say, and closed."""
    async with ws_client(guarded.ws_url, subprotocols=["natsgate.v1", "natsgate.bearer.nonsense"]) as ws:
        close, ops = await ws.closed()
    assert [op["op"] for op in ops] == ["error", "closing"]
    assert ops[0]["code"] == "unauthorized"
    assert "JSON Web Token" in ops[0]["message"]
    assert close is not None
    assert close.code == 3000
