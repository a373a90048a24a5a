"""`natsgate dev` in a folder of its own, and what it leaves behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.command import NATSGATE, environment
from tests.support.eventually import wait_until
from tests.support.http_reply import fetch
from tests.support.lifetime import Running
from tests.support.ports import free_port


class Dev(Running):
    """One `natsgate dev`, in a session of its own as in a terminal, with home and temporary folder beside.

    Args:
        folder: where it runs; `.natsgate/` is the only thing it may make there.
        surroundings: an existing or new folder for HOME and TMPDIR, to see that nothing goes there.
    """

    def __init__(
        self,
        folder: Path,
        surroundings: Path,
        *,
        arguments: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
        port: int | None = None,
        nats_port: int | None = None,
    ) -> None:
        self.folder = folder
        self.home = surroundings / "home"
        self.temporary = surroundings / "tmp"
        self.port = port or free_port()
        self.nats_port = nats_port or free_port()
        self._arguments = list(arguments)
        self._variables = dict(variables or {})
        self._output = surroundings / "output"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        """Everything it has printed so far, to stdout and stderr."""
        return self._output.read_text()

    @property
    def token(self) -> str:
        """The token on its screen."""
        return wait_until(self._shown_token, "a token is on the screen")

    def _shown_token(self) -> str | None:
        shown = re.search(r"export NATSGATE_TOKEN=(\S+)\n", self.output)
        return None if shown is None else shown[1]

    def start(self) -> None:
        for folder in (self.folder, self.home, self.temporary):
            folder.mkdir(parents=True, exist_ok=True)
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                self.command(
                    ["--listen", f"127.0.0.1:{self.port}", "--nats-port", str(self.nats_port), *self._arguments]
                ),
                cwd=self.folder,
                env=environment({})
                | {"HOME": str(self.home), "TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1"}
                | self._variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def command(self, arguments: Sequence[str]) -> Sequence[str]:
        """What is executed in the folder."""
        return NATSGATE, "dev", *arguments

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def is_ready(self) -> bool:
        """Whether its gateway answers /readyz with 200; a dev that ended fails with what it printed."""
        assert self.running, f"natsgate dev ended: {self.output}"
        try:
            return fetch("127.0.0.1", self.port, "/readyz", timeout_s=2).status == 200
        except OSError:
            return False

    def interrupt(self, *, group: bool = True, how: signal.Signals = signal.SIGINT) -> None:
        """Ctrl-C: a terminal sends it to the whole group; `group=False` to the first process only."""
        assert self._process is not None
        (os.killpg if group else os.kill)(self._process.pid, how)

    def wait(self, *, timeout_s: float) -> int:
        """The exit code; `subprocess.TimeoutExpired` when it lives on."""
        assert self._process is not None
        return self._process.wait(timeout=timeout_s)

    def processes(self) -> dict[int, str]:
        """Every process that runs in the folder, or names it, or belongs to dev's session: pid to command."""
        assert self._process is not None
        found: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                inside = (entry / "cwd").readlink().is_relative_to(self.folder)
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue  # it ended meanwhile
            ours = inside or str(self.folder) in command or int(session) == self._process.pid
            if ours and state != "Z":
                found[int(entry.name)] = command
        return found

    def left_behind(self) -> list[str]:
        """Files outside `.natsgate/`: in the folder, in HOME, in TMPDIR."""
        here = [path for path in self.folder.iterdir() if path.name != ".natsgate"]
        return [str(path) for path in [*here, *self.home.iterdir(), *self.temporary.iterdir()]]

    def stop(self) -> None:
        """End it at once, and whatever it has left running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)
