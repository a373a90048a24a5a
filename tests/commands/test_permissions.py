"""deploy/nats/permissions.conf, loaded by a real nats-server: natsgate works with it, and forgers do not."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from publishers import Publisher, Settings
from tests.auth.following import Following
from tests.support.barrier import barrier
from tests.support.command import natsgate
from tests.support.gateway import Gateway
from tests.support.nats_server import NatsServer
from tests.support.sse import SseClient

FOLDER = Path(__file__).parents[2] / "deploy" / "nats"
JWT: dict[str, object] = {"AUTH": "jwt", "JWT_SECRET": "x" * 32}
LOGINS = ("gateway", "publisher", "service", "operator")

Login = Callable[[str], Awaitable["Watched"]]


def settings(server: NatsServer, login: str) -> dict[str, object]:
    """The settings of a command that logs in so."""
    return {"NATS_URL": server.url, "NATS_USER": login, "NATS_PASSWORD": f"pw{login}", "AUTH": "none"}


class Watched:
    """A nats-py client and the errors that its server sent it."""

    def __init__(self) -> None:
        self.nc: Client = Client()
        self.errors: list[str] = []

    async def noted(self, error: Exception) -> None:
        self.errors.append(str(error).lower())

    async def refused(self, verb: str, subject: str) -> bool:
        """Try it; whether the server answers with a permissions violation before it answers the next ping."""
        if verb == "publish":
            await self.nc.publish(subject, b"{}")
        else:
            await self.nc.subscribe(subject)
        await barrier(self.nc)
        return any(f"{verb[:7]}" in each and f'"{subject.lower()}"' in each for each in self.errors)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """nats-server with that very file, provisioned by its operator."""
    folder = tmp_path_factory.mktemp("permissions")
    with pytest.MonkeyPatch.context() as patch:
        for login in LOGINS:
            patch.setenv(f"NATS_{login.upper()}_PASSWORD", f"pw{login}")
        running = NatsServer(folder, arguments=["-c", str(FOLDER / "permissions.conf")])
        running.start()
    try:
        done = natsgate("provision", settings=settings(running, "operator"))
        assert done.returncode == 0, done
        yield running
    finally:
        running.stop()


@pytest.fixture
async def login(server: NatsServer) -> AsyncIterator[Login]:
    """Log in as one of the users."""
    opened: list[Client] = []

    async def connect(name: str) -> Watched:
        client = Watched()
        await client.nc.connect(server.url, user=name, password=f"pw{name}", error_cb=client.noted)
        opened.append(client.nc)
        return client

    yield connect
    for each in opened:
        await each.close()


async def test_gateway_and_publishers_work(server: NatsServer, tmp_path: Path) -> None:
    """An event of a publisher reaches a client of the gateway, live and from the stream; `check` is content."""
    for auth in ({}, JWT):
        login_ = settings(server, "gateway") | auth
        done = await asyncio.to_thread(natsgate, "check", "--json", settings=login_)
        assert done.returncode == 0, done
        levels = {each["level"] for each in json.loads(done.stdout)["findings"]}
        assert levels == {"ok"}, done.stdout
    async with Gateway(tmp_path / "gateway", server.url, settings(server, "gateway")) as gateway:
        await asyncio.to_thread(gateway.wait_ready)
        async with (
            Publisher(Settings(servers=server.url, user="publisher", password="pwpublisher")) as publisher,
            SseClient(gateway.url, "repo.1.>") as live,
        ):
            await live.ready()
            await publisher.publish("repo.1.x", b'{"n":1}')
            assert (await live.next_event()).json() == {"n": 1}
        async with SseClient(gateway.url, "repo.1.>", query={"since": "all"}) as replayed:
            assert (await replayed.next_event()).json() == {"n": 1}
        assert not [line for line in gateway.logs() if "violation" in json.dumps(line)]


@pytest.mark.parametrize("name", ["gateway", "publisher", "service", "operator"])
async def test_only_the_server_publishes_live_events(login: Login, name: str) -> None:
    """A permissions violation for everybody who tries."""
    assert await (await login(name)).refused("publish", "live.repo.1.x")


async def test_control_belongs_to_operators_and_gateways(login: Login) -> None:
    """Operators publish it and gateways listen; nobody else does either."""
    gateway, operator = await login("gateway"), await login("operator")
    assert not await gateway.refused("subscription", "natsgate.control.>")
    assert not await operator.refused("publish", "natsgate.control.reload")
    assert await gateway.refused("publish", "natsgate.control.reload")
    for name in ("publisher", "service"):
        client = await login(name)
        assert await client.refused("publish", "natsgate.control.reload")
        assert await client.refused("subscription", "natsgate.control.>")


async def test_a_service_answers_the_gateway_and_nobody_else_does(login: Login) -> None:
    """`natsgate.authorize.>`: the gateway asks, a service answers; a publisher can do neither."""
    gateway, service, publisher = await login("gateway"), await login("service"), await login("publisher")

    async def answer(message: Msg) -> None:
        await message.respond(b'{"allow":true}')

    await service.nc.subscribe("natsgate.authorize.>", cb=answer)
    await barrier(service.nc)
    assert (await gateway.nc.request("natsgate.authorize.r", b"{}")).data == b'{"allow":true}'
    assert not service.errors
    assert await publisher.refused("subscription", "natsgate.authorize.>")
    assert await publisher.refused("publish", "natsgate.authorize.r")


async def test_operators_revoke_and_gateways_follow(server: NatsServer, login: Login) -> None:
    """An operator's login writes and lists; a gateway's follows, live and by reading; nobody else writes or listens."""
    at = ["--at", "2026-01-01T00:00:00Z"]
    async with Following(server.url, user="gateway", password="pwgateway") as replica:
        await replica.loaded()
        done = await asyncio.to_thread(natsgate, "revoke", "alice", *at, settings=settings(server, "operator"))
        assert done.returncode == 0, done
        await replica.holds({"alice": 1767225600.0})
        await replica.until(lambda: not replica.revocations.ledger.heard_bytes, "it was read, too")
        assert (replica.revocations.reasons, replica.troubles) == ([], [])
    done = await asyncio.to_thread(natsgate, "revoke", "--list", settings=settings(server, "operator"))
    assert done.stdout == "2026-01-01T00:00:00Z alice\n", done
    done = await asyncio.to_thread(natsgate, "revoke", "--lift", "alice", settings=settings(server, "operator"))
    assert done.returncode == 0, done
    for name in ("gateway", "publisher", "service"):
        assert await (await login(name)).refused("publish", "$KV.natsgate_revoked.alice")
    for name in ("publisher", "service"):
        assert await (await login(name)).refused("subscription", "$KV.natsgate_revoked.>")
    done = await asyncio.to_thread(natsgate, "revoke", "alice", settings=settings(server, "publisher"))
    assert done.returncode == 2
    assert "may not publish to $JS.API.STREAM.INFO.KV_natsgate_revoked" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["revoke", "alice"], "gateway"),
        (["revoke", "alice"], "publisher"),
        (["revoke", "--list"], "publisher"),
        (["provision", "--max-age", "3h", "--yes"], "gateway"),
        (["provision"], "service"),
    ],
)
async def test_what_operators_do_needs_their_login(server: NatsServer, arguments: list[str], name: str) -> None:
    """Whoever may not is told which login may, and not to give the right to this one: the gateway's lacks it on
    purpose."""
    done = await asyncio.to_thread(natsgate, *arguments, settings=settings(server, name))
    assert done.returncode == 2, done
    assert "the NATS login may not publish to $" in done.stderr
    assert done.stderr.endswith("; run this with the operator's login (deploy/nats/README.md)\n")
    assert "allow" not in done.stderr


async def test_a_gateway_makes_no_consumer(login: Login) -> None:
    """A push consumer delivers wherever it is told to: the right to make one would be the right to forge events."""
    gateway = await login("gateway")
    for stream in ("EVENTS", "KV_natsgate_revoked"):
        assert await gateway.refused("publish", f"$JS.API.CONSUMER.CREATE.{stream}.forger")


async def test_a_publisher_publishes_roots_only(login: Login) -> None:
    """Roots of events, but neither the inbox nor JetStream's API, and it listens to nobody's events."""
    publisher = await login("publisher")
    for root in ("repo", "task", "project", "user", "ci"):
        assert not await publisher.refused("publish", f"{root}.1.x")
    for subject in ("inbox.project.1.x", "$JS.API.STREAM.DELETE.EVENTS", "$JS.API.CONSUMER.CREATE.EVENTS", "other.1"):
        assert await publisher.refused("publish", subject)
    for subject in ("live.>", "repo.>", "inbox.>", ">"):
        assert await publisher.refused("subscription", subject)


async def test_check_names_each_permission_that_lacks(server: NatsServer) -> None:
    """With a publisher's login: what it may not is listed, with where to look, and exit code 2."""
    done = await asyncio.to_thread(natsgate, "check", settings=settings(server, "publisher"))
    assert done.returncode == 2, done
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem")]
    for subject in ("$JS.API.STREAM.INFO.EVENTS", "$JS.API.STREAM.MSG.GET.EVENTS", "$JS.API.DIRECT.GET.EVENTS"):
        assert [line for line in problems if f"publish {subject};" in line], done.stdout
    assert [line for line in problems if "subscribe live.>" in line]
    assert all("permissions.conf" in line for line in problems)
    assert not [line for line in problems if "natsgate_revoked" in line]  # nobody can be revoked without tokens
    done = await asyncio.to_thread(natsgate, "check", settings=settings(server, "publisher") | JWT)
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem")]
    for what in ("INFO", "MSG.GET"):
        assert [line for line in problems if f"publish $JS.API.STREAM.{what}.KV_natsgate_revoked;" in line], done.stdout
    assert [line for line in problems if "publish $JS.API.DIRECT.GET.KV_natsgate_revoked;" in line]
    assert [line for line in problems if "subscribe $KV.natsgate_revoked.>;" in line]


async def test_check_sees_a_missing_inbox_and_a_barred_root(tmp_path: Path) -> None:
    """No inbox: said at once, since no answer can come. No right to `inbox.>`: a problem; to another root: a note."""
    config = tmp_path / "nats.conf"
    deaf = '{ user: deaf, password: pw, permissions { publish: ">", subscribe: "live.>" } }'
    mute = '{ user: mute, password: pw, permissions { publish { deny: ["inbox.>", "repo.>"] } } }'
    config.write_text(f"authorization {{ users: [ {deaf}, {mute} ] }}\n")
    async with NatsServer(tmp_path / "nats", arguments=["-c", str(config)]) as server:
        said = {}
        for user in ("deaf", "mute"):
            login = {"NATS_URL": server.url, "NATS_USER": user, "NATS_PASSWORD": "pw", "AUTH": "none"}
            done = await asyncio.to_thread(natsgate, "check", settings=login)
            assert done.returncode == 2
            said[user] = done.stdout
    assert re.search(r"problem\s+permissions\s.* may not subscribe _INBOX\.>", said["deaf"])
    assert re.search(r"problem\s+permissions\s.* may not publish inbox\.>", said["mute"])
    assert re.search(r"note\s+permissions\s.* may not publish repo\.>", said["mute"])


def test_the_table_and_the_file_name_the_same_logins() -> None:
    """The README's table has a column per login, and every password it asks for is in the file."""
    table, config = (FOLDER / "README.md").read_text(), (FOLDER / "permissions.conf").read_text()
    assert "| subject | " + " | ".join(LOGINS) + " | why |" in table
    for name in LOGINS:
        assert f"user: {name}" in config
        assert f"${f'NATS_{name.upper()}_PASSWORD'}" in config
        assert f"NATS_{name.upper()}_PASSWORD" in table
