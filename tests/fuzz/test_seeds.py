"""The long run itself: it finds, and a seed finds the same again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PLANTED = """
from pathlib import Path
from hypothesis import given, strategies as st

@given(st.integers(0, 10**9))
def test_planted(number):
    with Path({log!r}).open("a") as log:
        print(number, file=log)
    assert number % 10 != {digit}
"""


def fuzz(folder: Path, seed: int, digit: int) -> tuple[int, str, list[str]]:
    """Exit code, output, and what a planted test was given, in order."""
    log = folder / f"given-{len(list(folder.iterdir()))}"
    (folder / "test_planted.py").write_text(PLANTED.format(log=str(log), digit=digit))
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--seed", str(seed), "--seconds", "0", str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, log.read_text().splitlines()


@pytest.mark.slow
def test_a_seed_finds_the_same_again(tmp_path: Path) -> None:
    """What is found ends the run with 1 and names the seed; that seed draws the same, another draws something else."""
    code, told, given = fuzz(tmp_path, 5, digit=7)
    assert code == 1
    assert "again: python -m tests.fuzz --seed 5" in told
    assert fuzz(tmp_path, 5, digit=7)[2] == given
    assert fuzz(tmp_path, 6, digit=7)[2] != given


@pytest.mark.slow
def test_a_run_without_finds_says_so(tmp_path: Path) -> None:
    """Nothing found: exit code 0."""
    code, told, given = fuzz(tmp_path, 5, digit=10)
    assert code == 0
    assert "nothing found" in told
    assert len(given) == 200
