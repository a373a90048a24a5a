"""A publisher that knows no measure: `python -m tests.attacks.flooding_publisher <NATS URL> <subject> <seconds>`."""

from __future__ import annotations

import asyncio
import sys
import time

import nats

AT_ONCE = 500
EVENT = b'{"type":"flood","payload":{"pad":"%s"}}' % (b"x" * 200)


async def publish(url: str, subject: str, seconds: float) -> int:
    """Publish as fast as the server reads, for a time; how many."""
    client = await nats.connect(url)
    count = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for _ in range(AT_ONCE):
            await client.publish(subject, EVENT)
        await client.flush()
        count += AT_ONCE
    await client.close()
    return count


if __name__ == "__main__":
    print(asyncio.run(publish(sys.argv[1], sys.argv[2], float(sys.argv[3]))))
