"""Waiting for a condition with a deadline, so that no test sleeps blindly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Never(AssertionError):
    """A condition did not come true before its deadline."""


def wait_until(probe: Callable[[], T | None], what: str, *, timeout_s: float = 10.0, every_s: float = 0.02) -> T:
    """Call `probe` until its result is truthy and return that; `Never` names `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        result = probe()
        if result:
            return result
        if time.monotonic() >= deadline:
            raise Never(f"not within {timeout_s} s: {what} (last: {result!r})")
        time.sleep(every_s)


async def eventually(
    probe: Callable[[], Awaitable[T | None]], what: str, *, timeout_s: float = 10.0, every_s: float = 0.05
) -> T:
    """The same for coroutines: await `probe()` until it is truthy."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while True:
        result = await probe()
        if result:
            return result
        if loop.time() >= deadline:
            raise Never(f"not within {timeout_s} s: {what} (last: {result!r})")
        await asyncio.sleep(every_s)
