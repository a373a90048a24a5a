"""Turns: what thousands of clients cause in one moment does not hold up the others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from gateway.transports.turns import TURN_S, Turns


class Loop:
    """A loop whose turns are taken one by one, and whose time passes when told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.failed: list[Exception] = []
        self._next: list[Callable[[], None]] = []

    def turns(self) -> Turns:
        return Turns(lambda work: self._next.append(work), lambda: self.now, self.failed.append)

    def turn(self) -> bool:
        """Take one; whether there was anything to do."""
        now, self._next = self._next, []
        for each in now:
            each()
        return bool(now)

    def spend(self, seconds: float) -> None:
        """A work that takes its time."""
        self.now += seconds


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_a_turn_does_some_and_leaves_the_rest_to_the_next(loop: Loop) -> None:
    """Works of a tenth of `TURN_S` each: ten a turn, in the order in which they came; at the end nothing is left."""
    done: list[int] = []
    turns = loop.turns()

    def work(n: int) -> None:
        loop.spend(TURN_S / 10)
        done.append(n)

    for n in range(25):
        turns.add(partial(work, n))
    counts = []
    while loop.turn():
        counts.append(len(done))
    assert counts[0] in (10, 11), "the last one is let finish"
    assert len(counts) == 3
    assert done == list(range(25))
    assert len(turns) == 0


def test_a_work_that_takes_long_is_alone_in_its_turn(loop: Loop) -> None:
    """Each turn does at least one, or nothing would ever be done."""
    turns = loop.turns()
    for _ in range(3):
        turns.add(partial(loop.spend, 10 * TURN_S))
    count = 0
    while loop.turn():
        count += 1
    assert count == 3


def test_one_that_goes_on_for_ever_shares_its_turns(loop: Loop) -> None:
    """Whoever adds itself again comes behind all others, in the next turn."""
    done: list[str] = []
    turns = loop.turns()

    def endless() -> None:
        done.append("endless")
        turns.add(endless)

    turns.add(endless)
    turns.add(lambda: done.append("other"))
    assert loop.turn()
    assert done == ["endless", "other"]
    assert loop.turn()
    assert done == ["endless", "other", "endless"]


def test_a_fault_in_one_stops_none(loop: Loop) -> None:
    """It is told, and the others are done."""
    done: list[int] = []
    turns = loop.turns()
    turns.add(lambda: done.append(1 // 0))
    turns.add(lambda: done.append(2))
    loop.turn()
    assert done == [2]
    assert [type(each) for each in loop.failed] == [ZeroDivisionError]


def test_all_is_done_when_the_loop_ends(loop: Loop) -> None:
    """`finish` waits for no turn."""
    turns = loop.turns()
    for _ in range(100):
        turns.add(partial(loop.spend, TURN_S))
    turns.finish()
    assert loop.now == pytest.approx(100 * TURN_S)
    assert len(turns) == 0
    loop.turn()
    assert not loop.turn()
