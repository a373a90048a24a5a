"""Rights seen from outside: a name that looks like a wildcard gets what is its own."""

from __future__ import annotations

import json
import re

import pytest
from nats.aio.client import Client

from publishers.wire import encode_id
from tests.support.gateway import Gateway
from tests.support.sse import SseClient
from tests.support.tokens import bearer, token
from tests.support.ws import ws_client


@pytest.mark.parametrize("name", ["*", ">", "{}.>", "{}.*", "{}%", "%2A", "{{sub}}", "é", "\u202e", "a/b", "\n"])
async def test_a_name_is_no_wildcard(guarded: Gateway, nc: Client, own_id: str, name: str) -> None:
    """Whatever a user is called, `user.{sub}.>` is its own feed: events of others do not come, and nothing wider is to
    be had, over either transport."""
    sub = name.format(own_id)
    own = f"user.{encode_id(sub)}"
    headers = bearer(token(sub, subscribe=["user.{sub}.>"]))
    async with (
        SseClient(guarded.url, f"{own}.>", headers=headers) as sse,
        ws_client(guarded.ws_url, headers=headers) as ws,
    ):
        await sse.ready()
        await ws.subscribe(f"{own}.>")
        for wider in ("user.>", "user.*.x", f"user.{own_id}.>", "user.*.>"):
            answer = await ws.request(op="subscribe", ref=wider, subject=wider)
            assert answer["code"] == "forbidden", answer
        for number, subject in enumerate((f"user.{own_id}.x", f"user.{own_id}.x.y", "user.a.b.x", f"{own}.x")):
            await nc.publish(subject, json.dumps({"n": number, "mark": own_id}).encode())
        assert await first_of(sse, own_id) == 3
        while (event := (await ws.event())["event"]).get("mark") != own_id:
            continue
        assert event["n"] == 3
    for wider in ("user.>", "user.*.x"):
        async with SseClient(guarded.url, wider, headers=headers) as sse:
            assert sse.status == 403
            assert wider in sse.reply.problem()["detail"]


async def first_of(sse: SseClient, mark: str) -> int:
    """The number of the first event of this test: names are shared, ids are not."""
    while (event := (await sse.next_message()).json()).get("mark") != mark:
        continue
    return int(event["n"])


async def test_a_refusal_names_the_rights_that_the_token_has(guarded: Gateway, own_id: str) -> None:
    """Whoever asks for too much is told what its own token allows, `{sub}` filled in, or that it allows nothing, over
    both transports."""
    for rights, said in (
        ([f"repo.{own_id}.>", "user.{sub}.*"], f"it gives repo.{own_id}.> user.alice.* (its claim natsgate.subscribe)"),
        ([], "it gives none, since its claim natsgate.subscribe is missing or empty"),
    ):
        headers = bearer(token("alice", subscribe=rights))
        async with (
            SseClient(guarded.url, "repo.>", headers=headers) as sse,
            ws_client(guarded.ws_url, headers=headers) as ws,
        ):
            assert sse.status == 403
            error = await ws.request(op="subscribe", ref=1, subject="repo.>")
            assert error["code"] == "forbidden"
            for told in (sse.reply.problem()["detail"], error["message"]):
                assert told == f"Your token gives no right to subscribe to repo.>; {said}."


@pytest.mark.parametrize(
    ("rights", "shown"),
    [
        ([f"repo.{n}.>" for n in range(256)], r"repo\.0\.> repo\.1\.> .+ and (1|2)\d\d more"),
        (["repo." + "x" * 5000], r"repo\.x+\.\.\."),
    ],
    ids=["many", "long"],
)
async def test_however_many_they_are_the_refusal_is_short(guarded: Gateway, rights: list[str], shown: str) -> None:
    """Patterns that fill a token are shown in part, and the rest is counted."""
    async with SseClient(guarded.url, "repo.>", headers=bearer(token(subscribe=rights))) as sse:
        assert sse.status == 403
        detail = sse.reply.problem()["detail"]
    assert len(detail) < 600
    assert re.search(rf"; it gives {shown} \(its claim", detail), detail


async def test_the_inbox_is_nobodys(guarded: Gateway) -> None:
    """A token with all rights cannot read what clients send to services."""
    headers = bearer(token(subscribe=[">", "inbox.>"]))
    async with SseClient(guarded.url, "inbox.>", headers=headers) as sse:
        assert sse.status == 403
        assert "inbox" in sse.reply.problem()["detail"]
    async with ws_client(guarded.ws_url, headers=headers) as ws:
        answer = await ws.request(op="subscribe", ref=1, subject="inbox.project.9.x")
        assert answer["code"] == "forbidden"
