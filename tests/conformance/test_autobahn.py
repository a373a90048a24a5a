"""RFC 6455 by the case list that WebSocket implementations are measured by."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.conformance.suite import CASES, Verdict, counted, run

QUICK = [section for section in CASES if section != "9"]
STRICT = Verdict("OK", "OK")
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}
"""Cases that Autobahn only reports on: RFC 6455 leaves what happens in them open."""


def judge(verdicts: dict[str, Verdict], *sections: str) -> None:
    """All cases of the sections were run, and passed without an excuse."""
    assert counted(verdicts) == {section: CASES[section] for section in sections}
    lax = {case: verdict for case, verdict in verdicts.items() if verdict != STRICT and case not in INFORMATIONAL}
    assert not lax
    assert all(verdict.passed for verdict in verdicts.values())


def test_the_protocol(echo_url: str, tmp_path: Path) -> None:
    """Framing, control frames, fragmentation, UTF-8 (as early as the strict cases want it) and closing: 247 cases."""
    judge(run(echo_url, tmp_path, [f"{section}.*" for section in QUICK], timeout_s=55), *QUICK)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_large_and_many_messages(echo_url: str, tmp_path: Path) -> None:
    """Messages of up to 16 MiB in one frame, in fragments and in small pieces, and 1,000 round trips: 54 cases."""
    judge(run(echo_url, tmp_path, ["9.*"], timeout_s=290), "9")


BROKEN = """
import asyncio
from gateway.core import frames
from tests.conformance import echo

class Broken(echo.EchoConnection):
    def message(self, text):
        self.write(frames.text(text[:125]))

    def _received(self, opcode, payload):
        if opcode != 0x9:
            super()._received(opcode, payload)

asyncio.run(echo.serve(0, Broken))
"""


def test_a_wrong_server_fails(tmp_path: Path) -> None:
    """A server that cuts long messages and answers no ping fails just these cases: the suite does look."""
    with subprocess.Popen([sys.executable, "-c", BROKEN], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        verdicts = run(url, tmp_path, ["1.1.1", "1.1.2", "1.1.3", "1.2.3", "2.2"], timeout_s=55)
        process.send_signal(signal.SIGTERM)
    failed = {case for case, verdict in verdicts.items() if not verdict.passed}
    assert failed == {"1.1.3", "2.2"}


async def test_any_client_is_echoed_without_a_limit(echo_url: str) -> None:
    """Text and binary messages far beyond the gateway's own limit come back as they were."""
    async with asyncio.timeout(30), connect(f"{echo_url}/any/path", max_size=None, proxy=None) as client:
        for message in ("ü" * 500_000, bytes(range(256)) * 8192, "", b""):
            await client.send(message)
            assert await client.recv() == message
