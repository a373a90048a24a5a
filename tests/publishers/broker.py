"""A real nats-server of the test's own: can be killed, frozen and started again on its port and store."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.js.api import RePublish, StreamConfig
from nats.js.errors import NotFoundError

from publishers.wire import DEFAULT_ROOTS

STREAM = "EVENTS"
START_S = 10.0


class Broker:
    """`nats-server -js` on a free port of the loopback."""

    def __init__(self, store: Path, *arguments: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"nats://127.0.0.1:{self.port}"
        self._store = store
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server and returns once it accepts connections."""
        binary = Path(sys.executable).parent / "nats-server"
        command = [str(binary), "-js", "-sd", str(self._store), "-a", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(
            [*command, *self._arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_S
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                    if probe.recv(4) == b"INFO":
                        return
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
            time.sleep(0.01)  # between attempts to connect

    def kill(self) -> None:
        """kill -9, the store stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)  # until all its threads have stopped

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A bare connection."""
        client = await nats.connect(self.url)
        try:
            yield client
        finally:
            await client.close()

    async def provision(self, *, roots: tuple[str, ...] = DEFAULT_ROOTS) -> None:
        """Makes the stream as the contract has it."""
        async with self.client() as client:
            await client.jetstream().add_stream(
                StreamConfig(
                    name=STREAM,
                    subjects=[f"{root}.>" for root in roots],
                    allow_direct=True,
                    duplicate_window=120,
                    max_consumers=256,
                    republish=RePublish(src=">", dest="live.>"),
                )
            )

    async def stored(self) -> list[tuple[str, bytes, dict[str, str]]]:
        """Everything in the stream, in order: subject, payload, headers."""
        result: list[tuple[str, bytes, dict[str, str]]] = []
        async with self.client() as client:
            stream = client.jetstream()
            last = (await stream.stream_info(STREAM)).state.last_seq
            for sequence in range(1, last + 1):
                with contextlib.suppress(NotFoundError):
                    message = await stream.get_msg(STREAM, seq=sequence, direct=True)
                    assert message.subject is not None
                    result.append((message.subject, message.data or b"", dict(message.headers or {})))
        return result


def running(store: Path, *arguments: str) -> Iterator[Broker]:
    """A started broker, killed afterwards."""
    broker = Broker(store, *arguments)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()
