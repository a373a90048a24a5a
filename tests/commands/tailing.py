"""A running `natsgate tail`, read line by line."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.support.command import NATSGATE, environment

PATIENCE_S = 15.0


class Tail:
    """A running `natsgate tail`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stdout is not None
        assert process.stderr is not None
        self._out, self._err = process.stdout, process.stderr

    async def line(self) -> str:
        """The next line of standard output."""
        return (await asyncio.wait_for(self._out.readline(), PATIENCE_S)).decode().removesuffix("\n")

    async def event(self) -> dict[str, Any]:
        """The next line as JSON."""
        event: dict[str, Any] = json.loads(await self.line())
        return event

    async def told(self, word: str) -> str:
        """The next line of standard error that holds `word`."""
        async with asyncio.timeout(PATIENCE_S):
            while line := (await self._err.readline()).decode():
                if word in line:
                    return line
        raise EOFError(word)

    async def end(self, number: int = signal.SIGINT) -> int:
        """Signal it; its exit code."""
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), PATIENCE_S)


@asynccontextmanager
async def tailing(*arguments: str, variables: Mapping[str, str] | None = None) -> AsyncIterator[Tail]:
    """Start it, with further environment variables by their full names; killed with the block."""
    process = await asyncio.create_subprocess_exec(
        NATSGATE,
        "tail",
        *arguments,
        env=environment({}) | dict(variables or {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Tail(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
