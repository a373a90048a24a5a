"""The scene of an attack: a gateway, a witness beside it, and what the gateway takes of the machine meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.attacks.mob import Mob
from tests.limits.counts import until_counts
from tests.support.eventually import eventually
from tests.support.gateway import Gateway

LOOK_S = 0.05
"""How often is looked at what the gateway takes."""

MIB = 2**20
LEFT_MIB = 32
"""What a process may keep of the memory that an attack took: its allocator's free pieces, for the next ones."""


class Takes(NamedTuple):
    """What a process takes of the machine at a moment, or at most."""

    rss_bytes: int
    descriptors: int

    @classmethod
    def of(cls, gateway: Gateway) -> Takes:
        return cls(gateway.rss_bytes(), _descriptors(gateway.pid))

    def and_at_most(self, other: Takes) -> Takes:
        return Takes(max(self.rss_bytes, other.rss_bytes), max(self.descriptors, other.descriptors))


def _descriptors(pid: int) -> int:
    # Since Linux 6.2 the folder's size says it; to count 20,000 of them takes CPU that others need.
    folder = f"/proc/{pid}/fd"
    return os.stat(folder).st_size or len(os.listdir(folder))


class Scene:
    """From `async with`, in which the attack takes place, to its end, where what was promised is checked.

    Args:
        name: of the attack, for the numbers that are printed.
        gateway: the attacked one.
        nats_url: where the witness's producer publishes.
        own_id: an id that nobody else uses.
        rss_mib: the most memory that the attack may take beyond what was taken before, MiB.
        descriptors: the most file descriptors beyond those.
        lines: the most lines of the log.
        left_mib: the most memory that may be left of it.
        refuses: whether newcomers may be told to come again meanwhile.
    """

    def __init__(
        self,
        name: str,
        gateway: Gateway,
        nats_url: str,
        own_id: str,
        *,
        rss_mib: int,
        descriptors: int,
        lines: int,
        left_mib: int = LEFT_MIB,
        refuses: bool = False,
    ) -> None:
        self.gateway = gateway
        self.seen: dict[str, Any] = {}
        self._name = name
        self._arguments = [gateway.url, nats_url, own_id]
        self._rss_bytes, self._descriptors, self._lines = rss_mib * MIB, descriptors, lines
        self._left_bytes = left_mib * MIB
        self._refuses = refuses
        self._process: asyncio.subprocess.Process | None = None
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.attacks.witness_process",
            *self._arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert await self._line() == "ready"
        self.before = self.peak = Takes.of(self.gateway)
        self._said_before = len(self.gateway.logs())
        self._looking = asyncio.create_task(self._look())
        return self

    def mob(self) -> Mob:
        """Attackers of this gateway, all of one address."""
        return Mob(self.gateway.host, self.gateway.port)

    async def _line(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(90):
            return (await self._process.stdout.readline()).decode().rstrip("\n")

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.peak = self.peak.and_at_most(Takes.of(self.gateway))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._looking is not None
        assert self._process is not None
        try:
            if error is None:
                await self._verdict()
        finally:
            self._looking.cancel()
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()

    async def _verdict(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self.seen = json.loads(await self._line())
        await self._process.wait()
        with contextlib.suppress(AssertionError):  # asserted below, once the numbers are printed
            await self._quiet()
        after = Takes.of(self.gateway)
        said = self.gateway.logs()[self._said_before :]
        print("\n" + self._numbers(after, len(said)), file=sys.__stderr__)
        assert self.seen["published"] > 0
        assert self.seen["wrong"] == 0, "a well-behaved client missed, doubled or disordered events"
        assert self.seen["newcomers"]["count"] > 0 or self._refuses, "nobody new was served"
        assert not self.seen["refused"].keys() - ({"limit_connections"} if self._refuses else set()), self.seen[
            "refused"
        ]
        assert self.peak.rss_bytes - self.before.rss_bytes <= self._rss_bytes
        assert self.peak.descriptors - self.before.descriptors <= self._descriptors
        await self._quiet()
        assert after.rss_bytes - self.before.rss_bytes <= self._left_bytes
        assert len(said) <= self._lines
        assert "Traceback" not in self.gateway.log_text
        for line in said:
            assert line["level"] in ("info", "warning"), line
            assert line["event"] != "request_rejected" or (line["reason"] and line["remote"]), "who and why"

    async def _quiet(self) -> None:
        """Wait until nothing is left of anybody."""
        await until_counts(self.gateway, 20, connections=0, subs=0, addresses=0, waiting=0, open=0, feeds=0)

        async def given_back() -> bool:
            return Takes.of(self.gateway).descriptors <= self.before.descriptors

        await eventually(given_back, "descriptors are as few as before", timeout_s=20)

    def _numbers(self, after: Takes, lines: int) -> str:
        def ms(times: dict[str, float]) -> str:
            return f"p50 {times['p50'] * 1000:.1f} p99 {times['p99'] * 1000:.1f} ms" if times["count"] else "none"

        rss = " → ".join([str(each.rss_bytes // MIB) for each in (self.before, self.peak, after)])
        descriptors = " → ".join([str(each.descriptors) for each in (self.before, self.peak, after)])
        return (
            f"{self._name}: SSE {ms(self.seen['sse'])}, WebSocket {ms(self.seen['ws'])}; newcomers ready "
            f"{ms(self.seen['newcomers'])}, refused {self.seen['refused'] or 'none'}; RSS {rss} MiB; "
            f"descriptors {descriptors}; {lines} log lines"
        )
