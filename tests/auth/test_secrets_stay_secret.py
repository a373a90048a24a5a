"""What is secret stays so: tokens, tickets, cookies and payloads reach no log, metric, error or process list."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest
from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.support.eventually import eventually
from tests.support.gateway import Gateway
from tests.support.http_reply import fetch_async
from tests.support.nats_server import NatsServer
from tests.support.ports import free_port
from tests.support.raw_ws import BINARY, TEXT, RawWebSocket, encode_frame, encode_op, encode_text
from tests.support.service import Answer, Service
from tests.support.sse import SseClient
from tests.support.tcp import Ended, TcpStream
from tests.support.tickets import get_ticket
from tests.support.tokens import SECRET, bearer, claims, sign, token

PART = 12
"""So many characters of a secret in a row are a leak."""


class Secrets:
    """What may be seen nowhere, and everything that was seen.

    Attributes:
        seen: answers that are errors, by what was asked.
    """

    def __init__(self) -> None:
        self._parts: set[str] = {SECRET[start : start + PART] for start in range(len(SECRET) - PART + 1)}
        self.seen: dict[str, str] = {}

    def keep(self, text: str) -> str:
        """This is one, too."""
        self._parts |= {text[start : start + PART] for start in range(len(text) - PART + 1)}
        return text

    def payload(self) -> str:
        """Text that no other event holds."""
        return self.keep(uuid.uuid4().hex)

    def token(self, **more: object) -> str:
        """A good token, unlike all others."""
        return self.keep(sign(claims(subscribe=["repo.>"], publish=["inbox.>"]) | {"jti": uuid.uuid4().hex} | more))

    def bad_tokens(self) -> Iterable[str]:
        """Tokens of each kind that is refused."""
        yield self.keep(sign(claims() | {"jti": uuid.uuid4().hex}, key="x" * 32))
        yield self.token(exp=1_000_000_000)
        yield self.token(natsgate={"subscribe": ["repo.>.x"]})
        yield self.keep(f"{uuid.uuid4().hex}.{uuid.uuid4().hex}.{uuid.uuid4().hex}")
        yield self.keep(uuid.uuid4().hex * 300)

    def leaks(self, text: str) -> list[str]:
        """The parts of secrets in a text, with a little of what stands around them."""
        starts = [start for start in range(len(text) - PART + 1) if text[start : start + PART] in self._parts]
        return [text[max(0, start - 60) : start + PART + 20] for start in starts[:3]]


@pytest.fixture
async def watched(start_gateway: StartGateway, own_nats: NatsServer, service_routes: str) -> Gateway:
    """A gateway that says all it has to say, on a nats-server of its own."""
    return await start_gateway(
        nats_url=own_nats.url,
        config=service_routes,
        executed=True,  # what `ps` shows is looked at
        AUTH="jwt",
        JWT_SECRET=SECRET,
        LOG_LEVEL="debug",
        REQUEST_TIMEOUT_S=0.5,
        ALLOWED_ORIGINS="https://app.example.com",
    )


# Kinds of refusals and faults


async def by_http(gateway: Gateway, secrets: Secrets) -> None:
    """Every carrier of a token with every kind of bad one, and good ones where they do not belong."""
    good = secrets.token()
    ticket = secrets.keep(await get_ticket(gateway, good, "/events"))
    stream = "/events?subject=repo.1.%3E"

    async def get(path: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> None:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        reply = await fetch_async(gateway.host, gateway.port, path, method=method, headers=sent, body=body)
        assert reply.status >= 400, reply
        secrets.seen[f"{len(secrets.seen)}: {method} {path[:40]} {sorted(sent)}"] = (
            f"{reply.headers} {reply.body.decode()}"
        )

    for bad in secrets.bad_tokens():
        await get(stream, Authorization=f"Bearer {bad}")
        await get(stream, Cookie=f"natsgate_token={bad}")
        await get(f"{stream}&ticket={bad}")
        await get("/auth/ticket", method="POST", Authorization=f"Bearer {bad}")
    await get(stream, Cookie=f"natsgate_token={good}", Origin="https://evil.example")
    await get(f"{stream}&access_token={good}")
    await get(f"{stream}&ticket={ticket}&ticket={ticket}")
    await get(f"/tasks/1?ticket={ticket}")
    await get(f"/auth/ticket?ticket={ticket}", method="POST")
    await get("/auth/ticket", method="POST", body=secrets.payload().encode(), Authorization=f"Bearer {good}")
    await get("/auth/ticket", method="POST", body=json.dumps({"path": secrets.payload()}).encode(), **bearer(good))
    await get(f"/events?subject=user.1.%3E&ticket={ticket}")
    await get(f"{stream}&since=yesterday&ticket={ticket}")
    await get(f"/nowhere?ticket={ticket}", Authorization=f"Bearer {good}")
    await get(f"/events?ticket={ticket}", method="PUT")


async def by_bad_http(gateway: Gateway, secrets: Secrets) -> None:
    """Requests that no parser takes, that are too large, too slow, or of another age."""
    for name, request in {
        "no HTTP": f"{secrets.payload()}\r\nAuthorization: Bearer {secrets.token()}\r\n\r\n",
        "a bad header": f"GET /events HTTP/1.1\r\nHost: x\r\nAuth orization: Bearer {secrets.token()}\r\n\r\n",
        "too large": f"GET /events?ticket={secrets.payload() * 700} HTTP/1.1\r\nHost: x\r\n\r\n",
        "too slow": f"GET /events?ticket={secrets.token()} HTTP/1.1\r\nAuthorization: Bearer {secrets.token()}\r\n",
        "HTTP/1.0": f"GET /events?subject=repo.1.%3E&ticket={secrets.token()} HTTP/1.0\r\nHost: x\r\n\r\n",
        "a bad handshake": f"GET /ws?ticket={secrets.token()} HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n"
        f"Upgrade: websocket\r\nSec-WebSocket-Protocol: natsgate.bearer.{secrets.token()}\r\n\r\n",
    }.items():
        async with TcpStream(gateway.host, gateway.port) as tcp:
            await tcp.send(request.encode())
            secrets.seen[name] = (await tcp.read_to_end()).decode()
            assert secrets.seen[name].startswith("HTTP/1.1 "), name


async def by_websocket(gateway: Gateway, secrets: Secrets) -> None:
    """Handshakes and frames with every kind of bad token, and messages that are none."""
    for bad in secrets.bad_tokens():
        for headers in (
            bearer(bad),
            {"Sec-WebSocket-Protocol": f"natsgate.v1, natsgate.bearer.{bad}"},
            {"Cookie": f"natsgate_token={bad}", "Origin": gateway.url},
            {"Cookie": f"natsgate_token={bad}", "Origin": "https://evil.example"},
            {"Sec-WebSocket-Protocol": f"natsgate.bearer.{bad}"},
        ):
            await hear(gateway, secrets, "/ws", headers)
        await hear(gateway, secrets, "/ws", {}, encode_op(op="auth", ref=1, token=bad))
        await hear(gateway, secrets, f"/ws?ticket={bad}", {})
        await hear(gateway, secrets, "/ws", bearer(secrets.token()), encode_op(op="auth", ref=1, token=bad))
        await hear(gateway, secrets, "/boards/1?control=true", bearer(secrets.token()), encode_op(op="auth", token=bad))
    for frame in (
        encode_text(secrets.payload()),
        encode_text('{"op":"auth","token":"' + secrets.token()),
        encode_text(json.dumps({"op": "auth", "token": [secrets.token()]})),
        encode_frame(BINARY, secrets.token().encode()),
        encode_frame(TEXT, secrets.token().encode(), masked=False),
        encode_frame(TEXT, b"\xff" + secrets.token().encode()),
        encode_text(secrets.payload() * 3000),
        encode_text(json.dumps({"type": "x" * 2000, "data": secrets.payload()})),
    ):
        await hear(gateway, secrets, "/ws", bearer(secrets.token()), frame)
        await hear(gateway, secrets, "/boards/1?control=true", bearer(secrets.token()), frame)


async def hear(gateway: Gateway, secrets: Secrets, path: str, headers: dict[str, str], *frames: bytes) -> None:
    """Send something to a WebSocket, and keep whatever it says until it ends or answers a ping behind it."""
    subprotocol = "natsgate.v1" if path.startswith("/ws") else None
    ws = RawWebSocket(gateway.url, path, subprotocol=subprotocol, headers={**headers})
    name = f"{path[:20]} {sorted(headers)} {len(secrets.seen)}"
    try:
        await ws.open()
        if ws.status == 101:
            await ws.send(*frames, encode_op(op="ping", ref="last"), encode_frame(8, b"\x03\xe8"))
            with contextlib.suppress(Ended):
                while True:
                    frame = await ws.next_frame()
                    secrets.seen[f"{name}: {len(secrets.seen)}"] = frame.payload.decode("utf-8", "replace")
        secrets.seen[name] = f"{ws.headers} {ws.body.decode()}"
    finally:
        ws.close()


async def by_nats(gateway: Gateway, secrets: Secrets, nc: Client) -> None:
    """Events that are none or too large, forged live messages, and a service that answers nonsense."""
    headers = bearer(secrets.token())
    async with SseClient(gateway.url, "repo.1.>", headers=headers) as sse:
        await sse.ready()
        for payload in (secrets.payload(), '{"a":"' + secrets.payload(), json.dumps({"a": secrets.payload() * 9000})):
            await nc.publish("repo.1.x", payload.encode())
        await nc.publish("live.repo.1.x", secrets.payload().encode(), headers={"Nats-Sequence": secrets.payload()})
        await nc.publish("repo.1.x", json.dumps({"ok": secrets.payload()}).encode())
        assert "ok" in (await sse.next_message()).json()
    answers: list[Answer] = [
        secrets.payload(),
        {"allow": secrets.payload()},
        {"allow": True, "initial": secrets.payload()},
    ]
    for answer in answers:
        async with Service(nc, "task", answer):
            target = f"/tasks/{secrets.payload()[:8]}"
            async with SseClient(gateway.url, target=target, headers=bearer(secrets.token())) as sse:
                secrets.seen[f"service {len(secrets.seen)}"] = str(await sse.rest())
    async with SseClient(gateway.url, target="/tasks/1", headers=bearer(secrets.token())) as sse:
        secrets.seen["no service"] = str(await sse.rest())


async def test_nothing_secret_is_seen_anywhere(
    watched: Gateway, own_nats: NatsServer, connect_nats: Callable[[str], Awaitable[Client]]
) -> None:
    """Whatever is refused and whatever fails, no part of a token, ticket, cookie, secret or payload appears in the log
    (at `debug`), in /metrics and /readyz, in an error, or in the process's command line."""
    secrets = Secrets()
    nc = await connect_nats(own_nats.url)
    await by_http(watched, secrets)
    await by_bad_http(watched, secrets)
    await by_websocket(watched, secrets)
    await by_nats(watched, secrets, nc)
    async with SseClient(watched.url, "repo.1.>", headers=bearer(secrets.token())) as sse:
        await sse.ready()
        await asyncio.to_thread(own_nats.kill)
        assert (await sse.next_event()).type == "natsgate.state"
        secrets.seen["while NATS is away"] = (await asyncio.to_thread(watched.get, "/readyz")).body.decode()
        await asyncio.to_thread(own_nats.start)

        async def back() -> bool:
            return bool((await sse.next_event(timeout_s=30)).json() == {"upstream": "up"})

        await eventually(back, "NATS is back")
    for page in ("/metrics", "/readyz", "/livez"):
        secrets.seen[page] = (await asyncio.to_thread(watched.get, page)).body.decode()
    secrets.seen["ps"] = await asyncio.to_thread(Path(f"/proc/{watched.pid}/cmdline").read_text)
    await asyncio.to_thread(watched.stop)
    secrets.seen["log"] = watched.log_text
    assert len(secrets.seen) > 150, "the refusals did not take place"
    assert "request_rejected" in secrets.seen["log"]
    assert "natsgate_auth_failures_total" in secrets.seen["/metrics"]
    found = {name: leaks for name, text in secrets.seen.items() if (leaks := secrets.leaks(text))}
    assert not found


def test_the_watch_sees_what_it_is_for() -> None:
    """The search itself finds twelve characters of a token in the middle of a line."""
    secrets = Secrets()
    text = secrets.token()
    assert secrets.leaks(f'{{"line":"before{text[40:52]}behind"}}')
    assert secrets.leaks(f"x{SECRET[3:15]}")
    assert not secrets.leaks(text[40:51])


# Headers

ANSWERS = {
    "json": ("/livez", 200),
    "readyz": ("/readyz", 200),
    "metrics": ("/metrics", 200),
    "no token": ("/events?subject=repo.1.%3E", 401),
    "bad request": ("/events?since=x", 400),
    "nowhere": ("/nowhere", 404),
    "wrong method": ("/auth/ticket", 405),
    "no HTTP": ("/ HTTP/9.9\r\n", 400),
    "too large": ("/" + "x" * 20_000, 431),
}


def assert_data_headers(headers: dict[str, str]) -> None:
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


@pytest.mark.parametrize(("path", "status"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_answers_are_data_and_no_pages(guarded: Gateway, path: str, status: int) -> None:
    """No answer is sniffed, cached, framed, run or told to others by its URL: also those that come from below the
    application."""
    async with TcpStream(guarded.host, guarded.port) as tcp:
        await tcp.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head = (await tcp.read_until(b"\r\n\r\n")).decode()
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    assert first.split()[1] == str(status)
    assert_data_headers(dict(line.lower().split(": ", 1) for line in lines))


async def test_tickets_and_refused_handshakes_carry_them_too(guarded: Gateway) -> None:
    """A ticket is kept by no cache; a handshake that is refused is answered as any other request."""
    reply = await fetch_async(guarded.host, guarded.port, "/auth/ticket", method="POST", headers=bearer(token()))
    assert reply.status == 200
    assert_data_headers(reply.headers)
    async with RawWebSocket(guarded.url, headers={"Origin": "https://evil.example"}) as ws:
        assert ws.status == 403
        assert_data_headers(ws.headers)


async def test_streams_carry_what_streams_need(guarded: Gateway) -> None:
    """A stream is not sniffed, not cached and not transformed, and its URL goes nowhere."""
    headers = bearer(token(subscribe=["repo.1.>"]))
    async with SseClient(guarded.url, "repo.1.>", headers=headers) as sse:
        assert sse.headers["x-content-type-options"] == "nosniff"
        assert sse.headers["referrer-policy"] == "no-referrer"
        assert sse.headers["cache-control"] == "no-store, no-transform"


async def test_the_port_of_metrics_carries_them_too(start_gateway: StartGateway) -> None:
    """On METRICS_LISTEN, the page and the refusal of every other path carry the headers of data."""
    port = free_port()
    await start_gateway(AUTH="jwt", JWT_SECRET=SECRET, METRICS_LISTEN=f"127.0.0.1:{port}")
    for path, status in (("/metrics", 200), ("/events", 404)):
        reply = await fetch_async("127.0.0.1", port, path)
        assert reply.status == status
        assert_data_headers(reply.headers)
    assert reply.problem()["title"] == "Not Found"
