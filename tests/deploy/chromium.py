"""Headless Chromium, driven over the DevTools protocol: a page of the proxy's origin runs what a test gives it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from websockets.asyncio.client import ClientConnection, connect

from tests.deploy.files import program
from tests.deploy.program import Program
from tests.support.ports import free_port

PATIENCE_S = 30.0


class Chromium:
    """One browser with one tab.

    Args:
        directory: for its profile and its output; made if missing.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._port = free_port()
        self._process = Program(
            [
                program("chromium", "apt-get install chromium"),
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
                *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
                *("--disable-dev-shm-usage", "--ignore-certificate-errors"),
                f"--user-data-dir={directory / 'profile'}",
                f"--remote-debugging-port={self._port}",
                "about:blank",
            ],
            directory,
            self._port,
        )
        self._numbers = 0
        self._connection: ClientConnection | None = None

    async def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        assert self._connection is not None
        self._numbers += 1
        await self._connection.send(json.dumps({"id": self._numbers, "method": method, "params": parameters}))
        async with asyncio.timeout(PATIENCE_S):
            while True:
                answer: dict[str, Any] = json.loads(await self._connection.recv())
                if answer.get("id") == self._numbers:
                    assert "error" not in answer, answer
                    result: dict[str, Any] = answer["result"]
                    return result

    async def open(self, url: str) -> None:
        """Load a page, and wait until it is there."""
        # The page is an answer of the gateway's, which is data and may run nothing: the test's script is not its own.
        await self._call("Page.setBypassCSP", enabled=True)
        loaded = await self._call("Page.navigate", url=url)
        assert "errorText" not in loaded, loaded
        await self.run("new Promise(done => document.readyState === 'complete' ? done() : onload = () => done())")

    async def visit(self, url: str) -> None:
        """Show an answer as it is, with whatever it forbids; one that goes on is not waited for."""
        shown = await self._call("Page.navigate", url=url)
        assert "errorText" not in shown, shown

    async def run(self, script: str) -> Any:
        """What an expression of JavaScript comes to; a promise is awaited, an exception fails."""
        answer = await self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._process.start, timeout_s=PATIENCE_S)
        async with httpx.AsyncClient() as client:
            targets = (await client.get(f"http://127.0.0.1:{self._port}/json/list")).json()
        tab = next(target for target in targets if target["type"] == "page")
        self._connection = await connect(tab["webSocketDebuggerUrl"], max_size=None, proxy=None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self._connection.close()
        await asyncio.to_thread(self._process.stop)
