"""Chromium before nginx and HAProxy with the files of deploy/: HTTP/2, TLS, many streams in one tab."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from nats.aio.client import Client

from tests.deploy.chromium import Chromium
from tests.deploy.conftest import Front
from tests.support.eventually import eventually
from tests.support.flow import store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

STREAMS = 20
"""More than three times what a browser allows per host over HTTP/1.1."""

PAGE = """
(() => {
  window.heard = Array.from({length: %(streams)d}, () => []);
  window.replicas = new Set();
  const ready = heard.map((events, i) => new Promise(resolve => {
    const source = new EventSource(`/events?subject=repo.%(id)s.s${i}`);
    source.addEventListener("natsgate.ready", ({data}) => { replicas.add(JSON.parse(data).replica); resolve(); });
    source.onmessage = ({data}) => events.push(JSON.parse(data).n);
  }));
  window.frames_ = [];
  ready.push(new Promise((resolve, reject) => {
    const socket = new WebSocket(`wss://${location.host}/ws`, "natsgate.v1");
    socket.onopen = () => socket.send(JSON.stringify({op: "subscribe", ref: 1, subject: "repo.%(id)s.s0"}));
    socket.onmessage = ({data}) => {
      const op = JSON.parse(data);
      if (op.op === "ready") resolve();
      if (op.op === "event") frames_.push(op.event.n);
    };
    socket.onerror = () => reject(new Error("the WebSocket failed"));
  }));
  return Promise.all(ready).then(() => true);
})()
"""


async def test_twenty_streams_and_a_websocket_in_one_tab(
    front: Front, stack: AsyncExitStack, nc: Client, tmp_path: Path, own_id: str
) -> None:
    """Over HTTP/2 all of them are open at once, each gets its events, and when a replica is killed each comes back by
    itself and has lost nothing."""
    browser = await stack.enter_async_context(Chromium(tmp_path / "chromium"))
    await browser.open(front.proxy.origin + "/")  # a page of that origin: the gateway says that nothing is there
    assert await browser.run("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"

    assert await browser.run(PAGE % {"streams": STREAMS, "id": own_id})
    subjects = [f"repo.{own_id}.s{i}" for i in range(STREAMS)]
    await store(nc, subjects, STREAMS * 3)
    expected = [list(range(i, STREAMS * 3, STREAMS)) for i in range(STREAMS)]

    async def all_heard() -> bool:
        return bool(await browser.run("heard") == expected)

    await eventually(all_heard, "every stream has its three events")
    assert await browser.run("frames_") == expected[0]
    assert set(await browser.run("[...replicas]")) == {"one", "two"}

    front.replicas["one"].kill()
    await store(nc, subjects, STREAMS * 3, begin=STREAMS * 3)
    expected = [list(range(i, STREAMS * 6, STREAMS)) for i in range(STREAMS)]
    await eventually(all_heard, "every stream came back and has all six", timeout_s=20)

    def logged() -> list[dict[str, object]]:
        lines = [json.loads(line) for line in front.proxy.output.splitlines() if line.startswith("{")]
        return [line for line in lines if line["path"] == "/events" and line["status"] == 200]

    async def protocols() -> set[object]:
        return {line["protocol"] for line in await asyncio.to_thread(logged)}

    assert await eventually(protocols, "streams that ended are logged") == {"HTTP/2.0"}
