"""The `natsgate` command: where it is, its environment, and running it to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

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
    """Run `natsgate <arguments>` to its end.

    Args:
        settings: names without the prefix, e.g. `{"NATS_URL": …}`.
        variables: further environment variables, by their full names.

    Raises:
        subprocess.TimeoutExpired: it did not end within `timeout_s` and was killed.
    """
    return subprocess.run(
        [NATSGATE, *arguments],
        env=environment(settings) | dict(variables or {}),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
