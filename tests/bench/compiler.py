"""The benchmark's two C programs, built when they are needed."""

import shutil
import subprocess
from pathlib import Path

from tests.bench.failure import Unmeasured

_HERE = Path(__file__).parent


def build(name: str, folder: Path) -> Path:
    """Compiles `name`.c of this folder into `folder`. Raises Unmeasured where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise Unmeasured("no C compiler (cc): the floor and the clients are C programs")
    program = folder / name
    made = subprocess.run(
        [compiler, "-O2", "-Wall", "-Wextra", "-o", program, _HERE / f"{name}.c"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise Unmeasured(f"{name}.c: {made.stderr}")
    return program
