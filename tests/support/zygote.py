"""`natsgate` processes that are forked from one which has imported it: half a second of imports less for each.

Only the imports are spared. Arguments, environment (but for what the interpreter itself reads from it), working
directory, descriptors, exit code and signals are those of any command, and `gateway.cli.main` runs in a process of its
own, to its own end. What has to be the installed command itself (what `ps` shows, limits set by a shell) is executed
instead; see `Gateway` and `natsgate`.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_PRELOADED = (
    *("cli", "server", "commands.bucket", "commands.check", "commands.provision", "commands.publish"),
    *("commands.revoke", "commands.tail", "commands.token", "commands.top"),
)
_MOST_BYTES = 150_000
"""Of one order: arguments and environment."""


class Forked:
    """A process like one of `subprocess.Popen`, whose parent is the zygote.

    Attributes:
        pid: its process id, also after its end.
        returncode: as of `Popen`; None while it lives.
    """

    def __init__(self, pid: int, ended: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code.

        Raises:
            subprocess.TimeoutExpired: it lives on after `timeout` seconds.
        """
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(["natsgate"], timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ends in this moment
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is not None:
            return self.returncode
        told = select.poll()  # not select(), which knows the first 1024 descriptors only
        told.register(self._ended, select.POLLIN)
        if told.poll(None if timeout is None else timeout * 1000):
            with self._lock:
                if self.returncode is None:
                    said = os.read(self._ended, 32)
                    os.close(self._ended)
                    assert said, "the zygote has ended, and nobody knows what became of its children"
                    self.returncode = int(said)
        return self.returncode

    def __del__(self) -> None:
        if self.returncode is None:
            os.close(self._ended)


class Zygote:
    """The process that forks. It starts with the first order and ends with this one.

    Concurrency: `fork` may be called from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._line: socket.socket | None = None

    def fork(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None,
        stdin: int,
        stdout: int,
        stderr: int,
    ) -> Forked:
        """Run `natsgate <arguments>`; the descriptors stay the caller's."""
        order = json.dumps([list(arguments), dict(env), str(cwd or Path.cwd())]).encode()
        assert len(order) < _MOST_BYTES, "too much for one order"
        mine, theirs = os.pipe()
        try:
            with self._lock:
                line, self._line = self._line or _started(), None
                socket.send_fds(line, [order], [stdin, stdout, stderr, theirs])
                pid = line.recv(32)
                self._line = line  # not after a test's time-out: its answer would be taken for the next one's
        finally:
            os.close(theirs)
        assert pid, "the zygote has ended"
        return Forked(int(pid), mine)


def _started() -> socket.socket:
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        # Nobody waits for it: it ends when our end of the line is closed, at the latest with this process.
        zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.support.zygote", str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
        zygote.returncode = 0
    return mine


ZYGOTE = Zygote()


def _serve(line: socket.socket) -> list[str] | None:
    """Fork for each order. Returns in the child, with its arguments, and with None when there is nobody to serve."""
    ended: dict[int, int] = {}

    def reap(number: int, frame: object) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            told = ended.pop(pid)
            with contextlib.suppress(BrokenPipeError):  # nobody wants to know
                os.write(told, b"%d" % os.waitstatus_to_exitcode(status))
            os.close(told)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests; children have their own way with it
    signal.signal(signal.SIGCHLD, reap)
    while True:
        order, descriptors, _, _ = socket.recv_fds(line, _MOST_BYTES, 4)
        if not order:
            return None
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if not pid:
            line.close()
            for each in ended.values():
                os.close(each)
            return _become(order, descriptors)
        ended[pid] = descriptors.pop()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        for each in descriptors:
            os.close(each)
        line.send(b"%d" % pid)


def _become(order: bytes, descriptors: list[int]) -> list[str]:
    arguments, env, cwd = json.loads(order)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    for number, each in enumerate(descriptors[:3]):
        os.dup2(each, number)
    for each in descriptors:
        os.close(each)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    time.tzset()
    return list(arguments)


def main() -> None:
    """The zygote, and in time its children."""
    for each in _PRELOADED:
        __import__(f"gateway.{each}")
    arguments = _serve(socket.socket(fileno=int(sys.argv[1])))
    if arguments is not None:
        from gateway.cli import main as natsgate

        sys.argv = ["natsgate", *arguments]
        natsgate()


if __name__ == "__main__":
    main()
