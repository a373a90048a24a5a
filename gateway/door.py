"""The gate and its doors: from a principal to what a path serves to it. Every filter and every subject passes here."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from random import Random

from starlette.requests import HTTPConnection

from gateway.auth.authenticator import Authenticator
from gateway.auth.services import Services, Unasked
from gateway.auth.verdict import Verdict
from gateway.core.addresses import client_address
from gateway.core.closing import Closing
from gateway.core.cursor import Cursor
from gateway.core.errors import BadRequest, ClientError, Forbidden, Hidden, Unauthorized, UpstreamAway
from gateway.core.guard import Entry, Guard, Store
from gateway.core.query import StreamQuery, parse_filters
from gateway.core.reader import Initial
from gateway.core.rights import EVERYONE, Principal
from gateway.core.routes import SUB, RouteSpec
from gateway.core.schedule import lifetime_s
from gateway.core.subjects import Filter
from gateway.settings import Settings
from publishers.wire import decode_id, encode_id

EXPIRY_SPREAD_S = 2.0
"""Tokens of one sign-in end at one second; their streams end spread over this time behind it, so that their clients do
not come back all at once."""

ASK_DELAY_S = 1.0
"""How long a service is let off when it could not be asked because NATS went."""


class Gate:
    """What all doors share.

    Args:
        settings: roots, limits, leeway.
        authenticator: says who is asking.
        services: say who may have a route that asks one.
        store: stores a message in the stream: subject and payload.
        now: monotonic seconds; `wall`: seconds since the epoch.
        random: for the spread of ends.
    """

    def __init__(
        self,
        settings: Settings,
        authenticator: Authenticator,
        services: Services,
        store: Callable[[str, bytes], Awaitable[object]],
        *,
        now: Callable[[], float],
        wall: Callable[[], float],
        random: Random,
    ) -> None:
        self.settings = settings
        self.authenticator = authenticator
        self.services = services
        self.store = store
        self.now = now
        self._wall = wall
        self._random = random

    def ask_at(self, ttl_s: float) -> float:
        """When a service is asked again: those who came together are not asked about in one moment."""
        return self.now() + lifetime_s(self._random, ttl_s)

    def reloaded(self, settings: Settings, authenticator: Authenticator) -> None:
        """Let in by these from now on. Whoever is in stays."""
        self.settings = settings
        self.authenticator = authenticator
        self.services.max_event_bytes = settings.max_event_bytes

    def guard(self, principal: Principal) -> Guard | None:
        """The guard of a connection of this principal; None where nothing about it ever changes."""
        if principal is EVERYONE:
            return None
        if principal.expires_at is None:
            return Guard(principal, math.inf, Closing.TOKEN_EXPIRED)
        left_s = principal.expires_at - self._wall()
        if left_s <= 0:
            left_s += self.settings.jwt_leeway_s  # taken although it is over, since clocks differ
        ends_at = self.now() + max(0.0, left_s) + self._random.uniform(0, EXPIRY_SPREAD_S)
        return Guard(principal, ends_at, Closing.TOKEN_EXPIRED)

    def remote(self, connection: HTTPConnection) -> str:
        """The address of the client, behind the proxies that we trust."""
        peer = connection.client.host if connection.client is not None else ""
        return client_address(peer, connection.headers.getlist("x-forwarded-for"), self.settings.trusted_proxies)

    def nobody_yet(self) -> Guard:
        """The guard of a WebSocket whose client has yet to say who it is."""
        timeout_s = self.settings.auth_timeout_s
        return Guard(None, self.now() + timeout_s if timeout_s else math.inf, Closing.UNAUTHORIZED)


class Door:
    """One path, as one request has spelled it.

    Args:
        gate: what all doors share.
        spec: the configured route; None: a built-in stream.
        parameters: of its path, encoded as ids.
        query: the request's.
    """

    __slots__ = ("_gate", "_parameters", "_query", "_spec")

    def __init__(self, gate: Gate, spec: RouteSpec | None, parameters: Mapping[str, str], query: StreamQuery) -> None:
        if spec is not None and query.subjects:
            raise BadRequest("This path fixes its subjects; leave subject out, or use /events.")
        self._gate = gate
        self._spec = spec
        self._parameters = parameters
        self._query = query

    async def authenticate(self, token: str) -> Guard:
        """Whose token it is.

        Raises:
            Unauthorized, ComeBack: it is not taken, or not now.
        """
        principal = await self._gate.authenticator.of_token(token)
        return self.guard(principal) or Guard(principal, math.inf, Closing.TOKEN_EXPIRED)

    def guard(self, principal: Principal) -> Guard | None:
        """The guard of a connection of this principal by this path; None where nothing about it ever changes."""
        guard = self._gate.guard(principal)
        if self._asks_service:
            guard = guard or Guard(principal, math.inf, Closing.TOKEN_EXPIRED)
            guard.ask = partial(self._ask_again, principal)
        return guard

    def allow(self, guard: Guard | None, subjects: tuple[str, ...]) -> list[Filter]:
        """Turn filters as a client wrote them into filters that it may have.

        Raises:
            BadRequest: one is malformed.
            Unauthorized: the client has not said who it is.
            Forbidden: one is not covered by its rights.
        """
        settings = self._gate.settings
        filters = parse_filters(subjects, settings.roots, settings.max_filters)
        _who(guard).require(filters)
        return filters

    async def enter(self, guard: Guard | None) -> Entry:
        """What the path serves to a client by itself.

        Raises:
            BadRequest, Unauthorized, Forbidden: what it asks for is malformed, or not its to have.
            Hidden: a service says that it is not to know.
            ComeBack: the service does not answer now.
        """
        principal = _who(guard)
        spec, query = self._spec, self._query
        if spec is None:
            return Entry(self.allow(guard, query.subjects) if query.subjects else [], query.start)
        known = self._known(principal)
        filters = spec.filters(known, self._gate.settings.roots)
        if not self._asks_service:
            principal.require(filters)
            return Entry(filters, query.start, None, self._storing(spec, known))
        verdict = await self._verdict(principal, filters)
        _require(verdict)
        if guard is not None and verdict.ttl_s is not None:
            guard.ask_at = self._gate.ask_at(verdict.ttl_s)
        opening, start = None, query.start
        from_now = start.since is None and not start.until_head
        if verdict.initial is not None and from_now:
            first = verdict if start.cursor is None else None
            opening = _Opening(partial(self._verdict, principal, filters, fresh=True), first)
            start = replace(start, snapshot=True)
        elif from_now and start.cursor is None and not start.snapshot:
            start = replace(start, cursor=verdict.cursor)
        return Entry(filters, start, opening, self._storing(spec, known), granted=True)

    @property
    def _asks_service(self) -> bool:
        return self._spec is not None and self._spec.authorize == "service"

    def _known(self, principal: Principal) -> dict[str, str]:
        return {**self._parameters, **({SUB: encode_id(principal.sub)} if principal.sub else {})}

    async def _verdict(self, principal: Principal, filters: list[Filter], *, fresh: bool = False) -> Verdict:
        assert self._spec is not None
        params = {name: decode_id(value) for name, value in self._parameters.items()}
        return await self._gate.services.verdict(
            self._spec.name, principal, params, [each.text for each in filters], fresh=fresh
        )

    async def _ask_again(self, principal: Principal) -> float | Closing | None:
        assert self._spec is not None
        try:
            filters = self._spec.filters(self._known(principal), self._gate.settings.roots)
            verdict = await self._verdict(principal, filters, fresh=True)
            _require(verdict)
        except Unasked:
            return ASK_DELAY_S
        except ClientError as error:
            return error.closing or Closing.POLICY
        return verdict.ttl_s

    def _storing(self, spec: RouteSpec, known: Mapping[str, str]) -> Store | None:
        if spec.publish is None:
            return None
        by_service = self._asks_service

        async def store(guard: Guard | None, event_type: str, payload: bytes) -> object:
            subject = spec.publish_subject(known, event_type)
            if not by_service:  # the service has answered for the route, both ways
                _who(guard).require_publish(subject)
            return await self._gate.store(subject, payload)

        return store


def _who(guard: Guard | None) -> Principal:
    if guard is None:
        return EVERYONE
    if guard.principal is None:
        raise Unauthorized("Say first who you are.", reason="missing")
    return guard.principal


def _require(verdict: Verdict) -> None:
    if not verdict.allowed:
        if verdict.hidden:
            raise Hidden("There is no such thing here, or it is not yours.")
        raise Forbidden("The service that this path asks says that you may not have it.")


class _Opening:
    """The present state by a service: what it said when it let the client in, and what it says after a gap."""

    __slots__ = ("_ask", "_first")

    def __init__(self, ask: Callable[[], Awaitable[Verdict]], first: Verdict | None) -> None:
        self._ask = ask
        self._first = first

    async def ask(self) -> Initial | Closing:
        """See `Opening.ask`."""
        verdict, self._first = self._first, None
        if verdict is None:
            try:
                verdict = await self._ask()
                _require(verdict)
            except Unasked as error:
                raise UpstreamAway(error.detail) from None
            except ClientError as error:
                return error.closing or Closing.POLICY
        cursor: Cursor = verdict.cursor
        return Initial(verdict.initial or (), cursor.incarnation, cursor.sequence)
