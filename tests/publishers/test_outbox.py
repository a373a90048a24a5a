"""The outbox alone, against a stream that answers, refuses or stays silent as hypothesis likes."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from publishers.outbox import Ack, Entry, Outbox, Outcome

SUBJECTS = st.lists(st.sampled_from(["repo.1.x", "repo.2.x", "task.1.x"]), min_size=1, max_size=20)
CHAOS = st.lists(st.sampled_from(["store", "refuse", "store, answer lost", "line lost"]), max_size=60)


@given(SUBJECTS, CHAOS, st.integers(1, 8))
def test_order_and_count_hold(subjects: list[str], chaos: list[str], window: int) -> None:
    """Whatever the stream does, every event is stored, first copies are in order per subject, nothing is left."""
    loop = asyncio.new_event_loop()
    try:
        outbox = Outbox(limit_bytes=10_000, max_in_flight=window, max_in_flight_per_subject=1)
        for number, subject in enumerate(subjects, 1):
            outbox.add(Entry(number, subject, b"", b"", Outcome(loop=loop), 100))
        assert outbox.size_bytes == 100 * len(subjects)
        stored: list[Entry] = []
        fates = iter(chaos)
        while outbox.entries:
            flying = []
            while (entry := outbox.take()) is not None:
                flying.append(entry)
            assert 0 < len(flying) <= window
            assert max(Counter(entry.subject for entry in flying).values()) == 1
            for entry in flying:
                fate = next(fates, "store")
                if fate == "line lost":
                    outbox.land_all()
                    break
                if fate.startswith("store") and entry not in stored:
                    stored.append(entry)
                if fate == "store":
                    outbox.remove(entry)
                elif (lane := outbox.fail(entry)) is not None:
                    outbox.release(lane)
        assert len(stored) == len(subjects)
        for subject in set(subjects):
            numbers = [entry.number for entry in stored if entry.subject == subject]
            assert numbers == sorted(numbers)
        assert outbox.size_bytes == 0
        assert not outbox.flying
        assert outbox.take() is None
    finally:
        loop.close()


def test_a_wider_window_resends_in_order() -> None:
    """With several in flight per subject, a failure stops the lane until all are answered, then resends in order."""
    loop = asyncio.new_event_loop()
    try:
        outbox = Outbox(limit_bytes=10_000, max_in_flight=10, max_in_flight_per_subject=3)
        entries = [Entry(n, "repo.1.x", b"", b"", Outcome(loop=loop), 1) for n in range(1, 6)]
        for entry in entries:
            outbox.add(entry)
        first, second, third = outbox.take(), outbox.take(), outbox.take()
        assert [first, second, third] == entries[:3]
        assert outbox.take() is None
        assert first is not None
        assert second is not None
        assert third is not None
        assert outbox.fail(second) is None
        outbox.remove(first)
        assert outbox.take() is None
        lane = outbox.fail(third)
        assert lane is not None
        assert outbox.take() is None
        outbox.release(lane)
        assert [outbox.take(), outbox.take(), outbox.take()] == entries[1:4]
    finally:
        loop.close()


def test_given_up_events_make_room() -> None:
    """An event whose caller cancelled it before it was sent is not sent and frees its bytes."""
    loop = asyncio.new_event_loop()
    try:
        outbox = Outbox(limit_bytes=250, max_in_flight=10, max_in_flight_per_subject=1)
        one, two = (Entry(n, "repo.1.x", b"", b"", Outcome(loop=loop), 100) for n in (1, 2))
        outbox.add(one)
        outbox.add(two)
        assert not outbox.has_room_for(100)
        one.outcome.cancel()
        assert outbox.take() is two
        assert outbox.has_room_for(100)
        two.outcome.set_result(Ack("EVENTS", 1, False))
        outbox.remove(two)
        outbox.remove(two)
        assert outbox.has_room_for(10_000)
    finally:
        loop.close()
