"""A service that says who may have a route: a responder on `natsgate.authorize.<route>`, in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from tests.support.barrier import barrier
from tests.support.eventually import eventually

Question = dict[str, Any]
Answer = dict[str, Any] | str | bytes | None
"""An object, a text as it is, or nothing at all."""


class Service:
    """Answers from `async with` to its end, each question for itself.

    Args:
        answer: what is said to all, or a function of the question.

    Attributes:
        questions: what was asked, in order.
        answer: may be changed at any time.
        opens: answers wait for it; it is set unless a test clears it.
        delay_s: how long each answer takes.
        before: awaited before each answer.
    """

    def __init__(self, nc: Client, route: str, answer: Answer | Callable[[Question], Answer]) -> None:
        self._nc = nc
        self._route = route
        self._subscription: Subscription | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.answer = answer
        self.questions: list[Question] = []
        self.opens = asyncio.Event()
        self.opens.set()
        self.delay_s = 0.0

    async def before(self, question: Question) -> None:
        """Nothing, unless a test puts something in its place."""

    async def _asked(self, message: Msg) -> None:
        task = asyncio.create_task(self._say(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _say(self, message: Msg) -> None:
        question = json.loads(message.data)
        self.questions.append(question)
        await self.before(question)
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        await self.opens.wait()
        answer = self.answer(question) if callable(self.answer) else self.answer
        if isinstance(answer, dict):
            answer = json.dumps(answer)
        if answer is not None:
            await message.respond(answer.encode() if isinstance(answer, str) else answer)

    async def until_asked(self, times: int, *, timeout_s: float = 15) -> None:
        """Wait until it was asked so many times in all."""

        async def asked() -> bool:
            return len(self.questions) >= times

        await eventually(asked, f"asked {times} times", timeout_s=timeout_s)

    async def __aenter__(self) -> Self:
        self._subscription = await self._nc.subscribe(f"natsgate.authorize.{self._route}", cb=self._asked)
        await barrier(self._nc)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.opens.set()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._subscription is not None and self._nc.is_connected:
            await self._subscription.unsubscribe()
            await barrier(self._nc)
