"""`Publisher` against bare nats-py on one nats-server, in one run: events per second and latency, as ratios.

All of them send the same canonical events of some 250 bytes with a `Nats-Msg-Id`, round robin over subjects.
Run it as `python -m tests.bench.publisher`.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import nats
from nats.js.client import JetStreamContext

from publishers import Publisher, Settings, wire
from tests.publishers.broker import Broker

EVENTS = 30_000
SUBJECTS = 1_000
PROBES = 2_000
ROUNDS = 3

Messages = list[tuple[str, dict[str, object]]]


def _messages(count: int, subjects: int) -> Messages:
    return [
        (
            wire.subject("repo", str(index % subjects), "task.progress"),
            wire.envelope(
                "task.progress",
                {"phase": "analyze", "percent": index % 100, "message": "x" * 60},
                repo_id=str(index % subjects),
                task_id=str(index),
            ),
        )
        for index in range(count)
    ]


async def _bare_pipelined(stream: JetStreamContext, messages: Messages) -> None:
    for subject, event in messages:
        headers = {"Nats-Msg-Id": f"{subject}:{event['id']}"}
        await stream.publish_async(subject, wire.encode_event(event), headers=headers)
    await stream.publish_async_completed()


async def _bare_sequential(stream: JetStreamContext, messages: Messages) -> list[float]:
    took: list[float] = []
    for subject, event in messages:
        start = time.perf_counter()
        headers = {"Nats-Msg-Id": f"{subject}:{event['id']}"}
        await stream.publish(subject, wire.encode_event(event), headers=headers)
        took.append(time.perf_counter() - start)
    return took


async def _ours_pipelined(publisher: Publisher, messages: Messages) -> None:
    for subject, event in messages:
        await publisher.enqueue(subject, event)
    await publisher.flush()


async def _ours_sequential(publisher: Publisher, messages: Messages) -> list[float]:
    took: list[float] = []
    for subject, event in messages:
        start = time.perf_counter()
        await publisher.publish(subject, event)
        took.append(time.perf_counter() - start)
    return took


async def _rate(run: Callable[[Messages], Awaitable[None]], subjects: int) -> float:
    messages = _messages(EVENTS, subjects)
    start = time.perf_counter()
    await run(messages)
    return EVENTS / (time.perf_counter() - start)


def _latency(name: str, took: list[float]) -> float:
    cuts = statistics.quantiles(took, n=100)
    print(f"  {name:<34} p50 {cuts[49] * 1e6:7.0f} us   p99 {cuts[98] * 1e6:7.0f} us")
    return cuts[49]


async def measure(broker: Broker) -> None:
    """Runs everything against the broker and prints it."""
    await broker.provision()
    client = await nats.connect(broker.url)
    stream = client.jetstream(publish_async_max_pending=4000)
    one_by_one = Publisher(broker.url)
    window = Publisher(Settings(servers=broker.url, max_in_flight_per_subject=512))
    async with one_by_one, window:
        await asyncio.gather(one_by_one.wait_connected(5), window.wait_connected(5))
        runs: dict[str, tuple[Callable[[Messages], Awaitable[None]], int]] = {
            "bare js.publish_async": (lambda messages: _bare_pipelined(stream, messages), SUBJECTS),
            "Publisher": (lambda messages: _ours_pipelined(one_by_one, messages), SUBJECTS),
            "bare, one subject": (lambda messages: _bare_pipelined(stream, messages), 1),
            "Publisher, one subject, window 512": (lambda messages: _ours_pipelined(window, messages), 1),
            "Publisher, one subject, window 1": (lambda messages: _ours_pipelined(one_by_one, messages), 1),
        }
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(ROUNDS):
            for name, (run, subjects) in runs.items():
                rates[name].append(await _rate(run, subjects))
        median = {name: statistics.median(values) for name, values in rates.items()}
        print(f"pipelined, {EVENTS} events, {SUBJECTS} subjects unless said otherwise, median of {ROUNDS}:")
        for name, rate in median.items():
            base = median["bare, one subject" if "one subject" in name else "bare js.publish_async"]
            print(f"  {name:<34} {rate:9,.0f} events/s   {rate / base:.2f}x of bare")
        print(f"one after the other, {PROBES} events:")
        bare = _latency("bare js.publish", await _bare_sequential(stream, _messages(PROBES, SUBJECTS)))
        ours = _latency("Publisher.publish", await _ours_sequential(one_by_one, _messages(PROBES, SUBJECTS)))
        print(f"  {'p50 of Publisher':<34} {ours / bare:.2f}x of bare")
    await client.close()


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as store, Broker(Path(store)) as broker:
        asyncio.run(measure(broker))


if __name__ == "__main__":
    main()
