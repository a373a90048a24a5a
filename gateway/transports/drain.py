"""The drain: sends all connections of a replica that is going to the others, one by one at random moments.

All at once would be a herd: thousands of handshakes and replays at one moment on the replicas that stay. The way is
that of nats-server's lame-duck mode: go on for a moment, so that load balancers notice; take nobody in any more; end
what is left, spread over some time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from gateway.core.closing import Closing
from gateway.core.schedule import moments_s
from gateway.logs import Logger
from gateway.transports.connection import Connection
from gateway.transports.room import Room

LAST_WORDS_S = 1.5
"""How long, when all have been told, those may take that have not taken their last bytes yet."""

PROGRESS_S = 5.0
"""How often the log is told how far it is."""

A_TURN = 100
"""Connections that are ended before the loop gets to do something else."""

LOOK_S = 0.1
"""How soon it is noticed that those that are waited for have gone by themselves."""


class Drain:
    """Ends all connections of a room.

    Args:
        room: whose.
        log: for its beginning, its progress and its end.
    """

    def __init__(self, room: Room, log: Logger) -> None:
        self._room = room
        self._log = log

    async def run(self, *, delay_s: float, drain_s: float) -> None:
        """Drain. Done when no connection is left.

        Args:
            delay_s: how long nothing happens: everybody is served, and whoever comes.
            drain_s: over how long those that are there then are ended. It is over earlier when nobody is left.

        Cancellation: whoever is left then stays as it is.
        """
        room, now = self._room, self._room.now
        self._log.info("draining", connections=self._open, delay_s=delay_s, drain_s=drain_s)
        begun = now()
        await asyncio.sleep(delay_s)
        room.admission.leaving = True
        leaving = [each for each in room.sweep if isinstance(each, Connection) and each.ending is None]
        room.random.shuffle(leaving)
        spread_at = told_at = now()
        ended = 0
        for after_s, connection in zip(moments_s(room.random, len(leaving), drain_s), leaving, strict=True):
            while connection.ending is None and now() < spread_at + after_s:  # noqa: ASYNC110 - an event for each?
                await asyncio.sleep(min(LOOK_S, spread_at + after_s - now()))
            if ended % A_TURN == A_TURN - 1:
                await asyncio.sleep(0)
            if now() - told_at >= PROGRESS_S:
                told_at = now()
                self._log.info("drain_progress", ended=ended, left=self._open)
            if connection.ending is None:
                self._end(connection)
                ended += 1
        cut = await self._last_words(leaving)
        self._log.info("drained", ended=ended, cut=cut, seconds=round(now() - begun, 3))

    def _end(self, connection: Connection) -> None:
        try:
            connection.end(Closing.DRAINING)
        except Exception as error:  # a fault of ours in one connection; the others are to be told nevertheless
            self._log.error("drain_failed", connection=connection.id, exc_info=error)

    @property
    def _open(self) -> int:
        return sum(self._room.current.values())

    async def _last_words(self, leaving: Iterable[Connection]) -> int:
        """Wait until the last bytes have gone out, but not for those that take none; how many those were."""
        until = self._room.now() + LAST_WORDS_S
        left = [each for each in leaving if not each.gone]
        while left and self._room.now() < until:
            await asyncio.sleep(LOOK_S)
            left = [each for each in left if not each.gone]
        for each in left:
            each.cut(Closing.DRAINING)
        return len(left)
