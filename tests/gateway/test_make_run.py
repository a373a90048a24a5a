"""`make run` on a fresh clone: one command, and what it leaves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.dev import Dev
from tests.support.eventually import wait_until

PROJECT = Path(__file__).parents[2]
NEEDED = ("Makefile", "README.md", "LICENSE", "pyproject.toml", "gateway", "publishers")
INSTALL_S = 240


class MakeRun(Dev):
    """`make run` in the folder, with this user's own HOME, where pip keeps what it downloads."""

    def command(self, arguments: Sequence[str]) -> Sequence[str]:
        return "make", "run", f"ARGS={' '.join(arguments)}"

    def files(self) -> set[Path]:
        """All there is in the folder, but in `.natsgate/` and the venv."""
        inside = {each.relative_to(self.folder) for each in self.folder.rglob("*")}
        return {each for each in inside if each.parts[0] not in (".natsgate", ".venv")}


@pytest.mark.slow
@pytest.mark.timeout(INSTALL_S + 60)
def test_a_fresh_clone_serves_events_and_stays_clean(tmp_path: Path) -> None:
    """`make run` makes a venv, installs and serves; after Ctrl-C no process is left, and no file but in `.natsgate/`
    and `.venv/`, though Python may write what it compiles."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in NEEDED:
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(PROJECT / name, folder / name)
    variables = {"HOME": os.environ["HOME"], "PYTHONDONTWRITEBYTECODE": ""}
    run = MakeRun(folder, tmp_path / "around", variables=variables)
    before = run.files()
    with run:
        wait_until(run.is_ready, "make run serves", timeout_s=INSTALL_S, every_s=0.2)
        assert run.token in run.output
        run.interrupt()
        run.wait(timeout_s=10)
        assert "Traceback" not in run.output, run.output
        assert run.processes() == {}
        assert run.files() == before
        assert not list(run.temporary.iterdir())
