"""`SyncPublisher` with a real nats-server: threads, forks, the end of a process."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from publishers import BufferFull, FlushTimeout, PublisherClosed, PublishTimeout, Settings, SyncPublisher, wire
from tests.publishers.broker import Broker

FORKS = """
import os, sys, threading
from publishers import SyncPublisher

publisher = SyncPublisher(sys.argv[1])
publisher.publish("repo.1.parent", {"who": "parent", "n": -1})
stop = threading.Event()

def keep_publishing():
    n = 0
    while not stop.is_set():
        publisher.publish("repo.1.thread", {"who": "thread", "n": n})
        n += 1

threads = [threading.Thread(target=keep_publishing) for _ in range(2)]
for thread in threads:
    thread.start()
children = []
for child in range(3):
    pid = os.fork()
    if pid == 0:
        try:
            for n in range(50):
                publisher.publish("repo.1.child", {"who": f"child{child}", "n": n})
            publisher.close()
        except BaseException as err:
            print(repr(err), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    children.append(pid)
for n in range(50):
    publisher.publish("repo.1.parent", {"who": "parent", "n": n})
statuses = [os.waitpid(pid, 0)[1] for pid in children]
stop.set()
for thread in threads:
    thread.join()
print(statuses)
"""

EXITS = """
import sys
from publishers import SyncPublisher

publisher = SyncPublisher(sys.argv[1])
for n in range(200):
    publisher.enqueue("repo.1.x", {"n": n})
"""


def _run(script: str, broker: Broker) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # From 3.12 on Python warns of any fork with threads; that is what is tested here.
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", script, broker.url],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


async def _stored(broker: Broker) -> list[dict[str, object]]:
    return [json.loads(data) for _, data, _ in await broker.stored()]


async def test_eight_threads(broker: Broker) -> None:
    """Eight threads share one publisher: all is stored once, and in the order of each thread."""

    def work(thread: int, publisher: SyncPublisher) -> list[int]:
        return [publisher.publish(f"repo.{thread % 2}.x", {"thread": thread, "n": n}).sequence for n in range(100)]

    def run() -> list[list[int]]:
        with SyncPublisher(broker.url) as publisher, ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda thread: work(thread, publisher), range(8)))

    sequences = await asyncio.to_thread(run)
    events = await _stored(broker)
    assert len(events) == 800
    for thread, own in enumerate(sequences):
        assert [events[sequence - 1] for sequence in own] == [{"thread": thread, "n": n} for n in range(100)]


async def test_after_fork(broker: Broker) -> None:
    """Parent, its threads and three forked children go on publishing; nothing is missing, nothing twice."""
    done = await asyncio.to_thread(_run, FORKS, broker)
    assert (done.stdout, done.stderr, done.returncode) == ("[0, 0, 0]\n", "", 0)
    events = await _stored(broker)
    for who, expected in [("parent", range(-1, 50))] + [(f"child{n}", range(50)) for n in range(3)]:
        assert [event["n"] for event in events if event["who"] == who] == list(expected)
    threads = Counter(event["n"] for event in events if event["who"] == "thread")
    assert threads
    assert max(threads.values()) <= 2


async def test_exit_flushes(broker: Broker) -> None:
    """A process that ends without closing has published everything that it enqueued."""
    done = await asyncio.to_thread(_run, EXITS, broker)
    assert (done.stderr, done.returncode) == ("", 0)
    assert await _stored(broker) == [{"n": n} for n in range(200)]


async def test_enqueue_flush_and_emit(broker: Broker) -> None:
    """Pipelined futures hold acknowledgements after `flush`, `emit` builds the envelope, errors come through."""

    def run() -> None:
        with SyncPublisher(broker.url) as publisher:
            publisher.wait_connected(5)
            futures = [publisher.enqueue("repo.1.x", {"n": n}) for n in range(100)]
            publisher.flush(5)
            assert [future.result(0).sequence for future in futures] == list(range(1, 101))
            assert publisher.emit("task", "7", "status_update", {"progress": 1}).sequence == 101
            assert publisher.stats.acknowledged == 101
            with pytest.raises(wire.InvalidSubject):
                publisher.publish("repo", {})
            with pytest.raises(wire.InvalidSubject):
                publisher.enqueue("repo", {})
        with pytest.raises(PublisherClosed):
            publisher.publish("repo.1.x", {})

    await asyncio.to_thread(run)
    assert (await _stored(broker))[-1]["task_id"] == "7"


def test_without_nats() -> None:
    """Without NATS: time-outs, a full buffer and a close in time, all with clear errors, and no thread stays."""
    publisher = SyncPublisher(Settings(servers="nats://127.0.0.1:9", buffer_bytes=5_000))
    with pytest.raises(PublishTimeout, match="NATS is away"):
        publisher.publish("repo.1.x", {}, timeout_s=0.05)
    future = publisher.enqueue("repo.1.x", {})
    publisher.enqueue("repo.1.x", {}).cancel()
    with pytest.raises(BufferFull, match="buffer_bytes=5000"):
        publisher.enqueue("repo.1.x", {})
    with pytest.raises(FlushTimeout):
        publisher.close(0.05)
    with pytest.raises(PublishTimeout, match="closed"):
        future.result(0)
    assert "natsgate-publisher" not in [thread.name for thread in threading.enumerate()]
