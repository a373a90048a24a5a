"""The case list of the Autobahn TestSuite, run by kosoku, a client that drives Autobahn's own case files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KOSOKU = str(Path(sys.executable).with_name("kosoku"))

CASES = {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1}
"""How many cases there are by section: framing, pings and pongs, reserved bits, opcodes, fragmentation, UTF-8, closing,
limits and performance, automatic fragmentation. 12 and 13 are compression, which the gateway does not offer."""

GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
"""What Autobahn itself counts as passed."""


@dataclass(frozen=True)
class Verdict:
    """One case: how the server behaved, and how the connection ended, in Autobahn's words."""

    behavior: str
    closing: str

    @property
    def passed(self) -> bool:
        return {self.behavior, self.closing} <= GOOD


def run(url: str, folder: Path, cases: Sequence[str], *, timeout_s: float) -> dict[str, Verdict]:
    """Run cases against an echo server.

    Args:
        folder: where the reports go; made if missing.
        cases: ids or patterns, such as `6.*`.

    Raises:
        subprocess.TimeoutExpired: it did not end in time.
        RuntimeError: it ended without a report.
    """
    chosen = [part for case in cases for part in ("--include", case)]
    done = subprocess.run(
        [KOSOKU, url, *chosen, "--parallelism", "4", "--outdir", str(folder)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    report = folder / "index.json"
    if not report.exists():
        raise RuntimeError(f"kosoku ended with {done.returncode}: {done.stdout}{done.stderr}")
    (verdicts,) = json.loads(report.read_text()).values()
    return {case: Verdict(each["behavior"], each["behaviorClose"]) for case, each in verdicts.items()}


def counted(verdicts: dict[str, Verdict]) -> dict[str, int]:
    """How many cases were run, by section."""
    return dict(Counter(case.split(".")[0] for case in verdicts))
