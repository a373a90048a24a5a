"""WebSocket in pages: a browser sends no header that a page could choose, and shows no status, only a close code."""

from __future__ import annotations

import pytest
from nats.aio.client import Client

from tests.browsers.conftest import Visit
from tests.support.tab import Page
from tests.support.tokens import claims, sign, token

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


async def watch(visit: Visit, page: Page, own_id: str, *, bearer: str = "", auth: str = "") -> None:
    """A page opens a socket and asks for a feed, with a token as a subprotocol, in its first frame, or none."""
    subscribe = {"op": "subscribe", "ref": 1, "subject": f"repo.{own_id}.>"}
    first = [{"op": "auth", "ref": 0, "token": auth}, subscribe] if auth else [subscribe]
    protocols = ["natsgate.v1", *([f"natsgate.bearer.{bearer}"] if bearer else [])]
    script = "globalThis.socket = watchSocket(args.url, args.protocols, args.first)"
    await page.run(script, url=f"{visit.ws_url}/ws", protocols=protocols, first=first)


async def assert_served(page: Page, nc: Client, own_id: str) -> None:
    """The page gets the events of its feed."""
    await page.until("ready")
    await nc.publish(f"repo.{own_id}.x", b'{"n":1}')
    (event,) = await page.until("event")
    assert event["event"] == {"n": 1}
    assert page.reports("open")[0]["protocol"] == "natsgate.v1"


@pytest.mark.parametrize("where", ["own", "sibling"])
async def test_a_cookie_opens_a_socket(visit: Visit, nc: Client, own_id: str, where: str) -> None:
    """A page of the own origin, or of an allowed one of the same site, is known by its cookie."""
    visit.site.mint = lambda: token(subscribe=[f"repo.{own_id}.>"])
    page = await visit.own()
    await page.run("await signIn()")
    page = page if where == "own" else await visit.sibling()
    await watch(visit, page, own_id)
    await assert_served(page, nc, own_id)
    assert page.reports("hello")[0]["authenticated"] is True
    assert visit.site.exchanges[0].headers["origin"] == page.origin


@pytest.mark.parametrize("where", ["own", "partner"])
async def test_a_subprotocol_carries_the_token(visit: Visit, nc: Client, own_id: str, where: str) -> None:
    """A page offers its token beside `natsgate.v1`, which is the one that is chosen."""
    page = await (visit.own() if where == "own" else visit.partner())
    await watch(visit, page, own_id, bearer=token(subscribe=[f"repo.{own_id}.>"]))
    await assert_served(page, nc, own_id)
    assert page.reports("hello")[0]["authenticated"] is True


@pytest.mark.parametrize("where", ["own", "partner"])
async def test_the_first_frame_carries_the_token(visit: Visit, nc: Client, own_id: str, where: str) -> None:
    """A page says who it is in its first message, with what it wants right behind it."""
    page = await (visit.own() if where == "own" else visit.partner())
    await watch(visit, page, own_id, auth=token(subscribe=[f"repo.{own_id}.>"]))
    await assert_served(page, nc, own_id)
    assert page.reports("hello")[0]["authenticated"] is False
    assert [each["ref"] for each in page.reports("authenticated", "subscribed")] == [0, 1]


@pytest.mark.parametrize("where", ["stranger", "foreigner"])
async def test_other_origins_are_refused(visit: Visit, own_id: str, where: str) -> None:
    """A page whose origin is not allowed gets no socket, whether by its visitor's cookie or by a good token: all it
    sees is an error and 1006."""
    before, opened = await visit.refused_origins(), await visit.opened()
    visit.site.mint = lambda: token(subscribe=[f"repo.{own_id}.>"])
    page = await visit.own()
    await page.run("await signIn('SameSite=None; Secure')")
    page = await (visit.stranger() if where == "stranger" else visit.foreigner())
    await watch(visit, page, own_id)
    await page.until("close")
    await watch(visit, page, own_id, bearer=token(subscribe=[f"repo.{own_id}.>"]))
    closes = await page.until("close", 2)
    assert [(each["code"], each["reason"], each["wasClean"]) for each in closes] == [(1006, "", False)] * 2
    assert {each["kind"] for each in page.reports()} == {"here", "done", "failure", "close"}
    assert [(each.status, "cookie" in each.headers) for each in visit.site.exchanges] == [(403, True)] * 2
    assert await visit.refused_origins() == before + 2
    assert await visit.opened() == opened


async def test_a_sandboxed_frame_is_nobody(visit: Visit, own_id: str) -> None:
    """A sandboxed frame, also one on a page of the own origin, has the origin `null`: it gets neither a socket nor a
    stream by the cookie."""
    visit.site.mint = lambda: token(subscribe=[f"repo.{own_id}.>"])
    page = await visit.own()
    script = """
        await signIn("SameSite=None; Secure");
        const answered = new Promise((resolve) => addEventListener("message", ({data}) => resolve(data)));
        const frame = document.createElement("iframe");
        frame.sandbox = "allow-scripts";
        frame.srcdoc = `<script>
          const socket = new Promise((resolve) => {
            new WebSocket("${args.ws}", "natsgate.v1").onclose = ({code}) => resolve(code);
          });
          const stream = fetch("${args.events}", {credentials: "include"}).catch((error) => error.name);
          Promise.all([origin, socket, stream]).then((all) => parent.postMessage(all, "*"));
        </scr` + `ipt>`;
        document.body.append(frame);
        return await answered;
    """
    url = f"{visit.url}/events?subject=repo.{own_id}.>"
    assert await page.run(script, ws=f"{visit.ws_url}/ws", events=url) == ["null", 1006, "TypeError"]
    assert [(each.status, each.headers["origin"]) for each in visit.site.exchanges] == [(403, "null")] * 2


async def test_a_page_sees_that_its_token_has_expired(visit: Visit, nc: Client, own_id: str) -> None:
    """At its token's `exp` the page is told by a `closing` frame and the close code 3000 with the reason; with its
    cookie refreshed and its last cursor it goes on where it was."""
    visit.site.mint = lambda: token(subscribe=[f"repo.{own_id}.>"], ttl_s=4)
    page = await visit.own()
    await page.run("await signIn()")
    await watch(visit, page, own_id)
    await assert_served(page, nc, own_id)
    (close,) = await page.until("close")
    assert (close["code"], close["reason"], close["wasClean"]) == (3000, "token_expired", True)
    assert page.reports("closing")[0]["reason"] == "token_expired"
    await nc.jetstream().publish(f"repo.{own_id}.x", b'{"n":2}')
    again = {
        "op": "subscribe",
        "ref": 1,
        "subject": f"repo.{own_id}.>",
        "cursor": page.reports("event")[0]["cursor"],
    }
    script = "await signIn(); watchSocket(args.url, ['natsgate.v1'], [args.again])"
    await page.run(script, url=f"{visit.ws_url}/ws", again=again)
    assert [each["event"]["n"] for each in await page.until("event", 2)] == [1, 2]


async def test_a_page_sees_why_its_token_is_not_taken(visit: Visit, own_id: str) -> None:
    """A token that is not taken, as a subprotocol or in the first frame, is told by 3000 `unauthorized`."""
    page = await visit.own()
    await watch(visit, page, own_id, bearer=sign(claims(), key="another-secret-of-at-least-32-bytes"))
    await page.until("close")
    await watch(visit, page, own_id, auth="nonsense")
    closes = await page.until("close", 2)
    assert [(each["code"], each["reason"]) for each in closes] == [(3000, "unauthorized")] * 2
    assert not page.reports("ready")


async def test_a_page_sees_that_it_is_forbidden(visit: Visit, own_id: str) -> None:
    """A filter that the token does not allow is an error and leaves the socket open; a token of somebody else ends it
    with 3003 `forbidden`."""
    page = await visit.own()
    await watch(visit, page, own_id, bearer=token("alice", subscribe=[f"repo.{own_id}.a.>"]))
    (error,) = await page.until("error")
    assert (error["code"], error["ref"]) == ("forbidden", 1)
    await page.run("socket.send(JSON.stringify(args))", op="auth", ref=2, token=token("bob", subscribe=["repo.>"]))
    (close,) = await page.until("close")
    assert (close["code"], close["reason"], close["wasClean"]) == (3003, "forbidden", True)
