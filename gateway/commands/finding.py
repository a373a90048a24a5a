"""What `natsgate check` found: one line each, and the mend of what is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

import orjson

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: `problem`: natsgate does not work, or not as promised; `note`: works, worth knowing; `ok`.
        about: `settings`, `auth`, `nats`, `permissions`, `stream` or `bucket`.
        text: what was found, one line.
        mend: the command or setting that mends it; empty for `ok`.
    """

    level: Level
    about: str
    text: str
    mend: str = ""

    def line(self) -> str:
        """The finding as one line for a terminal."""
        return f"{self.level:<8} {self.about:<12} {self.text}" + (f"; {self.mend}" if self.mend else "")


def problem(about: str, text: str, mend: str) -> Finding:
    """Something that is wrong, and what mends it."""
    return Finding("problem", about, text, mend)


def note(about: str, text: str, mend: str = "") -> Finding:
    """Something worth knowing."""
    return Finding("note", about, text, mend)


def fine(about: str, text: str) -> Finding:
    """Something that is as it has to be."""
    return Finding("ok", about, text)


def healthy(findings: Iterable[Finding]) -> bool:
    """Whether there is no problem among them."""
    return all(each.level != "problem" for each in findings)


def as_json(findings: Iterable[Finding]) -> str:
    """`{"ok": bool, "findings": [{"level","about","text","mend"}]}` on one line."""
    found = list(findings)
    return orjson.dumps({"ok": healthy(found), "findings": [asdict(each) for each in found]}).decode()
