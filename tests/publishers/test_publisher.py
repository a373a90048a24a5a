"""`Publisher` with a real nats-server: what it sends, and its limits."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Callable
from types import MappingProxyType

import pytest

from publishers import (
    Ack,
    BufferFull,
    FlushTimeout,
    NatsUnreachable,
    Publisher,
    PublisherClosed,
    PublishTimeout,
    Refused,
    Settings,
    SettingsError,
    SyncPublisher,
    wire,
)
from tests.publishers.broker import Broker
from tests.support.frozen import frozen

EVENT = {"type": "x", "data": {"n": 1}}


async def until(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
    """Waits for a condition."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - the condition is any, nothing signals it
            await asyncio.sleep(0.005)


async def test_emit_stores_a_canonical_event(broker: Broker) -> None:
    """`emit` encodes the id, fills the envelope, passes headers through and returns the sequence."""
    async with Publisher(broker.url) as publisher:
        ack = await publisher.emit(
            "repo",
            "owner/repo.js",
            "task.progress",
            {"percent": 5},
            request_id="r1",
            headers={"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
        )
    assert ack == ("EVENTS", 1, False)
    [(subject, data, headers)] = await broker.stored()
    event = json.loads(data)
    assert subject == "repo.owner/repo%2Ejs.task.progress"
    assert (event["type"], event["repo_id"], event["request_id"]) == ("task.progress", "owner/repo.js", "r1")
    assert event["payload"] == {"percent": 5}
    assert headers["traceparent"].startswith("00-4bf92f")
    assert headers["Nats-Msg-Id"] == f"{subject}:{event['id']}"


async def test_msg_id_makes_publishing_idempotent(broker: Broker) -> None:
    """The same msg_id, or the same canonical event on the same subject, is stored once and says so."""
    event = wire.envelope("task.progress", task_id="7")
    async with Publisher(broker.url) as publisher:
        first = await publisher.publish("task.7.progress", EVENT, msg_id="once")
        again = await publisher.publish("task.7.progress", EVENT, msg_id="once")
        assert (again.sequence, again.duplicate) == (first.sequence, True)
        await publisher.publish("task.7.progress", event)
        assert (await publisher.publish("task.7.progress", event)).duplicate
        assert not (await publisher.publish("user.a.notification", event)).duplicate
        foreign = {"id": "42", "data": {}}
        assert not (await publisher.publish("task.7.progress", foreign)).duplicate
        assert not (await publisher.publish("task.7.progress", foreign)).duplicate


async def test_bytes_are_sent_as_they_are(broker: Broker) -> None:
    """A JSON object given as bytes is not re-written."""
    raw = b'{ "type" : "x",\n "n": 1.0 }'
    async with Publisher(broker.url) as publisher:
        await publisher.publish("task.7.x", raw)
    assert [data for _, data, _ in await broker.stored()] == [raw]


@pytest.mark.parametrize(
    ("subject", "event", "options"),
    [
        ("repo.42", EVENT, {}),
        ("repo.*.x", EVENT, {}),
        ("repo.42.x\r\nPUB evil 0", EVENT, {}),
        ("repo.42.x", [1], {}),
        ("repo.42.x", b"[1]", {}),
        ("repo.42.x", b"\xff", {}),
        ("repo.42.x", b'{"a":"' + b"x" * 300_000 + b'"}', {}),
        ("repo.42.x", EVENT, {"headers": {"a b": "c"}}),
        ("repo.42.x", EVENT, {"headers": {"a": "b\r\nNats-Rollup: all"}}),
        ("repo.42.x", EVENT, {"headers": {"nats-msg-id": "1"}}),
        ("repo.42.x", EVENT, {"msg_id": "a\r\nb"}),
        ("repo.42.x", EVENT, {"msg_id": ""}),
        ("repo.42.x", EVENT, {"msg_id": 7}),
        ("repo.42.x", EVENT, {"headers": {"a": 7}}),
        ("repo.42.x", EVENT, {"headers": {7: "a"}}),
    ],
)
async def test_malformed_is_refused_at_once(subject: str, event: object, options: dict[str, object]) -> None:
    """A malformed subject, event, header or msg_id is an error before anything is taken, even without NATS."""
    async with Publisher("nats://127.0.0.1:9") as publisher:
        with pytest.raises(wire.WireError):
            await publisher.publish(subject, event, **options)  # type: ignore[arg-type]
        assert publisher.stats.buffered_events == 0


async def test_pipelined_events_keep_their_order(broker: Broker) -> None:
    """Enqueued events are all stored, in order per subject, and leaving the block flushes them."""
    async with Publisher(broker.url) as publisher:
        for n in range(3000):
            await publisher.enqueue(f"repo.{n % 7}.x", {"n": n})
    numbers: dict[str, list[int]] = {}
    for subject, data, _ in await broker.stored():
        numbers.setdefault(subject, []).append(json.loads(data)["n"])
    assert numbers == {f"repo.{r}.x": list(range(r, 3000, 7)) for r in range(7)}


async def test_memory_is_bounded_while_nats_is_there(broker: Broker) -> None:
    """With NATS there, a full buffer makes publishers wait, never fail, and is never exceeded."""
    settings = Settings(servers=broker.url, buffer_bytes=50_000)
    most_bytes = 0
    async with Publisher(settings) as publisher:
        await publisher.wait_connected(5)

        async def flood(root: str) -> None:
            nonlocal most_bytes
            for n in range(300):
                await publisher.enqueue(f"{root}.1.x", {"n": n})
                most_bytes = max(most_bytes, publisher.stats.buffered_bytes)

        await asyncio.gather(flood("repo"), flood("task"), flood("user"))
        await publisher.flush(10)
        assert publisher.stats.acknowledged == 900
    assert 40_000 < most_bytes <= 50_000


async def test_cancelled_events_make_room(broker: Broker) -> None:
    """Who waits for room gets it when the events in the full buffer are given up between their attempts."""
    settings = Settings(servers=broker.url, buffer_bytes=20_000, retry_for_s=600, backoff_min_s=0.2, backoff_max_s=0.2)
    async with Publisher(settings) as publisher:
        await publisher.wait_connected(5)
        futures: list[asyncio.Future[Ack]] = []

        async def fill() -> None:
            while True:
                futures.append(await publisher.enqueue("nostream.1.x", EVENT))

        filler = asyncio.create_task(fill())
        await until(lambda: publisher.stats.retries >= 1 and publisher.stats.buffered_bytes > 17_000)
        waiter = asyncio.create_task(publisher.publish("repo.1.x", EVENT))
        await until(lambda: len(publisher._delivery._room) == 2)  # type: ignore[union-attr]
        filler.cancel()
        await asyncio.wait([filler])
        for future in futures:
            future.cancel()
        async with asyncio.timeout(5):
            assert (await waiter).sequence == 1


async def test_events_taken_back_make_room_while_nats_is_away() -> None:
    """While NATS is away the buffer fills; what its callers take back is gone at once, and new events are taken."""
    settings = Settings(servers="nats://127.0.0.1:9", buffer_bytes=10_000, close_timeout_s=0.1)
    async with Publisher(settings) as publisher:
        futures: list[asyncio.Future[Ack]] = []

        async def fill() -> None:
            while True:
                futures.append(await publisher.enqueue("repo.1.x", EVENT))

        with pytest.raises(BufferFull):
            await fill()
        assert len(futures) > 2
        for future in futures:
            future.cancel()
        await until(lambda: publisher.stats.buffered_events == publisher.stats.buffered_bytes == 0)
        (await publisher.enqueue("repo.1.x", EVENT)).cancel()


async def test_a_full_buffer_keeps_the_order(broker: Broker) -> None:
    """Events of one subject are stored in the order of their calls, also when big and small ones wait for room."""
    async with Publisher(Settings(servers=broker.url, buffer_bytes=10_000)) as publisher:
        await publisher.wait_connected(5)
        for turn in range(40):
            calls = []
            for n in range(30):
                event = {"n": n, "data": "x" * (4_000 if n % 5 == 0 else 1)}
                calls.append(asyncio.create_task(publisher.publish(f"repo.{turn}.x", event)))
                await asyncio.sleep(0)  # a turn of the loop, so that calls come between a waking and its turn
            sequences = [ack.sequence for ack in await asyncio.gather(*calls)]
            assert sequences == sorted(sequences)


async def test_the_buffer_counts_what_it_really_takes() -> None:
    """A full buffer takes no more memory than `buffer_bytes`, whether the subjects are one or many."""
    for subjects in (1, 10_000):
        async with Publisher(Settings(buffer_bytes=2_000_000, servers="nats://127.0.0.1:9")) as publisher:

            async def fill(publisher: Publisher = publisher, subjects: int = subjects) -> None:
                for n in range(10_000):
                    await publisher.enqueue(f"repo.{n % subjects}.x", {"data": "x" * 100})

            tracemalloc.start()
            try:
                with pytest.raises(BufferFull):
                    await fill()
                assert tracemalloc.get_traced_memory()[0] <= publisher.stats.buffered_bytes <= 2_000_000
            finally:
                tracemalloc.stop()
            with pytest.raises(FlushTimeout):
                await publisher.close(0)


async def test_full_buffer_without_nats(broker: Broker) -> None:
    """Without NATS a full buffer refuses with sizes and reason, and what it holds is stored once NATS is back."""
    broker.kill()
    async with Publisher(Settings(servers=broker.url, buffer_bytes=50_000)) as publisher:
        taken: list[asyncio.Future[Ack]] = []

        async def fill() -> None:
            while True:
                taken.append(await publisher.enqueue("repo.1.x", {"n": len(taken)}))

        with pytest.raises(BufferFull, match=r"NATS is away .* buffer_bytes=50000.*repo\.1\.x was not taken"):
            await fill()
        assert 40_000 < publisher.stats.buffered_bytes <= 50_000
        broker.start()
        acks = await asyncio.gather(*taken)
    assert [ack.sequence for ack in acks] == list(range(1, len(taken) + 1))


async def test_stream_that_comes_later(bare_broker: Broker) -> None:
    """Events wait for a stream that is not provisioned yet, in order."""
    settings = Settings(servers=bare_broker.url, backoff_max_s=0.1)
    async with Publisher(settings) as publisher:
        futures = [await publisher.enqueue("repo.1.x", {"n": n}) for n in range(20)]
        await until(lambda: publisher.stats.retries >= 2)
        await bare_broker.provision()
        assert [ack.sequence for ack in await asyncio.gather(*futures)] == list(range(1, 21))


async def test_no_stream_stores_the_subject(broker: Broker) -> None:
    """A root that no stream stores fails after `retry_for_s` with that reason, and is certainly not stored."""
    settings = Settings(servers=broker.url, retry_for_s=0.3, backoff_max_s=0.1)
    async with Publisher(settings) as publisher:
        with pytest.raises(PublishTimeout, match=r"no stream stores typo\.1\.x") as failure:
            await publisher.publish("typo.1.x", EVENT)
        assert not failure.value.outcome_unknown
        assert publisher.stats.buffered_bytes == 0


async def test_refusal_is_final(broker: Broker) -> None:
    """What the stream refuses for good fails at once with the server's codes, and the next event goes on."""
    async with Publisher(broker.url) as publisher:
        with pytest.raises(Refused, match="expected stream") as failure:
            await publisher.publish("repo.1.x", EVENT, headers={"Nats-Expected-Stream": "OTHER"})
        assert (failure.value.code, failure.value.err_code) == (400, 10060)
        assert (await publisher.publish("repo.1.x", EVENT)).sequence == 1


async def test_bigger_than_the_server_takes(broker: Broker) -> None:
    """An event over the server's max_payload is refused here; the connection and the others do not suffer."""
    async with Publisher(Settings(servers=broker.url, max_event_bytes=0)) as publisher:
        big = await publisher.enqueue("repo.1.x", {"data": "x" * 2_000_000})
        small = await publisher.enqueue("repo.1.x", EVENT)
        with pytest.raises(Refused, match="max_payload"):
            await big
        assert (await small).sequence == 1


async def test_timeout_without_nats_is_certain() -> None:
    """Without NATS `publish` times out, says that nothing is stored, and keeps nothing."""
    async with Publisher("nats://127.0.0.1:9") as publisher:
        with pytest.raises(PublishTimeout, match=r"NATS is away.*it is not stored") as failure:
            await publisher.publish("repo.1.x", EVENT, timeout_s=0.1)
        assert not failure.value.outcome_unknown
        assert publisher.stats.buffered_events == 0


async def test_timeout_with_a_frozen_server_is_not(broker: Broker) -> None:
    """When the server froze the outcome is unknown, and publishing again with the msg_id stores once."""
    async with Publisher(broker.url) as publisher:
        await publisher.wait_connected(5)
        with frozen(broker.pid), pytest.raises(PublishTimeout, match="same msg_id") as failure:
            await publisher.publish("repo.1.x", EVENT, msg_id="m", timeout_s=0.2)
        assert failure.value.outcome_unknown
        assert (await publisher.publish("repo.1.x", EVENT, msg_id="m")).sequence == 1
    assert len(await broker.stored()) == 1


async def test_cancelled_events_are_not_sent(broker: Broker) -> None:
    """Cancelling `publish` before anything was sent takes the event back."""
    broker.kill()
    async with Publisher(broker.url) as publisher:
        task = asyncio.create_task(publisher.publish("repo.1.x", {"n": 1}))
        await until(lambda: publisher.stats.buffered_events == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        broker.start()
        await publisher.publish("repo.1.x", {"n": 2})
    assert [data for _, data, _ in await broker.stored()] == [b'{"n":2}']


async def test_close_keeps_its_deadline() -> None:
    """A close that cannot flush ends in time, counts what is lost, and fails each event's future."""
    publisher = Publisher("nats://127.0.0.1:9")
    await publisher.open()
    future = await publisher.enqueue("repo.1.x", EVENT)
    async with asyncio.timeout(2):
        with pytest.raises(FlushTimeout, match=r"1 events .* repo\.1\.x: NATS is away") as failure:
            await publisher.close(0.1)
    assert (failure.value.unsent, failure.value.unknown) == (1, 0)
    with pytest.raises(PublishTimeout, match="closed"):
        await future
    with pytest.raises(PublisherClosed):
        await publisher.publish("repo.1.x", EVENT)


async def test_close_with_a_frozen_server(broker: Broker) -> None:
    """A frozen server with a congested socket does not hold up the close."""
    publisher = Publisher(broker.url)
    await publisher.open()
    await publisher.wait_connected(5)
    with frozen(broker.pid):
        futures = [await publisher.enqueue("repo.1.x", {"data": "x" * 200_000})]
        futures += [await publisher.enqueue(f"repo.{n}.x", {"data": "x" * 200_000}) for n in range(60)]
        async with asyncio.timeout(5):
            with pytest.raises(FlushTimeout) as failure:
                await publisher.close(0.2)
    assert failure.value.unsent + failure.value.unknown == 61
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert all(isinstance(outcome, PublishTimeout) for outcome in outcomes)


async def test_close_ends_wait_connected() -> None:
    """Who waits for NATS is told when the publisher is closed."""
    publisher = Publisher("nats://127.0.0.1:9")
    await publisher.open()
    waiter = asyncio.create_task(publisher.wait_connected())
    await until(lambda: len(asyncio.all_tasks()) >= 6)  # it waits: two of the delivery, itself and its two
    await publisher.close()
    async with asyncio.timeout(5):
        with pytest.raises(PublisherClosed):
            await waiter


async def test_wait_connected_names_the_reason(bare_broker: Broker) -> None:
    """Without NATS `wait_connected` fails in time with server and reason."""
    bare_broker.kill()
    async with Publisher(bare_broker.url) as publisher:
        with pytest.raises(NatsUnreachable, match=f"127.0.0.1:{bare_broker.port}"):
            await publisher.wait_connected(0.3)


async def test_several_servers(broker: Broker) -> None:
    """With several servers the one that is there is found."""
    servers = f"nats://127.0.0.1:9, {broker.url}"
    async with Publisher(servers) as publisher:
        assert (await publisher.emit("repo", "1", "x")).sequence == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"servers": " , "}, "servers"),
        ({"servers": "nats://a:4222, wss://b:443"}, "servers"),
        ({"buffer_bytes": 0}, "buffer_bytes"),
        ({"ack_wait_s": -1.0}, "ack_wait_s"),
        ({"creds": "/nowhere/a.creds"}, "creds"),
        ({"tls_key": __file__}, "tls_key"),
        ({"password": "p"}, "password"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, object], named: str) -> None:
    """A wrong setting is named at once."""
    with pytest.raises(SettingsError, match=f"'{named}'"):
        Settings(**options)  # type: ignore[arg-type]


def test_no_secret_is_shown() -> None:
    """The settings show the servers without the logins in their URLs."""
    shown = repr(Settings(servers="nats://u:s3cret@h:1, s3cret@i, tls://j:2"))
    assert "s3cret" not in shown
    assert "servers='nats://h:1,i,tls://j:2'" in shown


@pytest.mark.parametrize("name", ["tls_ca", "tls_cert", "creds"])
def test_unusable_files_are_named(name: str) -> None:
    """A file that is no PEM or credentials file is an error at once, for both publishers."""
    settings = Settings(**{name: __file__})  # type: ignore[arg-type]
    for kind in (Publisher, SyncPublisher):
        with pytest.raises(SettingsError, match=name):
            kind(settings)


def test_a_payload_may_be_any_mapping() -> None:
    """An envelope's payload that is a mapping but no dict can be written."""
    assert b'"payload":{"a":1}' in wire.encode_event(wire.envelope("x", MappingProxyType({"a": 1})))
