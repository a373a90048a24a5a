"""How a client is refused that is to come again: by the rule of what makes it come back."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from tests.support.gateway import Gateway
from tests.support.http_reply import fetch_async
from tests.support.metrics import Metrics
from tests.support.raw_ws import TEXT, RawWebSocket
from tests.support.sse import SseClient

RETRY_MS = range(1000, 4001)


class Asking(NamedTuple):
    """What one client asks for."""

    path: str = "/events?subject=repo.limits.%3E"
    headers: Mapping[str, str] = {}


async def refused_stream(gateway: Gateway, asking: Asking, reason: str) -> None:
    """An EventSource is refused by a stream that ends: any other status would be its end for good."""
    async with SseClient(gateway.url, target=asking.path, headers=dict(asking.headers)) as page:
        assert page.status == 200, page.reply
        assert page.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert page.headers["transfer-encoding"] == "chunked"
        assert page.headers["connection"] == "close"
        (event,) = await page.rest()
        assert (event.type, event.id) == ("natsgate.closing", None)
        _check(event.json(), reason)
        assert page.retry_ms == event.json()["retry_ms"]
        assert await page.tcp.read_to_end() == b""


async def refused_status(gateway: Gateway, asking: Asking, status: int) -> None:
    """A client that does not name event streams is refused by a status, and told when to come again."""
    reply = await fetch_async(
        gateway.host, gateway.port, asking.path, headers={"Accept": "*/*", **dict(asking.headers)}
    )
    assert reply.status == status, reply
    assert 1 <= int(reply.headers["retry-after"]) <= 4
    reply.problem()


async def refused_websocket(gateway: Gateway, headers: Mapping[str, str], reason: str, path: str = "/ws") -> None:
    """A page cannot see the status of a handshake: it is accepted, told, and closed with 1013."""
    async with RawWebSocket(gateway.url, path, headers=dict(headers)) as board:
        assert board.status == 101, board.reply
        await told_and_closed(board, reason)


async def told_and_closed(board: RawWebSocket, reason: str, code: int = 1013) -> None:
    """`closing` comes, behind the answers to what was sent before, then the close frame, then the end."""
    told: dict[str, Any] = {}
    while told.get("op") != "closing":
        answer = await board.next_frame()
        told = answer.json() if answer.opcode == TEXT else {}
    _check(told, reason)
    frame = await board.answer_close()
    assert (frame.close_code, frame.payload[2:].decode()) == (code, reason)


def _check(closing: Mapping[str, Any], reason: str) -> None:
    assert (closing["reason"], closing["reconnect"]) == (reason, True)
    assert closing["retry_ms"] in RETRY_MS


async def refused(gateway: Gateway, asking: Asking, reason: str, *, status: int) -> None:
    """All of it, at `/events` (or a route) and at `/ws`; each is counted under its reason."""
    before = rejected(gateway.metrics(), reason)
    await refused_stream(gateway, asking, reason)
    await refused_status(gateway, asking, status)
    await refused_websocket(gateway, asking.headers, reason)
    assert rejected(gateway.metrics(), reason) == before + 3


def rejected(metrics: Metrics, reason: str) -> float:
    return metrics.total("natsgate_requests_rejected_total", reason=reason)


async def vanish(client: SseClient | RawWebSocket) -> None:
    """Go without a word but a reset."""
    with contextlib.suppress(OSError):
        client.tcp.abort()
