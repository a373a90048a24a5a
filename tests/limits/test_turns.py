"""Turns: what thousands of clients cause in one moment does not hold up the others."""

from __future__ import annotations

from collections.abc import Callable

from gateway.transports.turns import A_TURN, Turns


class Loop:
    """A loop whose turns are taken one by one."""

    def __init__(self) -> None:
        self.next: list[Callable[[], None]] = []

    def turn(self) -> None:
        now, self.next = self.next, []
        for each in now:
            each()


def turns_of(loop: Loop, failed: list[Exception] | None = None) -> Turns:
    """`loop.next` is another list in each turn."""
    return Turns(lambda work: loop.next.append(work), (failed if failed is not None else []).append)


def test_a_turn_does_some_and_leaves_the_rest_to_the_next() -> None:
    """At most `A_TURN` works a turn, in the order in which they came; the last one leaves nothing running."""
    loop, done = Loop(), list[int]()
    turns = turns_of(loop)
    for n in range(2 * A_TURN + 1):
        turns.add(lambda n=n: done.append(n))  # type: ignore[misc]
    assert done == []
    counts = []
    while loop.next:
        loop.turn()
        counts.append(len(done))
    assert counts == [A_TURN, 2 * A_TURN, 2 * A_TURN + 1]
    assert done == list(range(2 * A_TURN + 1))
    assert len(turns) == 0


def test_work_may_bring_more_work() -> None:
    """What is added by a work comes behind what waits, and is done."""
    loop, done = Loop(), list[str]()
    turns = turns_of(loop)
    turns.add(lambda: turns.add(lambda: done.append("second")))
    turns.add(lambda: done.append("first"))
    while loop.next:
        loop.turn()
    assert done == ["first", "second"]


def test_a_fault_in_one_stops_none() -> None:
    """It is told, and the others are done."""
    loop, done, failed = Loop(), list[int](), list[Exception]()
    turns = turns_of(loop, failed)
    turns.add(lambda: done.append(1 // 0))
    turns.add(lambda: done.append(2))
    loop.turn()
    assert done == [2]
    assert [type(each) for each in failed] == [ZeroDivisionError]


def test_all_is_done_when_the_loop_ends() -> None:
    """`finish` waits for no turn."""
    loop, done = Loop(), list[int]()
    turns = turns_of(loop)
    for n in range(3 * A_TURN):
        turns.add(lambda n=n: done.append(n))  # type: ignore[misc]
    turns.finish()
    assert len(done) == 3 * A_TURN
    loop.turn()
    assert loop.next == []
