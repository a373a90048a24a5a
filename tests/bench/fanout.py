"""CPU per delivery: one event to many clients, beside a bare C send() loop over as many sockets.

The segments take turns (floor, gateway, floor, gateway, …, floor), each gateway segment is compared with the
floors before and after it, and every client checks that it got every event once and in order.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from tests.bench.cpu import cpu_s
from tests.bench.drain import Drain
from tests.bench.event import EVENT_BYTES, SUBJECT
from tests.bench.failure import Unmeasured
from tests.bench.floor import Floor
from tests.bench.flow import Flow
from tests.bench.gateway_server import Gateway
from tests.bench.table import Goal, Table
from tests.bench.transport import SSE, WS, Transport
from tests.bench.workbench import Workbench

RATIO_LIMIT = 1.5
JOINED_LIMIT = 0.97
"""Fewer reads per event than that say that the pace did not hold, because the machine was busy: events of different
moments were joined, which is cheap, and no measure of single events."""


@dataclass(frozen=True)
class Pace:
    """`batch` events are published at once, then nothing until `interval_s` is over."""

    name: str
    batch: int
    interval_s: float


SINGLE = Pace("single", 1, 0.02)
BURST = Pace("burst", 20, 0.1)


@dataclass(frozen=True)
class Outcome:
    """CPU seconds of each segment, and how many deliveries a segment makes."""

    pace: Pace
    gateway_s: list[float]
    floor_s: list[float]
    deliveries: int
    reads_per_event: float
    discarded: int

    @property
    def gateway_us(self) -> float:
        return sum(self.gateway_s) / len(self.gateway_s) / self.deliveries * 1e6

    @property
    def floor_us(self) -> float:
        return sum(self._floors()) / len(self.gateway_s) / self.deliveries * 1e6

    @property
    def ratio(self) -> float:
        return self.gateway_us / self.floor_us

    @property
    def ratios(self) -> list[float]:
        """The ratio of each round."""
        return [own / floor for own, floor in zip(self.gateway_s, self._floors(), strict=True)]

    def _floors(self) -> Iterator[float]:
        for before, after in zip(self.floor_s, self.floor_s[1:], strict=False):
            yield (before + after) / 2


@dataclass
class Side:
    """The gateway or the floor, with the clients it serves and the events they have seen."""

    server: Gateway | Floor
    drain: Drain
    flow: Flow
    sent: int = 0

    def segment(self, pace: Pace, batches: int) -> float:
        """Serves one segment and returns the CPU seconds it took. Raises Unmeasured unless all arrived."""
        before = cpu_s(self.server.pid)
        if isinstance(self.server, Floor):
            self.server.send(self.sent + 1, batches, batch=pace.batch, interval_s=pace.interval_s)
        else:
            self.flow.publish(SUBJECT, self.sent + 1, batches, batch=pace.batch, interval_s=pace.interval_s)
        self.sent += batches * pace.batch
        self.drain.expect(self.sent)
        return cpu_s(self.server.pid) - before


def run(bench: Workbench) -> Table:
    rows, goals, notes = [], [], []
    clients = bench.amount.clients
    for transport in (SSE, WS):
        single, burst, frame_bytes = _measure(bench, transport)
        rows += [
            [
                f"{transport.name} {outcome.pace.name}",
                f"{outcome.gateway_us:.2f}",
                f"{outcome.floor_us:.2f}",
                f"{outcome.ratio:.2f}",
                f"{min(outcome.ratios):.2f}-{max(outcome.ratios):.2f}",
                f"{outcome.reads_per_event:.2f}",
                f"{outcome.deliveries * len(outcome.gateway_s):,}",
                str(frame_bytes),
            ]
            for outcome in (single, burst)
        ]
        goals.append(Goal(f"fanout {transport.name}, 1 event per turn", single.ratio, RATIO_LIMIT, "x floor"))
        gain = single.gateway_us / burst.gateway_us
        notes.append(f"{transport.name}: joined writes make a delivery {gain:.1f} times cheaper")
        if single.discarded:
            notes.append(f"{transport.name}: {single.discarded} rounds that did not keep the pace were done again")
    return Table(
        f"fanout: {clients:,} clients of one filter, events of {EVENT_BYTES} bytes",
        ["", "gateway µs", "floor µs", "ratio", "by round", "reads/event", "deliveries", "frame bytes"],
        rows,
        [
            f"µs of server CPU per delivery. single: {1 / SINGLE.interval_s:.0f} events/s, one at a time; "
            f"burst: {BURST.batch} at once, {1 / BURST.interval_s:.0f} times a second, where the floor joins "
            f"all {BURST.batch} in one send().",
            f"{bench.amount.rounds} rounds of {bench.amount.round_s:g} s, a floor before and after each; "
            "every client saw every event once and in order.",
            *notes,
        ],
        goals,
    )


def _measure(bench: Workbench, transport: Transport) -> tuple[Outcome, Outcome, int]:
    clients = bench.amount.clients
    with ExitStack() as stack:
        nats_url, flow = bench.nats(stack)
        gateway, port = bench.gateway(stack, nats_url)
        frame = transport.probe(port, flow)
        floor = bench.floor(stack, transport, frame)
        served = Side(gateway, bench.drain(stack, port, transport), flow)
        bare = Side(floor, bench.drain(stack, floor.port, transport), flow)
        served.drain.begin(clients)
        served.drain.ready(clients)
        bare.drain.begin(clients)
        floor.accept(clients)
        bare.drain.ready(clients)
        single = _rounds(bench, served, bare, SINGLE)
        return single, _rounds(bench, served, bare, BURST), len(frame)


def _rounds(bench: Workbench, served: Side, bare: Side, pace: Pace) -> Outcome:
    batches = max(1, round(bench.amount.round_s / pace.interval_s))
    for side in (bare, served):  # the first time is warm-up
        side.segment(pace, max(1, batches // 5))
    floor_s = [bare.segment(pace, batches)]
    gateway_s: list[float] = []
    reads = events = discarded = 0
    while len(gateway_s) < bench.amount.rounds:
        before = served.drain.report()
        gateway_round_s = served.segment(pace, batches)
        after = served.drain.report()
        floor_round_s = bare.segment(pace, batches)
        round_reads, round_events = after.reads - before.reads, after.events - before.events
        if pace.batch == 1 and round_reads < JOINED_LIMIT * round_events:
            discarded += 1
            if discarded > 2 * bench.amount.rounds:
                raise Unmeasured("the machine is too busy: single events do not stay single")
            floor_s[-1] = floor_round_s
            continue
        gateway_s.append(gateway_round_s)
        floor_s.append(floor_round_s)
        reads += round_reads
        events += round_events
    deliveries = batches * pace.batch * bench.amount.clients
    return Outcome(pace, gateway_s, floor_s, deliveries, reads / events, discarded)
