"""A process of the benchmark: pinned to its cores, and gone when the benchmark is."""

import ctypes
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.bench.failure import Unmeasured

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Child:
    """A started process. Leaving the `with` block ends it: SIGTERM, and SIGKILL after `grace_s`.

    It has a session of its own, so Ctrl-C reaches only the benchmark, which then ends its children in order;
    and the kernel kills it should the benchmark die without a word.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        cores: frozenset[int],
        stderr: Path,
        env: Mapping[str, str] | None = None,
        grace_s: float = 5,
    ) -> None:
        self.name = Path(argv[0]).name
        self._grace_s = grace_s
        self._stderr_path = stderr

        def settle() -> None:
            os.sched_setaffinity(0, cores)
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        with stderr.open("ab") as errors:
            self._process = subprocess.Popen(
                [str(arg) for arg in argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=None if env is None else dict(env),
                start_new_session=True,
                # One thread here, and only system calls there: what makes preexec_fn dangerous is absent.
                preexec_fn=settle,
                text=True,
                bufsize=1,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def errors(self) -> str:
        """What it wrote on stderr so far."""
        return self._stderr_path.read_text(errors="replace")

    def check(self) -> None:
        """Raises Unmeasured when the process has ended."""
        if (code := self._process.poll()) is not None:
            raise Unmeasured(f"{self.name} ended with code {code}: {self.errors[-2000:]}")

    def ask(self, command: str) -> str:
        """Sends one line and returns the line that answers it. Raises Unmeasured when there is none."""
        stdin, stdout = self._pipes()
        try:
            stdin.write(command + "\n")
        except BrokenPipeError:
            self._process.wait()
            self.check()
        return self.read(stdout)

    def read(self, stdout: IO[str] | None = None) -> str:
        """The next line of stdout. Raises Unmeasured when there is none."""
        line = (stdout or self._pipes()[1]).readline()
        if not line:
            self._process.wait()
            self.check()
        return line.rstrip("\n")

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(self._grace_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in self._pipes():
            try:
                pipe.close()
            except BrokenPipeError:
                continue

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        return stdin, stdout
