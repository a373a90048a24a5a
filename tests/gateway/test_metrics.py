"""/metrics: every number that the contract names, as Prometheus wants it."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.readme import CLOSED
from tests.support.eventually import eventually
from tests.support.frozen import frozen
from tests.support.gateway import Gateway, routes
from tests.support.http_reply import fetch_async
from tests.support.metrics import Metrics
from tests.support.ports import free_port
from tests.support.producer import publish
from tests.support.raw_ws import RawWebSocket, encode_text
from tests.support.sse import SseClient
from tests.support.ws import ws_client

LABELS: dict[str, tuple[str, ...]] = {
    "natsgate_admitted": ("what",),
    "natsgate_auth_cache_bytes": ("cache",),
    "natsgate_auth_failures_total": ("reason",),
    "natsgate_build_info": ("version", "python"),
    "natsgate_connections": ("transport", "route"),
    "natsgate_connections_behind": (),
    "natsgate_connections_closed_total": ("transport", "reason"),
    "natsgate_connections_opened_total": ("transport", "route"),
    "natsgate_deliveries_total": ("transport",),
    "natsgate_delivery_latency_seconds": (),
    "natsgate_event_loop_lag_seconds": (),
    "natsgate_events_dropped_total": ("reason",),
    "natsgate_events_received_total": ("root",),
    "natsgate_feeds": (),
    "natsgate_gaps_total": ("reason",),
    "natsgate_held_bytes": ("what",),
    "natsgate_holes_repaired_total": ("found_by",),
    "natsgate_jwks_fetches_total": ("outcome",),
    "natsgate_log_bytes": (),
    "natsgate_log_events": (),
    "natsgate_memory_limit_bytes": (),
    "natsgate_memory_used_bytes": (),
    "natsgate_nats_connected": (),
    "natsgate_nats_reconnects_total": (),
    "natsgate_nats_subscriptions": (),
    "natsgate_publishes_total": ("via", "outcome"),
    "natsgate_replayed_events_total": ("source",),
    "natsgate_replays_total": ("source", "outcome"),
    "natsgate_requests_rejected_total": ("reason",),
    "natsgate_requests_waiting": (),
    "natsgate_revoked_users": (),
    "natsgate_sent_bytes_total": ("transport",),
    "natsgate_unread_bytes": (),
}
"""The names and labels that dashboards may rely on."""

README = Path(__file__).parent.parent.parent / "gateway" / "README.md"

BOARD = routes(
    (
        'name = "board"',
        'path = "/board/{id}"',
        'transports = ["ws"]',
        'framing = "raw"',
        'subjects = ["repo.{id}.>"]',
        'publish = "inbox.{id}.{type}"',
    )
)


async def page_of(gateway: Gateway) -> str:
    return (await fetch_async(gateway.host, gateway.port, "/metrics")).body.decode()


@pytest.fixture
async def busy(start_gateway: StartGateway, nc: Client, own_id: str) -> Gateway:
    """A gateway that has had clients, refusals, events and messages of clients."""
    gateway = await start_gateway(config=BOARD)
    async with (
        SseClient(gateway.url, f"repo.{own_id}.>", query={"since": "1m"}) as page,
        ws_client(gateway.ws_url) as ws,
        RawWebSocket(gateway.url, f"/board/{own_id}?control=true", subprotocol=None) as board,
    ):
        await page.ready()
        await ws.subscribe(f"repo.{own_id}.>")
        await publish(nc, f"repo.{own_id}.x", "{}")
        await page.next_message()
        await ws.event()
        await board.send(encode_text('{"type":"hello"}'))
        await fetch_async(gateway.host, gateway.port, "/events")

        async def stored() -> bool:
            metrics = await asyncio.to_thread(gateway.metrics)
            return metrics.total("natsgate_publishes_total", via="ws", outcome="stored") == 1

        await eventually(stored, "the client's message was stored and counted")
    return gateway


async def test_every_metric_has_help_and_its_labels(busy: Gateway) -> None:
    """Each metric is on the page with a type and a help text, its labels are those that dashboards were built for, and
    the README has it in the same words."""
    page = await page_of(busy)
    metrics = Metrics(page)
    for name, labels in LABELS.items():
        helped = re.search(rf"^# HELP {name} (.+)$", page, re.MULTILINE)
        assert helped is not None, name
        assert len(helped[1]) > 10, name
        assert helped[1].endswith("."), helped[1]
        shown = name + (f"{{{','.join(labels)}}}" if labels else "")
        assert f"| `{shown}` | {helped[1].removesuffix('.')} |" in README.read_text("utf-8"), (
            "gateway/README.md lacks it"
        )
        assert re.search(rf"^# TYPE {name} (counter|gauge|histogram)$", page, re.MULTILINE), name
        for sample in metrics.samples:
            if sample.name in (name, f"{name}_bucket"):
                assert set(sample.labels) - {"le"} == set(labels), sample
    own = set(re.findall(r"^# TYPE (natsgate_\w+) ", page, re.MULTILINE))
    assert {name for name in own if not name.endswith("_created")} == set(LABELS)
    for name in ("natsgate_connections_opened_total", "natsgate_deliveries_total", "natsgate_requests_rejected_total"):
        assert metrics.total(name) > 0, name


async def test_a_fresh_gateway_shows_every_counter_as_0(start_gateway: StartGateway) -> None:
    """Before anything has happened, each counter is there with all labels that the README lists, those of its routes
    and those of its roots, and nothing else: what comes first is an increase."""
    port = free_port()
    settings = {"AUTH": "jwt", "JWKS_URL": f"http://127.0.0.1:{port}/keys", "ROOTS": "repo,task,inbox"}
    gateway = await start_gateway(config=BOARD, settings=settings, ready=False)

    async def asked_for_keys() -> Metrics | None:
        metrics = await asyncio.to_thread(gateway.metrics)
        return metrics if metrics.total("natsgate_jwks_fetches_total", outcome="failed") else None

    metrics = await eventually(asked_for_keys, "the gateway works")
    shown = {name: frozenset(labelled(metrics, name)) for name in LABELS if name.endswith("_total")}
    listed = {
        name: {tuple(zip(group, values, strict=True)) for group in groups for values in product(*group.values())}
        for name, groups in CLOSED.items()
    }
    listed["natsgate_connections_opened_total"] = {
        (("transport", "sse"), ("route", "events")),
        (("transport", "ws"), ("route", "events")),
        (("transport", "ws"), ("route", "board")),
    }
    listed["natsgate_events_received_total"] = {(("root", root),) for root in ("repo", "task", "inbox")}
    listed["natsgate_nats_reconnects_total"] = {()}
    assert shown == listed
    grown = {
        each.name
        for each in metrics.samples
        if each.name in shown and each.value and each.name != "natsgate_jwks_fetches_total"
    }
    assert grown == set(), "nothing has happened yet"


def labelled(metrics: Metrics, name: str) -> Iterator[tuple[tuple[str, str], ...]]:
    """The labels of each sample called `name`."""
    for sample in metrics.samples:
        if sample.name == name:
            yield tuple((label, sample.labels[label]) for label in LABELS[name])


async def test_a_paused_loop_is_late(start_gateway: StartGateway) -> None:
    """A process that got no CPU for a second shows it in `natsgate_event_loop_lag_seconds`."""
    gateway = await start_gateway()
    before = await asyncio.to_thread(gateway.metrics)

    def slow(metrics: Metrics) -> float:
        """Beats that were later than half a second."""
        return metrics.total("natsgate_event_loop_lag_seconds_count") - metrics.total(
            "natsgate_event_loop_lag_seconds_bucket", le="0.5"
        )

    with frozen(gateway.pid):
        await asyncio.sleep(1.0)  # this is the fault itself

    async def seen() -> bool:
        return slow(await asyncio.to_thread(gateway.metrics)) > slow(before)

    await eventually(seen, "the lag is observed")


@pytest.mark.slow
async def test_promtool_has_nothing_to_say(busy: Gateway) -> None:
    """`promtool check metrics` (Debian: prometheus) finds no fault with the page and no style to mend."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.fail("promtool is missing: apt-get install prometheus")
    page = await page_of(busy)
    done = await asyncio.to_thread(
        subprocess.run, [promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
