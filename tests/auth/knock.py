"""A knock at the door: one request with a token, and what is promised about every refusal of one."""

from __future__ import annotations

from collections.abc import Mapping

from tests.support.gateway import Gateway
from tests.support.http_reply import HttpReply, fetch_async
from tests.support.tokens import bearer

PATH = "/events?subject=user.alice.%3E&until=head"


async def knock(gateway: Gateway, token: str, *, accept: str = "*/*", path: str = PATH) -> HttpReply:
    """Ask for a stream that ends at once."""
    return await ask(gateway, {**bearer(token), "Accept": accept}, path=path)


async def ask(gateway: Gateway, headers: Mapping[str, str], *, path: str = PATH) -> HttpReply:
    """The same with headers of the test's own."""
    return await fetch_async(gateway.host, gateway.port, path, headers=headers)


async def refused(gateway: Gateway, token: str, reason: str, *names: str) -> None:
    """The token is answered with 401, a challenge (RFC 6750, section 3.1) and a detail that holds all of `names` and
    nothing of the token, and is counted once with this reason."""
    before = gateway.metrics().by("natsgate_auth_failures_total", "reason")
    reply = await knock(gateway, token)
    assert reply.status == 401, reply
    assert reply.headers["www-authenticate"] == 'Bearer realm="natsgate", error="invalid_token"'
    detail = reply.problem()["detail"]
    for name in names:
        assert name in detail, detail
    for part in token.split("."):
        assert len(part) < 8 or part not in reply.body.decode(), "the token is in the answer"
    after = gateway.metrics().by("natsgate_auth_failures_total", "reason")
    assert {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)} == {
        reason: 1
    }


async def let_in(gateway: Gateway, token: str) -> None:
    """The token opens a stream."""
    reply = await knock(gateway, token)
    assert reply.status == 200, reply
    assert b"natsgate.ready" in reply.body, reply
