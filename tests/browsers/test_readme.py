"""The JavaScript of README.md and gateway/README.md, in browsers, as it stands."""

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

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "publishers" / "vectors.json").read_text("utf-8"))


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


HANDLERS = """
    const showProgress = percent => report("progress", { percent });
    const refetch = () => report("refetch");
    const signIn = () => report("sign in");
"""


def first_example() -> str:
    """The one of README.md that a page begins with."""
    (example,) = [each for each in blocks("js", ROOT / "README.md") if "location" not in each]
    return example


async def test_the_first_example_shows_what_happens(visit: Visit, nc: Client) -> None:
    """Progress is shown with its percentage; any other event makes the page look at the truth again."""
    page = await signed_in(visit, "repo.1.>")
    await page.run(f"{HANDLERS}\n{first_example()}\nevents.addEventListener('natsgate.ready', () => report('ready'));")
    await page.until("ready")
    await nc.publish("repo.1.task.progress", b'{"type":"task.progress","payload":{"percent":60}}')
    assert 60 in [each["percent"] for each in await page.until("progress")]
    await nc.publish("repo.1.task.status_changed", b'{"type":"task.status_changed","payload":{}}')
    await page.until("refetch")


async def test_the_first_example_signs_in_again(visit: Visit) -> None:
    """Without a cookie it is refused for good, and the page asks its user to sign in."""
    page = await visit.own()
    await page.run(f"{HANDLERS}\n{first_example()}")
    await page.until("sign in")
