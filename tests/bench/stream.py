"""What a message of the stream costs when no client asked for it: the price of the one tap."""

import time
from contextlib import ExitStack

from tests.bench.cpu import cpu_s
from tests.bench.event import EVENT_BYTES, OTHER_SUBJECT, SUBJECT
from tests.bench.failure import Unmeasured
from tests.bench.gateway_server import STREAM
from tests.bench.table import Table
from tests.bench.transport import SSE
from tests.bench.workbench import Workbench

RATES = (1_000, 5_000, 20_000)
TICK_S = 0.001
LOG_BYTES = 8 * 1024 * 1024
WARM_MESSAGES = 40_000
RECEIVED = "natsgate_events_received_total"


def run(bench: Workbench) -> Table:
    rows = []
    with ExitStack() as stack:
        nats_url, flow = bench.nats(stack)
        gateway, port = bench.gateway(stack, nats_url, LOG_BYTES=str(LOG_BYTES))
        drain = bench.drain(stack, port, SSE)
        drain.begin(1)
        drain.ready(1)
        sentinel = 0

        def pour(rate: int, messages: int) -> tuple[float, float]:
            """Publishes what nobody asked for; then one event that the client gets when all were passed."""
            nonlocal sentinel
            stored, received = flow.stored(STREAM), gateway.counter(port, RECEIVED)
            batch = max(1, round(rate * TICK_S))
            before = cpu_s(gateway.pid)
            took_s = flow.publish(OTHER_SUBJECT, 0, messages // batch, batch=batch, interval_s=batch / rate)
            sentinel += 1
            flow.publish(SUBJECT, sentinel, 1, batch=1, interval_s=0)
            drain.expect(sentinel)
            used_s = cpu_s(gateway.pid) - before
            stored = flow.stored(STREAM) - stored
            if stored != messages + 1:
                raise Unmeasured(f"of {messages + 1} messages the stream stored {stored}")
            if received is not None:
                received = (gateway.counter(port, RECEIVED) or 0) - received
                if received != stored:
                    raise Unmeasured(f"of {stored} stored messages the gateway counted {received:.0f}")
            return used_s, took_s

        pour(RATES[-1], WARM_MESSAGES)
        time.sleep(1)  # what the messages have left to do is not idling; nothing says when it is done
        idle_s = -cpu_s(gateway.pid)
        time.sleep(bench.amount.stream_s)
        idle_s += cpu_s(gateway.pid)
        rows.append(["idle", "", f"{idle_s / bench.amount.stream_s * 100:.2f}", "", ""])
        for rate in RATES:
            messages = round(rate * bench.amount.stream_s)
            used_s, took_s = pour(rate, messages)
            rows.append(
                [
                    f"{rate:,}/s",
                    f"{used_s / messages * 1e6:.1f}",
                    f"{used_s / took_s * 100:.1f}",
                    f"{messages:,}",
                    f"{messages / took_s:,.0f}/s",
                ]
            )
    return Table(
        "stream: messages that no client is interested in, one client connected",
        ["", "µs per message", "% of a core", "messages", "real rate"],
        rows,
        [
            f"CPU of the gateway. Core NATS messages of {EVENT_BYTES} bytes, every {TICK_S * 1000:g} ms as "
            f"many as the rate asks; the log ({LOG_BYTES // 2**20} MiB) is full, so each also evicts one.",
            "All were stored, and the tap has passed all: an event published after them reached the client.",
        ],
    )
