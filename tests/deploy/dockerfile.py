"""The Dockerfile, read: its stages and their instructions."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.deploy.files import DEPLOY

FILE = DEPLOY / "Dockerfile"


class Instruction(NamedTuple):
    """One instruction, its lines joined."""

    name: str
    text: str


def stages() -> list[list[Instruction]]:
    """The instructions of each stage, FROM first; what comes before the first FROM is left out."""
    lines = [line for line in FILE.read_text("utf-8").splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found: list[list[Instruction]] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        name, _, text = line.partition(" ")
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append(Instruction(name, re.sub(r"\s+", " ", text)))
    return found


def of(stage: list[Instruction], name: str) -> list[str]:
    """The texts of the instructions of a name."""
    return [each.text for each in stage if each.name == name]


def environment(stage: list[Instruction]) -> dict[str, str]:
    """What ENV sets."""
    (text,) = of(stage, "ENV")
    return dict(pair.split("=", 1) for pair in text.split(" "))
