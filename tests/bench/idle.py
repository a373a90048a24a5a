"""Memory of a connection on which nothing happens."""

import time
from contextlib import ExitStack

from tests.bench.cpu import cpu_s
from tests.bench.memory import Memory
from tests.bench.table import Goal, Table
from tests.bench.transport import SSE, WS, Transport
from tests.bench.workbench import Workbench

LIMIT_KB = {SSE.name: 4.0, WS.name: 10.0}
WARM_CLIENTS = 200
BEAT_S = 5
SETTLE_S = 1.0
"""What gateway, kernel and drain may take to put away what they no longer need. Nothing says when they have."""


def run(bench: Workbench) -> Table:
    rows, goals = [], []
    clients = bench.amount.idle_clients
    for transport in (SSE, WS):
        grown, left, again, cpu_us = _measure(bench, transport)
        rows.append(
            [
                transport.name,
                f"{grown.rss_kb / clients:.2f}",
                f"{grown.anonymous_kb / clients:.2f}",
                f"{left.anonymous_kb / clients:.2f}",
                f"{again.anonymous_kb / clients:.2f}",
                f"{grown.slab_kb / clients:.2f}",
                f"{cpu_us:.1f}",
            ]
        )
        goals.append(
            Goal(
                f"idle {transport.name} connection",
                grown.resident_kb / clients,
                LIMIT_KB[transport.name],
                "KB RSS",
            )
        )
    return Table(
        f"idle: {clients:,} connections with a live feed on which nothing is published",
        ["", "RSS KB", "anonymous KB", "left KB", "again KB", "kernel slab KB", "CPU µs/s"],
        rows,
        [
            f"Each per connection, grown after the first {WARM_CLIENTS} connections, once all sat idle "
            f"for {bench.amount.idle_s:g} s with heartbeats or pings every {BEAT_S} s; "
            "left and again: anonymous, after all were closed, and after as many came once more.",
            "The slab is the whole machine's, so it holds both ends of each connection.",
        ],
        goals,
    )


def _measure(bench: Workbench, transport: Transport) -> tuple[Memory, Memory, Memory, float]:
    clients, idle_s = bench.amount.idle_clients, bench.amount.idle_s
    with ExitStack() as stack:
        nats_url, _ = bench.nats(stack)
        gateway, port = bench.gateway(stack, nats_url, HEARTBEAT_S=str(BEAT_S), WS_PING_S=str(BEAT_S))
        drain = bench.drain(stack, port, transport)
        drain.begin(WARM_CLIENTS)
        drain.ready(WARM_CLIENTS)
        time.sleep(SETTLE_S)
        before = Memory.of(gateway.pid)
        drain.begin(clients)
        drain.ready(WARM_CLIENTS + clients)
        busy_s = -cpu_s(gateway.pid)
        time.sleep(idle_s)
        busy_s += cpu_s(gateway.pid)
        grown = Memory.of(gateway.pid) - before
        drain.report()  # raises when a connection was lost meanwhile
        drain.close_all()
        time.sleep(SETTLE_S)
        left = Memory.of(gateway.pid) - before
        second = bench.drain(stack, port, transport)
        second.begin(WARM_CLIENTS + clients)
        second.ready(WARM_CLIENTS + clients)
        time.sleep(SETTLE_S)
        again = Memory.of(gateway.pid) - before
        return grown, left, again, busy_s / idle_s / clients * 1e6
