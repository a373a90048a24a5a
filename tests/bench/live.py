"""One live client in a process of its own: publishes an event, waits until the gateway brings it, and again.

`python -m tests.bench.live PORT NATS_URL`: a line on stdin ends a measurement; the answer is its latencies as JSON.
"""

import json
import select
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.child import Child

SUBJECT = "repo.live.tick"
EVERY_S = 0.02
GIVE_UP_S = 20


class Live(Child):
    """The client, seen from the benchmark."""

    def __init__(self, port: int, nats_url: str, folder: Path, cores: frozenset[int]) -> None:
        argv = [sys.executable, "-m", "tests.bench.live", str(port), nats_url]
        super().__init__(argv, cores=cores, stderr=folder / "live.log")
        self.read()  # it is live

    def latencies_ms(self) -> list[float]:
        """The latencies since the last call, ascending. Raises Unmeasured when an event did not come."""
        found: list[float] = json.loads(self.ask("report"))
        return sorted(found)

    def settled_ms(self) -> list[float]:
        """The latencies of a second in which nothing else happens."""
        self.latencies_ms()
        time.sleep(1)  # the second that is measured
        return self.latencies_ms()


def main() -> None:
    port, at = int(sys.argv[1]), urlsplit(sys.argv[2])
    nats = socket.create_connection((at.hostname, at.port), timeout=GIVE_UP_S)
    nats.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\n')
    client = socket.create_connection(("127.0.0.1", port), timeout=GIVE_UP_S)
    client.sendall(b"GET /events?subject=repo.live.> HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n")
    _read_until(client, b"natsgate.ready")
    print("live", flush=True)
    number = 0
    found: list[float] = []
    while True:
        asked, _, _ = select.select([sys.stdin, nats], [], [], EVERY_S)
        if nats in asked and b"PING" in nats.recv(65536):
            nats.sendall(b"PONG\r\n")
        if sys.stdin in asked:
            if not sys.stdin.readline():
                return
            print(json.dumps(found), flush=True)
            found = []
        number += 1
        payload = b'{"type":"tick","n":"=%d="}' % number
        began = time.perf_counter()
        nats.sendall(b"PUB %b %d\r\n%b\r\n" % (SUBJECT.encode(), len(payload), payload))
        _read_until(client, b"=%d=" % number)
        found.append((time.perf_counter() - began) * 1000)


def _read_until(client: socket.socket, mark: bytes) -> None:
    heard = b""
    while mark not in heard:
        more = client.recv(65536)
        if not more:
            raise ConnectionError(f"the gateway ended the stream: {heard!r}")
        heard = heard[-256:] + more


if __name__ == "__main__":
    main()
