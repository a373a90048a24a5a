"""What is gone is said: with the right reason and range, once, and then live events follow."""

from __future__ import annotations

import asyncio

import pytest

from tests.replay.coming_back import NO_LOG, cursor_now, up_to_ready
from tests.replay.scene import Scene
from tests.support.eventually import eventually
from tests.support.follower import Follower, assert_same
from tests.support.frozen import frozen
from tests.support.gateway import Gateway, routes
from tests.support.raw_ws import RawWebSocket, encode_op
from tests.support.sse import SseClient
from tests.support.stored import moved, sequence_of


async def gaps(gateway: Gateway, reason: str) -> float:
    return (await asyncio.to_thread(gateway.metrics)).total("natsgate_gaps_total", reason=reason)


async def expect_gap(sse: SseClient, reason: str, begin: str | None, *, moves: bool = True) -> str:
    """The next event is a gap of this reason that begins there; returns where it ends."""
    gap = await sse.next_event()
    assert gap.type == "natsgate.gap", gap
    content = gap.json()
    assert set(content) == {"reason", "from", "to"}
    assert (content["reason"], content["from"]) == (reason, begin)
    assert gap.id == (content["to"] if moves else None)
    return str(content["to"])


async def test_purged(scene: Scene) -> None:
    """After a purge a returning cursor gets one `expired` gap over exactly what is gone, then what is left."""
    gateway = await scene.gateway(settings=NO_LOG)
    cursor = await scene.cursor_now(gateway)
    await scene.store(40)
    await scene.purge(below=31)
    kept = await scene.stored()
    assert len(kept) == 10
    async with scene.client(gateway, cursor) as sse:
        end = await expect_gap(sse, "expired", cursor)
        assert sequence_of(end) == kept[0].sequence - 1
        events, _ = await up_to_ready(sse, upto=kept[-1].sequence)
        assert_same(events, kept)
        await scene.publish('{"n":"live"}')
        assert (await sse.next_event()).data == '{"n":"live"}'
    assert await gaps(gateway, "expired") == 1
    async with scene.client(gateway, end) as sse:
        events, _ = await up_to_ready(sse, upto=kept[-1].sequence + 1)
        assert len(events) == 11, "who comes back from the gap's end is not told again"


@pytest.mark.parametrize("limit", [{"max_msgs": 20}, {"max_bytes": 4096}])
async def test_older_than_the_stream_keeps(scene: Scene, limit: dict[str, int]) -> None:
    """What the stream's limits have let go is an `expired` gap, over WebSocket as well."""
    gateway = await scene.gateway(settings=NO_LOG)
    await scene.reconfigure(**limit)
    cursor = await scene.cursor_now(gateway)
    await scene.store(200)
    kept = await scene.stored()
    assert 0 < len(kept) < 200
    async with RawWebSocket(gateway.url) as ws:
        await ws.next_op("hello")
        await ws.send(encode_op(op="subscribe", ref=1, subject=scene.feed, cursor=cursor))
        await ws.next_op("subscribed")
        gap = (await ws.next_text()).json()
        assert (gap["op"], gap["feed"], gap["reason"], gap["from"]) == ("gap", scene.feed, "expired", cursor)
        assert sequence_of(gap["to"]) == kept[0].sequence - 1
        assert [sequence_of((await ws.next_op("event"))["cursor"]) for _ in kept] == [e.sequence for e in kept]


async def test_max_age(scene: Scene) -> None:
    """Events past the stream's age are an `expired` gap; the cursor of a client that was told stays good."""
    gateway = await scene.gateway(settings=NO_LOG)
    await scene.reconfigure(max_age=10**9, duplicate_window=10**9)
    cursor = await scene.cursor_now(gateway)
    last = await scene.store(10)

    async def aged() -> bool:
        return not (await scene.nc.jetstream().stream_info("EVENTS")).state.messages

    await eventually(aged, "the events have aged out")
    async with scene.client(gateway, cursor) as sse:
        assert sequence_of(await expect_gap(sse, "expired", cursor)) == last
        assert (await sse.ready()).json()["replayed"] == 0


async def test_purged_while_replay_is_under_way(scene: Scene) -> None:
    """A purge in the midst of a replay: what was gone before it was read is told as a gap, never left out."""
    gateway = await scene.gateway(settings=NO_LOG, REPLAY_LIMIT=0)
    cursor = await scene.cursor_now(gateway)
    last = await scene.store(60_000)
    async with scene.client(gateway, cursor, keep=False) as sse:
        position = sequence_of(cursor)
        purged = False
        while (event := await sse.next_event(timeout_s=30)).type != "natsgate.ready":
            if event.type == "natsgate.gap":
                assert sequence_of(event.json()["from"]) == position
            else:
                assert sequence_of(event.id) == position + 1, "a hole that nobody was told of"
            position = sequence_of(event.id)
            if not purged:
                purged = True
                await scene.purge(below=last - 5)
        assert position == last


async def test_too_far(scene: Scene) -> None:
    """More matching events than `REPLAY_LIMIT` are a `too_far` gap up to now; as many as the limit are replayed."""
    for settings in ({}, NO_LOG):
        gateway = await scene.gateway(settings=settings, REPLAY_LIMIT=50)
        cursor = await scene.cursor_now(gateway)
        await scene.store(100, scene.subjects)
        last = (await scene.stored())[-1].sequence
        for query in ({"last_event_id": cursor}, {"last_event_id": cursor, "until": "head"}):
            async with scene.client(gateway, query=query) as sse:
                events, _ = await up_to_ready(sse, upto=last)
            assert len(events) == 50, query
        await scene.store(5)
        async with scene.client(gateway, query={"last_event_id": cursor}) as sse:
            assert sequence_of(await expect_gap(sse, "too_far", cursor)) >= last
            assert (await sse.ready()).json()["replayed"] == 0
            await scene.publish('{"n":"live"}')
            assert (await sse.next_event()).data == '{"n":"live"}'
        async with scene.client(gateway, query={"since": "all"}) as sse:
            gap = await sse.next_event()
            assert (gap.type, gap.json()["reason"]) == ("natsgate.gap", "too_far")


@pytest.mark.parametrize("two", [[">", "a.b"], ["a.>", "*.b"]], ids=["within each other", "beside each other"])
async def test_filters_that_overlap_count_an_event_once(scene: Scene, two: list[str]) -> None:
    """What two filters of a feed select is one event for `REPLAY_LIMIT`: as many as the limit are replayed, once."""
    gateway = await scene.gateway(settings=NO_LOG, REPLAY_LIMIT=50)
    filters, subject = [f"repo.{scene.id}.{tail}" for tail in two], f"repo.{scene.id}.a.b"
    cursor = await cursor_now(gateway, *filters)
    await scene.store(100, [subject, scene.other_subject])
    expected = await scene.stored()
    async with SseClient(gateway.url, *filters, query={"last_event_id": cursor}) as sse:
        events, _ = await up_to_ready(sse, upto=expected[-1].sequence)
    assert_same(events, expected)
    await scene.publish("{}", subject)
    async with SseClient(gateway.url, *filters, query={"last_event_id": cursor}) as sse:
        await expect_gap(sse, "too_far", cursor)


async def test_ahead(scene: Scene) -> None:
    """A cursor that the leader has not reached is an `ahead` gap with nothing in `from`; the feed goes on from now."""
    for settings in ({}, NO_LOG):
        gateway = await scene.gateway(settings=settings)
        cursor = await scene.cursor_now(gateway)
        for step in (1, 1000, 2**40, 2**64 - 1 - sequence_of(cursor)):
            ahead = moved(cursor, lambda sequence, step=step: sequence + step)  # type: ignore[misc]
            async with scene.client(gateway, ahead) as sse:
                assert sequence_of(await expect_gap(sse, "ahead", None)) == sequence_of(cursor)
                assert (await sse.ready()).json()["replayed"] == 0


async def test_a_faster_replicas_cursor_waits(scene: Scene) -> None:
    """A cursor that another replica handed out before this one had the event is no gap: it goes on where it is."""
    slow = await scene.gateway(HEARTBEAT_S=5)
    fast = await scene.gateway()
    async with scene.client(slow) as kept, scene.client(fast) as ahead:
        await kept.ready()
        await ahead.ready()
        for n in range(5):
            with frozen(slow.pid):
                await scene.store(100, begin=100 * n)
                for _ in range(100):
                    cursor = (await ahead.next_event()).id or ""
                back = scene.client(slow, cursor)
                opening = asyncio.create_task(back.open())
            await opening
            try:
                ready = await back.ready()
                assert sequence_of(ready.id) >= sequence_of(cursor)
                assert ready.json()["replayed"] == 0
                for _ in range(100):
                    await kept.next_event()
                await scene.publish('{"n":"live"}')
                for each in (back, kept, ahead):
                    assert (await each.next_event()).data == '{"n":"live"}'
            finally:
                back.close()


async def test_recreated_under_connected_clients(scene: Scene) -> None:
    """The stream deleted and made again: connected clients are told `recreated`, once, and get its events."""
    gateway = await scene.gateway()
    async with scene.follower(gateway) as page, RawWebSocket(gateway.url) as ws:
        await ws.subscribe(scene.feed)
        await scene.store(30)
        await page.until_heard(30)
        for _ in range(30):
            await ws.next_op("event")
        await scene.recreate()
        await scene.store(3)
        gap = await page.until_told("gap")
        assert (gap["reason"], gap["from"]) == ("recreated", None)
        op = await ws.next_op("gap")
        assert (op["feed"], op["reason"]) == (scene.feed, "recreated")
        await scene.store(5, begin=100)
        while '{"n": 104}' not in [event.data for event in page.heard]:
            await page.until_heard(len(page.heard) + 1)
        new = [event for event in page.heard if (event.id or "").startswith(gap["to"].partition("-")[0])]
        assert_same(new, await scene.stored(after=sequence_of(gap["to"])))
        assert len(page.told_of("gap")) == 1
        assert page.connects == 1
        while (event := await ws.next_op("event"))["event"]["n"] != 104:
            pass
        assert event["cursor"] == new[-1].id


async def test_recreated_for_returning_clients(scene: Scene) -> None:
    """A cursor of the old life brings `recreated`, from log and stream, with and without the tap open."""
    gateway = await scene.gateway(LINGER_S=0.05)
    cursor = await scene.cursor_now(gateway)

    async def tap_closed() -> bool:
        return (await asyncio.to_thread(gateway.metrics)).total("natsgate_nats_subscriptions") == 0

    await eventually(tap_closed, "nobody listens")
    await scene.store(5)
    await scene.recreate()
    await scene.store(50)
    for other in (gateway, await scene.gateway()):
        for _ in range(2):
            async with scene.client(other, cursor) as sse:
                assert sequence_of(await expect_gap(sse, "recreated", None)) == 50
                await sse.ready()
                async with scene.client(other, cursor) as beside:
                    await expect_gap(beside, "recreated", None)
                    await beside.ready()


async def test_recreated_under_an_open_tap(scene: Scene) -> None:
    """Where somebody listens while the stream is made anew, events of the new life are never taken for ones of the old:
    who is connected, and who comes in that moment with a cursor of the old life, is told `recreated` first."""
    gateway = await scene.gateway()
    async with scene.follower(gateway) as page:
        await scene.store(5)
        await page.until_heard(5)
        cursor = page.heard[1].id
        old_life = str(page.heard[0].id).rpartition("-")[0]
        await scene.recreate()
        await scene.store(50)
        async with scene.client(gateway, cursor) as sse:
            late = [await sse.next_event()]
            while late[-1].type != "natsgate.ready":
                late.append(await sse.next_event())
        gap = await page.until_told("gap")
        assert (gap["reason"], gap["from"]) == ("recreated", None)
    for event in (*page.heard, *late):
        life, _, sequence = str(event.id).rpartition("-")
        if event.type == "message" and life == old_life:
            assert (int(sequence), event.json()["n"]) in enumerate(range(5), start=1), event


async def test_a_new_epoch(scene: Scene) -> None:
    """Another `natsgate_epoch` in the stream's metadata, as after a restore, makes every old cursor `recreated`."""
    gateway = await scene.gateway()
    async with scene.follower(gateway) as page:
        await scene.store(5)
        await page.until_heard(5)
        await scene.reconfigure(metadata={"natsgate_epoch": "2"})
        gap = await page.until_told("gap")
        assert (gap["reason"], gap["from"]) == ("recreated", None)
        await scene.store(5, begin=5)
        await page.until_heard(10)
        async with scene.client(gateway, page.heard[0].id) as sse:
            await expect_gap(sse, "recreated", None)
        async with scene.client(gateway, page.heard[5].id) as sse:
            events, _ = await up_to_ready(sse, upto=page.sequences[-1])
            assert len(events) == 4


async def test_a_snapshot_feed_is_shown_the_present_again(scene: Scene) -> None:
    """A connected snapshot feed whose stream begins anew is told so and gets the new snapshot, then live events."""
    gateway = await scene.gateway()
    async with Follower(lambda: gateway.url, scene.feed, query={"snapshot": "true"}) as page:
        await page.until_ready()
        await scene.store(5)
        await page.until_heard(5)
        await scene.recreate()
        await scene.store(2, [f"repo.{scene.id}.a", f"repo.{scene.id}.b"])
        await page.until_told("gap")
        await page.until_ready(2)
        assert page.told_of("ready")[-1]["snapshot"] == 2
        await scene.publish('{"n":"live"}', f"repo.{scene.id}.a")
        while page.heard[-1].data != '{"n":"live"}':
            await page.until_heard(len(page.heard) + 1)
        assert [(event.json()["n"], event.id is None) for event in page.heard[-3:-1]] == [(0, True), (1, True)]


async def test_a_gap_closes_a_raw_connection(scene: Scene) -> None:
    """Bare events have no word for a gap: the connection is closed with 4100 `gap`; with control it is told first."""
    table = ['name = "raw"', 'path = "/raw/{id}"', 'transports = ["ws"]', 'subjects = ["repo.{id}.>"]']
    gateway = await scene.gateway(config=routes([*table, 'framing = "raw"']))
    async with (
        RawWebSocket(gateway.url, f"/raw/{scene.id}", subprotocol=None) as bare,
        RawWebSocket(gateway.url, f"/raw/{scene.id}?control=true", subprotocol=None) as told,
    ):
        await told.next_text()
        await scene.publish('{"n":1}')
        for each in (bare, told):
            assert (await each.next_text()).json() == {"n": 1}
        await scene.recreate()
        await scene.store(1)  # shows the gateway at once that the stream began anew
        while (frame := (await told.next_text()).json())["natsgate"] == "state":
            pass
        assert (frame["natsgate"], frame["reason"]) == ("gap", "recreated")
        assert (await bare.answer_close()).close_code == 4100
        assert (await told.answer_close()).close_code == 4100


@pytest.mark.parametrize("query", ["since=all", "snapshot=true"])
async def test_a_gap_before_anything_else_closes_who_cannot_be_told(scene: Scene, query: str) -> None:
    """Who asks for more than `REPLAY_LIMIT` or `SNAPSHOT_LIMIT` gives would meet the same gap whenever it came back:
    with control it is told, and goes on live; without, the connection is closed with 4100."""
    table = ['name = "raw"', 'path = "/raw/{id}"', 'transports = ["ws"]', 'subjects = ["repo.{id}.>"]']
    gateway = await scene.gateway(config=routes([*table, 'framing = "raw"']), REPLAY_LIMIT=2, SNAPSHOT_LIMIT=2)
    await scene.store(6, [f"repo.{scene.id}.{n}" for n in range(6)])
    async with (
        RawWebSocket(gateway.url, f"/raw/{scene.id}?{query}", subprotocol=None) as bare,
        RawWebSocket(gateway.url, f"/raw/{scene.id}?{query}&control=true", subprotocol=None) as told,
    ):
        frames = [(await told.next_text()).json() for _ in range(2)]
        assert [frame["natsgate"] for frame in frames] == ["gap", "ready"]
        assert frames[0]["reason"] == "too_far"
        assert frames[0]["to"] == frames[1]["cursor"]
        assert (await bare.answer_close()).close_code == 4100
        await scene.publish('{"n":"live"}')
        assert (await told.next_text()).json() == {"n": "live"}


async def test_a_second_ready_counts_what_came_behind_the_gap(scene: Scene) -> None:
    """`replayed` and `snapshot` of a `ready` are of what came since the gap before it."""
    gateway = await scene.gateway()
    await scene.store(3, [f"repo.{scene.id}.{n}" for n in range(3)])
    begin = moved(await scene.cursor_now(gateway), lambda sequence: sequence - 2)
    async with scene.client(gateway, begin, query={"snapshot": "true"}) as page:
        replayed, ready = await up_to_ready(page)
        assert (len(replayed), ready.json()["replayed"], ready.json()["snapshot"]) == (2, 2, 0)
        await scene.recreate()
        await scene.store(3, [f"repo.{scene.id}.{each}" for each in "abc"])
        while (told := await page.next_event()).type != "natsgate.gap":
            assert told.type == "natsgate.state"
        shown, ready = await up_to_ready(page)
        assert (len(shown), ready.json()["replayed"], ready.json()["snapshot"]) == (3, 0, 3)


async def test_a_purge_in_an_outage(scene: Scene) -> None:
    """Purged while a replica could not see it (frozen, its connections cut): connected clients get `expired`."""
    gateway = await scene.gateway()
    async with scene.follower(gateway) as page:
        await scene.store(10)
        await page.until_heard(10)
        with frozen(gateway.pid):
            await scene.store(100, begin=10)
            await scene.purge(keep=3)
            await asyncio.to_thread(scene.nats.restart)
        await scene.until_producer_back()
        await scene.store(1, begin=110)
        while page.heard[-1].data != '{"n": 110}':
            await page.until_heard(len(page.heard) + 1)
        heard = page.sequences
        told = page.told_of("gap")
        covered = {s for gap in told for s in range(sequence_of(gap["from"]) + 1, sequence_of(gap["to"]) + 1)}
        assert sorted([*heard, *covered]) == list(range(heard[0], heard[-1] + 1)), "each event once, or in a gap"
        assert {gap["reason"] for gap in told} <= {"expired"}
        assert page.connects == 1
