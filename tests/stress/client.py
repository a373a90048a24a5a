"""A good client: it keeps its cursor, comes back to any replica, and waits as it is told (but shorter)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tests.stress.history import History, Mark, Visit
from tests.stress.link import Ended, Heard, Link, Refused, SseLink, WebSocketLink
from tests.support.tcp import TcpStream

SILENCE_S = 5.0
"""Several heartbeats: after so long without a byte the replica is taken for dead."""

CONNECT_S = 2.0
BACK_OFF_S = (0.02, 0.4)


@dataclass(frozen=True, slots=True)
class Wants:
    """What a client asks for.

    Attributes:
        transport: `sse`, `ws` or `raw`.
        filters: its feed.
        path: of the WebSocket.
        since: where it begins when it has no cursor; empty: now.
        receive_buffer_bytes: how much its kernel takes before it looks.
    """

    transport: str
    filters: tuple[str, ...]
    path: str = "/ws"
    since: str = ""
    receive_buffer_bytes: int | None = None

    def link(self, cursor: str) -> Link:
        """A new connection's bytes."""
        if self.transport == "sse":
            return SseLink(self.filters, cursor, since=self.since)
        return WebSocketLink(self.path, self.filters if self.transport == "ws" else (), cursor, since=self.since)


class Client:
    """One client.

    Args:
        name: for the report.
        wants: what it asks for.
        ports: of the replicas.
        random: for its choices.
        started_s: the loop's time at which the run began.
    """

    def __init__(self, name: str, wants: Wants, ports: Sequence[int], random: Random, started_s: float) -> None:
        self.history = History(name, wants.filters)
        self._wants = wants
        self._ports = ports
        self._random = random
        self._started_s = started_s
        self._now = asyncio.get_running_loop().time
        self._cursor = ""
        self._at: int | None = None
        self._stalled_until = 0.0
        self._connection: asyncio.Task[None] | None = None
        self._tcp: TcpStream | None = None

    async def run(self) -> None:
        """Be connected, until cancelled."""
        while True:
            replica = self._random.randrange(len(self._ports))
            visit = Visit(self._now() - self._started_s, replica, self._at)
            self.history.visits.append(visit)
            self._connection = asyncio.get_running_loop().create_task(self._visit(visit))
            try:
                await asyncio.wait([self._connection])
            finally:
                self._connection.cancel()
            if not self._connection.cancelled():
                self._connection.result()  # what was no way for a connection to end is raised
            await asyncio.sleep(self._random.uniform(*BACK_OFF_S))

    def cut(self) -> None:
        """The network takes the connection away."""
        if self._connection is not None and self._tcp is not None:
            self._connection.cancel("cut")

    def stall(self, seconds: float) -> None:
        """Read nothing for a while."""
        self._stalled_until = self._now() + seconds

    @property
    def last_heard(self) -> tuple[int, int]:
        """The number of the newest event, and the newest position that a mark stated."""
        for visit in reversed(self.history.visits):
            stated = max((mark.upto for _, mark in visit.marks if mark.upto is not None), default=0)
            if visit.numbers or stated:
                return (visit.numbers[-1] if visit.numbers else 0, stated)
        return (0, 0)

    async def _visit(self, visit: Visit) -> None:
        link = self._wants.link(self._cursor)
        size = self._wants.receive_buffer_bytes
        tcp = TcpStream("127.0.0.1", self._ports[visit.replica], receive_buffer_bytes=size, keep=False)
        try:
            async with asyncio.timeout(CONNECT_S):
                await tcp.open()
            self._tcp = tcp
            await self._listen(tcp, link, visit)
        except TimeoutError:
            visit.mark(Mark("silence"))
        except Ended:
            visit.mark(Mark("ended"))
        except (Refused, AssertionError, ValueError, KeyError) as why:
            visit.refused = f"{type(why).__name__}: {why}"
        except OSError:
            visit.mark(Mark("no connection"))
        except asyncio.CancelledError:
            visit.mark(Mark("cut"))
            raise
        finally:
            self._tcp = None
            with contextlib.suppress(OSError):
                tcp.abort()

    async def _listen(self, tcp: TcpStream, link: Link, visit: Visit) -> None:
        while True:
            if link.replies:
                await tcp.send(bytes(link.replies))
                link.replies.clear()
            if (left := self._stalled_until - self._now()) > 0:
                await asyncio.sleep(left)  # the stall
            async with asyncio.timeout(SILENCE_S):
                piece = await tcp.receive(64 * 1024)
            if not piece:
                raise Ended
            for each in link.feed(piece):
                if isinstance(each, Heard):
                    visit.event(each.number, each.sequence)
                else:
                    visit.mark(each.mark)
                if each.cursor:
                    self._cursor = each.cursor
                    self._at = int(each.cursor.rpartition("-")[2])
