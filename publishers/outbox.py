"""The outbox: every event that is not acknowledged yet, in one lane per subject, within a limit of bytes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

ENTRY_OVERHEAD_BYTES = 2048
"""What an entry costs beside its own bytes, when it has a lane of its own: measured 1.5 KB, rounded up."""


class Ack(NamedTuple):
    """The stream stored the event: `stream`, its `sequence` there, and whether it was there already."""

    stream: str
    sequence: int
    duplicate: bool


class Outcome(asyncio.Future[Ack]):
    """The future of an event's acknowledgement. Whoever cancels it takes the event back.

    Attributes:
        number: the event's.
        taken_back: called with it when that happens. (A callback of the future would cost every event a turn.)
    """

    __slots__ = ("number", "taken_back")

    number: int
    taken_back: Callable[[int], object]

    def cancel(self, msg: object = None) -> bool:
        """See `asyncio.Future.cancel`."""
        cancelled = super().cancel(msg)
        if cancelled and hasattr(self, "taken_back"):
            self.taken_back(self.number)
        return cancelled


@dataclass(slots=True, eq=False)
class Entry:
    """One event on its way; times are the loop's clock in seconds."""

    number: int
    subject: str
    data: bytes
    header: bytes
    outcome: Outcome
    size_bytes: int
    attempts: int = 0
    first_sent_s: float = 0.0
    first_sent_at: float = 0.0
    """The same by the wall clock, seconds since the epoch: the loop's stands still while the machine is suspended."""
    last_sent_s: float = 0.0
    troubled_since_s: float | None = None
    """Since when a reachable NATS refuses it or leaves it unanswered."""
    in_doubt: bool = False
    """An attempt ended without an answer, so the stream may hold the event."""
    reason: str = "it was not sent yet"


@dataclass(slots=True, eq=False)
class Lane:
    """The events of one subject, oldest first: waiting, on the wire, failed until the wire is clear."""

    subject: str
    waiting: OrderedDict[int, Entry] = field(default_factory=OrderedDict)
    """By number: any of them may be taken back."""
    flying: list[Entry] = field(default_factory=list)
    failed: list[Entry] = field(default_factory=list)
    listed: bool = False
    held: bool = False


class Outbox:
    """Which event goes next. It keeps every subject's order and never sends by itself.

    Per subject at most `max_in_flight_per_subject` events fly. Once one of them fails, its lane sends nothing
    until the others are answered; then the failed ones go first, in their old order.
    """

    def __init__(self, *, limit_bytes: int, max_in_flight: int, max_in_flight_per_subject: int) -> None:
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        self.entries: dict[int, Entry] = {}
        self.flying: dict[int, Entry] = {}  # in the order of sending
        self._max_in_flight = max_in_flight
        self._max_per_lane = max_in_flight_per_subject
        self._lanes: dict[str, Lane] = {}
        self._ready: deque[Lane] = deque()

    @property
    def is_low(self) -> bool:
        """Whether a good part is free, so that whoever waited for room can add many at once."""
        return self.size_bytes <= self.limit_bytes * 3 // 4

    def has_room_for(self, size_bytes: int) -> bool:
        """Whether an entry of that size fits; into an empty outbox everything does."""
        return not self.entries or self.size_bytes + size_bytes <= self.limit_bytes

    def add(self, entry: Entry) -> None:
        """Puts the entry at the end of its subject's lane."""
        self.entries[entry.number] = entry
        self.size_bytes += entry.size_bytes
        lane = self._lanes.get(entry.subject)
        if lane is None:
            lane = self._lanes[entry.subject] = Lane(entry.subject)
        lane.waiting[entry.number] = entry
        self._list(lane)

    def take(self) -> Entry | None:
        """The next entry to send, now counted as flying; None when nothing may be sent."""
        while self._ready and len(self.flying) < self._max_in_flight:
            lane = self._ready.popleft()
            lane.listed = False
            while self._may_send(lane):
                _, entry = lane.waiting.popitem(last=False)
                if entry.outcome.done():  # given up by its caller
                    self._forget(entry)
                    continue
                lane.flying.append(entry)
                self.flying[entry.number] = entry
                self._list(lane)
                return entry
            self._list(lane)
        return None

    def remove(self, entry: Entry) -> None:
        """Takes the entry out wherever it is: it is stored, failed, or given up. Twice does nothing."""
        if entry.number not in self.entries:
            return
        lane = self._lanes[entry.subject]
        if self.flying.pop(entry.number, None) is not None:
            lane.flying.remove(entry)
        elif entry in lane.failed:
            lane.failed.remove(entry)
        else:
            del lane.waiting[entry.number]
        self._forget(entry)
        self._regroup(lane)
        self._list(lane)

    def fail(self, entry: Entry) -> Lane | None:
        """The attempt failed. Returns the lane, now held, when it is to be `release`d after a pause."""
        if self.flying.pop(entry.number, None) is None:
            return None
        lane = self._lanes[entry.subject]
        lane.flying.remove(entry)
        lane.failed.append(entry)
        if lane.held or not self._regroup(lane):
            return None
        lane.held = True
        return lane

    def release(self, lane: Lane) -> None:
        """Ends the pause of a held lane."""
        lane.held = False
        self._regroup(lane)
        self._list(lane)

    def land_all(self) -> list[Entry]:
        """The connection is gone: everything that flew waits again, in order. Returns what flew."""
        landed = list(self.flying.values())
        self.flying.clear()
        for lane in {entry.subject: self._lanes[entry.subject] for entry in landed}.values():
            lane.failed.extend(lane.flying)
            lane.flying.clear()
            self._regroup(lane)
            self._list(lane)
        return landed

    def sent_before(self, time_s: float) -> list[Entry]:
        """Flying entries whose last attempt began before that time."""
        late: list[Entry] = []
        for entry in self.flying.values():
            if entry.last_sent_s >= time_s:
                break
            late.append(entry)
        return late

    def _regroup(self, lane: Lane) -> bool:
        if lane.flying or not lane.failed:
            return False
        for entry in sorted(lane.failed, key=lambda entry: entry.number, reverse=True):
            lane.waiting[entry.number] = entry
            lane.waiting.move_to_end(entry.number, last=False)
        lane.failed.clear()
        return True

    def _may_send(self, lane: Lane) -> bool:
        return bool(lane.waiting and not lane.held and not lane.failed and len(lane.flying) < self._max_per_lane)

    def _list(self, lane: Lane) -> None:
        if lane.listed:
            return
        if self._may_send(lane):
            lane.listed = True
            self._ready.append(lane)
        elif not (lane.waiting or lane.flying or lane.failed or lane.held):
            self._lanes.pop(lane.subject, None)

    def _forget(self, entry: Entry) -> None:
        del self.entries[entry.number]
        self.size_bytes -= entry.size_bytes
