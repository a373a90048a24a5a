"""NATS: the only module of the gateway that imports it. One connection that is kept up, taps that nothing escapes
from, requests.

nats-py 2.16 has moods that this module answers: an exception in a callback or in `_process_msg` leaves the client
connected and deaf; its own dispatch costs a task and a queue per subscription and parses headers a character at a time;
and after an authorization error during a reconnect it closes for good. So taps are dispatched here, by subscription
id, with headers left as bytes and every exception caught; and a closed client is replaced by a new one.

Its parser, too, has gaps. It lets the space between the two sizes of an `HMSG` run over the end of the line, into the
headers: whoever may publish anything that we hear could write headers that begin with digits, and what follows would be
taken for the protocol, forged messages of any subject. And it parts a line at all whitespace that Python knows, where
nats-server does at spaces only. The patterns are replaced by ones that stay in their line and field.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from random import Random
from typing import Any
from urllib.parse import ParseResult

import nats.errors
import nats.protocol.parser
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from gateway.core.errors import UpstreamAway
from gateway.core.schedule import backoff

PING_INTERVAL_S = 5
"""How often the server is pinged; two unanswered pings end the connection (nats-py's own default: 6 minutes)."""

CONNECT_TIMEOUT_S, CLOSE_TIMEOUT_S = 3, 1.0
LOOK_S, GIVE_UP_S = 1.0, 30.0
"""How often a client is looked at, and how long it may try to reconnect before it is replaced."""

RECONNECT_FIRST_S, RECONNECT_MOST_S = 0.1, 2.0

# nats-server parts the fields of a line by these and nothing else (NATS client protocol). For nats-py all whitespace of
# Python does, \v and \f too, which may stand in a subject: one such message would make it deaf.
_FIELD = rb"([^ \t\r\n]+)"
_HEAD = rb" +%b +%b +(?:%b +)?" % (_FIELD, _FIELD, rb"(%b)" % _FIELD)
nats.protocol.parser.MSG_RE = re.compile(rb"\AMSG%b(\d+)\r\n" % _HEAD)
nats.protocol.parser.HMSG_RE = re.compile(rb"\AHMSG%b(\d+) +(\d+)\r\n" % _HEAD)

Receive = Callable[[bytes, bytes | None, bytes], object]
"""What a tap calls for each message: subject, headers as they came (or None), payload. It must not block."""


class _Client(Client):
    """nats-py's client, with messages of taps handed over at once."""

    def __init__(self, broken: Callable[[BaseException], None]) -> None:
        super().__init__()
        self._broken = broken
        self.direct: dict[int, Receive] = {}
        self.place = ""  # the server that was tried last; a URL may hold a login

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        receive = self.direct.get(sid)
        try:
            if receive is None:
                await super()._process_msg(sid, subject, reply, data, headers)
            else:
                self.stats["in_msgs"] += 1
                self.stats["in_bytes"] += len(data)
                receive(subject, headers, data)
        except Exception as error:  # whatever it is, the read loop must live on; it is logged and counted
            self._broken(error)

    async def _connect_to_server(self, server: Any) -> None:
        # An attempt to reconnect that is refused behind TCP leaves its socket to the garbage collector, nats-py's next
        # one forgets it: through an outage of hours they would pile up.
        _abandon(self)
        self.place = _place(server.uri)
        await super()._connect_to_server(server)


def _place(url: ParseResult) -> str:
    return f"{url.hostname}:{url.port}"


def _abandon(client: Client) -> None:
    writer = getattr(getattr(client, "_transport", None), "_io_writer", None)
    if isinstance(writer, asyncio.StreamWriter):
        writer.transport.abort()


class Subscribed:
    """A subscription that outlives reconnects and replaced clients."""

    def __init__(self, subject: str, receive: Receive) -> None:
        self.subject = subject
        self.receive = receive
        self.subscription: Subscription | None = None


class NatsConnection:
    """One connection to NATS, kept up for as long as it runs.

    Args:
        options: what `nats.connect` takes (see `gateway.upstream.login`).
        random: for jitter.
        on_change: called with True when the connection is up (again), with False when it went.
        on_trouble: called with an event name and fields, for the log.

    Attributes:
        connected: whether it is up.
        reconnects: how often it came back.
        server: the URL of the server it is connected to, without credentials.
    """

    def __init__(
        self,
        options: dict[str, Any],
        *,
        random: Random,
        on_change: Callable[[bool], None],
        on_trouble: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._options = options
        self._random = random
        self._on_change = on_change
        self._on_trouble = on_trouble
        self._client: _Client | None = None
        self._newest: _Client | None = None
        self._taps: set[Subscribed] = set()
        self._closed = asyncio.Event()
        self.connected = False
        self.reconnects = 0
        self._was_up = False
        self.last_error = ""

    @property
    def subscriptions(self) -> int:
        """How many taps are open."""
        return len(self._taps)

    @property
    def server(self) -> str:
        url = self._client.connected_url if self._client is not None and self.connected else None
        return _place(url) if url is not None else ""

    async def run(self) -> None:
        """Keep a connection up until cancelled; then close it.

        Cancellation: closes the connection and ends; nothing is left behind.
        """
        waits = backoff(self._random, RECONNECT_FIRST_S, RECONNECT_MOST_S)
        while True:
            self._closed.clear()
            client = self._newest = _Client(self._broken)
            try:
                await client.connect(
                    **self._options,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_FIRST_S * self._random.uniform(1, 2),  # type: ignore[arg-type]  # slept only
                    connect_timeout=CONNECT_TIMEOUT_S,
                    ping_interval=PING_INTERVAL_S,
                    error_cb=self._error,
                    disconnected_cb=self._disconnected,
                    reconnected_cb=self._reconnected,
                    closed_cb=self._closed_for_good,
                )
                self._client = client
                for tap in tuple(self._taps):
                    if tap in self._taps:  # it may be closed while another one is opened
                        await self._subscribe(client, tap)
                self._up()
                waits = backoff(self._random, RECONNECT_FIRST_S, RECONNECT_MOST_S)
                await self._until_lost(client)
            except asyncio.CancelledError:
                # We end: that is no outage to tell anybody of.
                self._client, self.connected = None, False
                await _shut(client)
                raise
            except Exception as error:  # nats-py lets others through than its own: from keys, from INFO
                await self._error(error)
            self._client = None
            self._down()
            await _shut(client)
            await asyncio.sleep(next(waits))

    async def _until_lost(self, client: _Client) -> None:
        """Wait until this client is of no use any more.

        That is when nats-py closed it for good, when its reconnecting ended by an exception that it did not expect
        (nobody is told of that), and when it has not been connected for `GIVE_UP_S`: a socket to a host that vanished
        may hold up its reconnecting for as long as TCP keeps trying.
        """
        loop = asyncio.get_running_loop()
        seen_at = loop.time()
        while not self._closed.is_set():
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._closed.wait()
            except TimeoutError:
                if client.is_connected:
                    seen_at = loop.time()
                    continue
                self._down()
                reconnecting = client._reconnection_task
                if reconnecting is None or reconnecting.done() or loop.time() - seen_at > GIVE_UP_S:
                    return

    async def tap(self, subject: str, receive: Receive) -> Subscribed:
        """Open a tap. It survives reconnects; a message is delivered at most once. Close it with `untap`."""
        tap = Subscribed(subject, receive)
        self._taps.add(tap)
        if self._client is not None:
            try:
                await self._subscribe(self._client, tap)
            except BaseException as error:
                self._taps.discard(tap)
                if isinstance(error, nats.errors.Error | OSError):
                    raise UpstreamAway(f"{subject} could not be subscribed to: {error!s}") from None
                raise
        return tap

    async def untap(self, tap: Subscribed) -> None:
        """Close a tap. Nothing is delivered to it afterwards."""
        self._taps.discard(tap)
        subscription, tap.subscription = tap.subscription, None
        if self._client is not None and subscription is not None:
            self._client.direct.pop(subscription._id, None)
            with contextlib.suppress(nats.errors.Error):  # away: then there is nothing to unsubscribe from
                await subscription.unsubscribe()

    async def request(
        self, subject: str, payload: bytes = b"", *, timeout_s: float = 2.0, headers: dict[str, str] | None = None
    ) -> bytes:
        """Ask and get the answer.

        Raises:
            UpstreamAway: there is no connection, nobody to answer, or no answer within `timeout_s`.
        """
        client = self._client
        if client is None or not self.connected:
            raise UpstreamAway("NATS is not connected")
        try:
            return (await client.request(subject, payload, timeout=timeout_s, headers=headers)).data
        except nats.errors.NoRespondersError:
            raise UpstreamAway(f"nobody answers on {subject}") from None
        except (TimeoutError, nats.errors.Error, OSError) as error:
            raise UpstreamAway(f"no answer on {subject}: {str(error) or error.__class__.__name__}") from None

    async def publish(self, subject: str, payload: bytes, *, reply: str) -> None:
        """Send a message whose answers go to `reply`.

        Raises:
            UpstreamAway: there is no connection.
        """
        client = self._client
        if client is None or not self.connected:
            raise UpstreamAway("NATS is not connected")
        try:
            await client.publish(subject, payload, reply=reply)
        except (nats.errors.Error, OSError) as error:
            raise UpstreamAway(f"{subject} could not be sent: {error!s}") from None

    async def _subscribe(self, client: _Client, tap: Subscribed) -> None:
        # Without a callback nats-py makes no task for it; its queue stays empty, since `direct` takes every message.
        tap.subscription = await client.subscribe(tap.subject)
        client.direct[tap.subscription._id] = tap.receive

    def _up(self) -> None:
        self.connected = True
        self.reconnects += self._was_up
        self._was_up = True
        self.last_error = ""
        self._on_change(True)

    def _down(self) -> None:
        if self.connected:
            self.connected = False
            self._on_change(False)

    def _broken(self, error: BaseException) -> None:
        self._on_trouble("nats_callback_failed", {"exc_info": error})

    async def _error(self, error: BaseException) -> None:
        # nats-py awaits this in its read loop: it must neither raise nor wait.
        self.last_error = str(error) or error.__class__.__name__
        place = self._newest.place if self._newest is not None else ""
        self._on_trouble("nats_error", {"error": self.last_error} | ({"server": place} if place else {}))

    async def _disconnected(self) -> None:
        self._down()

    async def _reconnected(self) -> None:
        self._up()

    async def _closed_for_good(self) -> None:
        self._closed.set()


async def _shut(client: _Client) -> None:
    client.direct.clear()
    try:
        with contextlib.suppress(Exception):  # it is being thrown away, in whatever state it is
            await asyncio.wait_for(client.close(), timeout=CLOSE_TIMEOUT_S)
        # Once is not enough: `asyncio.wait_for` of Python 3.11, in which it connects, loses a cancellation that comes
        # in the same moment as the connection, which then would live on unknown to anybody.
        reconnecting = client._reconnection_task
        while reconnecting is not None and not reconnecting.done():
            reconnecting.cancel()
            await asyncio.wait([reconnecting], timeout=CLOSE_TIMEOUT_S)
    finally:
        # What it did not close in time, as with a server that is frozen, it would keep until it is collected.
        _abandon(client)
        await asyncio.sleep(0)  # asyncio closes the socket in its next turn
