"""The witness's own process: well-behaved clients and their producer, on a loop that no attacker uses.

`python -m tests.attacks.witness_process <gateway URL> <NATS URL> <id>` opens its clients, says `ready`, publishes an
event every 20 ms until it gets a line on standard input, and then says as one line of JSON what they saw.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import nats
import nats.js.errors

from tests.support.eventually import Never, eventually
from tests.support.raw_ws import RawWebSocket
from tests.support.sse import SseClient

EACH = 4
"""Clients of each transport."""

PAUSE_S = 0.02
"""Between two events."""

NEWCOMER_S = 0.25
"""How often somebody new comes, looks whether it is served, and goes."""

PATIENCE_S = 60.0
TOO_MANY_REQUESTS = 429


class Client:
    """What one client has seen.

    Attributes:
        numbers: of its events, in order.
        took_s: how long each took from its producer, in seconds.
    """

    def __init__(self, events: AsyncIterator[dict[str, int]]) -> None:
        self.numbers: list[int] = []
        self.took_s: list[float] = []
        self.reading = asyncio.create_task(self._read(events))

    async def _read(self, events: AsyncIterator[dict[str, int]]) -> None:
        async for event in events:
            self.numbers.append(event["n"])
            self.took_s.append((time.monotonic_ns() - event["at"]) / 1e9)


async def sse_events(client: SseClient) -> AsyncIterator[dict[str, int]]:
    while True:
        yield (await client.next_message(timeout_s=PATIENCE_S)).json()


async def ws_events(client: RawWebSocket) -> AsyncIterator[dict[str, int]]:
    while True:
        yield (await client.next_op("event", timeout_s=PATIENCE_S))["event"]


class Newcomers:
    """Those who come while the attack is on.

    Attributes:
        took_s: how long each took until it was served, in seconds.
        refused: how many were not, by reason.
    """

    def __init__(self, url: str, subject: str) -> None:
        self._url, self._subject = url, subject
        self.took_s: list[float] = []
        self.refused: Counter[str] = Counter()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(NEWCOMER_S)
            began = time.monotonic()
            try:
                async with SseClient(self._url, self._subject) as client:
                    event = await client.next_event(timeout_s=PATIENCE_S)
            except (ConnectionError, EOFError, TimeoutError) as error:
                self.refused[type(error).__name__] += 1
                continue
            if event.type == "natsgate.ready":
                self.took_s.append(time.monotonic() - began)
            else:
                self.refused[str(event.json()["reason"])] += 1


async def watch(url: str, nats_url: str, own_id: str) -> dict[str, object]:
    """Be a witness until standard input says something; what was seen."""
    feed = f"repo.{own_id}.>"
    async with contextlib.AsyncExitStack() as stack:
        producer = await nats.connect(nats_url)
        stack.push_async_callback(producer.close)
        pages, boards = [], []
        for _ in range(EACH):
            page = await stack.enter_async_context(SseClient(url, feed, keep=False))
            await page.ready()
            pages.append(Client(sse_events(page)))
            board = await stack.enter_async_context(RawWebSocket(url, keep=False))
            await board.subscribe(feed)
            boards.append(Client(ws_events(board)))
        clients = [*pages, *boards]
        newcomers = Newcomers(url, f"user.{own_id}.>")
        coming = asyncio.create_task(newcomers.run())
        told = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        print("ready", flush=True)
        published, stream = 0, producer.jetstream()
        while not told.done():
            event = json.dumps({"n": published, "at": time.monotonic_ns()})
            try:
                await stream.publish(f"repo.{own_id}.seen", event.encode(), timeout=PATIENCE_S)
                published += 1
            except nats.js.errors.APIError as error:
                if error.code != TOO_MANY_REQUESTS:  # refused, so not stored: a flood fills NATS's own queue as well
                    raise
            await asyncio.sleep(PAUSE_S)
        coming.cancel()

        async def all_there() -> bool:
            return all(each.reading.done() or len(each.numbers) >= published for each in clients)

        with contextlib.suppress(Never):  # what is missing is in the report
            await eventually(all_there, "every client has every event", timeout_s=20)
        for each in clients:
            each.reading.cancel()
        await asyncio.gather(coming, *(each.reading for each in clients), return_exceptions=True)
    return {
        "published": published,
        "wrong": sum(each.numbers != list(range(published)) for each in clients),
        "sse": summary([time_s for each in pages for time_s in each.took_s]),
        "ws": summary([time_s for each in boards for time_s in each.took_s]),
        "newcomers": summary(newcomers.took_s),
        "refused": dict(newcomers.refused),
    }


def summary(times_s: Sequence[float]) -> dict[str, float]:
    """Count, median, 99th percentile and greatest of times in seconds."""
    ascending = sorted(times_s)
    if not ascending:
        return {"count": 0}
    return {
        "count": len(ascending),
        "p50": ascending[len(ascending) // 2],
        "p99": ascending[len(ascending) * 99 // 100],
        "max": ascending[-1],
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(watch(*sys.argv[1:4]))), flush=True)
