"""A real gateway process: `natsgate serve` with the settings of one test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from tests.support.command import NATSGATE, environment
from tests.support.eventually import wait_until
from tests.support.http_reply import HttpReply, fetch
from tests.support.lifetime import Running
from tests.support.metrics import Metrics
from tests.support.ports import address_of
from tests.support.zygote import ZYGOTE, Forked


class Gateway(Running):
    """One `natsgate serve` on a free port of 127.0.0.1.

    Attributes:
        latest: the gateways that were started last, for the report of a test that fails.

    Args:
        directory: where its log (and configuration) goes; made if missing.
        settings: names without the prefix `NATSGATE_`; they win over the defaults of the tests.
        config: the text of a TOML file for `--config`.
        open_files: soft and hard limit of its file descriptors (RLIMIT_NOFILE); None: this process's.
        executed: whether it is the installed command that runs, not a fork (see `tests.support.zygote`).
    """

    latest: ClassVar[deque[Gateway]] = deque(maxlen=4)

    def __init__(
        self,
        directory: Path,
        nats_url: str,
        settings: Mapping[str, object] | None = None,
        *,
        config: str | None = None,
        variables: Mapping[str, str] | None = None,
        open_files: tuple[int, int] | None = None,
        executed: bool = False,
    ) -> None:
        self.directory = directory
        self.settings: dict[str, object] = {
            "AUTH": "none",
            "NATS_URL": nats_url,
            "LISTEN": "127.0.0.1:0",
            "LOG_FORMAT": "json",
            "DRAIN_DELAY_S": 0,
            "DRAIN_S": 0,
            **(settings or {}),
        }
        self.host = "127.0.0.1"
        self.port = 0
        self._config = config
        self._variables = dict(variables or {})
        self._open_files = open_files
        self._executed = executed or open_files is not None
        self._process: subprocess.Popen[bytes] | Forked | None = None

    @property
    def url(self) -> str:
        assert self.port, "the gateway does not listen yet"
        return f"http://{self.host}:{self.port}"

    @property
    def ws_url(self) -> str:
        return self.url.replace("http://", "ws://", 1)

    @property
    def pid(self) -> int:
        assert self._process is not None, "the gateway is not running"
        return self._process.pid

    def start(self, *, timeout_s: float = 15.0) -> None:
        """Start the process and wait for the line that says where it listens."""
        assert self._process is None, "the gateway is running already"
        self.latest.append(self)
        self.directory.mkdir(parents=True, exist_ok=True)
        arguments = ["serve"]
        if self._config is not None:
            self.config_file.write_text(self._config)
            arguments += ["--config", str(self.config_file)]
        command = [NATSGATE, *arguments]
        if self._open_files is not None:
            soft, hard = map(str, self._open_files)
            command = ["sh", "-c", 'ulimit -Sn "$0" && ulimit -Hn "$1" && shift && exec "$@"', soft, hard, *command]
        env = environment(self.settings) | self._variables
        with self._log_file.open("wb") as log, open(os.devnull, "rb") as nothing:
            if self._executed:
                self._process = subprocess.Popen(
                    command, env=env, cwd=self.directory, stdin=nothing, stdout=log, stderr=log
                )
            else:
                self._process = ZYGOTE.fork(
                    arguments,
                    env=env,
                    cwd=self.directory,
                    stdin=nothing.fileno(),
                    stdout=log.fileno(),
                    stderr=log.fileno(),
                )
        url = wait_until(self._listening, "the gateway logs where it listens", timeout_s=timeout_s)
        self.host, self.port = address_of(url)

    def _listening(self) -> str | None:
        assert self._process is not None
        if self._process.poll() is not None:
            code, self._process = self._process.returncode, None
            raise RuntimeError(f"the gateway ended with {code}: {self.log_text}")
        for line in self.log_text.rpartition("\n")[0].splitlines():
            if line.startswith("{") and (said := json.loads(line)).get("event") == "listening":
                return str(said["url"])
        return None

    @property
    def _log_file(self) -> Path:
        return self.directory / "gateway.log"

    @property
    def has_log(self) -> bool:
        return self._log_file.exists()

    @property
    def log_text(self) -> str:
        return self._log_file.read_text()

    def logs(self, event: str | None = None) -> list[dict[str, Any]]:
        """The log lines so far as objects; with `event`, those of that name. A line that is no JSON fails."""
        whole = self.log_text.rpartition("\n")[0]
        lines = [json.loads(line) for line in whole.splitlines()]
        return [line for line in lines if event is None or line.get("event") == event]

    def get(self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> HttpReply:
        return fetch(self.host, self.port, path, method=method, headers=headers)

    def is_ready(self) -> bool:
        return self.get("/readyz").status == 200

    def wait_ready(self, *, timeout_s: float = 15.0) -> None:
        wait_until(self.is_ready, "/readyz answers 200", timeout_s=timeout_s)

    def metrics(self) -> Metrics:
        reply = self.get("/metrics")
        assert reply.status == 200, reply
        return Metrics(reply.body.decode())

    def rss_bytes(self) -> int:
        """The process's resident memory."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no VmRSS")

    @property
    def config_file(self) -> Path:
        """The file of `--config`."""
        return self.directory / "natsgate.toml"

    def reload(self, *, timeout_s: float = 10.0) -> dict[str, Any]:
        """Send SIGHUP; the line that says what became of it."""

        def said() -> list[dict[str, Any]]:
            return [line for line in self.logs() if line["event"] in ("reloaded", "reload_failed")]

        before = len(said())
        os.kill(self.pid, signal.SIGHUP)
        return wait_until(lambda: said()[before:], "a reload is answered in the log", timeout_s=timeout_s)[0]

    def terminate(self) -> None:
        """Send SIGTERM and do not wait."""
        assert self._process is not None, "the gateway is not running"
        self._process.send_signal(signal.SIGTERM)

    def wait(self, *, timeout_s: float) -> int:
        """The exit code; `subprocess.TimeoutExpired` when it lives on."""
        assert self._process is not None
        code = self._process.wait(timeout=timeout_s)
        self._process = None
        return code

    def stop(self, *, timeout_s: float = 5.0) -> int | None:
        """SIGTERM, then the exit code; killed (None) when it outlives `timeout_s` or does not run."""
        if self._process is None:
            return None
        self.terminate()
        try:
            return self.wait(timeout_s=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self) -> None:
        """End it at once, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


def routes(*tables: Sequence[str]) -> str:
    """TOML of `[[route]]` tables, each given as its lines."""
    return "\n".join("\n".join(["[[route]]", *lines, ""]) for lines in tables)
