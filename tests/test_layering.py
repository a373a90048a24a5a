"""The layers: arrows of imports point inward only, and each foreign library has one door."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted([*ROOT.glob("gateway/**/*.py"), *ROOT.glob("publishers/**/*.py")])

IMPURE = {
    "asyncio", "gateway.logs", "logging", "nats", "os", "prometheus_client", "socket", "starlette",
    "structlog", "subprocess", "threading", "time", "uvicorn", "uvloop",
}  # fmt: skip
"""What the core may not know: clocks, loops, environment, logs, networks."""

ONE_DOOR = {
    "uvicorn": {"gateway.transports.http_server"},
    "prometheus_client": {"gateway.metrics"},
    "pydantic": {"gateway.settings", "gateway.values", "gateway.core.routes"},
    "structlog": {"gateway.logs"},
    "websockets": {"gateway.transports.http_server"},
    "jwt": {"gateway.auth.jose"},
    "cryptography": {"gateway.auth.jose"},
    "httpx": {
        "gateway.auth.download", "gateway.commands.address", "gateway.commands.scrape", "gateway.commands.sse_client",
    },
}  # fmt: skip

ROOMS = {
    "gateway.settings", "gateway.auth", "gateway.metrics", "gateway.transports", "gateway.upstream",
}  # fmt: skip
"""The shell's rooms: they do not import each other, they meet in what is composing."""

COMPOSING = {
    "gateway.app", "gateway.background", "gateway.cors", "gateway.door", "gateway.identity", "gateway.listening",
    "gateway.nats_settings", "gateway.readiness", "gateway.reload", "gateway.replies", "gateway.routing",
    "gateway.samples", "gateway.server", "gateway.source", "gateway.cli", "gateway.commands", "gateway.dev",
    "gateway.__main__",
}  # fmt: skip
"""Where the rooms meet: one replica (`gateway.app` and `gateway.server`, with what they are made of), the command line
and its commands."""

LARGEST_LINES = 400


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def composes(name: str) -> bool:
    return any(within(name, each) for each in COMPOSING)


def room_of(name: str) -> str | None:
    return next((room for room in ROOMS if within(name, room)), None)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    """Each module keeps to its layer: a pure core, rooms that do not know each other, publishers without a gateway."""
    name = name_of(path)
    for imported in imports_of(path):
        if within(name, "publishers"):
            assert not within(imported, "gateway"), f"{name} imports {imported}"
        if within(name, "gateway") and within(imported, "publishers") and not composes(name):
            assert within(imported, "publishers.wire"), f"{name} imports {imported}"
        if within(name, "gateway.core"):
            assert not any(within(imported, each) for each in IMPURE), f"{name} imports {imported}"
            assert not within(imported, "gateway") or within(imported, "gateway.core"), f"{name} imports {imported}"
            assert not re.search(r"\.(now|utcnow|today)\(", path.read_text("utf-8")), f"{name} looks at a clock"
        mine, theirs = room_of(name), room_of(imported)
        if mine is not None and theirs is not None:
            assert mine == theirs, f"{name} imports {imported}"
        if within(name, "gateway") and not composes(name):
            assert not composes(imported), f"{name} imports {imported}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_foreign_library_has_one_door(path: Path) -> None:
    """Each foreign library, and the environment, is entered by a module of its own."""
    name = name_of(path)
    for imported in imports_of(path):
        for library, doors in ONE_DOOR.items():
            if within(imported, library) and within(name, "gateway"):
                assert name in doors, f"{name} imports {imported}"
        if within(imported, "nats"):
            allowed = name == "gateway.upstream.connection" or name == "publishers.link"
            assert allowed, f"{name} imports {imported}"
    if within(name, "gateway") and name not in ("gateway.settings", "gateway.dev"):
        assert "os.environ" not in path.read_text("utf-8"), f"{name} reads the environment"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_a_few_screens(path: Path) -> None:
    """No module grows into a house of its own."""
    assert len(path.read_text("utf-8").splitlines()) <= LARGEST_LINES


def test_the_rules_see_a_forbidden_import(tmp_path: Path) -> None:
    """The reader of imports finds every way to spell one."""
    module = tmp_path / "m.py"
    module.write_text("import nats.aio\nfrom uvicorn import Config\ndef f():\n    import os.path\n", "utf-8")

    assert set(imports_of(module)) == {"nats.aio", "uvicorn", "uvicorn.Config", "os.path"}


def test_who_asks_nobody_over_http_does_without_httpx() -> None:
    """A gateway without an issuer, and the commands that talk to NATS, do not wait for it to be loaded."""
    modules = "gateway.cli, gateway.server, gateway.commands.publish, gateway.commands.check, gateway.commands.revoke"
    loaded = f"import sys, {modules}; print(sorted({{'httpx', 'nats'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "['nats']\n"
