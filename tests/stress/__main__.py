"""`python -m tests.stress --seed N --seconds S`: numbered events, faults drawn from the seed, and a verdict."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.stress.plan import Plan
from tests.stress.scene import CLIENTS, RATE, play


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one seed. Returns 0 when nothing was lost, doubled, disordered or unexplained, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(100_000), help="decides the faults")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long there are faults")
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--rate", type=float, default=RATE, help="events per second")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--cluster", action="store_true", help="three nats-servers, and the stream on all of them")
    chosen = parser.parse_args(arguments)
    plan = Plan.draw(chosen.seed, chosen.seconds, chosen.replicas)
    print(f"seed {plan.seed}, {plan.seconds:g} s, {len(plan.faults)} faults", flush=True)
    for number, settings in enumerate(plan.replicas):
        print(f"replica {number}: " + " ".join(f"{name}={value}" for name, value in settings.items()), flush=True)
    folder = Path(tempfile.mkdtemp(prefix="natsgate-stress-"))

    def say(line: str) -> None:
        print(line, flush=True)

    outcome = asyncio.run(play(plan, folder, say=say, clients=chosen.clients, rate=chosen.rate, cluster=chosen.cluster))
    for each in outcome.first[:10]:
        print(f"\n{each}")
    print(f"\n{outcome.summary}")
    if outcome.good:
        shutil.rmtree(folder)
        print("nothing lost, nothing twice")
        return 0
    options = " --cluster" if chosen.cluster else ""
    print(f"FAILED; the processes' logs are in {folder}")
    print(f"again: python -m tests.stress --seed {plan.seed} --seconds {plan.seconds:g}{options}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
