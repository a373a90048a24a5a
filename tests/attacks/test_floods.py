"""Floods: as much as a socket takes, of what is cheap to send."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.attacks.conftest import MakeScene
from tests.attacks.flood import Weapon, flood
from tests.attacks.requests import END, HANDSHAKE, STREAM
from tests.support.nats_server import NatsServer
from tests.support.raw_ws import CONTINUATION, PING, PONG, TEXT, encode_frame, encode_op, encode_text

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

MUCH = 200_000
CHUNKED = b"POST /auth/ticket HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"

REQUESTS = [
    Weapon(b"GET /events?subject=", b"x" * MUCH),
    Weapon(GET + b"X-Large: ", b"x" * MUCH),
    Weapon(GET, b"X-Many: y\r\n" * (MUCH // 11)),
    Weapon(CHUNKED + b"0\r\n", b"X-Trailer: y\r\n" * (MUCH // 14)),
    Weapon(CHUNKED + b"0\r\nX-Trailer: ", b"x" * MUCH),
    Weapon(CHUNKED, b"1;extension\r\nx\r\n" * (MUCH // 16)),
    Weapon(b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", b"x" * MUCH),
    Weapon(b"", (GET + END) * (MUCH // 32)),
    Weapon(b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * (MUCH // 27), reads=False),
    Weapon(STREAM + END, b"x" * MUCH),
    Weapon(b"", b"\r\n" * MUCH),
    Weapon(b"", os.urandom(MUCH)),
]

BEGUN = HANDSHAKE + END + encode_frame(TEXT, b"x", fin=False)
FRAMES = [
    Weapon(HANDSHAKE + END, encode_frame(PING) * (MUCH // 6)),
    Weapon(HANDSHAKE + END, encode_frame(PONG) * (MUCH // 6)),
    Weapon(HANDSHAKE + END, encode_frame(PING, b"x" * 125) * (MUCH // 131), reads=False),
    Weapon(BEGUN, encode_frame(CONTINUATION, b"", fin=False) * (MUCH // 6)),
    Weapon(HANDSHAKE + END, encode_op(op="ping", ref=1) * (MUCH // 25)),
    Weapon(HANDSHAKE + END, encode_text("{") * (MUCH // 7)),
    Weapon(HANDSHAKE + END, encode_text("x" * 60_000) * 4),
    Weapon(HANDSHAKE + END, os.urandom(MUCH)),
]


@pytest.mark.parametrize(("name", "weapons"), [("requests", REQUESTS), ("frames", FRAMES)], ids=["requests", "frames"])
async def test_floods_of_bytes(make_scene: MakeScene, name: str, weapons: list[Weapon]) -> None:
    """24 sockets that send headers, URLs, trailers, chunks, bodies, pipelines and junk without end; or pings, pongs,
    fragments, messages and junk. Whoever goes beyond a limit is ended, and comes again at once."""
    async with await make_scene(f"flood of {name}", rss_mib=60, descriptors=100, lines=2500) as scene:
        address = (scene.gateway.host, scene.gateway.port)
        done = await asyncio.to_thread(flood, address, weapons, sockets=24, seconds=6)
        assert done.ended > len(weapons)
        print(f"{done.sent_bytes / 2**20:.0f} MiB were taken, {done.ended} connections ended", file=sys.__stderr__)


async def test_a_publisher_that_floods_one_subject(make_scene: MakeScene, nats_server: NatsServer, own_id: str) -> None:
    """Tens of thousands of events a second on one subject that a client follows, too: those of the other feeds get
    theirs, and the log stays within `LOG_BYTES`."""
    log_bytes = 16 * 2**20
    async with await make_scene(
        "a publisher's flood", {"LOG_BYTES": log_bytes}, rss_mib=150, descriptors=20, lines=100, left_mib=150
    ) as scene:
        publisher = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.attacks.flooding_publisher",
            nats_server.url,
            f"task.{own_id}.flood",
            "5",
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        out, _ = await publisher.communicate()
        metrics = await asyncio.to_thread(scene.gateway.metrics)
        received = metrics.total("natsgate_events_received_total", root="task")
        print(f"{int(out):,} events were published, {received:,.0f} received live", file=sys.__stderr__)
        assert received > 1000
        assert metrics.total("natsgate_log_bytes") <= log_bytes
