"""Tickets: what stands in a URL instead of a token is worth less than one, and for a shorter time."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import jwt
import pytest
from nats.aio.client import Client

from tests.conftest import ShareGateway, StartGateway
from tests.support.barrier import barrier
from tests.support.gateway import Gateway, routes
from tests.support.http_reply import fetch_async
from tests.support.sse import SseClient, parse_head, read_body
from tests.support.tcp import TcpStream
from tests.support.tickets import ask_ticket, get_ticket
from tests.support.tokens import JWT, SECRET, bearer, claims, public_pem, sign, token
from tests.support.ws import ws_client

OTHER_SECRET = "another-secret-of-at-least-32-bytes"
ROUTES = routes(
    [
        'name = "repo-events"',
        'path = "/api/repositories/{repo_id}/events"',
        'subjects = ["repo.{repo_id}.>"]',
    ],
    [
        'name = "mine"',
        'path = "/api/mine"',
        'subjects = ["user.{sub}.>"]',
    ],
)


@pytest.fixture(scope="module")
def ticketing(share_gateway: ShareGateway) -> Gateway:
    """A gateway with routes, whose tickets live for ten minutes."""
    return share_gateway(JWT | {"TICKET_TTL_S": 600}, ROUTES)


async def opens(gateway: Gateway, target: str, ticket: str) -> int:
    """The status that a target gives with a ticket."""
    async with SseClient(gateway.url, target=f"{target}{'&' if '?' in target else '?'}ticket={ticket}") as sse:
        return sse.status


# What it is for


async def test_without_a_path_it_opens_the_built_in_streams(ticketing: Gateway, own_id: str) -> None:
    """With an empty body, or one that names no path, a ticket opens `/events` and `/ws`, and no configured route."""
    text = token(subscribe=[f"repo.{own_id}.>"])
    for body in (None, b"", b" \n", b"{}", b'{"path":null}'):
        reply = await ask_ticket(ticketing, text, body=body)
        assert reply.status == 200, reply
        ticket = reply.json()["ticket"]
        async with SseClient(ticketing.url, f"repo.{own_id}.>", query={"ticket": ticket}) as sse:
            await sse.ready()
        async with ws_client(ticketing.ws_url, f"/ws?ticket={ticket}") as ws:
            await ws.subscribe(f"repo.{own_id}.>")
        assert await opens(ticketing, f"/api/repositories/{own_id}/events", ticket) == 401


async def test_it_is_bound_to_its_path_as_it_stands_in_the_url(ticketing: Gateway, own_id: str) -> None:
    """A ticket for a route opens that very path, percent-encoding and all, and neither another nor `/events`."""
    text = token(subscribe=["repo.>"])
    path = f"/api/repositories/owner%2F{own_id}%20x/events"
    ticket = await get_ticket(ticketing, text, path)
    assert await opens(ticketing, path, ticket) == 200
    async with ws_client(ticketing.ws_url, f"{path}?ticket={ticket}") as ws:
        assert ws.hello["authenticated"] is True
    for other in (
        path + "/",
        path.replace(own_id, "other"),
        path.replace("%2F", "%2f"),
        f"/events?subject=repo.{own_id}.%3E",
        "/api/mine",
    ):
        assert await opens(ticketing, other, ticket) in (401, 404), other
    async with SseClient(ticketing.url, target=f"/api/mine?ticket={ticket}") as sse:
        assert "{\"path\":'/api/mine'}" not in sse.reply.problem()["detail"]
        assert '{"path":"/api/mine"}' in sse.reply.problem()["detail"]


async def test_it_is_bound_to_its_user_and_rights(ticketing: Gateway, nc: Client, own_id: str) -> None:
    """A ticket gives the rights of its token, for its `sub`, and no others."""
    sub = f"owner/{own_id}.js"
    text = token(sub, subscribe=[f"repo.{own_id}.task.*", "user.{sub}.>"])
    ticket = await get_ticket(ticketing, text)
    for subject, status in (
        (f"repo.{own_id}.task.*", 200),
        (f"user.owner/{own_id}%2Ejs.notification", 200),
        (f"repo.{own_id}.>", 403),
        (f"user.{own_id}.>", 403),
        ("user.{sub}.>", 400),
    ):
        async with SseClient(ticketing.url, subject, query={"ticket": ticket}) as sse:
            assert sse.status == status, subject
    mine = await get_ticket(ticketing, text, "/api/mine")
    async with SseClient(ticketing.url, target=f"/api/mine?ticket={mine}") as sse:
        await sse.ready()
        await nc.publish("user.other.notification", b'{"n":0}')
        await nc.publish(f"user.owner/{own_id}%2Ejs.notification", b'{"n":1}')
        assert (await sse.next_message()).json() == {"n": 1}


async def test_it_serves_again_and_again(ticketing: Gateway, nc: Client, own_id: str) -> None:
    """An EventSource repeats its URL when it comes back: the same ticket opens the stream again, where it was."""
    ticket = await get_ticket(ticketing, token(subscribe=[f"repo.{own_id}.>"]))
    cursor = ""
    for number in range(3):
        headers = {"Last-Event-ID": cursor} if cursor else {}
        async with SseClient(ticketing.url, f"repo.{own_id}.>", query={"ticket": ticket}, headers=headers) as sse:
            if number == 0:
                await sse.ready()
                await nc.publish(f"repo.{own_id}.x", b'{"n":0}')
            assert (await sse.next_message()).json() == {"n": number}
            cursor = sse.last_event_id
        await nc.publish(f"repo.{own_id}.x", b'{"n":%d}' % (number + 1))
        await barrier(nc)


# How long it lives


async def test_it_lives_no_longer_than_the_setting_says(ticketing: Gateway) -> None:
    """`expires_at` is `TICKET_TTL_S` away when the token lives longer."""
    before = time.time()
    reply = await ask_ticket(ticketing, token(ttl_s=86400))
    assert before + 590 < reply.json()["expires_at"] <= time.time() + 600


async def test_it_lives_no_longer_than_its_token(ticketing: Gateway, start_gateway: StartGateway) -> None:
    """`expires_at` is never beyond the token's `exp`, also where the setting gives no limit."""
    forever = await start_gateway(AUTH="jwt", JWT_SECRET=SECRET, TICKET_TTL_S=0)
    content = claims(ttl_s=60)
    for gateway in (ticketing, forever):
        reply = await ask_ticket(gateway, sign(content))
        assert reply.json()["expires_at"] == content["exp"]


async def test_its_stream_ends_with_it(start_gateway: StartGateway, own_id: str) -> None:
    """A stream that a ticket opened ends with the reason `token_expired` when the ticket is over, and the ticket opens
    none any more."""
    gateway = await start_gateway(AUTH="jwt", JWT_SECRET=SECRET, TICKET_TTL_S=2)
    ticket = await get_ticket(gateway, token(subscribe=[f"repo.{own_id}.>"]))
    async with SseClient(gateway.url, f"repo.{own_id}.>", query={"ticket": ticket}) as sse:
        await sse.ready()
        closing = await sse.next_event()
        assert closing.type == "natsgate.closing"
        assert closing.json()["reason"] == "token_expired"
    async with SseClient(gateway.url, f"repo.{own_id}.>", query={"ticket": ticket}) as sse:
        assert sse.status == 401
        assert "expired" in sse.reply.problem()["detail"]


@pytest.mark.parametrize("claim", ["iat", "nbf"])
async def test_clocks_may_differ_for_tickets_as_for_tokens(ticketing: Gateway, own_id: str, claim: str) -> None:
    """A token of an issuer whose clock is a little ahead is taken, and so is the ticket that was got with it."""
    content = claims(subscribe=[f"repo.{own_id}.>"]) | {claim: int(time.time()) + 3}
    ticket = await get_ticket(ticketing, sign(content))
    assert await opens(ticketing, f"/events?subject=repo.{own_id}.%3E", ticket) == 200


# What it is not


async def test_a_ticket_is_no_token(ticketing: Gateway, own_id: str) -> None:
    """As `Authorization`, cookie, subprotocol or first frame a ticket is refused, although the same secret made it."""
    ticket = await get_ticket(ticketing, token(subscribe=[f"repo.{own_id}.>"]))
    for headers in (bearer(ticket), {"Cookie": f"natsgate_token={ticket}"}):
        async with SseClient(ticketing.url, f"repo.{own_id}.>", headers=headers) as sse:
            assert sse.status == 401
    for subprotocols in (["natsgate.v1", f"natsgate.bearer.{ticket}"], ["natsgate.v1"]):
        async with ws_client(ticketing.ws_url, subprotocols=subprotocols) as ws:
            assert ws.hello["authenticated"] is False
            if len(subprotocols) == 1:
                await ws.send(op="auth", ref=1, token=ticket)
            close, _ = await ws.closed()
            assert close is not None
            assert (close.code, close.reason) == (3000, "unauthorized")


async def test_a_token_is_no_ticket(ticketing: Gateway, own_id: str) -> None:
    """Nor does `ticket=` take a token, signed with the same secret, whatever paths it claims."""
    plain = claims(subscribe=[f"repo.{own_id}.>"])
    for content in (plain, plain | {"natsgate_paths": ["/events"]}):
        text = sign(content)
        assert await opens(ticketing, f"/events?subject=repo.{own_id}.%3E", text) == 401


async def test_a_ticket_gets_no_ticket(ticketing: Gateway, own_id: str) -> None:
    """A ticket cannot be prolonged: neither in the URL nor as a token does it get another one."""
    ticket = await get_ticket(ticketing, token(subscribe=[f"repo.{own_id}.>"]))
    reply = await fetch_async(ticketing.host, ticketing.port, f"/auth/ticket?ticket={ticket}", method="POST")
    assert reply.status == 401
    assert "send the token" in reply.problem()["detail"]
    assert (await ask_ticket(ticketing, ticket)).status == 401


async def test_claims_of_a_token_cannot_widen_its_ticket(ticketing: Gateway, own_id: str) -> None:
    """A token that claims paths of its own gets a ticket for the path that was asked for alone."""
    text = token(subscribe=["repo.>"], natsgate_paths=["/events", "/ws"])
    ticket = await get_ticket(ticketing, text, f"/api/repositories/{own_id}/events")
    assert await opens(ticketing, f"/events?subject=repo.{own_id}.%3E", ticket) == 401


@pytest.mark.parametrize("change", ["signature", "none", "claims", "empty", "long"])
async def test_a_forged_ticket_opens_nothing(ticketing: Gateway, own_id: str, change: str) -> None:
    """A ticket that was changed, unsigned or made up is refused."""
    ticket = await get_ticket(ticketing, token(subscribe=[f"repo.{own_id}.>"]))
    head, body, signature = ticket.split(".")
    content = jwt.decode(ticket, options={"verify_signature": False})
    forged = {
        "signature": f"{head}.{body}.{signature[:-4]}AAAA",
        "none": jwt.encode(content, "", algorithm="none"),
        "claims": f"{head}.{sign(content | {'sub': 'root'}).split('.')[1]}.{signature}",
        "empty": "",
        "long": "x" * 9000,
    }[change]
    assert await opens(ticketing, f"/events?subject=repo.{own_id}.%3E", forged) == 401


# The secret


async def test_tickets_are_for_every_replica_with_the_same_secret(
    ticketing: Gateway, start_gateway: StartGateway, own_id: str
) -> None:
    """A ticket of one replica opens a stream on another one; not on one with another secret."""
    ticket = await get_ticket(ticketing, token(subscribe=[f"repo.{own_id}.>"]))
    target = f"/events?subject=repo.{own_id}.%3E"
    same = await start_gateway(AUTH="jwt", JWT_SECRET=SECRET)
    assert await opens(same, target, ticket) == 200
    other = await start_gateway(AUTH="jwt", JWT_SECRET=SECRET, TICKET_SECRET=OTHER_SECRET)
    assert await opens(other, target, ticket) == 401
    theirs = await get_ticket(other, token(subscribe=[f"repo.{own_id}.>"]))
    assert await opens(other, target, theirs) == 200
    assert await opens(ticketing, target, theirs) == 401


async def test_public_keys_need_a_ticket_secret(start_gateway: StartGateway, tmp_path: Path, own_id: str) -> None:
    """Where tokens are checked with a public key there are no tickets (404, with what would make it) until
    TICKET_SECRET is set."""
    key = tmp_path / "key.pem"
    key.write_text(public_pem("RS256"))
    text = sign(claims(subscribe=[f"repo.{own_id}.>"]), algorithm="RS256")
    settings = {"AUTH": "jwt", "JWT_PUBLIC_KEY_FILE": str(key)}
    without = await start_gateway(settings=settings)
    reply = await ask_ticket(without, text)
    assert reply.status == 404
    assert "NATSGATE_TICKET_SECRET" in reply.problem()["detail"]
    made_up = jwt.encode(claims(subscribe=[">"]) | {"natsgate_paths": ["/events"]}, OTHER_SECRET, algorithm="HS256")
    assert await opens(without, f"/events?subject=repo.{own_id}.%3E", made_up) == 401
    having = await start_gateway(settings=settings, TICKET_SECRET=OTHER_SECRET)
    ticket = await get_ticket(having, text)
    assert await opens(having, f"/events?subject=repo.{own_id}.%3E", ticket) == 200
    assert await opens(having, f"/events?subject=repo.{own_id}.%3E", made_up) == 401


async def test_without_authentication_there_are_no_tickets(gateway: Gateway) -> None:
    """AUTH=none gives no tickets, and says that none is needed."""
    reply = await fetch_async(gateway.host, gateway.port, "/auth/ticket", method="POST")
    assert reply.status == 404
    assert "AUTH=none" in reply.problem()["detail"]


# What is asked


@pytest.mark.parametrize("ago_s", [2, 60])
async def test_no_token_no_ticket(ticketing: Gateway, ago_s: float) -> None:
    """Without a token, or with one that is over (be it within what clocks may differ), there is no ticket: 401."""
    reply = await fetch_async(ticketing.host, ticketing.port, "/auth/ticket", method="POST")
    assert reply.status == 401
    reply = await ask_ticket(ticketing, token(ttl_s=-ago_s))
    assert reply.status == 401
    assert "expired" in reply.problem()["detail"]


BAD_BODIES = {
    "no JSON": b"path=/events",
    "a list": b'["/events"]',
    "text": b'"/events"',
    "another name for it": b'{"paths":["/events"]}',
    "a number for a path": b'{"path":1}',
    "a list of paths": b'{"path":["/events"]}',
    "no slash": b'{"path":"events"}',
    "a URL": b'{"path":"http://x/events"}',
    "empty": b'{"path":""}',
    "with a query": b'{"path":"/events?subject=repo.1.%3E"}',
    "with a fragment": b'{"path":"/events#x"}',
    "not percent-encoded": '{"path":"/api/repositories/ä/events"}'.encode(),
    "with a space": b'{"path":"/api/repositories/a b/events"}',
    "too long": b'{"path":"/' + b"x" * 2000 + b'"}',
    "not UTF-8": b'{"path":"/\xff"}',
    "half an emoji": b'{"path":"/\\ud83d"}',
    "deep": b"[" * 3000,
    "huge": b'{"path":"/events","pad":"' + b"x" * 5000 + b'"}',
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_bad_bodies_are_refused_with_the_right_one(ticketing: Gateway, body: bytes) -> None:
    """A body that does not say a path as it stands in a URL: 400 that shows one that does."""
    reply = await ask_ticket(ticketing, token(), body=body)
    assert reply.status == 400, reply
    assert "/events" in reply.problem()["detail"]


async def post(gateway: Gateway, *pieces: bytes, length: str) -> TcpStream:
    """An open connection on which a POST for a ticket was begun."""
    tcp = TcpStream(gateway.host, gateway.port)
    await tcp.open()
    head = f"POST /auth/ticket HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token()}\r\n{length}\r\n\r\n".encode()
    await tcp.send(head + b"".join(pieces))
    return tcp


async def test_a_chunked_body_is_read_whole(ticketing: Gateway) -> None:
    """A body in chunks, sent a byte at a time, is as good as any."""
    tcp = await post(ticketing, length="Transfer-Encoding: chunked")
    with closing(tcp):
        for byte in b'{"path":"/events"}':
            await tcp.send(b"1\r\n%c\r\n" % byte)
        await tcp.send(b"0\r\n\r\n")
        status, headers = parse_head(await tcp.read_until(b"\r\n\r\n"))
        assert status == 200
        assert b"ticket" in await read_body(tcp, headers)


async def test_an_endless_body_is_not_kept(ticketing: Gateway) -> None:
    """A body beyond 4 KiB is refused when that much has come, not when all of it has."""
    tcp = await post(ticketing, b"x" * 8192, length="Content-Length: 99999999999")
    with closing(tcp):
        status, headers = parse_head(await tcp.read_until(b"\r\n\r\n"))
        assert status == 400
        assert b"4096" in await read_body(tcp, headers)


async def test_a_slow_body_ends_in_time(start_gateway: StartGateway) -> None:
    """A body that does not come within REQUEST_TIMEOUT_S: 408, and the connection ends."""
    gateway = await start_gateway(AUTH="jwt", JWT_SECRET=SECRET, REQUEST_TIMEOUT_S=0.5)
    tcp = await post(gateway, b'{"path":', length="Content-Length: 18")
    with closing(tcp):
        status, _ = parse_head(await tcp.read_until(b"\r\n\r\n"))
        assert status == 408
        await tcp.read_to_end()
    assert gateway.logs("ended") == []
