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
from typing import Any, NamedTuple

import orjson

from gateway.core.cursor import Cursor
from gateway.core.errors import ComeBack, UpstreamError
from gateway.core.recent import Recent
from gateway.core.rights import Principal
from gateway.logs import Logger, Seldom

SUBJECT = "natsgate.authorize."
TIMEOUT_S = 2.0
CACHE_S = 2.0
"""How long an answer serves others who ask the same: the herd of a restart, a user's many tabs."""

CACHE_BYTES = 8 * 2**20
IN_FLIGHT = 64
"""Questions at a time: more of them would only queue up in the service."""

LEAST_TTL_S = 1.0


class Verdict(NamedTuple):
    """What a service said.

    Attributes:
        allowed: whether the client may have the route.
        hidden: whether it is not to learn that there is one (404 instead of 403).
        initial: events that show the present state, each a JSON object; None: the service gives none.
        ttl_s: after how many seconds it wants to be asked again; None: never.
        cursor: where the stream stood before it was asked.
    """

    allowed: bool
    hidden: bool
    initial: tuple[bytes, ...] | None
    ttl_s: float | None
    cursor: Cursor


class Services:
    """Asks services.

    Concurrency: `verdict` may be called any number of times at once; equal questions are asked once.

    Args:
        ask: sends a NATS request: subject, payload, seconds; raises `UpstreamError`.
        where: tells where the stream stands now; raises `UpstreamError`.
        now: monotonic seconds.
        log: for what a service gets wrong.

    Attributes:
        cache: answers of the last seconds.
    """

    def __init__(
        self,
        ask: Callable[[str, bytes, float], Awaitable[bytes]],
        where: Callable[[], Awaitable[Cursor]],
        *,
        now: Callable[[], float],
        log: Logger,
    ) -> None:
        self._ask = ask
        self._where = where
        self._now = now
        self._log = log
        self._seldom = Seldom(now)
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._asking: dict[bytes, asyncio.Task[Verdict]] = {}
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
            fresh: whether an answer of a moment ago will not do.

        Raises:
            ComeBack: nobody answers, or not in time, or nonsense. Never taken for a yes.
        """
        question = orjson.dumps(
            {"sub": principal.sub, "claims": dict(principal.claims), "params": dict(params), "subjects": subjects},
            option=orjson.OPT_SORT_KEYS,
        )
        key = route.encode("ascii") + b" " + question
        remembered = self.cache.get(key)
        if remembered is not None and not fresh:
            if self._now() < remembered[1]:
                return remembered[0]
            self.cache.forget(key)
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.create_task(self._asked(route, key, question))
            asking.add_done_callback(lambda task: self._asking.pop(key, None))
        # Shielded: whoever waits may go, others who ask the same still want it.
        return await asyncio.shield(asking)

    async def _asked(self, route: str, key: bytes, question: bytes) -> Verdict:
        subject = SUBJECT + route
        try:
            async with self._slots:
                cursor = await self._where()
                answer = await self._ask(subject, question, TIMEOUT_S)
            verdict = read_verdict(answer, cursor)
        except (UpstreamError, ValueError) as error:
            held = self._seldom.due(route)
            if held is not None:
                self._log.warning("authorize_failed", route=route, error=str(error), held_back=held)
            raise ComeBack("Whether you may have this cannot be found out now; come again.") from None
        lives_s = CACHE_S if verdict.ttl_s is None else min(CACHE_S, verdict.ttl_s)
        size = len(key) + sum(len(each) for each in verdict.initial or ())
        self.cache.put(key, (verdict, self._now() + lives_s), size)
        return verdict


def read_verdict(answer: bytes, cursor: Cursor) -> Verdict:
    """Read a service's answer.

    Raises:
        ValueError: it is none; the text says what is wrong, and shows nothing of it.
    """
    try:
        content = json.loads(answer)  # not orjson: integers of any size are to come through as they are
    except (ValueError, RecursionError):
        raise ValueError("the answer is no JSON") from None
    if not isinstance(content, dict) or not isinstance(content.get("allow"), bool):
        raise ValueError('the answer is to be an object with "allow": true or false')
    status = content.get("status", 403)
    if status not in (403, 404):
        raise ValueError("status is to be 403 or 404")
    ttl_s = content.get("ttl_s")
    if ttl_s is not None and (isinstance(ttl_s, bool) or not isinstance(ttl_s, int | float) or not 0 < ttl_s < 1e9):
        raise ValueError("ttl_s is to be a number of seconds above 0")
    return Verdict(
        allowed=content["allow"],
        hidden=status == 404,
        initial=_initial(content.get("initial")),
        ttl_s=None if ttl_s is None else max(LEAST_TTL_S, float(ttl_s)),
        cursor=cursor,
    )


def _initial(given: Any) -> tuple[bytes, ...] | None:
    if given is None:
        return None
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise ValueError("initial is to be a list of events, each a JSON object")
    try:
        return tuple(
            json.dumps(each, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() for each in given
        )
    except ValueError:
        raise ValueError("initial holds what is no JSON: NaN, Infinity or a lone surrogate") from None
