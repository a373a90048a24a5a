"""One GET of an event stream, by httpx; the events are read by `gateway.core.sse_reader`."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self

import httpx

from gateway.commands.address import Address
from gateway.core.errors import GatewayError
from gateway.core.sse_reader import SseEvent, SseReader
from gateway.http_client import HEADERS, reason

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 30.0
"""How long the head of an answer may take, connecting included. What follows may be silent for ever."""

LARGEST_REFUSAL_BYTES = 64 * 1024
_KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""A gateway that vanished without a word is noticed after a minute, whatever its heartbeat is."""


class Broken(GatewayError):
    """The connection could not be made, or ended where it should not have; another one may work."""


class Refused(GatewayError):
    """The gateway answered with another status than 200.

    Attributes:
        status: the HTTP status.
        retry_after_s: what the answer asks for; None when it does not.
    """

    def __init__(self, status: int, detail: str, retry_after_s: float | None) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def for_good(self) -> bool:
        """Whether asking again is pointless."""
        return self.status < 500 and self.status not in (408, 425, 429)


class SseConnection:
    """One request and its event stream: `async with SseConnection(…) as stream: async for event in stream.events()`.

    Args:
        target: path and query, as they are sent.
        headers: more request headers.
        reader: takes the body; it remembers the last event id.

    Raises (on entering):
        Broken, Refused.
    """

    def __init__(self, address: Address, target: str, headers: Mapping[str, str], reader: SseReader) -> None:
        self._address = address
        self._target = address.base + target
        self._headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", **headers}
        self._reader = reader

    async def __aenter__(self) -> Self:
        options = [(socket.IPPROTO_TCP, getattr(socket, n), v) for n, v in _KEEPALIVE.items() if hasattr(socket, n)]
        self._client = httpx.AsyncClient(
            headers=HEADERS,
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
            transport=httpx.AsyncHTTPTransport(
                socket_options=[(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *options],
                verify=ssl.create_default_context(),
            ),
            trust_env=False,
        )
        place = self._address.authority
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._ask()
        except BaseException as error:
            await self._client.aclose()
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                raise Broken(f"{place} is not reached: {_told(error)}") from None
            if isinstance(error, httpx.HTTPError | OSError):
                raise Broken(f"{place} did not answer the request: {_told(error)}") from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def _ask(self) -> None:
        # The target apart from the URL: httpx would write dots and quotes in it another way.
        target = {"target": self._target.encode("ascii")}
        request = self._client.build_request("GET", self._address.origin, headers=self._headers, extensions=target)
        self._answer = await self._client.send(request, stream=True)
        kind = self._answer.headers.get("content-type", "").partition(";")[0]
        if self._answer.status_code != 200:
            raise await self._refusal()
        if kind != "text/event-stream":
            raise Refused(404, f"there is no event stream at {self._target} ({kind or 'no content type'})", None)

    async def _refusal(self) -> Refused:
        body = b""
        try:
            async for piece in self._answer.aiter_raw():
                body += piece
                if len(body) > LARGEST_REFUSAL_BYTES:
                    break
        except httpx.HTTPError:
            pass  # what came of it has to do
        try:
            problem = json.loads(body)
            detail = str(problem.get("detail") or problem.get("title") or "")
        except (ValueError, AttributeError):
            detail = body[:200].decode("utf-8", "replace")
        headers = self._answer.headers
        if "location" in headers:
            detail = f"redirected to {headers['location']}; give that place as --url"
        wait = headers.get("retry-after", "")
        line = " ".join("".join(char if char.isprintable() else " " for char in detail).split())
        seconds = float(wait) if wait.isascii() and wait.isdigit() else None
        return Refused(self._answer.status_code, line or "refused", seconds)

    async def events(self) -> AsyncIterator[SseEvent]:
        """Every event until the stream ends.

        Raises:
            Broken: the connection was cut.
            NotAnEventStream: an event without end.
        """
        try:
            async for piece in self._answer.aiter_raw():
                for event in self._reader.feed(piece):
                    yield event
        except (httpx.HTTPError, OSError) as error:
            raise Broken(f"the connection was cut: {_told(error)}") from None


def _told(error: Exception) -> str:
    return "no answer in time" if isinstance(error, TimeoutError | httpx.TimeoutException) else reason(error)
