"""Tickets, as a page gets them."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tests.support.gateway import Gateway
from tests.support.http_reply import HttpReply, fetch_async
from tests.support.tokens import bearer


async def ask_ticket(
    gateway: Gateway,
    text: str,
    *,
    path: str | None = None,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> HttpReply:
    """`POST /auth/ticket` with a token: for a path, or with any other body; without either the body is empty."""
    content = json.dumps({"path": path}).encode() if path is not None else body
    sent = {**bearer(text), **(headers or {})}
    return await fetch_async(gateway.host, gateway.port, "/auth/ticket", method="POST", headers=sent, body=content)


async def get_ticket(gateway: Gateway, text: str, path: str | None = None) -> str:
    """A ticket for a path, or for the built-in ones."""
    reply = await ask_ticket(gateway, text, path=path)
    assert reply.status == 200, reply
    return str(reply.json()["ticket"])
