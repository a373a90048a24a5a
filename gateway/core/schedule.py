"""Times and their randomness. The generator is passed in, so that a test or a seed decides."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

RETRY_MS = (1000, 4000)
"""What `retry:` and `retry_ms` are drawn from. Browsers have no jitter of their own (Chromium waits a constant 3 s,
Firefox 5 s), so a herd that was cut at one moment would come back at one moment."""


def retry_ms(random: Random) -> int:
    """How long one client is asked to wait before it comes back, in milliseconds."""
    return random.randint(*RETRY_MS)


def backoff(random: Random, first_s: float, most_s: float) -> Iterator[float]:
    """Waits in seconds, doubling from `first_s` to `most_s`, each spread over its upper half."""
    wait_s = first_s
    while True:
        yield wait_s * random.uniform(0.5, 1.0)
        wait_s = min(wait_s * 2, most_s)
