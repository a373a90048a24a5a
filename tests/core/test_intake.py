"""The intake: whatever the live path drops, repeats or forges, the log gets each message once, in order."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.feed import Feeds
from gateway.core.intake import HELD_OVERHEAD_BYTES, HOLD_BYTES, Hole, Intake
from gateway.core.log import Log


def headers(
    sequence: int | str, stream: str = "EVENTS", forged: str = "", time: str = "2030-01-01T00:00:00.5Z"
) -> bytes:
    return (
        f"NATS/1.0\r\n{forged}Nats-Stream: {stream}\r\nNats-Subject: repo.1.x\r\nNats-Sequence: {sequence}\r\n"
        f"Nats-Time-Stamp: {time}\r\nNats-Last-Sequence: 0\r\n\r\n"
    ).encode()


def intake_at(base: int, limit: int = 10**6) -> tuple[Intake, Log]:
    log = Log(10**8, Feeds().tree)
    intake = Intake(log, stream="EVENTS", live_prefix="live", roots=("repo",), max_event_bytes=limit)
    log.reset("x", base)
    assert intake.release() is None
    return intake, log


def receive(intake: Intake, sequence: int | str) -> Hole | None:
    return intake.receive(b"live.repo.1.x", headers(sequence), b'{"n":1}')


def sequences(log: Log) -> list[int]:
    return [event.seq for event in log.window(log.base, 10**6, 10**9)[0]]


@given(st.lists(st.sampled_from(["deliver", "drop", "repeat", "mend"]), max_size=80))
def test_the_log_is_whole_whatever_the_live_path_does(plan: list[str]) -> None:
    """Dropped messages hold delivery until they were read from the stream; nothing is doubled or out of order."""
    intake, log = intake_at(0)
    stored = 0

    def mend() -> None:
        while intake.holding:
            for sequence in range(log.head + 1, stored + 1):
                intake.fill(sequence, b"repo.1.x", b'{"n":1}', b"", counted=True)
            intake.release()

    for step in plan:
        if step == "mend":
            mend()
        elif step == "repeat" and stored:
            receive(intake, stored)
        else:
            stored += 1
            if step == "deliver":
                receive(intake, stored)
        assert sequences(log) == list(range(1, log.head + 1))
    intake.hold()
    mend()

    assert sequences(log) == list(range(1, stored + 1))


@pytest.mark.parametrize(
    ("time", "doubtful"),
    [
        ("2030-01-01T00:00:00.5Z", False),
        ("2030-01-01T00:00:00.499999999Z", False),
        ("2030-01-01T00:00:00Z", False),
        ("2030-01-01T00:00:00.500000001Z", True),
        ("2030-01-01T00:00:01Z", True),
    ],
)
def test_a_repeated_sequence_of_a_later_time_is_doubted(time: str, doubtful: bool) -> None:
    """A sequence that comes again, stored later than the head, is of another life of the stream: what follows it is
    kept aside until the leader was asked. The echo of a filled hole is not."""
    intake, log = intake_at(10)
    receive(intake, 11)
    assert intake.receive(b"live.repo.1.x", headers(11, time=time), b'{"n":1}') is None
    assert (intake.doubtful, intake.holding) == (doubtful, doubtful)
    receive(intake, 12)
    assert log.head == (11 if doubtful else 12)


def test_where_the_log_begins_anew_nothing_is_known_of_its_head() -> None:
    """Where the log was put further up, the time of an earlier message is not taken for the time of its head."""
    intake, log = intake_at(10)
    receive(intake, 11)
    log.reset("x", 4900)
    assert intake.stored_at == ""
    assert intake.receive(b"live.repo.1.x", headers(4900, time="2031-01-01T00:00:00Z"), b"{}") is None
    assert not intake.doubtful


def test_what_warms_the_log_is_counted_by_those_who_heard_it_live() -> None:
    """A bad message that is read when the tap opens is dropped and not counted, whoever reads over it later."""
    intake, log = intake_at(10)
    intake.fill(11, b"repo.1.x", b"no json", headers(11), counted=False)
    intake.fill(12, b"repo.1.x", b"{}", headers(12), counted=False)
    assert [event.seq for event in log.settle(log.window(10, 10, 10**6)[0])] == [12]
    assert not any(log.dropped.values())
    intake.fill(13, b"repo.1.x", b"no json", headers(13), counted=True)
    assert log.settle(log.window(12, 10, 10**6)[0]) == []
    assert log.dropped["not_json"] == 1


def test_a_hole_is_told_at_the_first_message_behind_it() -> None:
    """The next sequence is either there, or it is a hole: at once, with its bounds; and delivery holds."""
    intake, log = intake_at(10)
    assert receive(intake, 11) is None
    assert receive(intake, 15) == Hole(11, 15)
    assert receive(intake, 16) is None
    assert log.head == 11

    for sequence in (12, 13, 14):
        intake.fill(sequence, b"repo.1.x", b"{}", b"", counted=True)
    assert intake.release() is None
    assert log.head == 16


def test_a_second_hole_is_found_when_the_first_is_filled() -> None:
    """Holes within what was held are told one after the other."""
    intake, log = intake_at(0)
    assert receive(intake, 2) == Hole(0, 2)
    receive(intake, 5)
    intake.fill(1, b"repo.1.x", b"{}", b"", counted=True)

    assert intake.release() == Hole(2, 5)
    assert intake.holding
    intake.fill(3, b"repo.1.x", b"{}", b"", counted=True)
    intake.fill(4, b"repo.1.x", b"{}", b"", counted=True)
    assert intake.release() is None
    assert log.head == 5


def test_what_the_stream_did_not_send_is_dropped_and_counted() -> None:
    """No headers, another stream, no sequence, an impossible one: nobody gets it, the count says why."""
    intake, log = intake_at(0)
    intake.receive(b"live.repo.1.x", None, b"{}")
    intake.receive(b"live.repo.1.x", b"NATS/1.0\r\n\r\n", b"{}")
    intake.receive(b"live.repo.1.x", headers(1, stream="OTHER"), b"{}")
    for sequence in ("0", "-1", "x", "", "9" * 30, str(2**64)):
        receive(intake, sequence)

    assert log.head == 0
    assert log.dropped == Counter(not_from_stream=3, bad_sequence=6)


def test_a_sequence_that_the_leader_has_not_reached_is_refused() -> None:
    """A forged message far ahead holds delivery only until the leader was asked."""
    intake, log = intake_at(0)
    assert receive(intake, 10**12) == Hole(0, 10**12)
    receive(intake, 1)

    intake.refuse_beyond(1, intake.held)

    assert intake.release() is None
    assert log.head == 1
    assert log.dropped == Counter(bad_sequence=1)


def test_forged_headers_in_front_of_the_genuine_ones_do_not_count() -> None:
    """A publisher may send headers of these names; the stream's own block is the last one."""
    intake, log = intake_at(0)
    forged = "Nats-Stream: EVENTS\r\nNats-Sequence: 999\r\n"
    intake.receive(b"live.repo.1.x", headers(1, forged=forged), b"{}")

    assert log.head == 1
    assert intake.stored_at == "2030-01-01T00:00:00.5Z"


@pytest.mark.parametrize(
    ("noise", "payload"), [(0, 1_000_000), (1_000_000, 10), (0, 0)], ids=["payloads", "headers", "small ones"]
)
def test_what_is_held_is_bounded(noise: int, payload: int) -> None:
    """A flood during a mend, of payloads, of headers or of messages as such, costs no more than the bound; what is let
    go shows as the next hole, one for all of it."""
    intake, log = intake_at(0, limit=10**7)
    receive(intake, 3)
    size = noise + payload + HELD_OVERHEAD_BYTES
    flood = 2 * HOLD_BYTES // size
    for sequence in range(4, 4 + flood):
        intake.receive(b"live.repo.1.x", headers(sequence, forged=f"X: {'x' * noise}\r\n"), b"x" * payload)
        if sequence % 7 == 0:
            intake.receive(b"live.repo.1.x", headers(sequence), b"{}")  # a small one finds no room behind a large one
        assert intake.held_bytes <= HOLD_BYTES
    held, head = intake.held, intake.held + 2
    assert held < flood
    for sequence in (1, 2):
        intake.fill(sequence, b"repo.1.x", b"{}", b"", counted=True)

    assert intake.release() is None
    assert log.bytes + log.head * noise > HOLD_BYTES // 2
    assert log.head <= head
    assert intake.held_bytes == 0
    assert receive(intake, 4 + flood) == Hole(log.head, 4 + flood)


def test_what_was_forged_no_longer_counts() -> None:
    """Messages beyond what the leader has are dropped from what is held, and leave their room to genuine ones."""
    intake, _ = intake_at(0)
    receive(intake, 3)
    before = intake.held_bytes
    for sequence in range(1000, 1100):
        receive(intake, sequence)
    assert intake.held_bytes > before
    intake.refuse_beyond(3, intake.held)
    assert intake.held_bytes == before
