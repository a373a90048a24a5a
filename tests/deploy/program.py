"""A foreign program as a process: started with the very files of deploy/, ended with the test."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support.eventually import wait_until

GRACE_S = 5.0


class Program:
    """One process that serves a port.

    Args:
        command: with its arguments.
        directory: where its output goes (`output.log`); its working directory.
        port: it is up when this accepts connections on 127.0.0.1.
    """

    def __init__(self, command: Sequence[str], directory: Path, port: int) -> None:
        self._command = list(command)
        self._port = port
        self.directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> str:
        """What it said so far."""
        return (self.directory / "output.log").read_text("utf-8", "replace")

    def start(self, *, timeout_s: float = 20.0) -> None:
        with (self.directory / "output.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # workers and renderers end with it
            )
        wait_until(self._serves, f"{self._command[0]} serves port {self._port}", timeout_s=timeout_s)

    def _serves(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"{self._command[0]} ended with {self._process.returncode}: {self.output}")
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return True
        except OSError:
            return False

    def stop(self) -> None:
        """End it and every process that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
        with contextlib.suppress(ProcessLookupError):  # when all of them are gone
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
