"""`natsgate tail`: follows a gateway's event stream, and comes back where it was when the connection goes."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from gateway.commands.address import Address, parse_address
from gateway.commands.outcome import CommandFailed, NatsNotReached
from gateway.commands.sse_client import Broken, Refused, SseConnection
from gateway.core.schedule import backoff
from gateway.core.sse_reader import NotAnEventStream, SseEvent, SseReader

FIRST_WAIT_S, LONGEST_WAIT_S = 0.2, 10.0
PATIENCE_S = 30.0
"""How long `--until-head` tries to reach a gateway: a script should not hang for ever."""


class GatewayNotReached(NatsNotReached):
    """The gateway was not there for as long as `--until-head` waits."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to follow.

    Attributes:
        filters: NATS filters for `/events`; empty with `route`.
        route: a configured route's path, with or without a query.
        since: `all`, a duration or an RFC 3339 time; None: from now.
        until_head: end instead of going live.
        token: a bearer token; None: none is sent.
    """

    url: str
    filters: tuple[str, ...] = ()
    route: str | None = None
    since: str | None = None
    until_head: bool = False
    token: str | None = None

    def target(self) -> str:
        """Path and query.

        Raises:
            CommandFailed: neither or both of filters and route, or a route that is no path.
        """
        if bool(self.filters) == (self.route is not None):
            raise CommandFailed("say what to follow: filters such as 'repo.42.>', or --route /api/…; one of the two")
        path = self.route if self.route is not None else "/events"
        if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
            raise CommandFailed(f"--route {path!a}: give a path as in a URL, such as /api/repositories/42/events")
        pairs = [("subject", each) for each in self.filters]
        pairs += [("since", self.since)] if self.since is not None else []
        pairs += [("until", "head")] if self.until_head else []
        asked = parse_qsl(urlsplit(path).query, keep_blank_values=True)
        # Of an event without a type its subject's tail is told, which only the gateway knows.
        pairs += [("named", "true")] if not any(name == "named" for name, _ in asked) else []
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)
        return path + (("&" if "?" in path else "?") + query if query else "")

    def headers(self) -> dict[str, str]:
        """The request's own headers.

        Raises:
            CommandFailed: the token can be no header.
        """
        if self.token is None:
            return {}
        if not self.token.isascii() or not self.token.isprintable() or " " in self.token:
            raise CommandFailed(
                "the token (--token, NATSGATE_TOKEN) holds something that no token has: a space, a line"
            )
        return {"Authorization": f"Bearer {self.token}"}


class Tail:
    """One run.

    Args:
        show: prints an event.
        tell: prints a line about the connection, for people.
    """

    def __init__(self, request: Request, show: Callable[[SseEvent], object], tell: Callable[[str], object]) -> None:
        self._request = request
        self._show = show
        self._tell = tell
        self._reader = SseReader()
        self._told_up = True
        self._ready = False
        self._done = False
        self._wait_s: float | None = None
        self._why = ""

    async def run(self) -> None:
        """Follow until the stream is done (`--until-head`), or for ever.

        Raises:
            CommandFailed: the gateway refuses, or ends the stream for good; or the request makes no sense.
            GatewayNotReached: with `--until-head`, there is no gateway.
        """
        address, target, headers = parse_address(self._request.url), self._request.target(), self._request.headers()
        loop = asyncio.get_running_loop()
        waits = backoff(Random(), FIRST_WAIT_S, LONGEST_WAIT_S)
        reached_at = loop.time()
        while True:
            answered = await self._follow(address, target, headers)
            if self._done:
                return
            if answered:
                reached_at = loop.time()
            if self._ready:
                waits = backoff(Random(), FIRST_WAIT_S, LONGEST_WAIT_S)
            if self._request.until_head and loop.time() - reached_at > PATIENCE_S:
                raise GatewayNotReached(f"gave up after {PATIENCE_S:g} s: {self._why}; check --url")
            wait_s = next(waits) if self._wait_s is None else self._wait_s
            after = f", behind {self._reader.last_event_id}" if self._reader.last_event_id else ""
            self._tell(f"{self._why}; again in {wait_s:.1f} s{after}")
            self._told_up = False
            await asyncio.sleep(wait_s)

    async def _follow(self, address: Address, target: str, headers: dict[str, str]) -> bool:
        """One connection. Returns whether the gateway answered; `_why` then says why it ended."""
        self._ready, self._wait_s, self._why = False, None, "the stream ended"
        reader = self._reader = SseReader(self._reader.last_event_id)
        if reader.last_event_id:
            headers = {**headers, "Last-Event-ID": reader.last_event_id}
        answered = False
        try:
            async with SseConnection(address, target, headers, reader) as stream:
                answered = True
                async for event in stream.events():
                    if event.name.startswith("natsgate."):
                        self._control(event.name.removeprefix("natsgate."), _fields(event.data))
                    else:
                        self._show(event)
        except Refused as refused:
            if refused.for_good:
                raise CommandFailed(f"the gateway refused, {refused}") from None
            self._why, self._wait_s = f"the gateway refused, {refused}", refused.retry_after_s
        except Broken as broken:
            self._why = str(broken)
        except (NotAnEventStream, ValueError) as error:
            raise CommandFailed(f"what {address.authority} sends is no event stream of a natsgate: {error}") from None
        return answered

    def _control(self, name: str, fields: dict[str, Any]) -> None:
        if name == "ready":
            self._ready = True
            if not self._told_up:
                self._told_up = True
                self._tell(f"connected again; {fields.get('replayed', 0)} missed events were sent")
        elif name == "gap":
            begin = fields.get("from") or "an unknown place"
            self._tell(f"gap: events between {begin} and {fields.get('to')} are gone ({fields.get('reason')})")
        elif name == "state":
            self._tell(f"the gateway's NATS is {fields.get('upstream')}")
        elif name == "closing":
            reason = str(fields.get("reason"))
            if reason == "done":
                self._done = True
            elif not fields.get("reconnect"):
                raise CommandFailed(f"the gateway ended the stream for good: {reason}")
            else:
                self._why = f"the gateway ended the stream: {reason}"
                self._wait_s = float(fields.get("retry_ms") or 0) / 1000


def _fields(data: str) -> dict[str, Any]:
    fields = json.loads(data)
    if not isinstance(fields, dict):
        raise ValueError("a control event without fields")
    return fields


def tail(request: Request, show: Callable[[SseEvent], object], tell: Callable[[str], object]) -> None:
    """Follow until done, Ctrl-C or SIGTERM; both of them are a good end.

    Raises:
        CommandFailed, GatewayNotReached: see `Tail.run`.
        BrokenPipeError: nobody reads what `show` writes any more.
    """

    async def run() -> None:
        following = asyncio.ensure_future(Tail(request, show, tell).run())
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, following.cancel)
        await asyncio.wait([following])
        if not following.cancelled():
            following.result()

    asyncio.run(run())
