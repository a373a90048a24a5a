"""One connection to NATS for the length of a command, on which a refused permission is an answer and no time-out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from gateway.background import end
from gateway.commands.outcome import CommandFailed, NatsNotReached
from gateway.core.errors import UpstreamError
from gateway.core.violation import Violation, read_violation
from gateway.nats_settings import nats_options, without_login
from gateway.settings import Settings
from gateway.upstream.connection import NatsConnection

DEFAULT_WAIT_S = 5.0
"""How long a command waits for NATS while `START_TIMEOUT_S` is 0: nobody is served by one that waits for ever."""

_INBOX = "_inbox."


class NotPermitted(UpstreamError):
    """The server says that this login may not do it.

    Attributes:
        verb: `publish` or `subscribe`.
        subject: what to.
    """

    def __init__(self, verb: str, subject: str) -> None:
        super().__init__(f"the NATS login may not {verb} to {subject}")
        self.verb = verb
        self.subject = subject


class Session:
    """An open connection. Make it with `open_session`.

    Attributes:
        server: the server's `host:port`.
    """

    def __init__(self, settings: Settings) -> None:
        self._up = asyncio.Event()
        self._violations: set[Violation] = set()
        self._violated = asyncio.Condition()
        self._notify: set[asyncio.Task[None]] = set()
        self.nats = NatsConnection(
            nats_options(settings),
            random=Random(),
            on_change=lambda up: self._up.set() if up else self._up.clear(),
            on_trouble=self._trouble,
        )

    @property
    def server(self) -> str:
        return self.nats.server

    async def up(self) -> None:
        """Wait until the connection is up."""
        await self._up.wait()

    async def request(
        self, subject: str, payload: bytes = b"", *, timeout_s: float = 2.0, headers: dict[str, str] | None = None
    ) -> bytes:
        """Ask and get the answer.

        Raises:
            NotPermitted: we may not ask, or not listen on our inbox.
            UpstreamAway: nobody answers, or not in time.
        """
        answer = asyncio.create_task(self.nats.request(subject, payload, timeout_s=timeout_s, headers=headers))
        refusal = asyncio.create_task(self._refusal_of(subject))
        try:
            await asyncio.wait([answer, refusal], return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            raise refusal.result()
        finally:
            for task in (answer, refusal):
                task.cancel()
            await asyncio.gather(answer, refusal, return_exceptions=True)

    async def may_subscribe(self, subject: str) -> bool:
        """Whether a subscription is let through. Call it where a request follows: its answer proves that no
        refusal is on its way any more; then ask `refused`."""
        await self.nats.untap(await self.nats.tap(subject, lambda subject, headers, payload: None))
        return not self.refused("subscribe", subject)

    def refused(self, verb: str, subject: str) -> bool:
        """Whether the server has refused this so far; nats-py tells it in lower case."""
        return Violation(verb, subject.lower()) in self._violations

    async def _refusal_of(self, subject: str) -> NotPermitted:
        async with self._violated:
            while True:
                if self.refused("publish", subject):
                    return NotPermitted("publish", subject)
                if any(verb == "subscribe" and what.startswith(_INBOX) for verb, what in self._violations):
                    return NotPermitted("subscribe", "_INBOX.>")
                await self._violated.wait()

    def _trouble(self, event: str, fields: dict[str, Any]) -> None:
        violation = read_violation(str(fields.get("error", "")))
        if violation is not None:
            self._violations.add(violation)
            task = asyncio.get_running_loop().create_task(self._wake())
            self._notify.add(task)
            task.add_done_callback(self._notify.discard)

    async def _wake(self) -> None:
        async with self._violated:
            self._violated.notify_all()


@asynccontextmanager
async def open_session(settings: Settings) -> AsyncIterator[Session]:
    """Connect with the settings' login; the connection ends with the block.

    Raises:
        ConfigError: a certificate, key or credentials file cannot be loaded.
        NatsNotReached: not within `START_TIMEOUT_S` (5 s where that is 0).
    """
    wait_s = settings.start_timeout_s or DEFAULT_WAIT_S
    session = Session(settings)
    running = asyncio.create_task(session.nats.run())
    up = asyncio.create_task(session.up())
    try:
        await asyncio.wait([running, up], timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            error = running.exception()
            raise CommandFailed(f"the NATS client cannot work with these settings: {error!s}") from error
        if not up.done():
            where, why = " ".join(without_login(settings.nats_url)), session.nats.last_error or "no answer"
            if "authorization" in why.lower():
                raise NatsNotReached(f"NATS at {where} refuses the login: {why}; check the login (NATSGATE_NATS_*)")
            raise NatsNotReached(
                f"NATS at {where} was not reached within {wait_s:g} s: {why}; check {settings.name_of('nats_url')}, "
                "the login (NATSGATE_NATS_*), and that nats-server runs"
            )
        yield session
    finally:
        await end([running, up])
