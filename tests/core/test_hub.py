"""The hub moves readers forward: live by fan-out, all others by reading, each event once and in order."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.closing import Closing
from gateway.core.cursor import Cursor
from gateway.core.dialect import SSE
from gateway.core.envelope import DropReason
from gateway.core.event import Event
from gateway.core.feed import Feeds
from gateway.core.hub import FLUSH_EVENTS, Hub
from gateway.core.log import Log
from gateway.core.reader import Place, Reader
from gateway.core.start import NOW, Start
from tests.support.filters import filter_of


class Loop:
    """Calls what was deferred when it is told to."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def defer(self, call: Callable[[], None]) -> None:
        self.due.append(call)

    def turn(self) -> None:
        due, self.due = self.due, []
        for call in due:
            call()

    def settle(self) -> None:
        while self.due:
            self.turn()


class Client:
    """A connection whose socket holds so many writes, and that gathers what it was sent."""

    identity: ClassVar[dict[str, Any]] = {"replica": "r", "connection": "c"}

    def __init__(self, hub: Hub, filters: str, cursor: int | None = None) -> None:
        start = NOW if cursor is None else Start(cursor=Cursor("x", cursor))
        self.hub = hub
        self.got = b""
        self.writes = 0
        self.room = 10**9
        self.paused = False
        self.failures = 0
        self.reader = Reader(hub.feeds.acquire([filter_of(filters)]), SSE, self, self.write, start)
        hub.join(self.reader)

    def write(self, data: bytes) -> None:
        assert self.reader.place is not Place.GONE
        self.got += data
        self.writes += 1
        self.room -= 1
        if self.room <= 0 and not self.paused:
            self.paused = True
            self.hub.stall(self.reader)

    def drained(self, room: int) -> None:
        self.room = room
        if self.paused and room > 0:
            self.paused = False
            self.hub.resume(self.reader)

    def gapped(self, reader: Reader) -> None:
        """Clients of these tests go on."""

    def end(self, why: Closing) -> None:
        raise AssertionError(why)

    def failed(self) -> None:
        self.failures += 1
        self.hub.leave(self.reader)

    def reached_head(self, reader: Reader) -> None:
        """None of these asks for it."""

    @property
    def seen(self) -> list[int]:
        return [int(found) for found in re.findall(rb"^id: x-(\d+)\ndata: \{\"n\"", self.got, re.MULTILINE)]


def hub_with(limit: int = 10**7, uncovered: Callable[[Reader], None] | None = None) -> tuple[Hub, Loop]:
    loop = Loop()
    feeds = Feeds()
    log = Log(limit, feeds.tree)

    def leader_knows(reader: Reader) -> None:
        """As a leader would say that has all that any cursor names: it is only early."""
        assert reader.start.cursor is not None
        hub.brought(reader, reader.start.cursor.sequence)

    hub = Hub(log, feeds, defer=loop.defer, now=lambda: 0.0, uncovered=uncovered or leader_knows)
    log.reset("x", 0)
    return hub, loop


def store(hub: Hub, subject: str, times: int = 1) -> None:
    for _ in range(times):
        hub.log.append(hub.log.head + 1, subject.encode(), b'{"n":1}')
        hub.advanced()


def test_events_of_one_turn_leave_in_one_write() -> None:
    """However many events come in one loop turn, each client is written to once."""
    hub, loop = hub_with()
    hub.opened()
    client = Client(hub, "repo.>")
    loop.settle()
    before = client.writes

    store(hub, "repo.a", times=20)
    loop.settle()

    assert client.writes == before + 1
    assert client.seen == list(range(1, 21))


def test_a_reader_waits_until_the_tap_is_open_and_then_begins_there() -> None:
    """A client that comes before the log is fed is served from the log's head on, and told so."""
    hub, loop = hub_with()
    client = Client(hub, "repo.>")
    loop.settle()
    assert client.got == b""

    hub.log.reset("x", 7)
    hub.opened()
    loop.settle()

    assert b"event: natsgate.ready\nid: x-7\n" in client.got


def test_a_full_socket_falls_behind_and_catches_up_without_holding_up_others() -> None:
    """A client that takes nothing costs the fast one nothing, and gets everything once, in order, later."""
    hub, loop = hub_with()
    hub.opened()
    slow, fast = Client(hub, "repo.>"), Client(hub, "repo.>")
    loop.settle()
    slow.room = 2
    for _ in range(30):
        store(hub, "repo.a")
        loop.settle()

    assert fast.seen == list(range(1, 31))
    assert slow.reader.place is Place.STALLED
    assert len(slow.seen) == 2
    assert hub.behind == 1

    slow.drained(10**9)
    loop.settle()
    assert slow.seen == list(range(1, 31))
    assert hub.behind == 0


def test_a_cursor_beyond_the_head_waits_for_the_head() -> None:
    """A cursor that a faster replica handed out is no gap: its reader gets what comes behind it, and nothing before."""
    hub, loop = hub_with()
    hub.opened()
    early = Client(hub, "repo.>", cursor=3)
    loop.settle()

    store(hub, "repo.a", times=5)
    loop.settle()

    assert early.seen == [4, 5]


def test_a_reader_before_the_beginning_of_the_log_is_handed_on() -> None:
    """Who stands where the log no longer reaches is not skipped forward in silence."""
    asked: list[Reader] = []
    hub, loop = hub_with(limit=5000, uncovered=asked.append)
    hub.opened()
    store(hub, "repo.a", times=100)
    loop.settle()
    assert hub.log.base > 2

    client = Client(hub, "repo.>", cursor=2)
    loop.settle()

    assert asked == [client.reader]
    assert client.seen == []


def test_more_in_one_turn_than_the_log_holds_is_not_skipped() -> None:
    """When one turn brings more than the log holds, live readers are handed on with the cursor that they reached."""
    asked: list[Reader] = []
    hub, loop = hub_with(limit=2000, uncovered=asked.append)
    hub.opened()
    client = Client(hub, "repo.>")
    loop.settle()
    store(hub, "repo.a", times=100)
    loop.settle()

    assert asked == [client.reader]
    assert client.reader.cursor == 0


steps = st.lists(
    st.one_of(
        st.tuples(st.just("store"), st.sampled_from(["repo.a", "repo.b", "repo.a.c"])),
        st.tuples(st.just("turn"), st.just("")),
        st.tuples(st.just("join"), st.sampled_from(["repo.>", "repo.a", "repo.*"])),
        st.tuples(st.just("resume"), st.sampled_from(["repo.>", "repo.a", "repo.*"])),
        st.tuples(st.just("stall"), st.just("")),
        st.tuples(st.just("drain"), st.just("")),
        st.tuples(st.just("leave"), st.just("")),
    ),
    max_size=80,
)


@settings(max_examples=300)
@given(steps, st.randoms(use_true_random=False))
def test_every_reader_gets_its_events_once_and_in_order_whatever_happens(
    plan: list[tuple[str, str]], random: Any
) -> None:
    """Under any sequence of events, joins, stalls, drains and leaves, nothing is lost, doubled or out of order."""
    hub, loop = hub_with()
    hub.opened()
    stored: list[str] = []
    clients: list[tuple[Client, str, int]] = []
    for step, what in plan:
        if step == "store":
            stored.append(what)
            store(hub, what)
        elif step == "turn":
            loop.turn()
        elif step == "join":
            hub.flush()
            clients.append((Client(hub, what), what, hub.flushed))
        elif step == "resume":
            cursor = random.randint(0, len(stored) + 2)
            clients.append((Client(hub, what, cursor=cursor), what, cursor))
        elif clients:
            client = random.choice(clients)[0]
            if step == "stall":
                client.room = random.randint(0, 2)
            elif step == "drain":
                client.drained(random.randint(0, 3))
            elif client.reader.place is not Place.GONE:
                hub.leave(client.reader)
    for client, _, _ in clients:
        if client.reader.place is not Place.GONE:
            client.drained(10**9)
    loop.settle()

    for client, what, begin in clients:
        pattern = filter_of(what)
        expected = [n for n, s in enumerate(stored, start=1) if n > begin and pattern.matches(s)]
        if client.reader.place is Place.GONE:
            assert client.seen == expected[: len(client.seen)]
        else:
            assert client.seen == expected


class Fault(Exception):
    """Of ours."""


class FaultyClient(Client):
    """One whose writing fails, sooner or later."""

    def write(self, data: bytes) -> None:
        if b"x-%d\n" % self.fails_at in data:
            raise Fault
        super().write(data)

    def __init__(self, hub: Hub, filters: str, cursor: int | None = None, *, fails_at: int) -> None:
        self.fails_at = fails_at
        super().__init__(hub, filters, cursor)


def test_a_fault_in_writing_is_never_a_silent_hole() -> None:
    """Those who were to get the same bytes are ended, and come back where they were; the others have all of it, what
    came behind it too, and the fault is raised."""
    hub, loop = hub_with()
    hub.opened()
    before, faulty, behind = Client(hub, "repo.1.>"), FaultyClient(hub, "repo.1.>", fails_at=2), Client(hub, "repo.1.>")
    other = Client(hub, "repo.>")
    store(hub, "repo.1.x")
    loop.settle()
    store(hub, "repo.1.x", FLUSH_EVENTS + 10)
    with pytest.raises(Fault):
        loop.turn()
    assert [client.failures for client in (before, faulty, behind, other)] == [1, 1, 1, 0]
    assert other.seen == list(range(1, FLUSH_EVENTS + 12))
    for client in (before, behind):
        assert client.seen in ([1], list(range(1, FLUSH_EVENTS + 2)))
    store(hub, "repo.1.x")
    loop.settle()
    assert other.seen[-1] == FLUSH_EVENTS + 12


def test_a_fault_in_finding_who_wants_what_ends_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not known who lacks something, all who are live are ended, and come back where they were."""
    hub, loop = hub_with()
    hub.opened()
    clients = [Client(hub, "repo.1.>"), Client(hub, "repo.2.>")]
    store(hub, "repo.1.x")
    loop.settle()

    def fault(topic: object) -> list[object]:
        raise Fault

    with monkeypatch.context() as patch:
        patch.setattr(hub.feeds.tree, "feeds_of", fault)
        store(hub, "repo.1.x")
        with pytest.raises(Fault):
            loop.turn()
    assert [client.failures for client in clients] == [1, 1]
    assert hub.readers == set()


def test_a_fault_in_checking_an_event_costs_that_event_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is dropped, counted and told; what stands beside it comes, live and to who reads forward, and nobody is
    ended."""
    hub, loop = hub_with()
    hub.opened()
    told: list[int] = []
    hub.log.on_fault = lambda error, event: told.append(event.seq)
    one, two = Client(hub, "repo.1.>"), Client(hub, "repo.2.>")

    def checked(event: Event) -> DropReason | None:
        if event.seq == 3 and event.data:  # not dropped yet
            raise Fault
        return good(event)

    good = Event.checked
    monkeypatch.setattr(Event, "checked", checked)
    for subject in ("repo.1.x", "repo.2.x", "repo.3.x", "repo.1.x", "repo.2.x"):
        store(hub, subject)
    loop.settle()
    late = Client(hub, "repo.>", 0)
    loop.settle()
    assert (one.seen, two.seen, late.seen) == ([1, 4], [2, 5], [1, 2, 4, 5])
    assert [client.failures for client in (one, two, late)] == [0, 0, 0]
    assert (told, hub.log.dropped["fault"]) == ([3], 1)


def test_a_fault_while_one_catches_up_ends_that_one_only() -> None:
    """The others that read forward go on in the next turn."""
    hub, loop = hub_with()
    hub.opened()
    store(hub, "repo.1.x", 5)
    loop.settle()
    faulty, behind = FaultyClient(hub, "repo.1.>", 0, fails_at=1), Client(hub, "repo.1.>", 0)
    with pytest.raises(Fault):
        loop.turn()
    loop.settle()
    assert (faulty.failures, behind.failures) == (1, 0)
    assert behind.seen == [1, 2, 3, 4, 5]
