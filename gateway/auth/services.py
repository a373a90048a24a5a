"""Authorization by a service: whether a client may have a route is asked over NATS, on `natsgate.authorize.<route>`.

The question is `{"sub","claims","params","subjects"}`. The answer is `{"allow":true}` or `{"allow":false,"status":404}`
(403 when it does not say), and may hold `initial`, a list of events that show the present state, and `ttl_s`, after
which it is asked again. Where the stream stood is noted before asking: the events after that are those that the initial
ones may not know of.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping

from gateway.auth.verdict import Verdict, read_verdict
from gateway.core.cursor import Cursor
from gateway.core.errors import ComeBack, Unauthorized, UpstreamAway, UpstreamError
from gateway.core.recent import Recent
from gateway.core.rights import Principal
from gateway.logs import Logger, Seldom

SUBJECT = "natsgate.authorize."
TIMEOUT_S = 2.0
CACHE_S = 2.0
"""How long an answer serves others who ask the same: the herd of a restart, a user's many tabs."""

CACHE_BYTES = 8 * 2**20
IN_FLIGHT, AGAIN_IN_FLIGHT = 64, 32
"""Questions of one route at a time, about who wants to come in and about who is in: more of them would only queue up in
its service. Neither has to wait for the other."""

FIRST_WAIT_S, AGAIN_WAIT_S = 2.0, 30.0
"""How long a question may wait for the others of its route: about who wants to come in, and about who is in and was
allowed: that the gateway asks of many at once is no reason to send them away."""


class Unasked(ComeBack):
    """The service could not even be asked, since NATS is away. Who was let in before may wait until it can be."""


class Services:
    """Asks services.

    Concurrency: `verdict` may be called any number of times at once; equal questions are asked once.

    Args:
        ask: sends a NATS request: subject, payload, seconds; raises `UpstreamError`.
        where: tells where the stream stands now; raises `UpstreamError`.
        probe: asks the stream's leader something; raises `UpstreamError` when NATS is away.
        max_event_bytes: the most that an initial event may have; 0 means no limit. It may change.
        now: monotonic seconds.
        log: for what a service gets wrong.

    Attributes:
        cache: answers of the last seconds.
    """

    def __init__(
        self,
        ask: Callable[[str, bytes, float], Awaitable[bytes]],
        where: Callable[[], Awaitable[Cursor]],
        probe: Callable[[], Awaitable[object]],
        *,
        max_event_bytes: int,
        now: Callable[[], float],
        log: Logger,
    ) -> None:
        self._ask = ask
        self._where = where
        self._probe = probe
        self.max_event_bytes = max_event_bytes
        self._now = now
        self._log = log
        self._seldom = Seldom(now)
        self._slots: dict[tuple[str, bool], asyncio.Semaphore] = {}
        self._asking: dict[tuple[bytes, bool], asyncio.Task[Verdict]] = {}
        self._probing: asyncio.Task[bool] | None = None
        self.cache: Recent[bytes, tuple[Verdict, float]] = Recent(CACHE_BYTES)

    async def verdict(
        self, route: str, principal: Principal, params: Mapping[str, str], subjects: list[str], *, fresh: bool = False
    ) -> Verdict:
        """Whether a principal may have a route.

        Args:
            route: its name.
            principal: who asks.
            params: the path's parameters, decoded.
            subjects: the filters that it stands for.
            fresh: whether an answer of a moment ago will not do, since it is asked again about somebody who is in.

        Raises:
            ComeBack: nobody answers, or not in time, or nonsense. Never taken for a yes.
            Unauthorized: the claims cannot be told.
            Unasked: NATS is away.
        """
        question = _question(
            {"sub": principal.sub, "claims": dict(principal.claims), "params": dict(params), "subjects": subjects}
        )
        key = route.encode("ascii") + b" " + question
        remembered = self.cache.get(key)
        if remembered is not None and not fresh:
            if self._now() < remembered[1]:
                return remembered[0]
            self.cache.forget(key)
        asking = self._asking.get((key, fresh))
        if asking is None:
            asking = self._asking[key, fresh] = asyncio.create_task(self._asked(route, key, question, fresh))
            asking.add_done_callback(lambda task: self._asking.pop((key, fresh), None))
        # Shielded: whoever waits may go, others who ask the same still want it.
        return await asyncio.shield(asking)

    async def _asked(self, route: str, key: bytes, question: bytes, again: bool) -> Verdict:
        try:
            answer, cursor = await self._answer(route, question, again)
            verdict = read_verdict(answer, cursor, max_event_bytes=self.max_event_bytes)
        except (UpstreamError, ValueError) as error:
            held = self._seldom.due(route)
            if held is not None:
                self._log.warning("authorize_failed", route=route, error=str(error), held_back=held)
            away = isinstance(error, UpstreamError) and not await self._nats_is_there()
            detail = "Whether you may have this cannot be found out now; come again."
            raise (Unasked(detail) if away else ComeBack(detail)) from None
        lives_s = CACHE_S if verdict.ttl_s is None else min(CACHE_S, verdict.ttl_s)
        size = len(key) + sum(len(each) for each in verdict.initial or ())
        self.cache.put(key, (verdict, self._now() + lives_s), size)
        return verdict

    async def _answer(self, route: str, question: bytes, again: bool) -> tuple[bytes, Cursor]:
        # Each route has its own: a service that is slow does not hold up another one's clients.
        most, wait_s = (AGAIN_IN_FLIGHT, AGAIN_WAIT_S) if again else (IN_FLIGHT, FIRST_WAIT_S)
        slots = self._slots.setdefault((route, again), asyncio.Semaphore(most))
        try:
            async with asyncio.timeout(wait_s):
                await slots.acquire()
        except TimeoutError:
            raise UpstreamAway(f"{most} questions wait for an answer already") from None
        try:
            cursor = await self._where()
            return await self._ask(SUBJECT + route, question, TIMEOUT_S), cursor
        finally:
            slots.release()

    async def _nats_is_there(self) -> bool:
        """Whether it was the service alone that did not answer. One question for all who want to know."""
        if self._probing is None:
            self._probing = asyncio.create_task(self._probed())
        return await asyncio.shield(self._probing)

    async def _probed(self) -> bool:
        try:
            await self._probe()
        except UpstreamError:
            return False
        finally:
            self._probing = None
        return True


def _question(content: Mapping[str, object]) -> bytes:
    # Not by orjson, for which some integers, texts and depths that a token may hold are too much.
    try:
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")
    except RecursionError:
        raise Unauthorized("The token's claims are nested too deep.", reason="claims") from None
