"""What a client misspells is told to it, and what others put into its requests is left alone."""

from __future__ import annotations

import json
import re

import pytest

from gateway.core.query import PARAMETERS, parse_query
from tests.conftest import StartGateway
from tests.readme import README
from tests.support.gateway import Gateway, routes
from tests.support.http_reply import fetch_async
from tests.support.sse import SseClient
from tests.support.ws import ws_client

MISSPELT = {
    "subjects": "subject",
    "Subject": "subject",
    "snapshots": "snapshot",
    "SINCE": "since",
    "Until": "until",
    "lastEventID": "last_event_id",
    "last-event-id": "last_event_id",
    "Last_Event_ID": "last_event_id",
    "accessToken": "access_token",
    "tickets": "ticket",
}
FOREIGN = ["_=1767225600", "cb", "utm_source=x", "sub=x", "subjec=x", "x-subject=y", "%00=%FF", "s" * 2000]


@pytest.mark.parametrize("name", MISSPELT)
async def test_a_parameter_in_other_letters_is_a_400_that_gives_the_right_ones(gateway: Gateway, name: str) -> None:
    """A known parameter in the plural, in other letters or with other joints is not ignored in silence."""
    async with SseClient(gateway.url, target=f"/events?subject=repo.1.%3E&{name}=true") as sse:
        assert sse.status == 400
        assert f"'{name}'; did you mean {MISSPELT[name]}?" in sse.reply.problem()["detail"]


async def test_routes_and_handshakes_tell_it_too(start_gateway: StartGateway) -> None:
    """The same holds for configured routes, over SSE and WebSocket, and for `/ws`."""
    path = "/api/repositories/7/events"
    gateway = await start_gateway(
        config=routes(['name = "r"', 'path = "/api/repositories/{id}/events"', 'subjects = ["repo.{id}.>"]'])
    )
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    for target, headers in ((path, {}), (path, upgrade), ("/ws", upgrade)):
        reply = await fetch_async(gateway.host, gateway.port, f"{target}?snapshots=true", headers=headers)
        assert reply.status == 400, target
        assert "did you mean snapshot?" in reply.problem()["detail"]


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda text: text[:12])
async def test_parameters_of_others_are_left_alone(gateway: Gateway, foreign: str) -> None:
    """What is no spelling of a known parameter, such as a cache-buster, changes nothing."""
    async with SseClient(gateway.url, target=f"/events?{foreign}&subject=repo.1.%3E") as sse:
        assert sse.status == 200, sse.body
        await sse.ready()


VALUES = {"lastEventId": "abc-1", "since": "all", "until": "head", "last_event_id": "abc-1"}


@pytest.mark.parametrize("name", PARAMETERS)
def test_each_parameter_is_taken_as_it_is_documented(name: str) -> None:
    """No known name passes for a misspelling of another, and each one stands in the README."""
    parse_query([(name, VALUES.get(name, "true"))])
    assert re.search(rf"[`?]{name}\b", README.read_text("utf-8"))


OPS: list[tuple[str, dict[str, object], str]] = [
    ("subjekt", {"op": "subscribe", "subjekt": "repo.1.>"}, "op, ref, subject, subjects, cursor, since, snapshot"),
    ("snapshots", {"op": "subscribe", "subject": "repo.1.>", "snapshots": True}, "snapshot"),
    ("last_event_id", {"op": "subscribe", "subject": "repo.1.>", "last_event_id": "x-1"}, "cursor"),
    ("until", {"op": "subscribe", "subject": "repo.1.>", "until": "head"}, "since"),
    ("subject", {"op": "unsubscribe", "feed": "repo.1.>", "subject": "repo.1.>"}, "op, ref, feed"),
    ("data", {"op": "ping", "data": None}, "op, ref"),
    ("jwt", {"op": "auth", "jwt": "x"}, "op, ref, token"),
]


@pytest.mark.parametrize(("unknown", "op", "known"), OPS, ids=[f"{op['op']} {name}" for name, op, _ in OPS])
async def test_an_unknown_field_of_an_op_is_an_error_that_names_the_known_ones(
    gateway: Gateway, unknown: str, op: dict[str, object], known: str
) -> None:
    """A message is the client's own: what means nothing in it is an error with its name, and changes nothing."""
    async with ws_client(gateway.ws_url) as ws:
        error = await ws.request(**op, ref=1)
        assert (error["op"], error["code"], error["ref"]) == ("error", "bad_request", 1)
        said, _, shown = str(error["message"]).partition(" Known: ")
        assert said == f"There is no field '{unknown}' in {op['op']}."
        assert known in shown
        assert await ws.subscribe("repo.1.>") == "repo.1.>"


async def test_the_name_of_a_field_is_shown_bounded(gateway: Gateway) -> None:
    """However long and strange its name is, the error stays one short line."""
    async with ws_client(gateway.ws_url) as ws:
        error = await ws.request(**{"op": "ping", "ref": 1, "\u2028\x1b" + "x" * 50_000: 1})
        assert error["code"] == "bad_request"
        assert len(json.dumps(error)) < 300
        assert error["message"].isprintable()
