"""Times and their randomness. The generator is passed in, so that a test or a seed decides."""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random

from gateway.core.closing import Closing

RETRY_MS = (1000, 4000)
"""What `retry:` and `retry_ms` are drawn from. Browsers have no jitter of their own (Chromium waits a constant 3 s,
Firefox 5 s), so a herd that was cut at one moment would come back at one moment."""

AT_ONCE_MS = (100, 500)
"""The same for one that is sent away in good health and alone, by `MAX_AGE_S`. Not 0: a page whose next attempts fail
would ask without a pause."""

LEAST_LIFE = 0.8
"""The part of its greatest age that a connection reaches at least. Those that came together do not go together."""


def retry_ms(random: Random, why: Closing | None = None) -> int:
    """How long one client is asked to wait before it comes back, in milliseconds. `why`: what it is sent away for;
    None: it is not, and may lose its connection at any time."""
    return random.randint(*(AT_ONCE_MS if why is Closing.MAX_AGE else RETRY_MS))


def lifetime_s(random: Random, most_s: float) -> float:
    """How long one connection may live, in seconds; for ever when `most_s` is 0."""
    return most_s * random.uniform(LEAST_LIFE, 1.0) if most_s else math.inf


def moments_s(random: Random, count: int, within_s: float) -> list[float]:
    """So many random moments within a time, ascending, in seconds from its beginning."""
    return sorted(random.uniform(0.0, within_s) for _ in range(count))


def backoff(random: Random, first_s: float, most_s: float) -> Iterator[float]:
    """Waits in seconds, doubling from `first_s` to `most_s`, each spread over its upper half."""
    wait_s = first_s
    while True:
        yield wait_s * random.uniform(0.5, 1.0)
        wait_s = min(wait_s * 2, most_s)
