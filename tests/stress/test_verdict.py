"""The judge of the stress run sees what it is there to see."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.stress.history import History, Mark, Visit
from tests.stress.truth import Truth, matches
from tests.stress.verdict import Judge, Verdict

FEED = ("repo.1.>",)


def _truth(purged: int = 0) -> Truth:
    """Ten events, at sequences 1 to 10 with numbers 101 to 110; the even ones are of the feed."""
    truth = Truth()
    for sequence in range(1, 11):
        truth.stored(100 + sequence, sequence, f"repo.{2 if sequence % 2 else 1}.tick")
    truth.purged = purged
    return truth


def _verdict(*said: int | Mark, asked: int | None = 0, truth: Truth | None = None, limit: int = 0) -> Verdict:
    visit = Visit(0.0, 0, asked)
    for each in said:
        if isinstance(each, Mark):
            visit.mark(each)
        else:
            visit.event(100 + each, each)
    return Judge(History("a client", FEED, [visit]), truth or _truth(), limit).judge()


def test_a_good_history_is_good() -> None:
    """Events in order from the position on, and marks that are true, are no fault."""
    assert not _verdict(2, 4, Mark("ready", 5), 6, Mark("cursor", 7), 8, 10).counts
    assert not _verdict(Mark("ready", 5), 6, 8, 10, asked=None).counts
    assert not _verdict(6, 8, asked=None).counts


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ((2, 6, 8, 10), {"lost": 1}),
        ((2, 10), {"lost": 3}),
        ((2, 4, Mark("ready", 9)), {"lost": 2}),
        ((2, 4, 4, 6), {"doubled": 1}),
        ((4, 2, 6), {"lost": 1, "disordered": 1}),
        ((2, 3, 4), {"wrong": 1}),
        ((2, 4, Mark("cursor", 3)), {"wrong": 1}),
        ((2, Mark("gap", 7, 3, "expired"), 8), {"unexplained": 1}),
        ((2, Mark("gap", 7, 5, "ahead"), 8), {"lost": 1, "unexplained": 1}),
    ],
)
def test_every_fault_is_counted(said: Sequence[int | Mark], found: dict[str, int]) -> None:
    """Each fault that a client can see is counted by its kind, and the first is told."""
    verdict = _verdict(*said)
    assert verdict.counts == found
    assert verdict.first.startswith("a client on repo.1.>: ")


def test_an_event_before_the_position_that_was_asked_for() -> None:
    """An event up to the cursor that was asked for is one out of order."""
    assert _verdict(4, 6, asked=5).counts == {"disordered": 1}


def test_a_purge_explains_a_gap_up_to_its_end_only() -> None:
    """A gap beyond what was purged is unexplained."""
    assert not _verdict(2, Mark("gap", 7, 2, "expired"), 8, truth=_truth(purged=7)).counts
    assert _verdict(2, Mark("gap", 7, 2, "expired"), 8, truth=_truth(purged=6)).counts == {"unexplained": 1}


def test_a_purge_without_a_gap_is_a_loss() -> None:
    """What was purged and not told is lost."""
    assert _verdict(2, 8, truth=_truth(purged=7)).counts == {"lost": 2}


def test_a_limit_explains_a_gap_of_more_events() -> None:
    """`too_far` is true of more events than the limit, and of no fewer."""
    assert not _verdict(Mark("gap", 9, 0, "too_far"), 10, limit=3).counts
    assert _verdict(Mark("gap", 5, 0, "too_far"), 6, limit=3).counts == {"unexplained": 1}


def test_a_false_cursor() -> None:
    """An event under the cursor of another one is wrong."""
    visit = Visit(0.0, 0, 0)
    visit.event(102, 4)
    assert Judge(History("a client", FEED, [visit]), _truth(), 0).judge().counts == {"wrong": 1}


@pytest.mark.parametrize(
    ("pattern", "subject", "selected"),
    [
        ("repo.>", "repo.1.tick", True),
        ("repo.>", "repo", False),
        ("repo.*.tick", "repo.1.tick", True),
        ("repo.*.tick", "repo.1.tick.more", False),
        ("repo.1.tick", "repo.1.tick", True),
        ("repo.1.tick", "repo.1", False),
        ("repo.1.>", "task.1.tick", False),
    ],
)
def test_filters_select_as_in_nats(pattern: str, subject: str, selected: bool) -> None:
    """The judge's own reading of filters is that of NATS."""
    assert matches(pattern, subject) is selected
