"""deploy/systemd: systemd takes the unit, its numbers fit the settings, and the gateway lives within its walls."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from nats.aio.client import Client

from gateway.reload import LIVE
from gateway.settings import Settings
from tests.deploy.capacity import FULL, SPARE_DESCRIPTORS, memory_bytes
from tests.deploy.environment import accepted
from tests.deploy.files import DEPLOY, program, substituted
from tests.deploy.manifests import amount
from tests.support.command import NATSGATE, environment
from tests.support.eventually import wait_until
from tests.support.http_reply import fetch
from tests.support.nats_server import NatsServer
from tests.support.ports import free_port
from tests.support.producer import publish
from tests.support.sse import SseClient

UNIT = DEPLOY / "systemd" / "natsgate@.service"
MARGIN_S = 10


def directives() -> dict[str, list[str]]:
    """What the unit says, by name."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in UNIT.read_text("utf-8").splitlines():
        if re.match(r"\w+=", line):
            name, _, value = line.partition("=")
            found[name].append(value)
    return found


def variables() -> dict[str, str]:
    """The environment of natsgate@8081: the unit's own, then the file for all."""
    text = " ".join(directives()["Environment"])
    own = dict(pair.split("=", 1) for pair in text.replace("%i", "8081").replace("%H", "host").split())
    lines = (DEPLOY / "systemd" / "natsgate.env").read_text("utf-8").splitlines()
    return own | dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_its_settings_are_settings(tmp_path: Path) -> None:
    """natsgate takes them; the port is the instance's, on this machine only, behind a proxy that is trusted."""
    settings = accepted(variables(), tmp_path, DEPLOY / "natsgate.toml")
    assert str(settings.listen) == "127.0.0.1:8081"
    assert settings.replica == "host-8081"


def test_its_credentials_are_what_it_loads() -> None:
    """Each secret that a setting names is handed over by LoadCredential."""
    loaded = {value.partition(":")[0] for value in directives()["LoadCredential"]}
    named = {value for name, value in variables().items() if name.endswith("_FILE")}
    assert named == {f"%d/{name}" for name in loaded}


def test_what_a_reload_does_not_reach_is_said() -> None:
    """systemd hands credentials and environment over when it starts a process, never to one that runs: those of them
    that SIGHUP could change otherwise need a restart, and unit, README and runbook say so beside the reload."""
    handed = {name.removeprefix("NATSGATE_").removesuffix("_FILE").lower() for name in variables()}
    assert {"jwt_secret", "trusted_proxies"} <= handed & LIVE
    unit, readme = UNIT.read_text("utf-8"), (DEPLOY / "README.md").read_text("utf-8")
    for text, begin, end in (
        (unit, "ExecStart=", "ExecReload="),
        (readme, "- **Settings**", "\n\n"),
        (readme, "### NatsgateAuthFailures", "\n## "),
    ):
        part = text[text.index(begin) :].split(end, 1)[0]
        assert "restart" in part, part
        assert "natsgate.toml" in part, part


def test_its_limits_fit_the_settings() -> None:
    """Time for a drain, descriptors and memory for MAX_CONNECTIONS, no restart because of wrong settings."""
    unit = {name: values[-1] for name, values in directives().items()}
    env = variables()
    drain_s = float(env.get("NATSGATE_DRAIN_DELAY_S", 5)) + float(env.get("NATSGATE_DRAIN_S", 30))
    assert float(unit["TimeoutStopSec"]) >= drain_s + MARGIN_S
    connections = float(env.get("NATSGATE_MAX_CONNECTIONS", Settings.model_fields["max_connections"].default))
    assert float(unit["LimitNOFILE"]) >= connections + SPARE_DESCRIPTORS
    needed = memory_bytes(connections=connections, log_bytes=Settings.model_fields["log_bytes"].default)
    assert amount(unit["MemoryMax"].replace("M", "Mi")) * FULL >= needed
    assert unit["RestartPreventExitStatus"] == "2"
    assert unit["ExecStart"] == "/opt/natsgate/bin/natsgate serve --config /etc/natsgate/natsgate.toml"


@pytest.mark.slow
def test_systemd_takes_it(tmp_path: Path) -> None:
    """systemd-analyze finds nothing wrong, and calls its exposure OK."""
    analyze = program("systemd-analyze", "apt-get install systemd")
    for name in (UNIT.name, UNIT.name.replace("@", "@8081")):
        text = substituted(UNIT.read_text("utf-8"), {"/opt/natsgate/bin/natsgate": NATSGATE})
        (tmp_path / name).write_text(text, "utf-8")
    done = subprocess.run(
        [analyze, "verify", str(tmp_path / "natsgate@8081.service")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(
        [analyze, "security", "--offline=yes", "--threshold=20", str(tmp_path / UNIT.name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"exposure above 2.0: {done.stdout}"


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_the_gateway_makes_no_system_call_that_is_filtered(
    nats_server: NatsServer, nc: Client, tmp_path: Path, own_id: str
) -> None:
    """From its start through a client and an event to its end, all that it asks of the kernel is let through."""
    analyze = program("systemd-analyze", "apt-get install systemd")

    def group(name: str) -> set[str]:
        listing = subprocess.run([analyze, "syscall-filter", name], capture_output=True, text=True, check=True).stdout
        calls: set[str] = set()
        for word in re.findall(r"^    (@?\w[\w-]*)$", listing, re.MULTILINE):
            calls |= group(word) if word.startswith("@") else {word}
        return calls

    allowed: set[str] = group("@default")
    for rule in directives()["SystemCallFilter"]:
        names = [group(word) if word.startswith("@") else {word} for word in rule.lstrip("~").split()]
        calls = set[str]().union(*names)
        allowed = allowed - calls if rule.startswith("~") else allowed | calls
    port = free_port()
    settings = {"LISTEN": f"127.0.0.1:{port}", "AUTH": "none", "NATS_URL": nats_server.url}
    trace = tmp_path / "trace"
    # -D: the gateway is our child, and strace its shadow.
    strace = program("strace", "apt-get install strace")
    command = [strace, "-D", "-f", "-qq", "-o", str(trace), NATSGATE, "serve"]
    running = await asyncio.create_subprocess_exec(*command, env=environment(settings), stderr=subprocess.DEVNULL)
    try:
        await asyncio.to_thread(wait_until, lambda: ready(port), "/readyz answers 200", timeout_s=60)
        async with SseClient(f"http://127.0.0.1:{port}", f"repo.{own_id}.>") as sse:
            await sse.ready(timeout_s=30)
            await publish(nc, f"repo.{own_id}.x", "{}")
            await sse.next_message(timeout_s=30)
        await asyncio.to_thread(fetch, "127.0.0.1", port, "/metrics")
    finally:
        running.terminate()
        async with asyncio.timeout(60):
            await running.wait()
    used = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text("utf-8", "replace"), re.MULTILINE))
    assert {"accept4", "sendto"} & used or {"accept", "write"} & used, "it was traced"
    assert used - allowed == set()


def ready(port: int) -> bool:
    try:
        return fetch("127.0.0.1", port, "/readyz").status == 200
    except OSError:
        return False
