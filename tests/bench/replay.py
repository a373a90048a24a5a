"""Events per second replayed to clients that come back far behind: from the log, and from the stream."""

import time
from contextlib import ExitStack

from tests.bench.cpu import cpu_s
from tests.bench.event import EVENT_BYTES
from tests.bench.failure import Unmeasured
from tests.bench.position import cursor, from_cursor, metrics, pour
from tests.bench.table import Table
from tests.bench.transport import SSE
from tests.bench.workbench import Workbench

CROWD = 100
CROWD_SHARE = 5
"""Of the events of one client, each of the crowd replays this part: one in five."""

SOURCES = {
    "log": {"LOG_BYTES": str(2**29), "WARM_S": "3600"},
    "stream": {"LOG_BYTES": str(2**20), "WARM_S": "0"},
}
REPLAYED = "natsgate_replayed_events_total"


def run(bench: Workbench) -> Table:
    rows = []
    for source in SOURCES:
        for clients, events in ((1, bench.amount.replay_events), (CROWD, bench.amount.replay_events // CROWD_SHARE)):
            rows.append(_measure(bench, source, clients, events))
    return Table(
        f"replay: clients that come back far behind, {EVENT_BYTES} bytes an event",
        ["", "clients", "events each", "events/s", "gateway CPU µs", "NATS CPU µs", "from the stream", "from the log"],
        rows,
        [
            "events/s: delivered, all clients together, from the connection to the last event. CPU: per event "
            "delivered.",
            "Every client got every event once and in order. The stream is read once for all that wait for it.",
        ],
    )


def _measure(bench: Workbench, source: str, clients: int, events: int) -> list[str]:
    with ExitStack() as stack:
        server = bench.nats_server(stack)
        url = server.url()
        flow = stack.enter_context(bench.flow(url))
        _, first_port = bench.gateway(stack, url)
        where = cursor(first_port)
        pour(flow, events)
        gateway, port = bench.gateway(stack, url, REPLAY_LIMIT="0", **SOURCES[source])
        keeper = bench.drain(stack, port, SSE)  # keeps the tap open, so that warming is not measured
        keeper.begin(1)
        keeper.ready(1)
        drain = bench.drain(stack, port, from_cursor(where))
        used_s, nats_s, began = cpu_s(gateway.pid), cpu_s(server.pid), time.monotonic()
        drain.begin(clients)
        drain.ready(clients)
        drain.expect(events)
        took_s = time.monotonic() - began
        used_s, nats_s = cpu_s(gateway.pid) - used_s, cpu_s(server.pid) - nats_s
        page, delivered = metrics(port), clients * events
        shares = {each: page.total(REPLAYED, source=each) for each in ("stream", "log")}
        if sum(shares.values()) != delivered or shares[source] < delivered * 0.9:
            raise Unmeasured(f"{delivered} events were to be replayed from the {source}, the gateway says {shares}")
        return [
            source,
            f"{clients}",
            f"{events:,}",
            f"{delivered / took_s:,.0f}",
            f"{used_s / delivered * 1e6:.2f}",
            f"{nats_s / delivered * 1e6:.2f}",
            *(f"{shares[each] / delivered:.0%}" for each in ("stream", "log")),
        ]
