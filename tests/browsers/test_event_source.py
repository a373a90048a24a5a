"""EventSource on a page of the gateway's own origin: nothing but a URL and a cookie, and it loses nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest
from nats.aio.client import Client

from tests.browsers.conftest import Visit, settings
from tests.conftest import StartGateway
from tests.support.flow import Flow
from tests.support.tab import Page
from tests.support.tokens import token

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CHROMIUM_RETRY_S = 3.0
"""How long Chromium waits before it comes back when nobody tells it; Firefox waits longer."""

SHORT_S = 4
"""The life of a token that a test wants to see the end of: long enough for a page to open a stream with it."""


def numbers(page: Page) -> list[int]:
    """The numbers of the flow's events that `onmessage` saw. A message that is none of them fails."""
    return [message["data"]["n"] for message in page.reports("message")]


def in_order(seen: list[int]) -> bool:
    """Whether they are some, and follow each other: none is missing in between, none is there twice."""
    return bool(seen) and seen == list(range(seen[0], seen[0] + len(seen)))


async def expired(visit: Visit) -> float:
    """How many connections the gateway has ended because their token was over."""
    return (await visit.metrics()).total("natsgate_connections_closed_total", reason="token_expired")


async def test_a_cookie_opens_a_stream(visit: Visit, nc: Client, own_id: str) -> None:
    """A bare EventSource with the cookie gets events with their ids: unnamed ones in `onmessage`, those of a type in
    its listener with `named=true`; natsgate's own come by their names and never reach `onmessage`."""
    visit.site.mint = lambda: token(subscribe=[f"repo.{own_id}.>"])
    page = await visit.own()
    await page.run("await signIn()")
    for query, kind in (("", "message"), ("&named=true", "task.progress")):
        page = await visit.own()
        url = f"/events?subject=repo.{own_id}.>{query}"
        await page.run("watchEvents(args.url, {names: ['task.progress']})", url=url)
        (ready,) = await page.until("natsgate.ready")
        assert ready["id"] == ready["data"]["cursor"]
        assert [each["state"] for each in page.reports("open")] == [1]
        for n in range(3):
            await nc.publish(f"repo.{own_id}.task.progress", b'{"type":"task.progress","n":%d}' % n)
        events = await page.until(kind, 3)
        assert [event["data"]["n"] for event in events] == [0, 1, 2]
        assert len({event["id"] for event in events} - {ready["id"]}) == 3
        assert {each["kind"] for each in page.reports()} == {"here", "open", "natsgate.ready", kind, "done"}
    first = visit.site.exchanges[0]
    assert first.headers["cookie"].startswith("natsgate_token=ey")
    assert first.headers["sec-fetch-site"] == "same-origin"
    assert "origin" not in first.headers


async def test_a_page_without_a_cookie_is_refused(visit: Visit, own_id: str) -> None:
    """Without the cookie: 401, and the EventSource is closed for good."""
    page = await visit.own()
    await page.run("watchEvents(args.url)", url=f"/events?subject=repo.{own_id}.>")
    assert [each["state"] for each in await page.until("error")] == [2]
    assert [each.status for each in visit.site.exchanges] == [401]


async def test_retry_is_honoured(visit: Visit, start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """The browser waits as long as `retry:` says, not its own time, before it comes back; over and over, in a steady
    flow, nothing is lost and nothing comes twice."""
    gateway = await start_gateway(settings=settings(visit.site, MAX_AGE_S=1))
    visit.site.gateway = gateway
    visit.site.mint = lambda: token(subscribe=[f"repo.{own_id}.>"])
    page = await visit.own()
    async with Flow(nc, [f"repo.{own_id}.x"], pause_s=0.02, each=1) as flow:
        await page.run("await signIn(); watchEvents(args.url)", url=f"/events?subject=repo.{own_id}.>")
        closings = await page.until("natsgate.closing", 3)
        await page.until("open", 4)
        await flow.stop()
        await page.until("message", flow.stored - numbers(page)[0])
    assert in_order(numbers(page))
    assert numbers(page)[-1] == flow.stored - 1
    assert {(each["data"]["reason"], each["data"]["reconnect"]) for each in closings} == {("max_age", True)}
    streams = visit.site.exchanges
    waits = [after.began_at - (before.ended_at or 0) for before, after in pairwise(streams)]
    told = [each["data"]["retry_ms"] / 1000 for each in closings]
    assert all(waited >= asked * 0.9 for waited, asked in zip(waits, told, strict=False)), (waits, told)
    assert min(waits) < CHROMIUM_RETRY_S - 1, waits


async def test_a_refreshed_cookie_goes_on(visit: Visit, nc: Client, own_id: str) -> None:
    """A stream ends at its token's `exp`; a page that has its cookie refreshed meanwhile goes on by itself, and loses
    and doubles nothing of a steady flow."""
    before = await expired(visit)
    lives_s = iter([SHORT_S, 600])
    visit.site.mint = lambda: token(subscribe=[f"repo.{own_id}.>"], ttl_s=next(lives_s))
    page = await visit.own()
    async with Flow(nc, [f"repo.{own_id}.x"], pause_s=0.02, each=1) as flow:
        await page.run(
            """
            await signIn();
            watchEvents(args.url).addEventListener("natsgate.closing", () => signIn());
            """,
            url=f"/events?subject=repo.{own_id}.>",
        )
        (closing,) = await page.until("natsgate.closing")
        await page.until("natsgate.ready", 2)
        await flow.more(50)
        await flow.stop()
        await page.until("message", flow.stored - numbers(page)[0])
    assert closing["data"]["reason"] == "token_expired"
    assert in_order(numbers(page))
    assert numbers(page)[-1] == flow.stored - 1
    assert page.reports("error")[0]["state"] == 0
    assert await expired(visit) == before + 1
    first, second = visit.site.exchanges
    assert first.headers["cookie"] != second.headers["cookie"]
    assert second.headers["last-event-id"] == closing["id"] != ""


async def test_a_stale_cookie_ends_it(visit: Visit, own_id: str) -> None:
    """A page whose cookie is not refreshed gets 401 when its stream ends, is closed and asks no more, also not when the
    user has signed in again: that takes a new EventSource."""
    visit.site.mint = lambda: token(subscribe=[f"repo.{own_id}.>"], ttl_s=SHORT_S)
    page = await visit.own()
    await page.run("await signIn(); watchEvents(args.url)", url=f"/events?subject=repo.{own_id}.>")
    await page.until("natsgate.closing")
    await page.until("error", 2)
    assert [each["state"] for each in page.reports("error")] == [0, 2]
    assert [each.status for each in visit.site.exchanges] == [200, 401]
    await page.run("await signIn(); watchEvents(args.url)", url=f"/events?subject=repo.{own_id}.>&named=true")
    await page.until("natsgate.closing", 2)  # longer than the first one would have waited
    assert [each.status for each in visit.site.exchanges if "named" not in each.query] == [200, 401]
