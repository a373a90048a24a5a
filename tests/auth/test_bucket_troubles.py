"""When the bucket of revoked users cannot be read, or is not as it has to be: said once, with a mend, and mended."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.js.kv import KeyValue
from structlog.testing import capture_logs

from gateway.core.bucket import BUCKET_SHAPE
from gateway.upstream import revocations
from tests.auth.following import Following, create_bucket, make_bucket
from tests.support.nats_proxy import NatsProxy
from tests.support.nats_server import NatsServer

ALLOWED = {
    "publish": ["$JS.API.STREAM.INFO.KV_natsgate_revoked", "$JS.API.STREAM.MSG.GET.KV_natsgate_revoked",
                "$JS.API.DIRECT.GET.KV_natsgate_revoked"],
    "subscribe": ["$KV.natsgate_revoked.>", "_INBOX.>"],
}  # fmt: skip


def configuration(folder: Path, without: str | None, *more: str) -> Path:
    """A configuration where `follower` may do what reading the bucket needs, but for one thing; and some more."""
    rights = {
        verb: {"allow": [*(each for each in subjects if each != without), *more]} for verb, subjects in ALLOWED.items()
    }
    users = [
        {"user": "follower", "password": "pw", "permissions": rights},
        {"user": "operator", "password": "pw"},
    ]
    path = folder.with_suffix(".conf")
    path.write_text(json.dumps({"authorization": {"users": users}}))
    return path


@asynccontextmanager
async def server_with(folder: Path, *, without: str | None = None) -> AsyncIterator[tuple[NatsServer, Client]]:
    """A nats-server of that configuration, and a client that may do everything there."""
    async with NatsServer(folder, arguments=["-c", str(configuration(folder, without))]) as server:
        client = await nats.connect(server.url, user="operator", password="pw")
        yield server, client
        await client.close()


async def revoke(nc: Client) -> KeyValue:
    kv = await make_bucket(nc)
    await kv.put("alice", b"100")
    return kv


async def test_the_rights_of_the_table_are_enough(tmp_path: Path) -> None:
    """What deploy/nats lists for the bucket, and no right to make consumers: the table is followed, live too."""
    async with server_with(tmp_path / "all") as (server, nc):
        kv = await revoke(nc)
        async with Following(server.url, user="follower", password="pw") as replica:
            await replica.holds({"alice": 100.0})
            await kv.put("bob", b"200")
            await replica.holds({"alice": 100.0, "bob": 200.0})
            assert replica.revocations.reasons == []
            assert replica.troubles == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "without", ["$JS.API.STREAM.INFO.KV_natsgate_revoked", "$JS.API.DIRECT.GET.KV_natsgate_revoked"]
)
async def test_a_right_to_read_that_lacks_is_named(
    tmp_path: Path, without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is known of who is revoked, so it is not loaded; one line says which right lacks, however often it is
    tried; once the right is there, it goes on by itself."""
    monkeypatch.setattr(revocations, "RETRY_FIRST_S", 0.1)
    with capture_logs() as logs:
        async with server_with(tmp_path / "some", without=without) as (server, nc):
            await revoke(nc)
            async with NatsProxy(server.port) as proxy, Following(proxy.url, user="follower", password="pw") as replica:
                await replica.until(lambda: without in str(replica.revocations.reasons), "the right is named")
                assert "permissions.conf" in replica.revocations.reasons[0]
                assert not replica.revocations.loaded
                asked = len(replica.troubles)
                await replica.until(lambda: len(replica.troubles) >= asked + 2, "it is tried again")
                assert len([line for line in logs if line["event"] == "revocations_not_usable"]) == 1
                async with server_with(tmp_path / "all") as (other, operator):
                    await revoke(operator)
                    proxy.redirect(other.port)
                    proxy.cut()
                    await replica.holds({"alice": 100.0})
                    assert replica.revocations.loaded
                    assert replica.revocations.reasons == []


async def test_without_the_right_to_listen_it_is_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The live path is refused: asking still finds everything, and the reason says that it comes late."""
    monkeypatch.setattr(revocations, "WATCH_S", 0.5)
    async with server_with(tmp_path / "some", without="$KV.natsgate_revoked.>") as (server, nc):
        kv = await revoke(nc)
        async with Following(server.url, user="follower", password="pw") as replica:
            await replica.holds({"alice": 100.0})
            await kv.put("bob", b"200")
            await replica.holds({"alice": 100.0, "bob": 200.0})
            (reason,) = replica.revocations.reasons
            assert "subscribe to $KV.natsgate_revoked.>" in reason
            assert "late" in reason


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"max_bytes": -1}, "no max_bytes"),
        ({"discard": "old"}, "forgets the oldest"),
        ({"max_msgs_per_subject": -1}, "not that of a KV bucket"),
        ({"allow_direct": False}, "direct get"),
    ],
)
async def test_a_bucket_of_another_make_is_named(tmp_path: Path, config: dict[str, object], said: str) -> None:
    """It has no limit, or loses entries: it is read as far as it can be, and the reason says what would mend it."""
    async with NatsServer(tmp_path / "nats") as server:
        nc = await nats.connect(server.url)
        await create_bucket(nc, **config)
        await nc.jetstream().publish("$KV.natsgate_revoked.alice", b"100")
        async with Following(server.url) as replica:
            await replica.until(lambda: said in str(replica.revocations.reasons), "the reason is told")
            assert "natsgate provision" in str(replica.revocations.reasons)
            if "allow_direct" not in config:
                await replica.holds({"alice": 100.0})
        await nc.close()


async def test_an_account_without_jetstream_is_told(tmp_path: Path) -> None:
    """Who is revoked cannot be known there: it is not loaded, and says why."""
    (tmp_path / "nats.conf").write_text('accounts { A { users: [ { user: "a", password: "b" } ] } }\n')
    async with (
        NatsServer(tmp_path / "nats", arguments=["-c", str(tmp_path / "nats.conf")]) as server,
        Following(server.url, user="a", password="b") as replica,
    ):
        await replica.until(lambda: "JetStream" in str(replica.revocations.reasons), "the reason is told")
        assert not replica.revocations.loaded
        assert BUCKET_SHAPE.name in str(replica.revocations.reasons) or "account" in str(replica.revocations.reasons)
