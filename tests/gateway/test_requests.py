"""Requests that are not what they should be: a clear answer, and nobody else notices."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.conftest import ShareGateway, StartGateway
from tests.support.eventually import eventually
from tests.support.gateway import Gateway, routes
from tests.support.http_reply import HttpReply, fetch_async
from tests.support.ports import free_port
from tests.support.raw_ws import RawWebSocket
from tests.support.sse import SseClient, parse_head, read_body
from tests.support.tcp import Ended, TcpStream


async def exchange(gateway: Gateway, request: bytes) -> HttpReply | None:
    """Send bytes and read one answer; None when the connection just ends."""
    async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
        try:
            await tcp.send(request)
            status, headers = parse_head(await tcp.read_until(b"\r\n\r\n"))
            return HttpReply(status, headers, await read_body(tcp, headers))
        except (Ended, ConnectionError):
            return None


async def bad_http(gateway: Gateway) -> float:
    """How many requests were refused as no HTTP so far."""
    metrics = await asyncio.to_thread(gateway.metrics)
    return metrics.total("natsgate_requests_rejected_total", reason="bad_http")


@pytest.fixture(scope="module")
def routed(share_gateway: ShareGateway) -> Gateway:
    """One gateway with a route of its own."""
    return share_gateway({}, routes(['name = "one"', 'path = "/one/{id}"', 'subjects = ["repo.{id}.>"]']))


@pytest.mark.parametrize("path", ["/events?subject=repo.1.%3E", "/ws", "/one/1"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
async def test_streams_are_only_got(routed: Gateway, path: str, method: str) -> None:
    """Any other method on a stream is a 405 that names the one that is allowed, and none that is refused as well."""
    reply = await fetch_async(routed.host, routed.port, path, method=method)
    assert reply.status == 405
    assert reply.headers["allow"] == "GET"
    if method != "HEAD":
        reply.problem()


@pytest.mark.parametrize("path", ["/", "/nothing", "/events/", "/Events", "/events/x", "//events", "/livez/x"])
async def test_unknown_paths_are_a_404_problem(gateway: Gateway, path: str) -> None:
    """What is not there is said to be not there."""
    reply = await fetch_async(gateway.host, gateway.port, path)
    assert reply.status == 404
    reply.problem()


MALFORMED = {
    "no HTTP": b"GARBAGE\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 300 + b"\r\n\r\n",
    "an unknown version": b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n",
    "a broken header": b"GET /livez HTTP/1.1\r\nHost: x\r\nno colon here\r\n\r\n",
    "a space in a header name": b"GET /livez HTTP/1.1\r\nHost: x\r\nBad Name: x\r\n\r\n",
    "a NUL in a header": b"GET /livez HTTP/1.1\r\nHost: x\r\nX-A: a\0b\r\n\r\n",
    "two lengths": b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a senseless length": b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
    "a control in the path": b"GET /events\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED.keys())
async def test_malformed_requests_are_refused(gateway: Gateway, request_bytes: bytes) -> None:
    """Bytes that are no proper request get a 4xx or 5xx for versions, or an end; never a stream or a 500."""
    reply = await exchange(gateway, request_bytes)
    assert reply is None or 400 <= reply.status < 500 or reply.status == 505
    assert (await fetch_async(gateway.host, gateway.port, "/livez")).status == 200


async def test_a_request_for_no_http_is_answered_by_400(gateway: Gateway) -> None:
    """Garbage in the place of a request line is answered before the connection ends."""
    reply = await exchange(gateway, b"GARBAGE\r\n\r\n")
    assert reply is not None
    assert reply.status == 400


HOSTS = {
    "none": (b"", 400),
    "two": (b"Host: a\r\nHost: b\r\n", 400),
    "the same one twice": (b"Host: a\r\nhost: a\r\n", 400),
    "two in one": (b"Host: a, b\r\n", 400),
    "a URL": (b"Host: http://a/\r\n", 400),
    "half a bracket": (b"Host: [::1\r\n", 400),
    "a port that is none": (b"Host: a:b\r\n", 400),
    "spaces around it": (b"Host: \t a \t\r\n", 200),
    "a name": (b"Host: a_b.example.com\r\n", 200),
    "with a port": (b"Host: a:8080\r\n", 200),
    "IPv6": (b"Host: [::1]:8080\r\n", 200),
    "an empty one": (b"Host:\r\n", 200),
}


@pytest.mark.parametrize(("hosts", "status"), HOSTS.values(), ids=HOSTS.keys())
async def test_a_request_has_one_host(gateway: Gateway, hosts: bytes, status: int) -> None:
    """HTTP/1.1 without `Host`, with two of them, or with what is none, is a 400 (RFC 9112, 3.2) and the end, whatever
    is asked for; it is counted."""
    before = await bad_http(gateway)
    upgrade = b"Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    heads = [b"GET /livez HTTP/1.1\r\n", b"GET /ws HTTP/1.1\r\n" + upgrade + b"dGhlIHNhbXBsZSBub25jZQ==\r\n"]
    for head, served in zip(heads, (200, 101), strict=True):
        async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
            await tcp.send(head + hosts + b"\r\n")
            code, headers = parse_head(await tcp.read_until(b"\r\n\r\n"))
            assert code == (served if status == 200 else 400)
            if status != 200:
                reply = HttpReply(code, headers, await read_body(tcp, headers))
                assert "RFC 9112" in reply.problem()["detail"]
                assert await tcp.read_to_end() == b""
    assert await bad_http(gateway) == before + (2 if status == 400 else 0)


async def test_before_http_1_1_there_need_be_no_host(gateway: Gateway) -> None:
    """HTTP/1.0 knows none; two are too many there, too."""
    for hosts, status in ((b"", 200), (b"Host: a\r\nHost: b\r\n", 400)):
        reply = await exchange(gateway, b"GET /livez HTTP/1.0\r\n" + hosts + b"\r\n")
        assert reply is not None
        assert reply.status == status


async def test_half_a_request_does_not_hold_a_connection(start_gateway: StartGateway) -> None:
    """A request that is not complete within `REQUEST_TIMEOUT_S` ends its connection."""
    gateway = await start_gateway(REQUEST_TIMEOUT_S=0.5)
    for part in (b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: x\r\n"):
        async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
            await tcp.send(part)
            answer = await tcp.read_to_end()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408"), answer


async def test_a_trickling_request_ends_too(start_gateway: StartGateway) -> None:
    """Sending a byte now and then does not extend `REQUEST_TIMEOUT_S`."""
    gateway = await start_gateway(REQUEST_TIMEOUT_S=0.5)
    async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
        await tcp.send(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ")

        async def trickle() -> None:
            while True:
                await tcp.send(b"x")
                await asyncio.sleep(0.1)  # the client's slowness

        trickling = asyncio.create_task(trickle())
        await tcp.read_to_end()
        trickling.cancel()
        await asyncio.gather(trickling, return_exceptions=True)


async def test_streams_outlive_the_request_timeout(start_gateway: StartGateway, own_id: str) -> None:
    """Neither the request timeout nor HTTP's keep-alive timeout ends an open stream or WebSocket."""
    gateway = await start_gateway(REQUEST_TIMEOUT_S=0.3, HEARTBEAT_S=1)
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse, RawWebSocket(gateway.url) as ws:
        await sse.ready()
        for _ in range(6):  # the keep-alive timeout would be over after 5 s
            await sse.next_comment()
        await ws.ping_op()


@pytest.mark.parametrize("version", [" HTTP/1.0", " HTTP/1.0\r\nConnection: keep-alive", ""])
async def test_before_http_1_1_there_is_no_stream_but_a_reason(gateway: Gateway, own_id: str, version: str) -> None:
    """HTTP/1.0 and 0.9 have no chunks: the refusal says so."""
    reply = await exchange(gateway, f"GET /events?subject=repo.{own_id}.%3E{version}\r\n\r\n".encode())
    assert reply is not None
    assert reply.status == 505
    assert "1.1" in reply.problem()["detail"]


async def test_several_requests_share_a_connection(gateway: Gateway) -> None:
    """Ordinary requests keep their connection alive, refusals included."""
    async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
        for path, wanted in (("/livez", 200), ("/nothing", 404), ("/events", 400), ("/livez", 200)):
            await tcp.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            status, headers = parse_head(await tcp.read_until(b"\r\n\r\n"))
            await read_body(tcp, headers)
            assert status == wanted


async def test_pipelined_requests_are_answered_in_order(gateway: Gateway) -> None:
    """Two requests in one segment get two answers, in order."""
    async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
        await tcp.send(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        for wanted in (404, 200):
            status, headers = parse_head(await tcp.read_until(b"\r\n\r\n"))
            await read_body(tcp, headers)
            assert status == wanted


async def test_a_stream_may_follow_on_a_kept_connection(gateway: Gateway, own_id: str) -> None:
    """A connection that carried an ordinary request can become a stream."""
    async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
        await tcp.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        _, headers = parse_head(await tcp.read_until(b"\r\n\r\n"))
        await read_body(tcp, headers)
        await tcp.send(f"GET /events?subject=repo.{own_id}.%3E HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        status, _ = parse_head(await tcp.read_until(b"\r\n\r\n"))
        assert status == 200
        await tcp.read_until(b"event: natsgate.ready\n")


async def test_a_stream_asked_for_with_a_body_is_harmless(gateway: Gateway, own_id: str) -> None:
    """A GET with a body is served or refused, never an internal error."""
    request = f"GET /events?subject=repo.{own_id}.%3E HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
        await tcp.send(request.encode())
        status, _ = parse_head(await tcp.read_until(b"\r\n\r\n"))
    assert status in (200, 400)


BAD_HANDSHAKES: dict[str, dict[str, str | None]] = {
    "no key": {"Sec-WebSocket-Key": None},
    "a short key": {"Sec-WebSocket-Key": "c2hvcnQ="},
    "a key that is no base64": {"Sec-WebSocket-Key": "!" * 24},
}


@pytest.mark.parametrize("headers", BAD_HANDSHAKES.values(), ids=BAD_HANDSHAKES.keys())
async def test_bad_handshakes_are_refused(gateway: Gateway, headers: dict[str, str | None]) -> None:
    """A WebSocket handshake that lacks something is a 400 that says what to look at, and is counted."""
    before = await bad_http(gateway)
    async with RawWebSocket(gateway.url, headers=headers) as ws:
        assert ws.status == 400
        assert "Sec-WebSocket-Key" in ws.reply.problem()["detail"]
        assert ws.headers["connection"] == "close"
    assert await bad_http(gateway) == before + 1


@pytest.mark.parametrize("version", [None, "8", "13, 8", "013"])
async def test_other_versions_are_told_the_right_one(gateway: Gateway, version: str | None) -> None:
    """A handshake in another version of the protocol is a 426 that names version 13 (RFC 6455, 4.4), and is counted,
    whatever comes right behind it."""
    before = (await asyncio.to_thread(gateway.metrics)).total(
        "natsgate_requests_rejected_total", reason="websocket_version"
    )
    async with RawWebSocket(gateway.url, headers={"Sec-WebSocket-Version": version}, early=b"\x81\x80mask") as ws:
        assert ws.status == 426
        assert ws.headers["sec-websocket-version"] == "13"
        assert ws.headers["upgrade"] == "websocket"
        assert "Sec-WebSocket-Version: 13" in ws.reply.problem()["detail"]
    metrics = await asyncio.to_thread(gateway.metrics)
    assert metrics.total("natsgate_requests_rejected_total", reason="websocket_version") == before + 1


@pytest.mark.parametrize("headers", [{"Upgrade": None}, {"Connection": "close", "Upgrade": None}])
async def test_a_plain_get_of_ws_is_refused(gateway: Gateway, headers: dict[str, str | None]) -> None:
    """`/ws` without an upgrade is a problem that says what it wants."""
    async with RawWebSocket(gateway.url, headers=headers) as ws:
        assert ws.status in (400, 404, 426)
        ws.reply.problem()


OTHER_SPELLINGS = (
    "/%6Detrics", "/%6detrics", "/m%65trics", "/metrics%0A", "/r%65adyz", "/%6civez", "/%65vents?subject=repo.1.x",
    "/./metrics", "//metrics", "/metrics/", "/x/../metrics",
)  # fmt: skip


@pytest.mark.parametrize("path", OTHER_SPELLINGS)
async def test_a_path_is_what_stands_in_the_url(gateway: Gateway, path: str) -> None:
    """A path that is another one until it is decoded or tidied up is not served: what a proxy does not recognise is
    none of ours behind it."""
    reply = await fetch_async(gateway.host, gateway.port, path)
    assert reply.status == 404
    reply.problem()


async def test_sockets_and_tickets_have_one_spelling_too(gateway: Gateway) -> None:
    """The same for WebSocket and for tickets."""
    async with RawWebSocket(gateway.url, "/%77s") as ws:
        assert ws.status == 404
    reply = await fetch_async(gateway.host, gateway.port, "/auth/tick%65t", method="POST")
    assert reply.status == 404


async def test_metrics_of_their_own_address_have_one_spelling(start_gateway: StartGateway) -> None:
    """On `METRICS_LISTEN`, too, a path is what stands in the URL."""
    port = free_port()
    await start_gateway(METRICS_LISTEN=f"127.0.0.1:{port}")
    assert (await fetch_async("127.0.0.1", port, "/metrics")).status == 200
    assert (await fetch_async("127.0.0.1", port, "/%6Detrics")).status == 404


async def test_a_websocket_to_nowhere_is_refused(gateway: Gateway) -> None:
    """A handshake for an unknown path ends in a 404 or a close with 4404."""
    async with RawWebSocket(gateway.url, "/nowhere") as ws:
        if ws.status == 101:
            assert (await ws.close_frame()).close_code == 4404
        else:
            assert ws.status == 404


async def test_connections_that_say_nothing_or_vanish_leave_nothing(start_gateway: StartGateway) -> None:
    """Port scanners and resets during requests leave no connection, no descriptor, no error behind."""
    gateway = await start_gateway(REQUEST_TIMEOUT_S=1)
    before = len(os.listdir(f"/proc/{gateway.pid}/fd"))
    for part in (b"", b"GET /ev", b"GET /events?subject=repo.1.%3E HTTP/1.1\r\nHost: x\r\n\r\n") * 10:
        tcp = TcpStream(gateway.host, gateway.port)
        await tcp.open()
        await tcp.send(part)
        tcp.abort()

    async def all_gone() -> bool:
        metrics = await asyncio.to_thread(gateway.metrics)
        descriptors = len(os.listdir(f"/proc/{gateway.pid}/fd"))
        return metrics.total("natsgate_connections") == 0 and descriptors <= before + 1

    await eventually(all_gone, "no connection is left")
    assert [line for line in gateway.logs() if line.get("level") in ("error", "critical")] == []


async def test_nothing_of_this_was_an_internal_error(gateway: Gateway) -> None:
    """After all the above the shared gateway lives and logged no error."""
    assert (await fetch_async(gateway.host, gateway.port, "/livez")).status == 200
    assert [line for line in gateway.logs() if line.get("level") in ("error", "critical")] == []
