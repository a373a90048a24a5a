"""A test's own corner of a shared nats-server: stream, root and live prefix that nobody else uses."""

from __future__ import annotations

import asyncio
import json
from subprocess import CompletedProcess
from typing import Any

from nats.aio.client import Client

from gateway.core.stream import StreamShape
from tests.support.command import natsgate


class OwnStream:
    """The stream `name` with the roots `<root>a`, `<root>b` and `inbox<root>`.

    Attributes:
        nc: a client of the server.
        settings: the settings of every command here.
    """

    def __init__(self, url: str, name: str, root: str, nc: Client) -> None:
        self.name = name
        self.a, self.b = f"{root}a", f"{root}b"
        self.live = f"live{root}"
        self.nc = nc
        self.settings: dict[str, object] = {
            "NATS_URL": url,
            "AUTH": "none",
            "STREAM": name,
            "ROOTS": f"{self.a},{self.b}",
            "LIVE_PREFIX": self.live,
        }

    async def run(self, *arguments: str, **settings: object) -> CompletedProcess[str]:
        """One command to its end, without a terminal."""
        return await asyncio.to_thread(natsgate, *arguments, settings={**self.settings, **settings})

    async def ok(self, *arguments: str, **settings: object) -> str:
        """The same; it has to end with 0. Returns what it printed."""
        done = await self.run(*arguments, **settings)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

    async def api(self, verb: str, **config: object) -> dict[str, Any]:
        """One JetStream request about the stream, e.g. `CREATE`; an error of the server fails."""
        body = json.dumps({"name": self.name, **config} if config else {}).encode()
        answer: dict[str, Any] = json.loads((await self.nc.request(f"$JS.API.STREAM.{verb}.{self.name}", body)).data)
        assert "error" not in answer, answer
        return answer

    async def config(self) -> dict[str, Any]:
        """The stream's configuration as the server tells it."""
        config: dict[str, Any] = (await self.api("INFO"))["config"]
        return config

    async def make(self) -> None:
        """Make the stream as `natsgate provision` does, without the command."""
        await self.api("CREATE", **StreamShape(self.name, (self.a, self.b), self.live).config())

    async def findings(self, **settings: object) -> tuple[int, list[dict[str, str]]]:
        """Exit code and findings of `natsgate check --json`."""
        done = await self.run("check", "--json", **settings)
        told = json.loads(done.stdout)
        assert told["ok"] == (done.returncode == 0), done
        return done.returncode, told["findings"]
