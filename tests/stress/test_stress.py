"""The stress run as a test: a short one always, a longer one with the slow tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stress.plan import Plan
from tests.stress.scene import play


def test_a_seed_always_draws_the_same_plan() -> None:
    """A run that failed is played again by its seed."""
    first = Plan.draw(7, 60, 3)
    assert Plan.draw(7, 60, 3) == first
    assert first.random("source").random() == Plan.draw(7, 60, 3).random("source").random()
    assert Plan.draw(8, 60, 3).faults != first.faults


@pytest.mark.timeout(120)
async def test_nothing_is_lost_in_some_seconds_of_faults(tmp_path: Path) -> None:
    """Some seconds of drawn faults: 0 lost, 0 doubled, 0 disordered, 0 unexplained gaps."""
    outcome = await play(Plan.draw(4, 8, 2), tmp_path, say=print, clients=30)
    assert outcome.good, "\n".join([outcome.summary, *outcome.first])


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_nothing_is_lost_in_a_minute_of_faults(tmp_path: Path) -> None:
    """The same over a minute with three replicas."""
    outcome = await play(Plan.draw(11, 45, 3), tmp_path, say=print)
    assert outcome.good, "\n".join([outcome.summary, *outcome.first])
