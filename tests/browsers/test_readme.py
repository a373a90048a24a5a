"""The JavaScript of gateway/README.md, in browsers, as it stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nats.aio.client import Client

from publishers.wire import encode_id
from tests.browsers.conftest import Visit
from tests.readme import blocks
from tests.support.tab import Page
from tests.support.tokens import token

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

VECTORS = json.loads((Path(__file__).parents[2] / "publishers" / "vectors.json").read_text("utf-8"))


async def signed_in(visit: Visit, right: str) -> Page:
    """A page of the gateway's own origin, whose user may have what the right says."""
    visit.site.mint = lambda: token(subscribe=[right])
    await (await visit.own()).run("await signIn()")
    return await visit.own()


async def test_the_example_encodes_ids(visit: Visit) -> None:
    """`encodeId` makes of every id of the test vectors the token that they name."""
    example, _ = blocks("js")
    page = await visit.own()
    ids = [each["id"] for each in VECTORS["ids"]]
    assert len(ids) > 20
    tokens = await page.run(f"{example}\nevents.close();\nreturn args.ids.map(encodeId);", ids=ids)
    assert tokens == [each["token"] for each in VECTORS["ids"]]


async def test_the_example_opens_a_stream(visit: Visit, nc: Client, own_id: str) -> None:
    """Its EventSource gets the events of the subject that it means, though the id holds a dot."""
    example, _ = blocks("js")
    subject = f"repo.{encode_id('owner/repo.js')}"
    page = await signed_in(visit, f"{subject}.>")
    tell = "events.onmessage = ({ data }) => report('message', { data: JSON.parse(data) });"
    await page.run(f"{example}\n{tell}\nevents.addEventListener('natsgate.ready', () => report('ready'));")
    await page.until("ready")
    await nc.publish(f"{subject}.x", json.dumps({"own": own_id}).encode())
    assert {"own": own_id} in [each["data"] for each in await page.until("message")]


async def test_the_example_of_a_websocket_comes_back(visit: Visit, nc: Client, own_id: str) -> None:
    """It gets events, and what was published while it was away, once."""
    _, example = blocks("js")
    subject = f"repo.{own_id}.x"
    page = await signed_in(visit, f"repo.{own_id}.>")
    use = f"""
        const feeds = new Map([["repo.{own_id}.>", ""]]);
        const socket = connect(feeds, (subject, event) => report("event", {{ subject, n: event.n }}));
        socket.addEventListener("message", ({{ data }}) => report(JSON.parse(data).op));
        window.leave = () => socket.close();
    """
    await page.run(f"{example}\n{use}")
    await page.until("ready")
    await nc.publish(subject, b'{"n":1}')
    await page.until("event")
    await page.run("leave()")
    await nc.publish(subject, b'{"n":2}')
    await nc.publish(subject, b'{"n":3}')
    heard = await page.until("event", 4)
    # Of the first socket the listener of the test reports the frame beside the example's event.
    assert [each["n"] for each in heard if "n" in each] == [1, 2, 3]
