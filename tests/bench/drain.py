"""The clients of a benchmark: one C process that holds all of them (see drain.c)."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.child import Child
from tests.bench.failure import Unmeasured
from tests.bench.transport import Transport

OPEN_S = 60
ARRIVE_S = 30


@dataclass(frozen=True)
class Count:
    """What the clients saw so far. `low` and `high`: the number of the last event, least and most of all."""

    opened: int
    ready: int
    closed: int
    bytes: int
    events: int
    reads: int
    faults: int
    pings: int
    low: int
    high: int


class Drain(Child):
    """Clients of one port. They check by themselves that they see events 1, 2, 3, … each exactly once."""

    def __init__(self, program: Path, port: int, transport: Transport, folder: Path, cores: frozenset[int]) -> None:
        argv = [str(program), str(port), transport.name, transport.ready_mark, transport.request]
        if transport.subscribe is not None:
            argv.append(transport.subscribe)
        super().__init__(argv, cores=cores, stderr=folder / "drain.log")

    def begin(self, clients: int) -> None:
        """Begins to open more clients, without waiting."""
        self._count("open", clients)

    def ready(self, clients: int) -> Count:
        """Waits until the feeds of `clients` clients in all are live. Raises Unmeasured when they are not."""
        return self._wait_for("ready", clients, OPEN_S)

    def expect(self, number: int) -> Count:
        """Waits until all clients saw event `number`, the last one. Raises Unmeasured on a lost one."""
        seen = self._wait_for("low", number, ARRIVE_S)
        if seen.high != number:
            raise Unmeasured(f"a client saw event {seen.high}, the last one sent was {number}")
        return seen

    def report(self) -> Count:
        seen = self._count("report")
        if seen.closed or seen.faults:
            raise Unmeasured(f"{seen.closed} clients lost their connection, {seen.faults} events out of order: {seen}")
        return seen

    def close_all(self) -> None:
        self._count("close")

    def _wait_for(self, what: str, wanted: int, timeout_s: float) -> Count:
        until = time.monotonic() + timeout_s
        while getattr(seen := self.report(), what) < wanted:
            if time.monotonic() > until:
                raise Unmeasured(f"after {timeout_s:.0f} s {what} is not {wanted}: {seen}")
            time.sleep(0.02)
        return seen

    def _count(self, command: str, *arguments: int) -> Count:
        return Count(**json.loads(self.ask(" ".join([command, *map(str, arguments)]))))
