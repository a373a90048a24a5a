"""The samples and `python -m publishers demo`."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from publishers import wire
from publishers.samples import Source, samples
from tests.publishers.broker import Broker
from tests.support.frozen import frozen

REPO_TYPES = {
    "repo.status_changed": {"from", "to"},
    "task.status_changed": {"from", "to"},
    "doc.created": {"doc_id", "title", "filename"},
    "task.progress": {"phase", "percent", "message"},
    "log.append": {"level", "message"},
}


def _some(seed: int, count: int = 2000) -> list[tuple[str, dict[str, Any]]]:
    clock = itertools.count(1_700_000_000_000, 10)
    source = Source(seed, run="r", now_ms=lambda: next(clock))
    return [tuple(sample) for sample in itertools.islice(samples(source, 3), count)]  # type: ignore[misc]


def check_shape(subject: str, event: dict[str, Any]) -> str:
    """Asserts that the event has the shape of its root; returns `<root>.<type>`."""
    root, id, event_type = wire.parse_subject(subject)
    if root == "repo":
        assert set(event) >= {"type", "ts", "id", "repo_id", "request_id", "payload"}
        assert (event["type"], event["repo_id"]) == (event_type, id)
        assert set(event["payload"]) >= REPO_TYPES[event_type]
    elif root == "ci":
        assert (event["event_type"], event["client_payload"]["task_id"]) == (event_type, id)
    elif root == "task":
        assert event["type"] == event_type == "status_update"
        assert set(event["data"]) == {"taskId", "status", "progress", "message"}
        assert event["data"]["taskId"] == id
    elif root == "user":
        assert event["type"] == event_type == "notification"
    else:
        assert root == "project"
        assert set(event) == {"type", "project_id", "data", "timestamp"}
        assert (event["type"], event["project_id"]) == (event_type, id)
    return f"{root}.{event_type}"


def test_samples_have_all_shapes() -> None:
    """All four systems' types come, each in its shape, and ids of events are unique."""
    events = _some(1)
    kinds = {check_shape(subject, event) for subject, event in events}
    assert kinds >= {f"repo.{type}" for type in REPO_TYPES}
    assert kinds >= {"ci.task:start", "ci.agent:complete", "ci.compile:complete"}
    assert kinds >= {"task.status_update", "user.notification"}
    assert kinds >= {"project.task_created", "project.task_status_changed", "project.agent_status_update"}
    ids = [event["id"] for _, event in events if "id" in event]
    assert len(set(ids)) == len(ids)


def test_samples_are_deterministic() -> None:
    """A seed and a clock give the same events; another seed gives others."""
    assert _some(7) == _some(7)
    assert _some(7) != _some(8)


def test_repository_status_is_consistent() -> None:
    """Every status change of a repository begins where the one before ended."""
    status = dict.fromkeys("123", "cloning")
    for subject, event in _some(3):
        if subject.endswith(".repo.status_changed"):
            assert event["payload"]["from"] == status[event["repo_id"]] != event["payload"]["to"]
            status[event["repo_id"]] = event["payload"]["to"]


@asynccontextmanager
async def demo(broker: Broker, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The demo as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-m", "publishers", "demo", "--nats-url", broker.url, *options),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def said(process: asyncio.subprocess.Process, text: str) -> None:
    """Waits until the demo has said something."""
    assert process.stderr is not None
    async with asyncio.timeout(10):
        while text not in (line := (await process.stderr.readline()).decode()):
            assert line, f"the demo ended without saying {text!r}"


async def end(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """Ends the demo; it must be gone within a second, with exit code 0 and no traceback."""
    assert process.stderr is not None
    start = time.monotonic()
    process.send_signal(number)
    async with asyncio.timeout(5):
        rest = (await process.stderr.read()).decode()
        assert await process.wait() == 0
    assert time.monotonic() - start < 1.0
    assert "Traceback" not in rest
    assert "never retrieved" not in rest


async def test_demo_publishes_all_shapes(broker: Broker) -> None:
    """The demo's events arrive in all four shapes, and SIGINT ends it cleanly."""
    kinds: set[str] = set()
    async with broker.client() as client, demo(broker, "--rate", "500", "--repos", "2") as process:
        subscription = await client.subscribe("live.>")
        async with asyncio.timeout(15):
            while {kind.split(".")[0] for kind in kinds} != {"repo", "ci", "task", "user", "project"}:
                message = await subscription.next_msg(timeout=10)
                kinds.add(check_shape(message.subject.removeprefix("live."), json.loads(message.data)))
        await end(process, signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_demo_ends_without_nats(bare_broker: Broker, number: signal.Signals) -> None:
    """Without NATS the demo says so once and ends cleanly."""
    bare_broker.kill()
    async with demo(bare_broker) as process:
        await said(process, "waiting: NATS is away")
        await end(process, number)


async def test_demo_waits_for_the_stream(bare_broker: Broker) -> None:
    """Without the stream the demo waits, and publishes once it is there; a frozen NATS does not hold its end."""
    async with demo(bare_broker, "--rate", "50") as process:
        await said(process, "waiting: no stream stores")
        await bare_broker.provision()
        await said(process, "publishing samples")
        with frozen(bare_broker.pid):
            await end(process, signal.SIGTERM)
