"""One GET of an event stream over HTTP/1.1, with nothing but the standard library."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from gateway.commands.outcome import CommandFailed
from gateway.core.errors import GatewayError
from gateway.core.sse_reader import SseEvent, SseReader

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 30.0
PIECE_BYTES = 64 * 1024
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


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gateway is.

    Attributes:
        base: a path that everything is below, without a slash at its end.
    """

    host: str
    port: int
    tls: bool
    base: str

    @property
    def authority(self) -> str:
        """The `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def parse_address(url: str) -> Address:
    """Read a gateway's URL.

    Raises:
        CommandFailed: it is none.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or not plain:
        raise CommandFailed(f"--url {url!a}: give where a gateway is, such as http://127.0.0.1:8080")
    tls = parts.scheme == "https"
    return Address(parts.hostname, port or (443 if tls else 80), tls, parts.path.rstrip("/"))


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
        self._headers = headers
        self._reader = reader

    async def __aenter__(self) -> Self:
        address = self._address
        context = ssl.create_default_context() if address.tls else None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                self._in, self._out = await asyncio.open_connection(address.host, address.port, ssl=context)
        except (OSError, TimeoutError) as error:
            raise Broken(f"{address.authority} is not reached: {_told(error)}") from None
        try:
            await self._ask()
        except BaseException as error:
            self._out.close()
            if isinstance(error, OSError | TimeoutError | EOFError | asyncio.LimitOverrunError | ValueError):
                raise Broken(f"{address.authority} did not answer the request: {_told(error)}") from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._out.transport.abort()

    async def _ask(self) -> None:
        sock = self._out.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        fields = {"Host": self._address.authority, "Accept": "text/event-stream", "Cache-Control": "no-store"}
        lines = [f"GET {self._target} HTTP/1.1", *(f"{name}: {v}" for name, v in {**fields, **self._headers}.items())]
        self._out.write("\r\n".join([*lines, "", ""]).encode("ascii"))
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            head = (await self._in.readuntil(b"\r\n\r\n")).decode("latin-1")
            status_line, *rest = head.removesuffix("\r\n\r\n").split("\r\n")
            version, status, *_ = status_line.split(" ", 2)
            if not version.startswith("HTTP/1."):
                raise ValueError("that is no HTTP/1.1")
            pairs = (line.partition(":") for line in rest)
            self._answer = {name.strip().lower(): value.strip() for name, _, value in pairs}
            kind = self._answer.get("content-type", "").partition(";")[0]
            if int(status) != 200:
                raise await self._refusal(int(status))
            if kind != "text/event-stream":
                raise Refused(404, f"there is no event stream at {self._target} ({kind or 'no content type'})", None)

    async def _refusal(self, status: int) -> Refused:
        body = b""
        try:
            async for piece in self._body():
                body += piece
                if len(body) > LARGEST_REFUSAL_BYTES:
                    break
        except Broken:
            pass  # what came of it has to do
        try:
            problem = json.loads(body)
            detail = str(problem.get("detail") or problem.get("title") or "")
        except (ValueError, AttributeError):
            detail = body[:200].decode("utf-8", "replace")
        if "location" in self._answer:
            detail = f"redirected to {self._answer['location']}; give that place as --url"
        wait = self._answer.get("retry-after", "")
        line = " ".join("".join(char if char.isprintable() else " " for char in detail).split())
        return Refused(status, line or "refused", float(wait) if wait.isascii() and wait.isdigit() else None)

    async def events(self) -> AsyncIterator[SseEvent]:
        """Every event until the stream ends.

        Raises:
            Broken: the connection was cut.
            NotAnEventStream: an event without end.
        """
        async for piece in self._body():
            for event in self._reader.feed(piece):
                yield event

    async def _body(self) -> AsyncIterator[bytes]:
        try:
            if self._answer.get("transfer-encoding", "").lower() == "chunked":
                while left := int((await self._in.readuntil(b"\r\n")).partition(b";")[0], 16):
                    async for piece in self._pieces(left):
                        yield piece
                    await self._in.readexactly(2)
            elif self._answer.get("content-length", "").isdigit():
                async for piece in self._pieces(int(self._answer["content-length"])):
                    yield piece
            else:
                while piece := await self._in.read(PIECE_BYTES):
                    yield piece
        except (OSError, EOFError, asyncio.LimitOverrunError, ValueError) as error:
            raise Broken(f"the connection was cut: {_told(error)}") from None

    async def _pieces(self, left: int) -> AsyncIterator[bytes]:
        while left:
            piece = await self._in.read(min(left, PIECE_BYTES))
            if not piece:
                raise EOFError("end of stream")
            left -= len(piece)
            yield piece


def _told(error: BaseException) -> str:
    if isinstance(error, asyncio.IncompleteReadError):
        return "end of stream"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else error.__class__.__name__)
