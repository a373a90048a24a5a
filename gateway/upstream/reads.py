"""Reads of the stream: bounded batches of stored messages by direct get (NATS ADR-31), and the leader's word.

Direct gets are answered by any replica of the stream, which may lag. Each holds a prefix of the stream, so a batch
proves everything up to its last message, and nothing behind it. What ends a range is proved by the leader.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from gateway.core.errors import UpstreamAway, UpstreamRefused
from gateway.core.stream import Shape, read_answer
from gateway.upstream.api import StreamApi
from gateway.upstream.connection import NatsConnection, Subscribed

BATCH_EVENTS = 1000
BATCH_BYTES = 2**20
"""The most of one batch. Larger ones hold up the server's other requests, and publishers with them."""

SNAPSHOT_BYTES = 128 * 2**10
"""A page of a snapshot: what a socket that stalls within it has to hold."""

TIMEOUT_S = 5.0
IN_FLIGHT = 3
"""Reads at a time: more of them only raise everybody's latency."""

NO_MESSAGE = 10037
LAG_WAIT_S = 0.03
LAG_PATIENCE = 300


class Stored(NamedTuple):
    """A stored message. `headers`: its publisher's, with the stream's own block (`Nats-Stream` …) behind them."""

    sequence: int
    subject: bytes
    payload: bytes
    headers: bytes


class Part(NamedTuple):
    """A part of a range.

    Attributes:
        messages: ascending.
        floor: where it begins; above the end of the part before it when what lies between was purged meanwhile.
        upto: where it ends; from `floor` to here nothing is missing.
    """

    messages: list[Stored]
    floor: int
    upto: int


@dataclass(slots=True)
class Batch:
    """The answer to one read.

    Attributes:
        messages: ascending by sequence.
        matching: how many messages match from the first of these on, as the answering replica saw it.
        ended: whether that replica had no more.
        upto: where a read of last values stood (`Nats-UpTo-Sequence`); 0 for other reads.
    """

    messages: list[Stored] = field(default_factory=list)
    matching: int = 0
    ended: bool = False
    upto: int = 0


class _Pending:
    __slots__ = ("batch", "done", "first", "last", "whole")

    def __init__(self, done: asyncio.Future[None]) -> None:
        self.batch = Batch()
        self.done = done
        self.first = True
        self.last = 0
        self.whole = True


class Lagging(UpstreamAway):
    """A replica has not got as far as its leader: another one, or the same a moment later, will have."""


class TooManySubjects(UpstreamRefused):
    """More subjects match than the server gives last values of (1,024)."""


class StreamReads:
    """Reads one stream.

    Args:
        nats: a connection of its own: a storm of reads must not delay live messages.
        api: the stream's API, on that connection.
        inbox: a subject prefix that only this process listens on.
    """

    def __init__(self, nats: NatsConnection, api: StreamApi[Shape], inbox: str) -> None:
        self._nats = nats
        self.api = api
        self._stream = api.shape.name
        self._inbox = inbox
        self._tap: Subscribed | None = None
        self._pending: dict[bytes, _Pending] = {}
        self._number = 0
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._opening = asyncio.Lock()

    @property
    def connected(self) -> bool:
        """Whether the connection of reads is up."""
        return self._nats.connected

    async def after(self, sequence: int, pattern: str, *, most: int = BATCH_EVENTS) -> Batch:
        """The next messages that match a filter behind a sequence."""
        return await self._read({"seq": sequence + 1, "next_by_subj": pattern, "batch": most, "max_bytes": BATCH_BYTES})

    async def since(self, time: str, pattern: str) -> Batch:
        """The first matching message stored at or after a time (RFC 3339), alone."""
        return await self._read({"start_time": time, "next_by_subj": pattern, "batch": 1})

    async def last_values(self, patterns: list[str], *, after: int = 0, upto: int = 0) -> Batch:
        """The last message of every subject that matches, ascending, a page of `SNAPSHOT_BYTES` at a time.

        Args:
            patterns: the filters.
            after, upto: to go on: the last sequence of the page before, and its `upto`.

        Raises:
            TooManySubjects: there are more than the server gives.
        """
        question: dict[str, Any] = {"multi_last": patterns, "batch": 1024, "max_bytes": SNAPSHOT_BYTES}
        if after:
            question |= {"seq": after + 1, "up_to_seq": upto}
        return await self._read(question)

    async def forward(self, patterns: Sequence[str], after: int, until: int, *, life: str) -> AsyncIterator[Part]:
        """Read (after, until] for some filters, in order.

        Args:
            life: the incarnation of the stream that is meant.

        Yields:
            parts that follow each other without a gap.

        Raises:
            UpstreamAway: NATS is away, the replicas lag behind their leader for too long, or it is another stream now.
            UpstreamRefused: the server says no.
        """
        patience = LAG_PATIENCE
        while after < until:
            found: dict[int, Stored] = {}
            upto = until
            for pattern in patterns:
                batch = await self.after(after, pattern)
                last = batch.messages[-1].sequence if batch.messages else after
                found.update((each.sequence, each) for each in batch.messages)
                if last >= until:
                    continue
                if batch.ended:
                    following = await self.leader_has(last, pattern)
                    if following is None or following > until:
                        continue
                upto = min(upto, last)
            if upto > after:
                patience = LAG_PATIENCE
                # Asked after the read: what the stream keeps now it kept then, so from there on nothing is lacking.
                state = await self.api.info()
                if state.incarnation != life:
                    raise UpstreamAway(f"the stream {self._stream} was made anew while it was read")
                floor = max(after, state.first - 1)
                upto = max(upto, floor)
                yield Part([found[sequence] for sequence in sorted(found) if floor < sequence <= upto], floor, upto)
                after = upto
            else:
                patience -= 1
                if not patience:
                    raise Lagging(f"the replicas of {self._stream} lag behind their leader")
                await asyncio.sleep(LAG_WAIT_S)  # a follower catches up when it does; it does not say so

    async def leader_has(self, sequence: int, pattern: str) -> int | None:
        """The first matching sequence behind `sequence` that the stream's leader has, or None.

        Raises:
            UpstreamAway, UpstreamRefused: the leader did not say.
        """
        question = orjson.dumps({"seq": sequence + 1, "next_by_subj": pattern})
        try:
            answer = read_answer(await self._nats.request(f"$JS.API.STREAM.MSG.GET.{self._stream}", question))
            return int(answer["message"]["seq"])
        except UpstreamRefused as error:
            if error.code == NO_MESSAGE:
                return None
            raise
        except (KeyError, TypeError, ValueError):
            raise UpstreamRefused(0, "the leader's answer has no sequence") from None

    async def leader_time(self, sequence: int) -> str | None:
        """When the leader's message of this sequence was stored, as it writes it; None when it has none.

        Raises:
            UpstreamAway, UpstreamRefused: the leader did not say.
        """
        question = orjson.dumps({"seq": sequence})
        try:
            answer = read_answer(await self._nats.request(f"$JS.API.STREAM.MSG.GET.{self._stream}", question))
            return str(answer["message"]["time"])
        except UpstreamRefused as error:
            if error.code == NO_MESSAGE:
                return None
            raise
        except (KeyError, TypeError):
            raise UpstreamRefused(0, "the leader's answer has no time") from None

    async def _read(self, question: dict[str, Any]) -> Batch:
        async with self._slots:
            if self._tap is None:
                async with self._opening:
                    if self._tap is None:
                        self._tap = await self._nats.tap(f"{self._inbox}.*", self._receive)
            self._number += 1
            token = b"%d" % self._number
            pending = self._pending[token] = _Pending(asyncio.get_running_loop().create_future())
            try:
                await self._nats.publish(
                    f"$JS.API.DIRECT.GET.{self._stream}",
                    orjson.dumps(question),
                    reply=f"{self._inbox}.{self._number}",
                )
                async with asyncio.timeout(TIMEOUT_S):
                    await pending.done
            except TimeoutError:
                raise UpstreamAway(f"the stream {self._stream} did not answer a read in {TIMEOUT_S:g} s") from None
            finally:
                del self._pending[token]
        return pending.batch

    def _receive(self, subject: bytes, headers: bytes | None, payload: bytes) -> None:
        pending = self._pending.get(subject[subject.rfind(b".") + 1 :])
        if pending is None or pending.done.done():
            return  # an answer to a read that was given up
        # Whatever headers its publisher gave it, even a status line: a message has the stream's own block behind them.
        block = -1 if headers is None else headers.rfind(b"Nats-Stream: ")
        if headers is None or block < 0:
            self._ended(pending, headers or b"")
            return
        sequence = _number(headers, b"\r\nNats-Sequence: ", block)
        at = headers.find(b"\r\nNats-Subject: ", block) + 16
        if pending.first:
            pending.first = False
            pending.batch.matching = 1 + _number(headers, b"\r\nNats-Num-Pending: ", block)
        # Each names the one before it in this answer: what NATS lost on the way shows.
        if _number(headers, b"\r\nNats-Last-Sequence: ", block) != pending.last:
            pending.whole = False
        pending.last = sequence
        pending.batch.messages.append(Stored(sequence, headers[at : headers.find(b"\r\n", at)], payload, headers))

    def _ended(self, pending: _Pending, headers: bytes) -> None:
        status = headers[9:12]
        batch = pending.batch
        if status == b"204":
            left = _number(headers, b"\r\nNats-Num-Pending: ", 0)
            if not pending.whole or _number(headers, b"\r\nNats-Last-Sequence: ", 0) != pending.last:
                pending.done.set_exception(UpstreamAway("a read of the stream lost messages on its way"))
                return
            batch.ended = left == 0
            batch.upto = _number(headers, b"\r\nNats-UpTo-Sequence: ", 0)
            pending.done.set_result(None)
        elif status == b"404":
            batch.ended = True
            pending.done.set_result(None)
        elif status == b"413":
            pending.done.set_exception(TooManySubjects(413, "more subjects match than the server gives values of"))
        elif status == b"503":
            pending.done.set_exception(UpstreamAway(f"nobody answers reads of {self._stream} (is allow_direct set?)"))
        else:
            said = headers[9:60].split(b"\r\n", 1)[0].decode("latin-1")
            pending.done.set_exception(UpstreamRefused(0, f"a read of {self._stream} was refused: {said}"))


def _number(headers: bytes, name: bytes, begin: int) -> int:
    at = headers.find(name, max(begin, 0))
    if at < 0:
        return 0
    at += len(name)
    digits = headers[at : headers.find(b"\r\n", at)]
    return int(digits) if digits.isdigit() else 0
