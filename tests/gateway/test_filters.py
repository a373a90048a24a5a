"""Which filters are accepted, and how clearly the others are refused."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.support.gateway import Gateway
from tests.support.sse import SseClient
from tests.support.ws import ws_client

GOOD = [
    "repo.42.>",
    "repo.>",
    "repo.*.>",
    "repo.*.task.*",
    "task.7.progress",
    "project.9.task_created",
    "user.alice.notification",
    "ci.T-1.agent:complete",
    "repo.owner/repo%2Ejs.>",
    "repo.%2A.>",
    "repo.%25.x",
    "repo.A-Za-z0-9-_~!$&'()+,;=:@/.x",
    "repo.%E4%BB%BB.x",
]
BAD = {
    "unknown root": "planet.42.>",
    "a root in other letters": "Repo.42.>",
    "a wildcard as the root": "*.42.>",
    "everything": ">",
    "the live prefix": "live.repo.42.>",
    "JetStream's own": "$JS.API.>",
    "an inbox of NATS": "_INBOX.>",
    "nothing": "",
    "an empty token in the middle": "repo..x",
    "an empty token at the end": "repo.42.",
    "an empty token in front": ".repo.42",
    "> in the middle": "repo.>.x",
    "> inside a token": "repo.a>.x",
    "* inside a token": "repo.a*.x",
    "a lower-case encoding": "repo.a%2eb.>",
    "an encoding of what needs none": "repo.%41.>",
    "an encoding cut off": "repo.a%2.>",
    "a bare percent sign": "repo.50%.>",
    "an encoding that is no hex": "repo.a%GG.>",
    "an encoding that is no UTF-8": "repo.%FF.>",
    "a space": "repo.a b.>",
    "a tab": "repo.a\tb.>",
    "a line break": "repo.a\r\nb.>",
    "a NUL": "repo.a\0b.>",
    "raw non-ASCII": "repo.ü.>",
    "a very long one": "repo." + "x" * 5000,
}
TOO_SHORT = ["repo.42", "repo.*", "user.alice", "repo.owner/repo%2Ejs"]
INBOX = ["inbox.>", "inbox.project.9.x", "inbox.*.>"]


@pytest.mark.parametrize("subject", GOOD)
async def test_good_filters_are_accepted(gateway: Gateway, subject: str) -> None:
    """A canonical filter under a known root opens a stream and a feed."""
    async with SseClient(gateway.url, subject) as sse, ws_client(gateway.ws_url) as ws:
        assert sse.status == 200, sse.body
        await sse.ready()
        assert await ws.subscribe(subject) == subject


@pytest.mark.parametrize("subject", BAD.values(), ids=BAD.keys())
async def test_bad_filters_are_a_400_that_says_what_to_do(gateway: Gateway, subject: str) -> None:
    """Any other filter is refused by 400 and a problem whose detail explains it."""
    async with SseClient(gateway.url, subject) as sse:
        assert sse.status == 400
        sse.reply.problem()


@pytest.mark.parametrize("subject", BAD.values(), ids=BAD.keys())
async def test_bad_filters_are_an_error_op_and_no_close(gateway: Gateway, subject: str) -> None:
    """Over WebSocket the same is an error with the request's `ref`; the connection goes on."""
    async with ws_client(gateway.ws_url) as ws:
        error = await ws.request(op="subscribe", ref="r-1", subject=subject)
        assert error["op"] == "error"
        assert error["ref"] == "r-1"
        assert error["code"]
        assert len(error["message"]) > 10
        assert await ws.request(op="ping", ref=2) == {"op": "pong", "ref": 2}


@pytest.mark.parametrize("subject", TOO_SHORT)
async def test_a_filter_that_no_event_can_match_is_refused_with_one_that_does(gateway: Gateway, subject: str) -> None:
    """Subjects have at least three tokens: a filter of two literal ones, or with `*`, is a mistake, and the mend, which
    the refusal gives, is a filter."""
    async with SseClient(gateway.url, subject) as sse, ws_client(gateway.ws_url) as ws:
        assert sse.status == 400
        error = await ws.request(op="subscribe", ref=1, subject=subject)
        assert (error["op"], error["code"]) == ("error", "bad_request")
        for told in (sse.reply.problem()["detail"], error["message"]):
            assert "at least three" in told
            assert f"Write '{subject}.>'" in told
        assert await ws.subscribe(f"{subject}.>") == f"{subject}.>"


@pytest.mark.parametrize("subject", INBOX)
async def test_the_inbox_is_never_subscribable(gateway: Gateway, subject: str) -> None:
    """What clients send to services can not be read by clients."""
    async with SseClient(gateway.url, subject) as sse, ws_client(gateway.ws_url) as ws:
        assert sse.status in (400, 403)
        sse.reply.problem()
        assert (await ws.request(op="subscribe", ref=1, subject=subject))["op"] == "error"


async def test_a_request_without_filter_is_refused(gateway: Gateway) -> None:
    """`/events` without `subject` is a 400 that names the parameter."""
    async with SseClient(gateway.url, target="/events") as sse:
        assert sse.status == 400
        assert "subject" in sse.reply.problem()["detail"]


async def test_one_bad_filter_refuses_them_all(gateway: Gateway, own_id: str) -> None:
    """A feed is all of its filters or none of them; the detail names the culprit."""
    async with SseClient(gateway.url, f"repo.{own_id}.>", "planet.9.>") as sse:
        assert sse.status == 400
        assert "planet" in sse.reply.problem()["detail"]
    async with ws_client(gateway.ws_url) as ws:
        error = await ws.request(op="subscribe", ref=1, subjects=[f"repo.{own_id}.>", "planet.9.>"])
        assert error["op"] == "error"
        assert "planet" in error["message"]


async def test_a_feed_has_at_most_max_filters(gateway: Gateway, own_id: str) -> None:
    """32 filters make a feed, 33 do not; the detail names the limit."""
    filters = [f"repo.{own_id}-{n}.>" for n in range(33)]
    async with SseClient(gateway.url, *filters[:32]) as allowed, SseClient(gateway.url, *filters) as refused:
        await allowed.ready()
        assert refused.status == 400
        assert "32" in refused.reply.problem()["detail"]


@pytest.mark.parametrize("encoded", ["repo.%2.>", "repo.%zz.>", "repo.%ff.>", "repo.%C3%28.x"])
async def test_a_query_that_is_broken_in_itself_is_a_400(gateway: Gateway, encoded: str) -> None:
    """Broken percent-encoding of the query itself is refused, not guessed at."""
    async with SseClient(gateway.url, target=f"/events?subject={encoded}") as sse:
        assert sse.status == 400
        sse.reply.problem()


async def test_the_query_is_decoded_once(gateway: Gateway) -> None:
    """`%252A` in the query is the id `%2A` in the filter: canonical. `%252a` is not."""
    async with SseClient(gateway.url, target="/events?subject=repo.%252A.%3E") as good:
        await good.ready()
    async with SseClient(gateway.url, target="/events?subject=repo.%252a.%3E") as bad:
        assert bad.status == 400


async def test_details_repeat_hostile_filters_safely(gateway: Gateway) -> None:
    """Whatever the filter holds, the refusal stays one well-formed JSON document."""
    hostile = 'planet."<script>\\\u2028\x00\x1b[31m.>'
    async with SseClient(gateway.url, target=f"/events?subject={quote(hostile, safe='')}") as sse:
        assert sse.status == 400
        sse.reply.problem()
