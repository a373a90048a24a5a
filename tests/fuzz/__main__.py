"""`python -m tests.fuzz --seed N --seconds S`: all property tests of the suite, drawn anew from seed to seed."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.profile import PROFILE

ROOT = Path(__file__).parent.parent.parent
ROUND_TIMEOUT_S = 600
"""How long one test of a round may take."""


def play(seed: int, paths: Sequence[str]) -> int:
    """One round: the property tests below these paths with the examples of this seed. Returns pytest's exit code."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-m", "hypothesis", "--tb=short", f"--timeout={ROUND_TIMEOUT_S}"),
            *("-p", "no:cacheprovider", "-p", "tests.fuzz.profile", "-c", str(ROOT / "pyproject.toml")),
            *(f"--hypothesis-profile={PROFILE}", f"--hypothesis-seed={seed}", *paths),
        ],
        cwd=ROOT,
        check=False,
    ).returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """Play rounds until the time is over. Returns 0 when nothing was found, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; each further one takes the next")
    parser.add_argument("--seconds", type=float, default=60.0, help="after which no further round begins")
    parser.add_argument("paths", nargs="*", default=["tests"], metavar="path", help="test files; absent: all")
    chosen = parser.parse_args(arguments)
    end = time.monotonic() + chosen.seconds
    seed = chosen.seed
    while seed == chosen.seed or time.monotonic() < end:
        print(f"seed {seed}", flush=True)
        if play(seed, chosen.paths):
            print(f"FAILED; again: python -m tests.fuzz --seed {seed} --seconds 0")
            return 1
        seed += 1
    print(f"rounds: {seed - chosen.seed}; nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
