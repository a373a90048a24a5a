"""A crowd: hundreds of SSE clients in one process, each of which keeps no more than the sequences it got."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from types import TracebackType
from typing import Self

from tests.support.eventually import eventually
from tests.support.ports import address_of
from tests.support.sse import events_target

_EVENT = re.compile(rb"(?:^|\n)(?:event: ([^\n]+)\n)?id: [0-9a-z]+-(\d+)\n")
_GAP = b"event: natsgate.gap\n"
_CLOSING = b"event: natsgate.closing\n"


class Member(asyncio.Protocol):
    """One client of a crowd.

    Attributes:
        sequences: of the events it got, in order.
        ready_at: the loop's time of the first `ready`; None until then.
        gaps, closings: how many were told.
        lost: whether the connection ended.
        lost_at: when it did, seconds since the epoch.
    """

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._rest = b""
        self.transport: asyncio.Transport | None = None
        self.sequences: list[int] = []
        self.ready_at: float | None = None
        self.gaps = 0
        self.closings = 0
        self.lost = False
        self.lost_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        # Blocks end in an empty line; a chunk's size line may stand between two.
        text = self._rest + data
        end = text.rfind(b"\n\n")
        if end < 0:
            self._rest = text
            return
        whole, self._rest = text[: end + 1], text[end + 1 :]
        self.gaps += whole.count(_GAP)
        self.closings += whole.count(_CLOSING)
        for name, sequence in _EVENT.findall(whole):
            if not name:
                self.sequences.append(int(sequence))
            elif name == b"natsgate.ready" and self.ready_at is None:
                self.ready_at = asyncio.get_running_loop().time()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.lost_at = time.time()


class Crowd:
    """Many clients of one gateway, from `async with` to its end.

    Args:
        targets: what each one asks for: filters and cursor (empty for none).
    """

    def __init__(
        self, url: str, targets: list[tuple[str, str]], *, receive_buffer_bytes: int | None = None, query: str = ""
    ) -> None:
        self._address = address_of(url)
        self._receive_buffer_bytes = receive_buffer_bytes
        self.members: list[Member] = []
        for subject, cursor in targets:
            lines = [f"GET {events_target([subject], {})}{query} HTTP/1.1", "Host: crowd", "Accept: text/event-stream"]
            lines += [f"Last-Event-ID: {cursor}"] if cursor else []
            self.members.append(Member("\r\n".join([*lines, "", ""]).encode()))

    async def connect(self) -> None:
        """All at once."""
        await asyncio.gather(*(self._connect(member) for member in self.members))

    async def _connect(self, member: Member) -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setblocking(False)
        if self._receive_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer_bytes)
        await loop.sock_connect(sock, self._address)
        await loop.create_connection(lambda: member, sock=sock)

    def pause(self) -> None:
        """Nobody reads any more."""
        for member in self.members:
            assert member.transport is not None
            member.transport.pause_reading()

    def go_on(self) -> None:
        for member in self.members:
            assert member.transport is not None
            member.transport.resume_reading()

    async def until_ready(self, *, timeout_s: float = 30) -> None:
        async def ready() -> bool:
            return all(member.ready_at is not None for member in self.members)

        await eventually(ready, "everybody was told ready", timeout_s=timeout_s)

    async def until_last(self, sequence: int, *, timeout_s: float = 60) -> None:
        """Wait until everybody has got the event of this sequence, or was closed."""

        async def there() -> bool:
            return all(m.lost or (m.sequences and m.sequences[-1] >= sequence) for m in self.members)

        await eventually(there, f"everybody got {sequence}", timeout_s=timeout_s)

    async def until_lost(self, *, timeout_s: float = 30) -> None:
        """Wait until every connection has ended."""

        async def ended() -> bool:
            return all(member.lost for member in self.members)

        await eventually(ended, "everybody's connection ended", timeout_s=timeout_s)

    def close(self) -> None:
        for member in self.members:
            if member.transport is not None:
                with contextlib.suppress(OSError):
                    member.transport.abort()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        await self.until_lost()
