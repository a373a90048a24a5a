"""Memory that clients cost which do not read: of the process, and of the kernel."""

import re
import socket
import time
from contextlib import ExitStack
from pathlib import Path

from tests.bench.event import EVENT_BYTES
from tests.bench.failure import Unmeasured
from tests.bench.memory import Memory
from tests.bench.position import metrics, pour
from tests.bench.table import Table
from tests.bench.transport import SSE
from tests.bench.workbench import Workbench

PAGE_KB = 4
SETTLE_S = 30
READ_S = 30
_NUMBER = re.compile(rb"~(\d{8})")


def run(bench: Workbench) -> Table:
    clients, wanted_mb = bench.amount.stalled_clients, bench.amount.stalled_mb
    events = wanted_mb * 1_000_000 // EVENT_BYTES // 100 * 100
    with ExitStack() as stack:
        nats_url, flow = bench.nats(stack)
        gateway, port = bench.gateway(stack, nats_url, WRITE_TIMEOUT_S="0", REPLAY_LIMIT="0")
        sockets = [stack.enter_context(_connected(port)) for _ in range(clients)]
        before, kernel_before = Memory.of(gateway.pid), _kernel_kb()
        pour(flow, events)
        log_kb = _passed(port, events, clients)
        grown, kernel_kb = Memory.of(gateway.pid) - before, _kernel_kb() - kernel_before
        _read_all(sockets[0], events)
        page = metrics(port)
        if page.total("natsgate_connections") != clients:
            raise Unmeasured(f"{page.total('natsgate_connections'):.0f} of {clients} clients are left")
        own_kb = grown.resident_kb - log_kb
        return Table(
            f"stalled: {clients:,} clients that read nothing, after {wanted_mb} MB of events for each",
            ["", "all MB", "KB per client"],
            [
                ["process", f"{grown.resident_kb / 1024:.1f}", ""],
                ["  of it the log", f"{log_kb / 1024:.1f}", ""],
                ["  the rest", f"{own_kb / 1024:.1f}", f"{own_kb / clients:.1f}"],
                ["kernel, TCP", f"{kernel_kb / 1024:.1f}", f"{kernel_kb / clients:.1f}"],
                ["a queue of its own each", f"{clients * wanted_mb:,.0f}", f"{wanted_mb * 1000:,.0f}"],
            ],
            [
                "Grown since all were connected. The kernel's is both ends of each connection, from "
                "/proc/net/sockstat. The last line is what a queue per client would hold.",
                f"One of them then read everything: {events:,} events, once and in order; the others stayed connected.",
            ],
        )


def _connected(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=READ_S)
    client.sendall(SSE.request.encode())
    heard = b""
    while SSE.ready_mark.encode() not in heard:
        more = client.recv(4096)
        if not more:
            raise Unmeasured(f"not served: {heard!r}")
        heard += more
    return client


def _passed(port: int, events: int, clients: int) -> int:
    """Waits until the gateway has taken in all events and all clients are behind. Returns the log's KB."""
    until = time.monotonic() + SETTLE_S
    while time.monotonic() < until:
        page = metrics(port)
        received = page.total("natsgate_events_received_total")
        if received == events and page.total("natsgate_connections_behind") == clients:
            return round(page.total("natsgate_log_bytes") / 1024)
        time.sleep(0.2)  # between two looks; the loop ends with what it waits for
    raise Unmeasured(
        f"{received:.0f} of {events} events were received, {page.total('natsgate_connections_behind')} behind"
    )


def _kernel_kb() -> int:
    """What the kernel holds for TCP, the whole machine's."""
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            words = line.split()
            return int(words[words.index("mem") + 1]) * PAGE_KB
    raise Unmeasured("/proc/net/sockstat says nothing of TCP")


def _read_all(client: socket.socket, events: int) -> None:
    """Reads one stalled client to its end. Raises Unmeasured when an event is missing, doubled or out of order."""
    seen, rest = 0, b""
    while seen < events:
        data = client.recv(2**18)
        if not data:
            raise Unmeasured(f"the stalled client was closed after event {seen}")
        data = rest + data
        rest = data[-8:]
        for number in map(int, _NUMBER.findall(data)):
            if number == seen:
                continue
            if number != seen + 1:
                raise Unmeasured(f"the stalled client got event {number} after {seen}")
            seen = number
