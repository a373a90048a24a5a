"""The two ways to a browser, as bytes: what a client sends, and how one event looks on the wire."""

import json
import socket
import time
from dataclasses import dataclass

from tests.bench.event import FILTER, SUBJECT
from tests.bench.failure import Unmeasured
from tests.bench.flow import Flow

_PROBE_S = 10
_QUIET_S = 0.3


@dataclass(frozen=True)
class Transport:
    """One transport. `ready_mark` is in what the gateway sends once a client's feed is live."""

    name: str
    request: str
    subscribe: str | None
    ready_mark: str

    def greeting(self) -> bytes:
        """What the floor sends to a new client, so that it takes the same path as with the gateway."""
        if self.subscribe is None:
            return b"HTTP/1.1 200 OK\r\n\r\n" + self.ready_mark.encode()
        mark = self.ready_mark.encode()
        return b"HTTP/1.1 101 Switching Protocols\r\n\r\n\x81" + bytes([len(mark)]) + mark

    def probe(self, port: int, flow: Flow) -> bytes:
        """Event 0 as the gateway puts it on the wire. Raises Unmeasured when it does not arrive."""
        with socket.create_connection(("127.0.0.1", port), timeout=_PROBE_S) as client:
            client.sendall(self.request.encode())
            heard = b""
            if self.subscribe is not None:
                while b"\r\n\r\n" not in heard:
                    heard += _some(client, heard)
                client.sendall(_masked(self.subscribe.encode()))
            while self.ready_mark.encode() not in heard:
                heard += _some(client, heard)
            _quiet(client)
            flow.publish(SUBJECT, 0, 1, batch=1, interval_s=0)
            frame = b""
            while b"~00000000" not in frame:
                frame += _some(client, frame)
            return frame + _quiet(client)


SSE = Transport(
    "sse",
    f"GET /events?subject={FILTER} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n",
    None,
    "natsgate.ready",
)
WS = Transport(
    "ws",
    "GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bmF0c2dhdGUgYmVuY2htaw==\r\n"
    "Sec-WebSocket-Protocol: natsgate.v1\r\n\r\n",
    json.dumps({"op": "subscribe", "ref": 1, "subject": FILTER}),
    '"ready"',
)


def _masked(text: bytes) -> bytes:
    assert len(text) < 126
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text  # a key of zeros leaves the text as it is


def _some(client: socket.socket, heard: bytes) -> bytes:
    try:
        more = client.recv(65536)
    except TimeoutError:
        more = b""
    if not more:
        raise Unmeasured(f"the probe was not served; it heard {heard!r}")
    return more


def _quiet(client: socket.socket) -> bytes:
    """What still comes within a moment of silence's length."""
    time.sleep(_QUIET_S)
    client.setblocking(False)
    try:
        return client.recv(65536)
    except BlockingIOError:
        return b""
    finally:
        client.settimeout(_PROBE_S)
