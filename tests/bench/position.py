"""Events to come back for, the position before them as a client knows it, and what the gateway says it did."""

import json
import socket
import time
from dataclasses import replace
from urllib.request import urlopen

from tests.bench.event import SUBJECT
from tests.bench.failure import Unmeasured
from tests.bench.flow import Flow
from tests.bench.gateway_server import STREAM
from tests.bench.transport import SSE, Transport
from tests.support.metrics import Metrics

TIMEOUT_S = 20


def cursor(port: int) -> str:
    """The cursor of `ready` for a client that comes now. Raises Unmeasured when it does not come."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as client:
        client.sendall(SSE.request.encode())
        heard = b""
        while b"natsgate.ready" not in heard or not heard.endswith(b"\n\r\n"):
            more = client.recv(65536)
            if not more:
                raise Unmeasured(f"no ready; heard {heard!r}")
            heard += more
    data = heard[heard.index(b"data: ", heard.index(b"natsgate.ready")) + 6 :].split(b"\n", 1)[0]
    return str(json.loads(data)["cursor"])


def pour(flow: Flow, events: int, *, batch: int = 100, interval_s: float = 0.005) -> None:
    """Publishes events 1 to `events` and waits until the stream has them. Raises Unmeasured when it does not."""
    flow.publish(SUBJECT, 1, events // batch, batch=batch, interval_s=interval_s)
    until = time.monotonic() + TIMEOUT_S
    while (stored := flow.stored(STREAM)) < events:
        if time.monotonic() > until:
            raise Unmeasured(f"of {events} events the stream stored {stored}")
        time.sleep(0.02)


def from_cursor(where: str) -> Transport:
    """Server-Sent Events from a cursor on."""
    return replace(SSE, request=SSE.request.replace("\r\n\r\n", f"\r\nLast-Event-ID: {where}\r\n\r\n"))


def metrics(port: int) -> Metrics:
    """The gateway's metrics."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT_S) as answer:
        return Metrics(answer.read().decode())
