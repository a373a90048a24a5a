"""The files of deploy/ and k8s/, and the programs that read them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
K8S = ROOT / "k8s"


def program(name: str, package: str) -> str:
    """The path of a program; where it is missing the test says so and is skipped, and in CI it fails."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        missing(f"{name} is not installed: {package}")
    return str(found)


def missing(what: str) -> None:
    """Something that this test needs is not there: never in silence, and never in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def substituted(text: str, replacements: Mapping[str, str]) -> str:
    """The text with addresses, ports and paths of the test in it, each of which has to be there to be replaced."""
    for old, new in replacements.items():
        assert old in text, f"{old!r} is not in the file any more"
        text = text.replace(old, new)
    return text


def documents(path: Path) -> list[Any]:
    """The documents of a YAML file."""
    return [each for each in yaml.safe_load_all(path.read_text("utf-8")) if each is not None]


def document(path: Path) -> Any:
    """The only document of a YAML file."""
    (only,) = documents(path)
    return only


def texts(*folders: Path) -> Iterator[tuple[Path, str]]:
    """Every file that git would keep in these folders, as text."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and ".secrets" not in path.parts:
                yield path, path.read_text("utf-8")
