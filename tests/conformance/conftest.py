"""The echo server, as its command serves it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def echo_url() -> Iterator[str]:
    """The URL of `python -m tests.conformance.echo`; it has to end with 0 and without a word."""
    process = subprocess.Popen(
        [sys.executable, "-W", "always", "-m", "tests.conformance.echo", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        yield process.stdout.readline().strip()
        process.send_signal(signal.SIGTERM)
        said = process.stdout.read()
        assert process.wait(timeout=10) == 0
    assert said == ""
