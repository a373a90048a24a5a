"""A process that is frozen for a while: its connections stay, nothing of it moves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.eventually import wait_until


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """SIGSTOP, until all of its threads have stopped; SIGCONT at the end."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: _stopped(pid), f"process {pid} has stopped")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _stopped(pid: int) -> bool:
    try:
        threads = [each.read_text() for each in Path(f"/proc/{pid}/task").glob("*/stat")]
    except FileNotFoundError:
        return False  # a thread has ended meanwhile
    return all(thread.rpartition(")")[2].split()[0] == "T" for thread in threads)
