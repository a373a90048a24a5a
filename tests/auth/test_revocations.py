"""The table of revoked users follows its KV bucket: live, by reading, through outages, whatever is written there."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import nats
import pytest
from nats.aio.client import Client
from nats.js.kv import KeyValue

from gateway.core.bucket import BUCKET_SHAPE
from gateway.core.revoked import BUCKET, PREFIX
from gateway.upstream import revocations
from tests.auth.following import Following, make_bucket
from tests.support.nats_proxy import NatsProxy
from tests.support.nats_server import NatsServer


@pytest.fixture
async def proxy(bare_nats: NatsServer) -> AsyncIterator[NatsProxy]:
    """The way to it that can be cut, held, and made to lose what is written to the bucket."""
    async with NatsProxy(bare_nats.port, prefix="$KV.") as running:
        yield running


@pytest.fixture
async def nc(bare_nats: NatsServer) -> AsyncIterator[Client]:
    """A client of the server that is not cut."""
    client = await nats.connect(bare_nats.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
    yield client
    await client.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader is asked for news more often than usual."""
    monkeypatch.setattr(revocations, "WATCH_S", 0.5)


async def put_all(kv: KeyValue, times: dict[str, float]) -> None:
    """Put many entries, some at a time."""
    entries = iter(times.items())
    while piece := list(itertools.islice(entries, 100)):
        await asyncio.gather(*(kv.put(key, b"%d" % time) for key, time in piece))


async def test_it_follows_an_ordinary_kv_client(bare_nats: NatsServer, nc: Client) -> None:
    """What nats-py's KV client puts, deletes and purges; both forms of a time; keys that are encoded."""
    kv = await make_bucket(nc)
    await kv.put("before", b"50")
    async with Following(bare_nats.url) as replica:
        await replica.holds({"before": 50.0})
        await kv.put("alice", b"2026-01-31T12:00:00Z")
        await kv.put("owner=2Frepo", b"1767225600.5")
        await replica.holds({"before": 50.0, "alice": 1769860800.0, "owner/repo": 1767225600.5})
        await replica.until(lambda: not replica.revocations.ledger.heard_bytes, "what came live was read, too")
        await kv.put("alice", b"100")
        await kv.delete("before")
        await kv.purge("owner=2Frepo")
        await replica.holds({"alice": 100.0})
        await kv.create("before", b"60")
        await replica.holds({"alice": 100.0, "before": 60.0})


async def test_it_is_told_at_once(bare_nats: NatsServer, nc: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A revocation comes over the live path: no reading is needed for it."""
    kv = await make_bucket(nc)
    async with Following(bare_nats.url) as replica:
        await replica.loaded()
        monkeypatch.setattr(revocations, "LIVE_S", 3600.0)
        monkeypatch.setattr(revocations, "WATCH_S", 3600.0)
        await kv.put("alice", b"100")
        await replica.holds({"alice": 100.0})


@pytest.mark.usefixtures("impatient")
async def test_without_a_bucket_nobody_is_revoked(bare_nats: NatsServer, nc: Client) -> None:
    """That is an answer, too; a bucket that is made later is found without a restart."""
    async with Following(bare_nats.url) as replica:
        await replica.loaded()
        assert replica.revocations.reasons == []
        kv = await make_bucket(nc)
        await kv.put("alice", b"100")
        await replica.holds({"alice": 100.0})


@pytest.mark.parametrize("history", [1, 5])
async def test_a_bucket_of_several_pages(bare_nats: NatsServer, nc: Client, history: int) -> None:
    """3,000 entries, some of them rewritten, deleted, purged and compacted away: all of them are known at the start."""
    kv = await make_bucket(nc, max_msgs_per_subject=history)
    times = {f"user-{n}": float(n) for n in range(3000)}
    await put_all(kv, times)
    await put_all(kv, {f"user-{n}": n + 5000.0 for n in range(0, 3000, 3)})
    for n in range(40):
        await (kv.delete if n % 2 else kv.purge)(f"user-{n}")
    await kv.purge_deletes(olderthan=-1)
    expected = {key: time + 5000 * (time % 3 == 0) for key, time in times.items() if time >= 40}
    async with Following(bare_nats.url) as replica:
        await replica.loaded()
        await replica.holds(expected, timeout_s=1)
        await kv.delete("user-77")
        del expected["user-77"]
        await replica.holds(expected)


async def test_what_happened_while_nats_was_gone(bare_nats: NatsServer, proxy: NatsProxy, nc: Client) -> None:
    """Cut off, and the server killed and restarted: what was put, moved and deleted meanwhile counts on return."""
    kv = await make_bucket(nc)
    await put_all(kv, {"alice": 100, "bob": 200, "carol": 300})
    async with Following(proxy.url) as replica:
        await replica.holds({"alice": 100.0, "bob": 200.0, "carol": 300.0})
        proxy.hold()
        proxy.cut()
        await asyncio.to_thread(bare_nats.restart)
        await nc.flush(timeout=10)
        await kv.delete("alice")
        await kv.put("bob", b"250")
        await kv.put("dave", b"400")
        await kv.purge("carol")
        await kv.purge_deletes(olderthan=-1)
        assert len(replica.table) == 3
        proxy.go_on()
        await replica.holds({"bob": 250.0, "dave": 400.0})


async def test_what_the_live_path_drops_is_found_by_asking(bare_nats: NatsServer, proxy: NatsProxy, nc: Client) -> None:
    """Silence is not health: every live message vanishes without a disconnect, and the table is true seconds later."""
    kv = await make_bucket(nc)
    async with Following(proxy.url) as replica:
        await replica.loaded()
        proxy.losing = -1
        await kv.put("alice", b"100")
        await kv.put("bob", b"200")
        await replica.holds({"alice": 100.0, "bob": 200.0})
        await kv.delete("alice")
        await replica.holds({"bob": 200.0})
        assert proxy.lost == 3
        assert proxy.passed == 0


@pytest.mark.usefixtures("impatient")
async def test_entries_that_go_without_a_message(bare_nats: NatsServer, nc: Client) -> None:
    """Purged from the stream, or expired: nobody is told by a message, and the table is true seconds later."""
    kv = await make_bucket(nc)
    await put_all(kv, {"alice": 100, "bob": 200})
    await kv.create("carol", b"300", msg_ttl=2)
    async with Following(bare_nats.url) as replica:
        await replica.holds({"alice": 100.0, "bob": 200.0, "carol": 300.0})
        await nc.jetstream().purge_stream(BUCKET_SHAPE.name, subject=f"{PREFIX}alice")
        await replica.holds({"bob": 200.0})
        await nc.jetstream().purge_stream(BUCKET_SHAPE.name)
        await replica.holds({})
        await kv.put("dave", b"400")
        await replica.holds({"dave": 400.0})


@pytest.mark.usefixtures("impatient")
async def test_a_bucket_that_is_deleted_and_made_anew(bare_nats: NatsServer, proxy: NatsProxy, nc: Client) -> None:
    """Deleted: nobody is revoked. Made anew, even with as many entries as before: the new ones count, no other."""
    kv = await make_bucket(nc)
    await put_all(kv, {"alice": 100, "bob": 200})
    async with Following(proxy.url) as replica:
        await replica.holds({"alice": 100.0, "bob": 200.0})
        proxy.losing = -1
        await nc.jetstream().delete_key_value(BUCKET)
        kv = await make_bucket(nc)
        await put_all(kv, {"carol": 100, "bob": 300})
        await replica.holds({"carol": 100.0, "bob": 300.0})
        await nc.jetstream().delete_key_value(BUCKET)
        await replica.holds({})
        assert replica.revocations.reasons == []


@pytest.mark.usefixtures("impatient")
async def test_what_was_never_stored_ends(bare_nats: NatsServer, nc: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A live put that the stream refused counts at first, which is the safe side, and not any more once it was looked
    for; a live deletion that was refused takes nothing back."""
    monkeypatch.setattr(revocations, "SETTLE_S", 1.0)
    kv = await make_bucket(nc)
    await kv.put("alice", b"100")
    async with Following(bare_nats.url) as replica:
        await replica.holds({"alice": 100.0})
        wrong = {"Nats-Expected-Last-Subject-Sequence": "77"}
        await nc.publish(f"{PREFIX}mallory", b"500", headers=wrong)
        await nc.publish(f"{PREFIX}alice", b"900", headers=wrong)
        await replica.holds({"alice": 900.0, "mallory": 500.0})
        await nc.publish(f"{PREFIX}alice", b"", headers={**wrong, "KV-Operation": "DEL"})
        await replica.holds({"alice": 100.0})
        assert replica.lifted == {"mallory"}
        assert replica.revocations.ledger.heard_bytes == 0


async def test_nothing_is_taken_back_by_a_reading_in_a_flow(
    bare_nats: NatsServer, proxy: NatsProxy, nc: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries are written again and again while the bucket is read whole, and no live message comes through: a reading
    that misses an entry, since it moved, takes it for revoked still."""
    monkeypatch.setattr(revocations, "PASSES", 1)
    kv = await make_bucket(nc)
    users = [f"user-{n}" for n in range(1500)]
    await put_all(kv, dict.fromkeys(users, 1))
    turn, ended = 1, False

    async def write() -> None:
        nonlocal turn
        while not ended:
            turn += 1
            await put_all(kv, dict.fromkeys(users, turn))

    async with Following(proxy.url) as replica:
        await replica.holds(dict.fromkeys(users, 1.0))
        proxy.losing = -1
        writing = asyncio.create_task(write())
        for _ in range(8):
            proxy.cut()
            await replica.until(lambda past=turn: (replica.table.not_before(users[0]) or 0) > past, "it was read again")
        ended = True
        await writing
        await replica.holds(dict.fromkeys(users, float(turn)))
        assert not replica.lifted
