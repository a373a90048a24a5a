"""The publisher for threads: Django, Flask, Celery, scripts."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import logging
import os
import socket
import threading
import weakref
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from publishers.delivery import end
from publishers.errors import FlushTimeout, PublisherClosed
from publishers.link import check_files
from publishers.outbox import Ack
from publishers.publisher import Publisher, Stats
from publishers.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")


_LAST_TURNS = 20  # of the loop; a call needs fewer to tell its caller how it ended


class _Loop(asyncio.SelectorEventLoop):
    """Resolves host names at the interpreter's exit too, when asyncio's own threads for that are gone."""

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        try:
            return await super().getaddrinfo(host, port, **options)
        except RuntimeError:  # "cannot schedule new futures after shutdown"
            return socket.getaddrinfo(host, port, **options)  # blocks nobody: the loop has a thread of its own


class _Runner:
    """One thread with one event loop and one `Publisher`."""

    def __init__(self, settings: Settings) -> None:
        self.publisher = Publisher(settings)
        self._loop = _Loop()
        self._lock = threading.Lock()
        self._stopping = threading.Lock()
        self._stopped = False
        # A daemon, so that a process that never closes ends all the same; the exit hook flushes before that.
        self._thread = threading.Thread(target=self._loop.run_forever, name="natsgate-publisher", daemon=True)
        self._thread.start()
        _running.add(self)
        self.call(self.publisher.open())

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("SyncPublisher was called from its own thread: call it outside of callbacks")
        with self._lock:
            if not self._stopped:
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        raise PublisherClosed("the publisher is closed: make a new SyncPublisher")

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self.submit(work).result()
        except concurrent.futures.CancelledError:
            raise PublisherClosed("the publisher was closed meanwhile") from None

    def cancel(self, inner: asyncio.Future[Ack]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing is sent any more
            self._loop.call_soon_threadsafe(inner.cancel)

    def stop(self, timeout_s: float | None) -> None:
        with self._stopping:
            if self._stopped:
                return
            try:
                self.call(self.publisher.close(timeout_s))
            finally:
                with self._lock:
                    self._stopped = True
                try:
                    asyncio.run_coroutine_threadsafe(self._end_calls(), self._loop).result()
                finally:
                    self._loop.call_soon_threadsafe(self._loop.stop)
                    self._thread.join()
                    self._loop.close()
                    _running.discard(self)

    async def _end_calls(self) -> None:
        """Leaves nobody waiting for a loop that is about to stop."""
        for _ in range(_LAST_TURNS):
            await asyncio.sleep(0)
        await end(asyncio.all_tasks() - {asyncio.current_task()})


class SyncPublisher:
    """`Publisher` for threads: blocking methods, safe from any number of threads and across `os.fork`.

    ::

        publisher = SyncPublisher("nats://127.0.0.1:4222")      # module level is fine
        publisher.emit("task", "7", "status_update", {"progress": 10})

    Its thread and connection begin with the first call. After a fork the child begins anew, with an empty
    buffer: what the parent had buffered stays the parent's to send. At a normal exit of the interpreter
    it is flushed for `close_timeout_s`; `os._exit` and signals that kill skip that, so `flush`, or wait for
    the acknowledgement of, what must not be lost.

    Args:
        settings: a `Settings`, or just NATS URLs (comma-separated).
    """

    def __init__(self, settings: Settings | str = "nats://127.0.0.1:4222") -> None:
        self.settings = Settings(servers=settings) if isinstance(settings, str) else settings
        self._lock = threading.Lock()
        check_files(self.settings)
        self._runner: _Runner | None = None
        self._closed = False
        _living.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except FlushTimeout as lost:
            if error is None:
                raise
            log.error("%s", lost)  # the error that is on its way already says more

    def emit(
        self,
        root: str,
        id: str,
        event_type: str,
        payload: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        **fields: Any,
    ) -> Ack:
        """Publishes a canonical event and blocks until it is stored; see `Publisher.emit`."""
        runner = self._started()
        return runner.call(
            runner.publisher.emit(root, id, event_type, payload, headers=headers, timeout_s=timeout_s, **fields)
        )

    def publish(
        self,
        subject: str,
        event: Mapping[str, Any] | bytes,
        *,
        msg_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Ack:
        """Publishes one event and blocks until it is stored; see `Publisher.publish`."""
        runner = self._started()
        return runner.call(
            runner.publisher.publish(subject, event, msg_id=msg_id, headers=headers, timeout_s=timeout_s)
        )

    def enqueue(
        self,
        subject: str,
        event: Mapping[str, Any] | bytes,
        *,
        msg_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> concurrent.futures.Future[Ack]:
        """Takes one event into the buffer and returns the future of its acknowledgement.

        Blocks only while NATS is there and the buffer is full; see `Publisher.enqueue`. Cancelling the future
        takes the event back as long as it was not sent.
        """
        runner = self._started()
        outcome: concurrent.futures.Future[Ack] = concurrent.futures.Future()

        async def take() -> None:
            inner = await runner.publisher.enqueue(subject, event, msg_id=msg_id, headers=headers)
            inner.add_done_callback(lambda done: _copy(done, outcome))
            outcome.add_done_callback(lambda done: runner.cancel(inner) if done.cancelled() else None)

        runner.call(take())
        return outcome

    def wait_connected(self, timeout_s: float | None = None) -> None:
        """Blocks until NATS is there; see `Publisher.wait_connected`."""
        runner = self._started()
        runner.call(runner.publisher.wait_connected(timeout_s))

    def flush(self, timeout_s: float | None = None) -> None:
        """Blocks until every event taken so far has its outcome; see `Publisher.flush`."""
        runner = self._started()
        runner.call(runner.publisher.flush(timeout_s))

    def close(self, timeout_s: float | None = None) -> None:
        """Flushes for at most `timeout_s` (default `close_timeout_s`) and ends the thread; for good.

        Raises:
            FlushTimeout: events were left.
        """
        with self._lock:
            self._closed = True
            runner, self._runner = self._runner, None
        if runner is not None:
            runner.stop(timeout_s)

    @property
    def stats(self) -> Stats:
        """What the publisher holds and has done."""
        runner = self._runner
        return runner.publisher.stats if runner is not None else Publisher(self.settings).stats

    def _started(self) -> _Runner:
        with self._lock:
            if self._closed:
                raise PublisherClosed("the publisher is closed: make a new SyncPublisher")
            if self._runner is None:
                self._runner = _Runner(self.settings)
            return self._runner

    def _begin_anew(self) -> None:
        """In a forked child: the thread stayed with the parent, the lock may be held by it for ever."""
        self._lock = threading.Lock()
        self._runner = None


_living: weakref.WeakSet[SyncPublisher] = weakref.WeakSet()
_running: set[_Runner] = set()  # holds them, so that a publisher nobody refers to any more is flushed at exit too
_left_to_parent: list[_Runner] = []


def _after_fork_in_child() -> None:
    for publisher in list(_living):
        publisher._begin_anew()
    # Kept, not closed: their sockets and selectors are shared with the parent, which goes on using them.
    _left_to_parent.extend(_running)
    _running.clear()


def _at_exit() -> None:
    for runner in list(_running):
        try:
            runner.stop(None)
        except Exception as lost:  # whatever it is, the others are flushed all the same
            log.error("at exit: %s", lost)


def _copy(done: asyncio.Future[Ack], outcome: concurrent.futures.Future[Ack]) -> None:
    with contextlib.suppress(concurrent.futures.InvalidStateError):  # its holder cancelled it
        if done.cancelled():
            outcome.cancel()
        elif (error := done.exception()) is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(done.result())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
