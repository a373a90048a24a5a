"""Replay jobs, in process, against a stream that is a list: no reader misses a part or gets one twice."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, cast
from weakref import WeakSet

from gateway.core.closing import Closing
from gateway.core.cursor import Cursor
from gateway.core.dialect import SSE
from gateway.core.errors import UpstreamAway
from gateway.core.feed import Feeds
from gateway.core.hub import Hub
from gateway.core.log import Log
from gateway.core.reader import Initial, Opening, Place, Reader
from gateway.core.start import Start
from gateway.core.stream import StreamState
from gateway.core.subjects import parse_filter
from gateway.logs import logger
from gateway.upstream.reads import Batch, Part, Stored, StreamReads
from gateway.upstream.replay import Replay

STORED = 3000
FROM_THE_BEGINNING = Start(cursor=Cursor("x", 0))
STATE = StreamState(
    incarnation="x",
    first=1,
    last=STORED,
    messages=STORED,
    bytes=STORED * 100,
    subjects=1,
    last_time=datetime.now(UTC),
    config={},
)


class Api:
    async def info(self) -> StreamState:
        return STATE


class Reads:
    """A stream of 3,000 messages, read in three parts."""

    api: ClassVar[Api] = Api()

    async def after(self, sequence: int, pattern: str, *, most: int) -> Batch:
        return Batch([], STORED - sequence)

    async def forward(self, patterns: Sequence[str], after: int, until: int, *, life: str) -> AsyncIterator[Part]:
        assert life == "x"
        while after < until:
            await asyncio.sleep(0)  # a read takes a turn of the loop, in which readers stall and come back
            upto = min(after + 1000, until)
            messages = [Stored(n, b"repo.1.x", b'{"n":%d}' % n, b"") for n in range(after + 1, upto + 1)]
            yield Part(messages, after, upto)
            after = upto


class CountedReader(Reader):
    """Counts how often a set was asked for it, by all of them together."""

    __slots__ = ()
    looked_up: ClassVar[int] = 0

    def __hash__(self) -> int:
        CountedReader.looked_up += 1
        return id(self) // 16


class Client:
    identity: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        hub: Hub,
        on_write: Callable[[Client], None] = lambda client: None,
        start: Start = FROM_THE_BEGINNING,
        opening: Opening | None = None,
    ) -> None:
        self.hub = hub
        self.on_write = on_write
        self.paused = False
        self.writes = 0
        self.seen: list[int] = []
        self.gaps = 0
        self.may_gap = opening is not None
        feed = hub.feeds.acquire([parse_filter("repo.>", ("repo",))])
        self.reader = CountedReader(feed, SSE, self, self.write, start, opening)
        hub.join(self.reader)

    def write(self, data: bytes) -> None:
        self.seen += [int(found) for found in re.findall(rb'^data: \{"n":(\d+)\}', data, re.MULTILINE)]
        self.writes += 1
        self.on_write(self)

    def fill(self) -> None:
        self.paused = True
        self.hub.stall(self.reader)

    def drain(self) -> None:
        self.paused = False
        self.hub.resume(self.reader)

    def gapped(self, reader: Reader) -> None:
        assert self.may_gap, "nothing is gone"
        self.gaps += 1

    def end(self, why: Closing) -> None:
        raise AssertionError(why)

    def failed(self) -> None:
        raise AssertionError("nothing is refused")

    def reached_head(self, reader: Reader) -> None:
        raise AssertionError("nobody asked for it")


@contextlib.asynccontextmanager
async def running(*, nats_is_there: bool = True) -> AsyncIterator[Hub]:
    """An open hub at the head of the stream, and what serves its readers."""
    loop = asyncio.get_running_loop()
    feeds = Feeds()
    log = Log(10**6, feeds.tree)
    log.reset("x", STORED)
    usable = asyncio.Event()
    if nats_is_there:
        usable.set()
    hub = Hub(log, feeds, defer=loop.call_soon, now=loop.time, uncovered=lambda reader: replay.take(reader))
    replay = Replay(hub, cast(StreamReads, Reads()), usable, snapshot_limit=10, max_event_bytes=0, log=logger())
    hub.opened()
    task = asyncio.create_task(replay.run())
    try:
        yield hub
    finally:
        task.cancel()


async def all_live(clients: Sequence[Client]) -> None:
    async with asyncio.timeout(30):
        while not all(client.reader.place is Place.LIVE for client in clients):  # noqa: ASYNC110 - other callbacks are waited for
            await asyncio.sleep(0)


async def test_a_reader_whose_socket_frees_within_a_hand_out_misses_nothing() -> None:
    """Many readers are served in one job; one stalls, and its socket frees while others are still written to."""

    def on_write(client: Client) -> None:
        if client is clients[3] and client.writes == 1:
            client.fill()
        if client is clients[250] and clients[3].paused:
            clients[3].drain()

    clients: list[Client] = []
    async with running() as hub:
        clients += [Client(hub, on_write) for _ in range(700)]
        await all_live(clients)

    assert all(client.seen == list(range(1, STORED + 1)) for client in clients)


class OneByOne:
    """A service that answers one question after the other."""

    def __init__(self) -> None:
        self._free = asyncio.Lock()

    async def ask(self) -> Initial | Closing:
        async with self._free:
            await asyncio.sleep(0)  # an answer takes a turn of the loop
        return Initial((b'{"n":0}',), "x", STORED)


async def test_readers_that_wait_for_a_service_cost_the_others_nothing() -> None:
    """After a gap all readers of a route ask its service: each answer looks at its own reader, not at all of them."""
    service = OneByOne()
    async with running() as hub:
        CountedReader.looked_up = 0
        clients = [Client(hub, start=Start(snapshot=True), opening=service) for _ in range(500)]
        await all_live(clients)

    assert all(client.seen == [0] for client in clients)
    assert CountedReader.looked_up < 50 * len(clients)


class AwayAtFirst:
    """A service that cannot be asked before the second time."""

    def __init__(self) -> None:
        self._asked = 0

    async def ask(self) -> Initial | Closing:
        self._asked += 1
        if self._asked == 1:
            raise UpstreamAway("NATS is not connected")
        return Initial((b'{"n":0}',), "x", STORED)


async def test_a_client_from_too_far_back_is_told_so_although_nats_went_meanwhile() -> None:
    """Whoever comes with more to replay than `REPLAY_LIMIT` gets a gap and the present state, at the second try too."""
    async with running() as hub:
        hub.replay_limit = 100
        client = Client(hub, start=Start(cursor=Cursor("x", 5), snapshot=True), opening=AwayAtFirst())
        await all_live([client])

    assert client.gaps == 1
    assert client.seen == [0]


async def test_who_comes_and_goes_while_nats_is_away_is_forgotten() -> None:
    """Readers that wait for a read and leave do not pile up until NATS is back."""
    came: WeakSet[Client] = WeakSet()
    async with running(nats_is_there=False) as hub:
        stays = Client(hub, start=Start(snapshot=True))
        for _ in range(3000):
            client = Client(hub, start=Start(snapshot=True))
            came.add(client)
            hub.leave(client.reader)
            del client
        gc.collect()
        assert len(came) < 100
        assert hub.readers == {stays.reader}
