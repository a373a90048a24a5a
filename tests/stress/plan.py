"""The plan: which faults happen when. Drawn from the seed alone, so the same seed plans the same run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

QUIET_S = 1.5
"""Nothing happens this long: everybody gets to connect."""

BETWEEN_S = (0.2, 2.5)
"""The time from one fault to the next."""

_KINDS: dict[str, tuple[int, tuple[float, float]]] = {
    "kill": (3, (0.1, 3.0)),
    "pause": (3, (0.3, 8.0)),
    "roll": (1, (0.0, 0.0)),
    "nats-kill": (2, (0.0, 2.0)),
    "nats-pause": (2, (0.2, 6.0)),
    "cut": (4, (0.0, 0.0)),
    "stall": (3, (1.0, 9.0)),
    "purge": (2, (0.0, 0.0)),
}
"""How likely each kind is, and how long it lasts."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        at_s: when, from the start of the run.
        kind: `kill`, `pause`, `roll` (replicas), `nats-kill`, `nats-pause`, `cut`, `stall` (clients), `purge`.
        target: which replica or nats-server, modulo their number.
        share: which part of the clients; of `purge`: which part of the stream goes.
        lasts_s: until it is taken back.
        draw: decides which clients.
    """

    at_s: float
    kind: str
    target: int
    share: float
    lasts_s: float
    draw: int

    def __str__(self) -> str:
        what = {"cut": f"{self.share:.0%} of the clients", "stall": f"{self.share:.0%} of the clients"}
        what |= {"purge": f"{self.share:.0%} of the stream", "roll": "all replicas"}
        lasts = f" for {self.lasts_s:.1f} s" if self.lasts_s else ""
        return f"{self.at_s:6.2f} s  {self.kind} {what.get(self.kind, f'number {self.target}')}{lasts}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that the seed decides.

    Attributes:
        faults: in order of time.
        replicas: the settings of each replica.
    """

    seed: int
    seconds: float
    faults: tuple[Fault, ...]
    replicas: tuple[Mapping[str, object], ...]

    @classmethod
    def draw(cls, seed: int, seconds: float, replicas: int) -> Plan:
        """The plan of a seed."""
        random = Random(f"plan {seed}")
        settings = tuple(_settings(random) for _ in range(replicas))
        return cls(seed, seconds, tuple(_faults(random, seconds)), settings)

    def random(self, what: str) -> Random:
        """A generator of its own for one part of the run."""
        return Random(f"{what} {self.seed}")


def _settings(random: Random) -> Mapping[str, object]:
    return {
        "LOG_BYTES": random.choice([256 * 1024, 2**20, 64 * 2**20]),
        "WARM_S": random.choice([0, 1, 60]),
        "LINGER_S": random.choice([0, 0.5, 30]),
        "HEARTBEAT_S": 1,
        "WS_PING_S": 2,
        "WS_PONG_TIMEOUT_S": 3,
        "WRITE_TIMEOUT_S": 3,
    }


def _faults(random: Random, seconds: float) -> Iterator[Fault]:
    at_s = QUIET_S
    while at_s < seconds:
        kind = random.choices(list(_KINDS), [weight for weight, _ in _KINDS.values()])[0]
        lasts_s = random.uniform(*_KINDS[kind][1])
        yield Fault(at_s, kind, random.randrange(6), random.uniform(0.05, 0.9), lasts_s, random.getrandbits(32))
        at_s += random.uniform(*BETWEEN_S)
