"""A gateway process, as anybody would start it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from tests.bench.child import Child
from tests.bench.failure import Unmeasured

START_S = 20
STREAM = "EVENTS"


class Gateway(Child):
    """`natsgate serve` on the stream that `natsgate provision` made. `settings`: names without NATSGATE_."""

    def __init__(self, nats_url: str, folder: Path, cores: frozenset[int], **settings: str) -> None:
        command = _command()
        env = {name: value for name, value in os.environ.items() if not name.startswith("NATSGATE_")}
        env |= {
            "NATSGATE_AUTH": "none",
            "NATSGATE_NATS_URL": nats_url,
            "NATSGATE_LISTEN": "127.0.0.1:0",
            "NATSGATE_LOG_FORMAT": "json",
            "NATSGATE_DRAIN_DELAY_S": "0",
            "NATSGATE_DRAIN_S": "0",
        }
        env |= {f"NATSGATE_{name}": value for name, value in settings.items()}
        made = subprocess.run(
            [command, "provision"], env=env, capture_output=True, text=True, timeout=START_S, check=False
        )
        if made.returncode:
            raise Unmeasured(f"natsgate provision: {made.stderr or made.stdout}")
        super().__init__([command, "serve"], cores=cores, stderr=folder / f"gateway-{time.monotonic_ns()}.log", env=env)

    def port(self) -> int:
        """The port it listens on, once it is ready. Raises Unmeasured when it does not come."""
        until = time.monotonic() + START_S
        port = None
        while time.monotonic() < until:
            self.check()
            port = port or self._listening()
            if port and self._is_ready(port):
                return port
            time.sleep(0.05)
        raise Unmeasured(f"the gateway is not ready after {START_S} s: {self.errors[-2000:]}")

    def counter(self, port: int, name: str) -> float | None:
        """The sum of one metric over its labels; None where the gateway has no such metric."""
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=START_S) as answer:
            text = answer.read().decode()
        values = [
            float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))
        ]
        return sum(values) if values else None

    def _listening(self) -> int | None:
        for line in self.errors.splitlines():
            if '"listening"' in line:
                said = json.loads(line)
                if said.get("event") == "listening":
                    return urlsplit(str(said["url"])).port
        return None

    def _is_ready(self, port: int) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def _command() -> Path:
    """The installed command beside this Python."""
    return Path(sys.executable).with_name("natsgate")
