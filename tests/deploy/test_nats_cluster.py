"""deploy/nats/cluster.conf on three real servers: they form a cluster, and natsgate works with its logins."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import StartGateway
from tests.deploy.files import DEPLOY, substituted
from tests.deploy.program import Program
from tests.support.command import natsgate
from tests.support.eventually import eventually
from tests.support.nats_server import nats_server_binary
from tests.support.ports import free_port
from tests.support.sse import SseClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

NAMES = ("nats-1", "nats-2", "nats-3")


class Trio:
    """The three servers; addresses, ports and stores are the test's, permissions.conf is beside each as it is.

    Attributes:
        urls: for NATS_URL.
    """

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        clients, routes = ({name: free_port() for name in NAMES} for _ in range(2))
        self.urls = ",".join(f"nats://127.0.0.1:{port}" for port in clients.values())
        addresses = {f"@{name}:6222": f"@127.0.0.1:{port}" for name, port in routes.items()}
        env = env | {"NATS_ROUTES": substituted(env["NATS_ROUTES"], addresses)}
        self._servers: list[Program] = []
        for name in NAMES:
            folder = directory / name
            folder.mkdir()
            text = substituted(
                (DEPLOY / "nats" / "cluster.conf").read_text("utf-8"),
                {
                    "listen: 0.0.0.0:4222": f"listen: 127.0.0.1:{clients[name]}",
                    "http: 0.0.0.0:8222": f"http: 127.0.0.1:{free_port()}",
                    "listen: 0.0.0.0:6222": f"listen: 127.0.0.1:{routes[name]}",
                    "store_dir: /data": f'store_dir: "{folder}"',
                },
            )
            (folder / "cluster.conf").write_text(text, "utf-8")
            (folder / "permissions.conf").write_bytes((DEPLOY / "nats" / "permissions.conf").read_bytes())
            given = ["env", *(f"{key}={value}" for key, value in env.items()), f"NATS_NAME={name}"]
            command = [*given, nats_server_binary(), "-c", str(folder / "cluster.conf")]
            self._servers.append(Program(command, folder, clients[name]))

    def start(self) -> None:
        for server in self._servers:
            server.start()

    def stop(self) -> None:
        for server in self._servers:
            server.stop()


@pytest.fixture
def passwords(tmp_path: Path) -> dict[str, str]:
    """What deploy/make-secrets.sh makes for NATS."""
    folder = tmp_path / "secrets"
    subprocess.run(["sh", str(DEPLOY / "make-secrets.sh"), str(folder)], check=True, capture_output=True)
    return dict(line.split("=", 1) for line in (folder / "nats.env").read_text().splitlines())


@pytest.fixture
async def trio(tmp_path: Path, passwords: dict[str, str]) -> AsyncIterator[Trio]:
    servers = Trio(tmp_path, passwords)
    try:
        await asyncio.to_thread(servers.start)
        yield servers
    finally:
        await asyncio.to_thread(servers.stop)


async def test_a_stream_of_three_copies_from_producer_to_client(
    trio: Trio, passwords: dict[str, str], start_gateway: StartGateway, own_id: str
) -> None:
    """The operator's login makes the stream on all three (tried again while the cluster forms, as compose does), the
    gateway's finds nothing to complain of, and what the publisher's login stores reaches a client."""

    def login(user: str) -> dict[str, object]:
        return {"NATS_URL": trio.urls, "NATS_USER": user, "NATS_PASSWORD": passwords[f"NATS_{user.upper()}_PASSWORD"]}

    async def provisioned() -> bool:
        done = await asyncio.to_thread(
            natsgate, "provision", "--replicas", "3", "--yes", settings=login("operator"), timeout_s=60
        )
        return done.returncode == 0

    await eventually(provisioned, "the stream is made", timeout_s=60)
    checked = await asyncio.to_thread(natsgate, "check", settings=login("gateway") | {"AUTH": "none"})
    assert checked.returncode == 0, checked
    gateway = await start_gateway(settings=login("gateway"))
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        await sse.ready()
        stored = await asyncio.to_thread(
            natsgate, "publish", f"repo.{own_id}.x", '{"n":1}', settings=login("publisher")
        )
        assert re.fullmatch(r"stored \d+ at one of [\d.: ]+\n", stored.stdout), stored
        assert (await sse.next_message()).data == '{"n":1}'
