"""A run: the stage, the source and the clients, the plan's faults upon them, the settling, and the verdict."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from tests.stress.client import Client, Wants
from tests.stress.plan import Fault, Plan
from tests.stress.source import Source
from tests.stress.stage import RAW_ROUTES, Stage
from tests.stress.truth import Truth
from tests.stress.verdict import FAULTS, Judge
from tests.support.metrics import Metrics

SETTLE_S = 60.0
REPLAY_LIMIT = 10_000
"""The default of the setting, which these replicas have."""

_FEEDS: tuple[tuple[str, ...], ...] = (
    ("repo.>",),
    ("repo.3.>",),
    ("repo.*.tick",),
    ("repo.0.done",),
    ("user.1.note",),
    ("task.*.log",),
    ("repo.1.>", "task.2.>", "user.0.note"),
    ("repo.2.>", "repo.*.tick"),
    ("repo.>", "task.>", "user.>"),
)


@dataclass(frozen=True)
class Outcome:
    """What a run found.

    Attributes:
        counts: faults by kind; all zero in a good run.
        first: the first fault and the history around it, of each client that has one.
    """

    counts: dict[str, int]
    first: list[str]
    summary: str

    @property
    def good(self) -> bool:
        return not any(self.counts.values())


def wishes(random: Random, clients: int) -> list[Wants]:
    """What each client asks for."""
    found = []
    for number in range(clients):
        transport = ("sse", "ws", "sse", "ws", "raw")[number % 5]
        since = "all" if random.random() < 0.2 else ""
        buffer = random.choice((None, None, 8 * 1024))
        if transport == "raw":
            path, filters = random.choice(list(RAW_ROUTES.items()))
            found.append(Wants(transport, filters, path, since, buffer))
        else:
            found.append(Wants(transport, random.choice(_FEEDS), "/ws", since, buffer))
    return found


class Run:
    """One run.

    Args:
        plan: what happens.
        stage: open already.
        clients, rate: how many, and how many events per second.
        say: takes a line for the user.
    """

    def __init__(self, plan: Plan, stage: Stage, *, clients: int, rate: float, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._stage = stage
        self._say = say
        self._truth = Truth()
        self._source = Source(stage.nats_urls, self._truth, plan.random("source"), rate=rate)
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        random = plan.random("clients")
        self._clients = [
            Client(f"client {number} ({wants.transport})", wants, stage.ports, Random(random.random()), self._began)
            for number, wants in enumerate(wishes(random, clients))
        ]

    async def run(self) -> Outcome:
        """Carry the plan out, let everybody catch up, and judge."""
        await self._source.open()
        running: list[asyncio.Task[None]] = []
        try:
            running = [self._loop.create_task(client.run()) for client in self._clients]
            publishing = self._loop.create_task(self._source.run())
            running.append(publishing)
            await self._disturb(running)
            publishing.cancel()
            await asyncio.wait([publishing])
            await self._source.settle(SETTLE_S)
            await self._last_words()
            late = await self._settle(running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await self._source.close()
        return self._judge(late)

    async def _disturb(self, running: Sequence[asyncio.Task[None]]) -> None:
        faults: list[asyncio.Task[None]] = []
        try:
            for fault in self._plan.faults:
                await self._until(fault.at_s, running)
                self._say(str(fault))
                faults.append(self._loop.create_task(self._do(fault)))
            await self._until(self._plan.seconds, running)
            await asyncio.gather(*faults)
        finally:
            for task in faults:
                task.cancel()
            await asyncio.gather(*faults, return_exceptions=True)

    async def _until(self, at_s: float, running: Sequence[asyncio.Task[None]]) -> None:
        left = max(0.0, self._began + at_s - self._loop.time())
        done, _ = await asyncio.wait(running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # nobody ends by himself but by a fault of the run

    async def _do(self, fault: Fault) -> None:
        stage = self._stage
        match fault.kind:
            case "kill":
                await stage.kill(fault.target, fault.lasts_s)
            case "pause":
                await stage.pause(fault.target, fault.lasts_s)
            case "roll":
                await stage.roll()
            case "nats-kill":
                await stage.nats_kill(fault.target, fault.lasts_s)
            case "nats-pause":
                await stage.nats_pause(fault.target, fault.lasts_s)
            case "purge":
                first, last = self._truth.purged, self._truth.last
                self._truth.purged = first + int((last - first) * fault.share)
                await stage.purge(self._truth.purged)
            case "cut" | "stall":
                chosen = Random(fault.draw)
                for client in self._clients:
                    if chosen.random() < fault.share:
                        if fault.kind == "cut":
                            client.cut()
                        else:
                            client.stall(fault.lasts_s)

    async def _last_words(self) -> None:
        """A few more events, so that every feed has a last one that nobody can miss silently."""
        for _ in range(200):
            await self._source.publish()
        await self._source.settle(SETTLE_S)

    async def _settle(self, running: Sequence[asyncio.Task[None]]) -> list[str]:
        """Wait until everybody has the last event of its feed; those who do not in time are named."""
        self._say(f"{self._loop.time() - self._began:6.2f} s  settling: {self._truth.last} events")
        deadline = self._loop.time() + SETTLE_S
        while (late := self._late()) and self._loop.time() < deadline:
            await self._until(self._loop.time() - self._began + 0.1, [*running[:-1]])
        return late

    def _late(self) -> list[str]:
        late = []
        for client in self._clients:
            order = self._truth.of(client.history.filters)
            number, stated = client.last_heard
            if order and max(self._truth.sequence_of.get(number, 0), stated) < order[-1]:
                late.append(client.history.client)
        return late

    def _judge(self, late: Sequence[str]) -> Outcome:
        counts: Counter[str] = Counter()
        first, events, explained, visits = [], 0, 0, 0
        for client in self._clients:
            judge = Judge(client.history, self._truth, REPLAY_LIMIT)
            verdict = judge.judge()
            counts += verdict.counts
            events += verdict.events
            explained += verdict.explained
            visits += len(client.history.visits)
            if client.history.client in late:
                lost = self._truth.between(client.history.filters, judge.at or 0, self._truth.last)
                counts["lost"] += max(1, len(lost))
                tail = "\n".join(f"    {visit.summary()}" for visit in client.history.visits[-4:])
                first.append(f"{client.history.client}: lost: {len(lost)} behind {judge.at} never came\n{tail}")
            if verdict.first:
                first.append(verdict.first)
        took = self._loop.time() - self._began
        summary = (
            f"seed {self._plan.seed}: {len(self._clients)} clients, {visits} connections, "
            f"{self._truth.last} events stored, {events} received, {explained} gaps by {self._truth.purged} purged, "
            f"{len(self._plan.faults)} faults, {took:.1f} s; " + ", ".join(f"{counts[kind]} {kind}" for kind in FAULTS)
        )
        return Outcome({kind: counts[kind] for kind in FAULTS}, first, summary)


def repairs(pages: Sequence[Metrics]) -> dict[str, float]:
    """What the replicas mended since they last started: holes by what found them, and events read from the stream."""
    sums: Counter[str] = Counter()
    for page in pages:
        sums.update(page.by("natsgate_holes_repaired_total", "found_by"))
        sums["read from the stream"] += int(page.total("natsgate_replayed_events_total", source="stream"))
        sums["read from the log"] += int(page.total("natsgate_replayed_events_total", source="log"))
    return dict(sums)
