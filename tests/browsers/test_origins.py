"""Pages of other origins: those that are allowed read streams in every way that pages have, the others get nothing."""

from __future__ import annotations

import pytest
from nats.aio.client import Client

from tests.browsers.conftest import Visit
from tests.support.eventually import eventually
from tests.support.producer import publish
from tests.support.sse import SseClient
from tests.support.tab import Page
from tests.support.tokens import bearer, token

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ACROSS_SITES = "SameSite=None; Secure"
"""What lets a browser send a cookie along with requests of other sites' pages, if it does at all."""


async def sign_in(visit: Visit, own_id: str, attributes: str = "SameSite=Lax") -> None:
    """On the gateway's own origin, as a user would before looking at other pages."""
    visit.site.mint = lambda: token(subscribe=[f"repo.{own_id}.>"])
    page = await visit.own()
    await page.run("await signIn(args.attributes)", attributes=attributes)


async def watch(visit: Visit, page: Page, own_id: str) -> None:
    """A page of another origin opens a stream with its visitor's cookie."""
    script = "watchEvents(args.url, {withCredentials: true})"
    await page.run(script, url=f"{visit.url}/events?subject=repo.{own_id}.>")


async def assert_nothing_read(visit: Visit, page: Page, nc: Client, own_id: str) -> None:
    """An event goes by, and the page, which is still there, has seen no more than errors."""
    headers = bearer(token(subscribe=[f"repo.{own_id}.>"]))
    async with SseClient(visit.gateway.url, f"repo.{own_id}.>", headers=headers) as sse:
        await sse.ready()
        await publish(nc, f"repo.{own_id}.x", '{"n":0}')
        await sse.next_message()  # so it has gone to whoever may have it
    assert await page.run("return origin") == page.origin
    assert {each["kind"] for each in page.reports()} <= {"here", "done", "error", "refused"}


async def test_a_sibling_sends_its_cookie(visit: Visit, nc: Client, own_id: str) -> None:
    """A page of an allowed origin of the same site reads a stream `withCredentials` by a `SameSite=Lax` cookie, and
    goes on with it after the network was cut."""
    await sign_in(visit, own_id)
    page = await visit.sibling()
    await watch(visit, page, own_id)
    await page.until("natsgate.ready")
    await nc.publish(f"repo.{own_id}.x", b'{"n":1}')
    await page.until("message")
    visit.site.cut(visit.site.exchanges[0])
    await page.until("error")
    await nc.publish(f"repo.{own_id}.x", b'{"n":2}')
    assert [each["data"]["n"] for each in await page.until("message", 2)] == [1, 2]
    for exchange in visit.site.exchanges:
        assert exchange.headers["sec-fetch-site"] == "same-site"
        assert exchange.headers["origin"] == page.origin
        assert "natsgate_token=" in exchange.headers["cookie"]


async def test_a_sibling_has_to_ask_for_its_cookie(visit: Visit, own_id: str) -> None:
    """Without `withCredentials` a page of another origin has no cookie: 401."""
    await sign_in(visit, own_id)
    page = await visit.sibling()
    await page.run("watchEvents(args.url)", url=f"{visit.url}/events?subject=repo.{own_id}.>")
    assert [each["state"] for each in await page.until("error")] == [2]
    assert [(each.status, "cookie" in each.headers) for each in visit.site.exchanges] == [(401, False)]


async def test_cookies_across_sites(visit: Visit, nc: Client, own_id: str) -> None:
    """A page of an allowed origin of another site reads a stream by a cookie with `SameSite=None; Secure`, where the
    browser sends those of third parties at all; a cookie without is not sent, and the answer is 401."""
    await sign_in(visit, own_id)
    page = await visit.partner()
    await watch(visit, page, own_id)
    assert [each["state"] for each in await page.until("error")] == [2]
    await sign_in(visit, own_id, ACROSS_SITES)
    page = await visit.partner()
    await watch(visit, page, own_id)
    await page.until("natsgate.ready")
    await nc.publish(f"repo.{own_id}.x", b'{"n":1}')
    assert (await page.until("message"))[0]["data"] == {"n": 1}
    assert [(each.status, "cookie" in each.headers) for each in visit.site.exchanges] == [(401, False), (200, True)]
    assert {each.headers["sec-fetch-site"] for each in visit.site.exchanges} == {"cross-site"}


async def test_a_stranger_gets_nothing_by_a_cookie(visit: Visit, nc: Client, own_id: str) -> None:
    """A page of the same site whose origin is not allowed has its visitor's cookie sent along, and gets 403: by
    EventSource, by fetch, and by a fetch that does not want to read."""
    before, opened = await visit.refused_origins(), await visit.opened()
    await sign_in(visit, own_id)
    page = await visit.stranger()
    await watch(visit, page, own_id)
    assert [each["state"] for each in await page.until("error")] == [2]
    url = f"{visit.url}/events?subject=repo.{own_id}.>"
    await page.run("await watchFetch(args.url, {credentials: 'include'})", url=url)
    await page.until("refused")
    kind = await page.run(
        "return (await fetch(args.url, {credentials: 'include', mode: 'no-cors', method: 'GET'})).type", url=url
    )
    assert kind == "opaque"
    assert [each.status for each in visit.site.exchanges] == [403, 403, 403]
    assert all("natsgate_token=" in each.headers["cookie"] for each in visit.site.exchanges)
    assert await visit.refused_origins() == before + 3
    assert await visit.opened() == opened
    await assert_nothing_read(visit, page, nc, own_id)


async def test_a_foreigner_gets_nothing(visit: Visit, nc: Client, own_id: str) -> None:
    """A page of another site whose origin is not allowed reads nothing, not even with a cookie for all sites."""
    await sign_in(visit, own_id, ACROSS_SITES)
    page = await visit.foreigner()
    await watch(visit, page, own_id)
    assert [each["state"] for each in await page.until("error")] == [2]
    assert [(each.status, "cookie" in each.headers) for each in visit.site.exchanges] == [(403, True)]
    await assert_nothing_read(visit, page, nc, own_id)


@pytest.mark.parametrize("where", ["stranger", "foreigner"])
async def test_a_ticket_does_not_open_other_origins(visit: Visit, nc: Client, own_id: str, where: str) -> None:
    """A page whose origin is not allowed reads nothing either with a ticket that it has got hold of: its browser closes
    the stream unread."""
    await sign_in(visit, own_id)
    own = await visit.own()
    ticket = await own.run("return (await (await fetch('/auth/ticket', {method: 'POST'})).json()).ticket")
    page = await (visit.stranger() if where == "stranger" else visit.foreigner())
    url = f"{visit.url}/events?subject=repo.{own_id}.>&ticket={ticket}"
    await page.run("watchEvents(args.url)", url=url)
    assert [each["state"] for each in await page.until("error")] == [2]
    await assert_nothing_read(visit, page, nc, own_id)


async def test_a_fetch_sends_headers(visit: Visit, nc: Client, own_id: str) -> None:
    """fetch from an allowed origin sends `Authorization` and `Last-Event-ID` after a preflight, and reads the stream
    from that cursor on."""
    for n in range(3):
        await nc.jetstream().publish(f"repo.{own_id}.x", b'{"n":%d}' % n)
    page = await visit.partner()
    url = f"{visit.url}/events?subject=repo.{own_id}.>"
    headers = {"Authorization": f"Bearer {token(subscribe=[f'repo.{own_id}.>'])}"}
    await page.run("watchFetch(args.url, {headers: args.headers})", url=url + "&since=all", headers=headers)
    seen = await page.until("message", 3)
    page = await visit.partner()
    headers["Last-Event-ID"] = seen[0]["id"]
    await page.run("watchFetch(args.url, {headers: args.headers})", url=url, headers=headers)
    await page.until("natsgate.ready")
    await nc.publish(f"repo.{own_id}.x", b'{"n":3}')
    assert [each["data"]["n"] for each in await page.until("message", 3)] == [1, 2, 3]
    assert page.reports("answer")[0]["type"].startswith("text/event-stream")
    preflight, request = visit.site.exchanges[-2:]
    assert (preflight.method, preflight.status) == ("OPTIONS", 204)
    assert preflight.headers["access-control-request-headers"] == "authorization,last-event-id"
    assert (request.method, request.status) == ("GET", 200)
    assert "cookie" not in request.headers


async def test_an_error_can_be_read(visit: Visit, own_id: str) -> None:
    """A page of an allowed origin reads why it is refused, and the challenge."""
    page = await visit.partner()
    script = """
        const answer = await fetch(args.url, {headers: {Authorization: "Bearer x"}});
        return [answer.status, answer.headers.get("www-authenticate"), (await answer.json()).title];
    """
    answer = await page.run(script, url=f"{visit.url}/events?subject=repo.{own_id}.>")
    assert answer == [401, 'Bearer realm="natsgate", error="invalid_token"', "Unauthorized"]


async def test_a_preflight_is_refused(visit: Visit, own_id: str) -> None:
    """fetch with headers from an origin that is not allowed fails at its preflight: the request is never sent."""
    page = await visit.foreigner()
    headers = {"Authorization": f"Bearer {token(subscribe=['repo.>'])}", "Last-Event-ID": "0"}
    url = f"{visit.url}/events?subject=repo.{own_id}.>"
    await page.run("await watchFetch(args.url, {headers: args.headers})", url=url, headers=headers)
    assert [each["error"] for each in await page.until("refused")] == ["TypeError"]
    assert [(each.method, each.status) for each in visit.site.exchanges] == [("OPTIONS", 403)]


async def test_a_ticket_reconnects(visit: Visit, nc: Client, own_id: str) -> None:
    """A page of an allowed origin of another site gets a ticket for its token, opens a bare EventSource with it, and
    comes back with the same ticket and its cursor after the network was cut."""
    page = await visit.partner()
    script = """
        const {ticket} = await (await fetch(`${args.gateway}/auth/ticket`, {
          method: "POST",
          headers: {Authorization: `Bearer ${args.token}`, "Content-Type": "application/json"},
          body: JSON.stringify({path: "/events"}),
        })).json();
        watchEvents(`${args.gateway}/events?subject=${args.subject}&ticket=${ticket}`);
    """
    subject = f"repo.{own_id}.>"
    await page.run(script, gateway=visit.url, token=token(subscribe=[subject]), subject=subject)
    await page.until("natsgate.ready")
    await nc.publish(f"repo.{own_id}.x", b'{"n":1}')
    (message,) = await page.until("message")
    preflight, posted, stream = visit.site.exchanges
    assert [preflight.method, posted.method, stream.method] == ["OPTIONS", "POST", "GET"]
    visit.site.cut(stream)
    await page.until("error")
    await nc.publish(f"repo.{own_id}.x", b'{"n":2}')
    assert [each["data"]["n"] for each in await page.until("message", 2)] == [1, 2]
    again = visit.site.exchanges[3]
    assert again.query["ticket"] == stream.query["ticket"]
    assert again.headers["last-event-id"] == message["id"]
    assert "cookie" not in again.headers


@pytest.mark.parametrize("attributes", ["SameSite=Lax", ACROSS_SITES])
@pytest.mark.parametrize("where", ["stranger", "foreigner"])
async def test_a_ticket_cannot_be_forged(visit: Visit, own_id: str, where: str, attributes: str) -> None:
    """A page whose origin is not allowed gets no ticket by its visitor's cookie (cross-site request forgery): by fetch,
    with and without wanting to read, by a form, and by a beacon."""
    before = await visit.refused_origins()
    await sign_in(visit, own_id, attributes)
    page = await (visit.stranger() if where == "stranger" else visit.foreigner())
    script = """
        await watchFetch(args.url, {method: "POST", credentials: "include"});
        await fetch(args.url, {method: "POST", credentials: "include", mode: "no-cors"});
        navigator.sendBeacon(args.url);
        document.body.innerHTML = `<iframe name="f"></iframe>
          <form method="post" target="f" action="${args.url}"></form>`;
        document.querySelector("form").submit();
    """
    await page.run(script, url=f"{visit.url}/auth/ticket")
    await page.until("refused")

    async def answered() -> bool:
        return [each.status for each in visit.site.exchanges if each.status] == [status] * 4

    has_cookie = where == "stranger" or attributes == ACROSS_SITES
    status = 403 if has_cookie else 401
    await eventually(answered, f"four refusals with {status}: {visit.site.exchanges}")
    assert all(each.method == "POST" and "origin" in each.headers for each in visit.site.exchanges)
    assert all(("natsgate_token=" in each.headers.get("cookie", "")) == has_cookie for each in visit.site.exchanges)
    assert await visit.refused_origins() == before + (4 if has_cookie else 0)


async def test_own_and_allowed_pages_get_tickets(visit: Visit, own_id: str) -> None:
    """Pages of the own and of an allowed origin get a ticket by their cookie."""
    await sign_in(visit, own_id)
    for go in (visit.own, visit.sibling):
        page = await go()
        script = "return (await fetch(args.url, {method: 'POST', credentials: 'include'})).json()"
        answer = await page.run(script, url=f"{visit.url}/auth/ticket")
        assert set(answer) == {"ticket", "expires_at"}
