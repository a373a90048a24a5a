"""`SyncPublisher` with a real nats-server: threads, forks, the end of a process."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from publishers import BufferFull, FlushTimeout, PublisherClosed, PublishTimeout, Settings, SyncPublisher, wire
from publishers.sync_publisher import _Loop
from tests.publishers.broker import Broker
from tests.support.eventually import wait_until

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

EXITS_LOCALLY = """
import sys
from publishers import SyncPublisher

def main():
    publisher = SyncPublisher(sys.argv[1])
    for n in range(20):
        publisher.enqueue("repo.1.x", {"n": n})

main()
"""


def _run(script: str, broker: Broker, host: str = "127.0.0.1") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # From 3.12 on Python warns of any fork with threads; that is what is tested here.
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            script,
            broker.url.replace("127.0.0.1", host),
        ],
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


@pytest.mark.parametrize("script", [EXITS, EXITS_LOCALLY], ids=["module", "local"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_exit_flushes_whoever_holds_it(broker: Broker, script: str, host: str) -> None:
    """The exit flushes a publisher that nobody refers to any more, and finds NATS by its name even then."""
    done = await asyncio.to_thread(_run, script, broker, host)
    assert (done.stderr, done.returncode) == ("", 0)
    assert await _stored(broker) == [{"n": n} for n in range(200 if script is EXITS else 20)]


def test_names_resolve_without_threads() -> None:
    """The loop resolves host names when its pool of threads is shut down, as it is at the interpreter's exit."""
    loop = _Loop()
    pool = ThreadPoolExecutor()
    loop.set_default_executor(pool)
    pool.shutdown()
    try:
        assert loop.run_until_complete(loop.getaddrinfo("localhost", 4222, type=socket.SOCK_STREAM))
    finally:
        loop.close()


def test_close_ends_every_call() -> None:
    """Threads that wait while the publisher is closed all come back, with an error that says so."""
    publisher = SyncPublisher(Settings(servers="nats://127.0.0.1:9", close_timeout_s=0.1))
    publisher.enqueue("repo.1.x", {})
    calls: list[Callable[[], object]] = [
        publisher.wait_connected,
        publisher.flush,
        lambda: publisher.publish("repo.2.x", {}, timeout_s=60),
    ]
    with ThreadPoolExecutor(len(calls)) as pool:
        waiting = [pool.submit(call) for call in calls]
        runner = publisher._started()
        deadline = time.monotonic() + 10
        while publisher.stats.buffered_events < 2 or len(asyncio.all_tasks(runner._loop)) < 7:
            assert time.monotonic() < deadline
            time.sleep(0.001)  # until all three wait: their tasks, the two of the delivery, two of `wait_connected`
        with pytest.raises(FlushTimeout):
            publisher.close()
        with pytest.raises(PublisherClosed):
            waiting[0].result(5)
        waiting[1].result(5)
        with pytest.raises(PublishTimeout, match="closed"):
            waiting[2].result(5)
    with pytest.raises(PublisherClosed):
        runner.call(runner.publisher.flush())
    runner.stop(None)


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
    """Without NATS: time-outs, a full buffer and a close in time, all with clear errors; what is taken back makes room,
    and no thread stays."""
    publisher = SyncPublisher(Settings(servers="nats://127.0.0.1:9", buffer_bytes=5_000))
    with pytest.raises(PublishTimeout, match="NATS is away"):
        publisher.publish("repo.1.x", {}, timeout_s=0.05)
    future = publisher.enqueue("repo.1.x", {})
    more = publisher.enqueue("repo.1.x", {})
    with pytest.raises(BufferFull, match="buffer_bytes=5000"):
        publisher.enqueue("repo.1.x", {})
    more.cancel()
    wait_until(lambda: publisher.stats.buffered_events == 1, "what was taken back is gone")
    publisher.enqueue("repo.1.x", {})
    with pytest.raises(FlushTimeout):
        publisher.close(0.05)
    with pytest.raises(PublishTimeout, match="closed"):
        future.result(0)
    assert "natsgate-publisher" not in [thread.name for thread in threading.enumerate()]
