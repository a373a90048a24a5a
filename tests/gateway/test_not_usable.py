"""Why NATS cannot be used: `/readyz` and the log say it in the same words, with the mend."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.conftest import StartGateway
from tests.support.eventually import wait_until
from tests.support.gateway import Gateway
from tests.support.nats_server import NatsServer
from tests.support.ports import free_port

MEND = "check NATSGATE_NATS_URL, the login (NATSGATE_NATS_*), and that nats-server runs"


def reasons(gateway: Gateway) -> list[str]:
    """What `/readyz` gives as reasons."""
    told: list[str] = json.loads(gateway.get("/readyz").body)["reasons"]
    return told


async def until(gateway: Gateway, said: str) -> str:
    """Wait until a reason of `/readyz` holds this, and a line `not_usable` has that very reason; the reason."""

    def both() -> list[str]:
        logged = [reason for line in gateway.logs("not_usable") for reason in line["reasons"]]
        return [each for each in reasons(gateway) if said in each and each in logged]

    await asyncio.to_thread(wait_until, both, f"/readyz and the log say {said}")
    return both()[0]


async def test_a_nats_that_is_not_there_is_logged_once(start_gateway: StartGateway) -> None:
    """Nothing listens: `not_usable` with the mend, once for many attempts, and `nats_error` with the server."""
    port = free_port()
    gateway = await start_gateway(nats_url=f"nats://alice:shibboleth@127.0.0.1:{port}", ready=False)
    said = await until(gateway, "NATS is not connected: ")
    assert said.endswith(MEND)
    await asyncio.to_thread(
        wait_until,
        lambda: sum(1 + line["held_back"] for line in gateway.logs("nats_error")) >= 5,
        "it was tried again and again",
    )
    assert [line["reasons"] for line in gateway.logs("not_usable")] == [[said]]
    assert {line["server"] for line in gateway.logs("nats_error")} == {f"127.0.0.1:{port}"}
    assert "shibboleth" not in gateway.log_text


async def test_a_login_that_is_refused_is_logged(tmp_path: Path, start_gateway: StartGateway) -> None:
    """A wrong password at the start: the reason says so, and which server it was, and shows nothing of the login."""
    (tmp_path / "nats.conf").write_text("authorization { user: alice, password: shibboleth }")
    async with NatsServer(tmp_path / "nats", arguments=["-c", str(tmp_path / "nats.conf")]) as server:
        gateway = await start_gateway(nats_url=server.url, ready=False, NATS_USER="alice", NATS_PASSWORD="sibboleth")
        said = await until(gateway, "NATS is not connected: ")
        assert "authorization" in said.lower()
        assert said.endswith(MEND)
        assert {line["server"] for line in gateway.logs("nats_error")} == {f"127.0.0.1:{server.port}"}
        assert "ibboleth" not in gateway.log_text


@pytest.mark.parametrize(
    ("rights", "lacks"),
    [
        ('publish: "live.>", subscribe: ">"', "publish to $JS.API.STREAM.INFO.EVENTS"),
        ('publish: ">", subscribe: "live.>"', "subscribe to _INBOX.>"),
    ],
)
async def test_a_permission_that_lacks_is_named(
    tmp_path: Path, start_gateway: StartGateway, rights: str, lacks: str
) -> None:
    """The stream's leader cannot be asked: which right lacks, and where it is given, and not only that no answer
    came."""
    config = tmp_path / "nats.conf"
    config.write_text(f"authorization {{ users: [ {{ user: u, password: pw, permissions {{ {rights} }} }} ] }}\n")
    async with NatsServer(tmp_path / "nats", arguments=["-c", str(config)]) as server:
        gateway = await start_gateway(nats_url=server.url, ready=False, NATS_USER="u", NATS_PASSWORD="pw")
        said = await until(gateway, lacks)
        assert said == f"the NATS login may not {lacks}; allow it as in deploy/nats/permissions.conf"
        assert not [each for each in reasons(gateway) if "no answer" in each]
