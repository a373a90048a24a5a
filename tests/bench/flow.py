"""A paced flow of plain core NATS messages, over a bare socket: as cheap as a publisher in Python can be."""

import json
import socket
import time
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.bench.event import event
from tests.bench.failure import Unmeasured

TIMEOUT_S = 20


class Flow:
    """One NATS connection that publishes. Not for several threads."""

    def __init__(self, url: str) -> None:
        at = urlsplit(url)
        self._socket = socket.create_connection((at.hostname, at.port), timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._incoming = self._socket.makefile("rb")
        self._incoming.readline()  # INFO
        self._socket.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\n')
        self._barrier()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._incoming.close()
        self._socket.close()

    def publish(self, subject: str, first: int, batches: int, *, batch: int, interval_s: float) -> float:
        """Publishes `batches` times `batch` events, numbered from `first`, one batch every `interval_s`.

        Returns the seconds from the first to the end of the last interval. A batch that is late does not move
        the following ones, so the rate holds.
        """
        head = f"PUB {subject} ".encode()
        start = due = time.monotonic()
        for at in range(batches):
            number = first + at * batch
            lines = bytearray()
            for offset in range(batch):
                payload = event(number + offset)
                lines += b"%b%d\r\n%b\r\n" % (head, len(payload), payload)
            self._socket.sendall(lines)
            due += interval_s
            if (left := due - time.monotonic()) > 0:
                time.sleep(left)
        took = time.monotonic() - start
        self._barrier()
        return took

    def stored(self, stream: str) -> int:
        """The stream's last sequence. Raises Unmeasured when nobody tells."""
        self._socket.sendall(
            b"SUB _INBOX.bench 1\r\nUNSUB 1 1\r\nPUB $JS.API.STREAM.INFO.%b _INBOX.bench 0\r\n\r\n" % stream.encode()
        )
        while True:
            line = self._line()
            if line.startswith(b"MSG "):
                size = int(line.split()[-1])
                answer = json.loads(self._incoming.read(size + 2))
                if "error" in answer:
                    raise Unmeasured(f"stream {stream}: {answer['error']}")
                return int(answer["state"]["last_seq"])

    def _barrier(self) -> None:
        """Returns when the server has processed everything sent so far."""
        self._socket.sendall(b"PING\r\n")
        while self._line() != b"PONG":
            pass

    def _line(self) -> bytes:
        line = self._incoming.readline().rstrip()
        if line == b"PING":
            self._socket.sendall(b"PONG\r\n")
        elif not line or line.startswith(b"-ERR"):
            raise Unmeasured(f"nats-server: {line!r}")
        return line
