"""What every scenario stands on: a folder, the C programs, the cores, and how much to do."""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.bench.compiler import build
from tests.bench.cpu import Cores
from tests.bench.drain import Drain
from tests.bench.floor import Floor
from tests.bench.flow import Flow
from tests.bench.gateway_server import Gateway
from tests.bench.live import Live
from tests.bench.nats_server import NatsServer
from tests.bench.transport import Transport


@dataclass(frozen=True)
class Amount:
    """How much a run does."""

    clients: int = 1000
    rounds: int = 5
    round_s: float = 2
    idle_clients: int = 5000
    idle_s: float = 6
    stream_s: float = 5
    connects: int = 1000
    connect_rounds: int = 5
    replay_events: int = 50_000
    storm_clients: int = 5000
    stalled_clients: int = 1000
    stalled_mb: int = 50

    @classmethod
    def quick(cls) -> "Amount":
        """Enough to see that everything runs; the numbers mean little."""
        return cls(
            clients=100,
            rounds=1,
            round_s=0.5,
            idle_clients=300,
            idle_s=1,
            stream_s=1,
            connects=100,
            connect_rounds=1,
            replay_events=10_000,
            storm_clients=300,
            stalled_clients=50,
            stalled_mb=5,
        )


class Workbench:
    """Starts the processes of a scenario; all end with `stack`."""

    def __init__(self, folder: Path, amount: Amount) -> None:
        self.amount = amount
        self.cores = Cores.of_this_machine()
        self._folder = folder
        self._servers = 0

    @cached_property
    def _drain_program(self) -> Path:
        return build("drain", self._folder)

    @cached_property
    def _floor_program(self) -> Path:
        return build("floor", self._folder)

    def nats(self, stack: ExitStack) -> tuple[str, Flow]:
        """A fresh nats-server and a connection that publishes to it."""
        url = self.nats_server(stack).url()
        return url, stack.enter_context(self.flow(url))

    def flow(self, nats_url: str) -> Flow:
        """A connection that publishes."""
        return Flow(nats_url)

    def nats_server(self, stack: ExitStack) -> NatsServer:
        """A fresh nats-server, for whoever wants to know what it spends."""
        self._servers += 1
        return stack.enter_context(NatsServer(self._folder / f"nats-{self._servers}", self.cores.client))

    def gateway(self, stack: ExitStack, nats_url: str, **settings: str) -> tuple[Gateway, int]:
        """A gateway that is ready, and its port."""
        server = stack.enter_context(Gateway(nats_url, self._folder, self.cores.server, **settings))
        return server, server.port()

    def drain(self, stack: ExitStack, port: int, transport: Transport) -> Drain:
        return stack.enter_context(Drain(self._drain_program, port, transport, self._folder, self.cores.client))

    def live(self, stack: ExitStack, port: int, nats_url: str) -> Live:
        return stack.enter_context(Live(port, nats_url, self._folder, self.cores.client))

    def floor(self, stack: ExitStack, transport: Transport, frame: bytes) -> Floor:
        return stack.enter_context(Floor(self._floor_program, transport, frame, self._folder, self.cores.server))
