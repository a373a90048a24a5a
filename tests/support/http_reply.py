"""A whole HTTP answer, and plain requests that fetch one."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class HttpReply:
    """Status, headers (names in lower case; repeated ones joined by a comma) and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def problem(self) -> dict[str, Any]:
        """The body as `application/problem+json` (RFC 9457), its required shape asserted."""
        assert self.headers.get("content-type", "").split(";")[0] == "application/problem+json", self
        problem: dict[str, Any] = self.json()
        assert problem.get("status") == self.status, self
        assert isinstance(problem.get("title"), str), self
        assert isinstance(problem.get("detail"), str), self
        assert len(problem["detail"]) > 10, f"detail says too little: {problem}"
        return problem


def fetch(
    host: str,
    port: int,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout_s: float = 10.0,
) -> HttpReply:
    """One request on a connection of its own; `path` goes out as it is."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        names = {name.lower() for name, _ in response.getheaders()}
        return HttpReply(response.status, {name: response.headers.get(name, "") for name in names}, response.read())
    finally:
        connection.close()


async def fetch_async(
    host: str,
    port: int,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> HttpReply:
    """`fetch` in a thread."""
    return await asyncio.to_thread(fetch, host, port, path, method=method, headers=headers, body=body)
