"""A web site for browsers: pages on every host name below `localhost`, and a gateway behind the same names and port.

Browsers take these names for 127.0.0.1, and for secure. `app.shop.localhost` and `admin.shop.localhost` are two origins
of one site, `partner.localhost` is another site; ports tell origins apart, but neither sites nor cookies.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from tests.support.gateway import Gateway
from tests.support.lifetime import Running
from tests.support.sse import parse_head
from tests.support.tokens import token

T = TypeVar("T")

PAGE = b'<!doctype html><meta charset="utf-8"><title>page</title><script src="/-/page.js"></script>'
PAGE_JS = Path(__file__).with_name("page.js")
HEAD_BYTES = 2**16


@dataclass(eq=False)
class Exchange:
    """One request of a browser that went on to the gateway.

    Attributes:
        headers: the request's, names in lower case.
        status: of the answer; 0: there is none yet.
        began_at, ended_at: monotonic seconds; None: it is not over.
    """

    method: str
    target: str
    headers: dict[str, str]
    began_at: float
    status: int = 0
    ended_at: float | None = None
    _writers: list[asyncio.StreamWriter] = field(default_factory=list, repr=False)

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query)


class Mailbox:
    """What one page is told to do, and what it has reported."""

    def __init__(self) -> None:
        self.commands: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.reports: list[dict[str, Any]] = []


class Site(Running):
    """The server, in a thread of its own: browsers outlive the loops of tests.

    Attributes:
        port: on 127.0.0.1.
        gateway: whose paths are served beside the pages: all that do not begin with `/-/`, but `/`.
        exchanges: what browsers asked the gateway, in order.
        mint: makes the token that a page gets when it signs in, as a cookie that no script can read.
    """

    def __init__(self) -> None:
        self.port = 0
        self.gateway: Gateway | None = None
        self.exchanges: list[Exchange] = []
        self.mint: Callable[[], str] = token
        self._mailboxes: list[Mailbox] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="site", daemon=True)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    def origin(self, host: str) -> str:
        return f"http://{host}:{self.port}"

    def mailbox(self) -> int:
        """The number of a new one; the page of that number uses it."""
        self._mailboxes.append(Mailbox())
        return len(self._mailboxes) - 1

    def tell(self, number: int, **command: Any) -> None:
        self._loop.call_soon_threadsafe(self._mailboxes[number].commands.put_nowait, command)

    def reports(self, number: int) -> list[dict[str, Any]]:
        """What the page has said so far, in its order."""
        return list(self._mailboxes[number].reports)

    def cut(self, exchange: Exchange) -> None:
        """Reset its connections, as a network that goes away."""
        for writer in exchange._writers:
            self._loop.call_soon_threadsafe(writer.transport.abort)

    # Serving

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._accepted(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        request_line, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, target, _ = request_line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        address = urlsplit(target)
        query = dict(pair.split("=", 1) for pair in address.query.split("&") if "=" in pair)
        body = b""
        if address.path.startswith("/-/") and method == "POST":
            body = await reader.readexactly(int(headers["content-length"]))
        match address.path:
            case "/":
                answer(writer, PAGE, "text/html; charset=utf-8")
            case "/favicon.ico":
                answer(writer, b"", "image/x-icon")
            case "/-/page.js":
                answer(writer, PAGE_JS.read_bytes(), "text/javascript; charset=utf-8")
            case "/-/next":
                command = await self._mailboxes[int(query["page"])].commands.get()
                answer(writer, json.dumps(command).encode(), "application/json")
            case "/-/report":
                self._mailboxes[int(query["page"])].reports += json.loads(body)
                answer(writer, b"{}", "application/json")
            case "/-/sign-in":
                cookie = f"natsgate_token={self.mint()}; Path=/; HttpOnly; {body.decode()}"
                answer(writer, b"{}", "application/json", f"set-cookie: {cookie}\r\n")
            case "/-/sign-out":
                answer(writer, b"{}", "application/json", "set-cookie: natsgate_token=; Path=/; Max-Age=0\r\n")
            case _:
                await self._forward(Exchange(method, target, headers, time.monotonic()), head, reader, writer)
                return
        await writer.drain()

    async def _forward(
        self, exchange: Exchange, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        assert self.gateway is not None, "no gateway is behind the site"
        self.exchanges.append(exchange)
        try:
            to_reader, to_writer = await asyncio.open_connection(self.gateway.host, self.gateway.port)
        except OSError:
            writer.transport.abort()
            return
        exchange._writers = [writer, to_writer]
        to_writer.write(one_request(head, exchange.headers))
        back = asyncio.create_task(self._answered(exchange, to_reader, writer))
        there = asyncio.create_task(copy(reader, to_writer))
        try:
            await asyncio.wait([back, there], return_when=asyncio.FIRST_COMPLETED)
        finally:
            exchange.ended_at = time.monotonic()
            there.cancel()
            to_writer.close()
            if not back.done():  # the browser left: nobody is there for the rest
                back.cancel()
            await asyncio.gather(back, there, return_exceptions=True)

    @staticmethod
    async def _answered(exchange: Exchange, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        exchange.status, _ = parse_head(head)
        writer.write(head)
        await copy(reader, writer)

    # Life

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    def start(self) -> None:
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accept, "127.0.0.1", 0, limit=HEAD_BYTES))
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()


def answer(writer: asyncio.StreamWriter, body: bytes, content_type: str, more: str = "") -> None:
    """A whole answer, the last one of its connection."""
    writer.write(
        f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
        f"cache-control: no-store\r\nconnection: close\r\n{more}\r\n".encode()
        + body
    )


def one_request(head: bytes, headers: dict[str, str]) -> bytes:
    """The head as the gateway gets it: unless the connection is to change its protocol, it serves this request only."""
    if "upgrade" in headers:
        return head
    lines = [
        line for line in head.removesuffix(b"\r\n\r\n").split(b"\r\n") if not line.lower().startswith(b"connection:")
    ]
    return b"\r\n".join([*lines, b"connection: close", b"", b""])


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes as they come, up to the end."""
    while piece := await reader.read(2**16):
        writer.write(piece)
        await writer.drain()
