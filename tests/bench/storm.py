"""A storm: thousands of clients come back within a second, each some events behind. And what others notice of it."""

from contextlib import ExitStack

from tests.bench.cpu import cpu_s
from tests.bench.herd import stampede
from tests.bench.position import cursor, from_cursor, metrics, pour
from tests.bench.table import Goal, Table
from tests.bench.workbench import Workbench

BEHIND = 50
WITHIN_S = 1.0
LIMIT_S = 10.0
"""Caught up within seconds: the slowest one."""

SOURCES = {"log": {"WARM_S": "3600"}, "stream": {"WARM_S": "0"}}


def run(bench: Workbench) -> Table:
    clients = bench.amount.storm_clients
    rows, goals = [], []
    for source in SOURCES:
        row, slowest_s = _measure(bench, source, clients)
        rows.append(row)
        goals.append(Goal(f"storm from the {source}, slowest client", slowest_s, LIMIT_S, "s"))
    return Table(
        f"storm: {clients:,} clients come back within {WITHIN_S:g} s, each {BEHIND} events behind",
        [
            "from",
            "caught up p50 ms",
            "p99 ms",
            "max ms",
            "gateway CPU s",
            "NATS CPU s",
            "requests to NATS",
            "readers from the stream",
            "live before p99 ms",
            "live meanwhile p50 ms",
            "p99 ms",
            "max ms",
        ],
        rows,
        [
            "From each one's connect to the last event it missed; every client got each once and in order. The herd "
            "and NATS share cores: much of the time is theirs.",
            "requests to NATS: all of the gateway's meanwhile, for all readers together. live: another client's "
            "latency, from publish to receipt, one event at a time.",
        ],
        goals,
    )


def _measure(bench: Workbench, source: str, clients: int) -> tuple[list[str], float]:
    with ExitStack() as stack:
        server = bench.nats_server(stack)
        url = server.url()
        flow = stack.enter_context(bench.flow(url))
        _, first_port = bench.gateway(stack, url)
        where = cursor(first_port)
        pour(flow, BEHIND, batch=1, interval_s=0)
        gateway, port = bench.gateway(stack, url, **SOURCES[source])
        live = bench.live(stack, port, url)
        # The live client has opened the tap; what its own events add to the log lies behind those of the herd.
        quiet = live.settled_ms()
        requests, used_s, nats_s = server.heard("natsgate"), cpu_s(gateway.pid), cpu_s(server.pid)
        times = stampede(port, from_cursor(where), clients, BEHIND, within_s=WITHIN_S)
        used_s, nats_s = cpu_s(gateway.pid) - used_s, cpu_s(server.pid) - nats_s
        requests = server.heard("natsgate") - requests
        meanwhile = live.latencies_ms()
        read_for = metrics(port).total("natsgate_replays_total", source="stream")
        row = [
            source,
            *(f"{part(times, share) * 1000:,.0f}" for share in (0.5, 0.99, 1)),
            f"{used_s:.2f}",
            f"{nats_s:.2f}",
            f"{requests:,}",
            f"{read_for:,.0f}",
            f"{part(quiet, 0.99):.1f}",
            *(f"{part(meanwhile, share):.1f}" for share in (0.5, 0.99, 1)),
        ]
        return row, times[-1]


def part(ascending: list[float], share: float) -> float:
    """The value that this share of all does not exceed."""
    return ascending[min(len(ascending) - 1, int(len(ascending) * share))]
