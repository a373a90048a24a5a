"""The `natsgate` command: where it is, its environment, and running it to its end."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from tests.support.zygote import ZYGOTE

NATSGATE = str(Path(sys.executable).with_name("natsgate"))


def environment(settings: Mapping[str, object]) -> dict[str, str]:
    """This process's environment with `NATSGATE_<name>` for each setting, and no other of that prefix."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NATSGATE_")}
    return kept | {f"NATSGATE_{name}": str(value) for name, value in settings.items()}


def natsgate(
    *arguments: str,
    settings: Mapping[str, object],
    cwd: Path | None = None,
    variables: Mapping[str, str] | None = None,
    timeout_s: float = 15.0,
) -> subprocess.CompletedProcess[str]:
    """Run `natsgate <arguments>` to its end, forked (see `tests.support.zygote`).

    Args:
        settings: names without the prefix, e.g. `{"NATS_URL": …}`.
        variables: further environment variables, by their full names.

    Raises:
        subprocess.TimeoutExpired: it did not end within `timeout_s` and was killed.
    """
    with (
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
        open(os.devnull, "rb") as stdin,
    ):
        process = ZYGOTE.fork(
            arguments,
            env=environment(settings) | dict(variables or {}),
            cwd=cwd,
            stdin=stdin.fileno(),
            stdout=stdout.fileno(),
            stderr=stderr.fileno(),
        )
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        said = [_text(each) for each in (stdout, stderr)]
    return subprocess.CompletedProcess(["natsgate", *arguments], code, *said)


def _text(written: IO[bytes]) -> str:
    written.seek(0)
    return written.read().decode()
