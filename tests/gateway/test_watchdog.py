"""The watchdog: what blocks the event loop is named in the log while it does, and how late everything was."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.watchdog import Watchdog
from tests.support.eventually import eventually


class Lines(list[tuple[str, dict[str, Any]]]):
    """A log that keeps its lines."""

    def warning(self, event: str, **fields: Any) -> None:
        self.append((event, fields))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self if name == event]


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
async def lags(lines: Lines) -> AsyncIterator[list[float]]:
    """What a watchdog in this loop observes."""
    seen: list[float] = []
    watchdog = Watchdog(asyncio.get_running_loop().call_later, seen.append, lines)  # type: ignore[arg-type]
    watchdog.start()
    yield seen
    watchdog.stop()


def count_slowly(seconds: float) -> None:
    """Blocks, as a careless computation would."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


async def test_what_blocks_is_named(lags: list[float], lines: Lines) -> None:
    """A callback that keeps the loop for most of a second is named with its callers, while it still runs; the lag is
    observed, and the log says when it was over."""
    asyncio.get_running_loop().call_soon(count_slowly, 0.9)

    async def told() -> list[dict[str, Any]]:
        return lines.of("event_loop_goes_on")

    (over,) = await eventually(told, "the loop goes on")
    (blocked,) = lines.of("event_loop_blocked")
    assert blocked["at"][0].startswith("tests.gateway.test_watchdog:")
    assert blocked["at"][0].endswith(" count_slowly")
    assert 0.25 <= blocked["blocked_s"] < over["blocked_s"]
    assert over["blocked_s"] >= 0.5
    assert max(lags) >= 0.5


async def test_blocking_again_and_again_is_a_line_now_and_then(lags: list[float], lines: Lines) -> None:
    """The log is not flooded by what it complains of."""
    for _ in range(4):
        count_slowly(0.5)
        beats = len(lags)

        async def beaten(beats: int = beats) -> bool:
            return len(lags) > beats

        await eventually(beaten, "the loop has gone on")
    assert sum(lag > 0.3 for lag in lags) >= 4
    assert len(lines.of("event_loop_blocked")) == 1
