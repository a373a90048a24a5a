"""`natsgate provision` makes the stream of the contract, once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from nats.aio.client import Client
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType

from tests.conftest import StartGateway, provision
from tests.support.command import natsgate
from tests.support.eventually import wait_until
from tests.support.nats_server import NatsServer
from tests.support.producer import publish
from tests.support.sse import SseClient

ConnectNats = Callable[[str], Awaitable[Client]]


async def test_the_stream_is_that_of_the_contract(bare_nats: NatsServer, connect_nats: ConnectNats) -> None:
    """Every root, on file, with direct gets, limits, a duplicate window, and republished to `live.`."""
    await asyncio.to_thread(provision, bare_nats.url)
    nc = await connect_nats(bare_nats.url)
    config = (await nc.jetstream().stream_info("EVENTS")).config
    roots = ("repo", "task", "project", "user", "ci", "inbox")
    assert set(config.subjects or []) == {f"{root}.>" for root in roots}
    assert config.storage == StorageType.FILE
    assert config.retention == RetentionPolicy.LIMITS
    assert config.discard == DiscardPolicy.OLD
    assert config.allow_direct is True
    assert config.max_age == 24 * 3600
    assert config.max_bytes == 1024**3
    assert config.duplicate_window == 120
    assert config.max_consumers is not None
    assert config.max_consumers > 0
    assert config.republish is not None
    assert config.republish.src in (">", None)
    assert config.republish.dest == "live.>"
    assert not config.republish.headers_only


async def test_provisioning_twice_changes_nothing(bare_nats: NatsServer, connect_nats: ConnectNats) -> None:
    """The second run ends with 0; stream, events and cursors stay."""
    await asyncio.to_thread(provision, bare_nats.url)
    nc = await connect_nats(bare_nats.url)
    await nc.jetstream().publish("repo.1.x", b"{}")
    before = await nc.jetstream().stream_info("EVENTS")
    await asyncio.to_thread(provision, bare_nats.url)
    after = await nc.jetstream().stream_info("EVENTS")
    assert after.created == before.created
    assert after.config == before.config
    assert after.state.messages == 1


async def test_stream_roots_and_prefix_are_settings(
    bare_nats: NatsServer, connect_nats: ConnectNats, start_gateway: StartGateway, own_id: str
) -> None:
    """`STREAM`, `ROOTS` and `LIVE_PREFIX` are used by `provision` and `serve` alike."""
    own = {"STREAM": "MINE", "ROOTS": "doc,inbox", "LIVE_PREFIX": "heard.here"}
    await asyncio.to_thread(partial(provision, bare_nats.url, **own))
    nc = await connect_nats(bare_nats.url)
    config = (await nc.jetstream().stream_info("MINE")).config
    assert set(config.subjects or []) == {"doc.>", "inbox.>"}
    assert config.republish is not None
    assert config.republish.dest == "heard.here.>"
    gateway = await start_gateway(nats_url=bare_nats.url, settings=own)
    async with (
        SseClient(gateway.url, f"doc.{own_id}.>") as sse,
        SseClient(gateway.url, f"repo.{own_id}.>") as no_root,
    ):
        assert no_root.status == 400
        await sse.ready()
        await publish(nc, f"doc.{own_id}.x", '{"n":1}')
        assert (await sse.next_event()).data == '{"n":1}'


async def test_another_stream_has_another_incarnation(
    bare_nats: NatsServer, connect_nats: ConnectNats, start_gateway: StartGateway
) -> None:
    """Cursors of a stream that was deleted and made anew begin differently."""
    incarnations = set()
    nc = await connect_nats(bare_nats.url)
    for _ in range(2):
        await asyncio.to_thread(provision, bare_nats.url)
        gateway = await start_gateway(nats_url=bare_nats.url)
        async with SseClient(gateway.url, "repo.>") as sse:
            incarnations.add((await sse.ready()).json()["cursor"].rpartition("-")[0])
        await nc.jetstream().delete_stream("EVENTS")
    assert len(incarnations) == 2


async def test_a_stream_of_another_make_is_not_taken(
    bare_nats: NatsServer, connect_nats: ConnectNats, start_gateway: StartGateway
) -> None:
    """A stream without republish is named as what is missing; `serve` stays unready."""
    nc = await connect_nats(bare_nats.url)
    await nc.jetstream().add_stream(name="EVENTS", subjects=["repo.>"])
    gateway = await start_gateway(nats_url=bare_nats.url, ready=False)

    def named() -> bool:
        reply = gateway.get("/readyz")
        return reply.status == 503 and "republish" in reply.body.decode().lower()

    await asyncio.to_thread(wait_until, named, "/readyz names the missing republish")


def test_provision_without_nats_ends_with_3() -> None:
    """NATS not reached within `START_TIMEOUT_S` is exit code 3 and one clear line."""
    done = natsgate("provision", settings={"NATS_URL": "nats://127.0.0.1:1", "AUTH": "none", "START_TIMEOUT_S": "0.5"})
    assert done.returncode == 3, done.stderr
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
