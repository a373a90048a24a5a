"""The listening sockets: how many may wait to be accepted, how many are, and what one client may hold in the kernel."""

from __future__ import annotations

import asyncio
import contextlib
import re
import select
import socket
import struct
import time
from pathlib import Path

import uvloop

from gateway.transports.http_server import ACCEPTS_A_TURN, HttpServer
from gateway.transports.limits import Limits
from gateway.transports.sockets import BACKLOG, RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES, bind
from gateway.transports.turns import Turns
from tests.attacks.mob import Mob
from tests.conftest import StartGateway
from tests.limits.counts import until_counts
from tests.support.eventually import eventually
from tests.support.frozen import frozen

HERD = 320
PAGE = " ".join((Path(__file__).parents[2] / "gateway" / "README.md").read_text("utf-8").split())


def test_what_the_kernel_keeps_for_one_client_is_bounded() -> None:
    """Each accepted connection has the buffers that were set, which the kernel does not grow then."""
    with bind("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        listening.setblocking(True)
        accepted, _ = listening.accept()
        with accepted:
            for option, wanted in ((socket.SO_SNDBUF, SEND_BUFFER_BYTES), (socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)):
                assert wanted <= accepted.getsockopt(socket.SOL_SOCKET, option) <= 2 * wanted


def test_what_the_kernel_keeps_is_what_the_readme_says() -> None:
    """For a client that does not read the kernel holds as much as the README says, and the last write; for one that we
    do not read no more than that, however large the writes are."""
    said = re.search(r"(\d+) KiB in the kernel; when we do not read it, (\d+) KiB in the kernel", PAGE)
    assert said is not None
    outgoing, incoming = (int(each) * 1024 for each in said.groups())
    for size in (100, 1500, 65536):
        with bind("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()) as client:
            listening.setblocking(True)
            accepted, _ = listening.accept()
            with accepted:
                fill(accepted, b"x" * size)
                fill(client, b"y" * size)
                came, waits = held(accepted)
        assert 0.9 * outgoing < waits <= outgoing + 65536, f"writes of {size} bytes"
        assert 0.9 * incoming < came <= incoming, f"writes of {size} bytes"


def fill(sock: socket.socket, data: bytes) -> None:
    """Write until the kernel takes nothing any more: the peer's buffer is full, then ours is."""
    sock.setblocking(False)
    refused = 0
    while refused < 10:
        try:
            sock.send(data)
            refused = 0
        except BlockingIOError:
            refused += 1
            select.select([], [sock], [], 0.05)  # what is under way arrives meanwhile


def held(sock: socket.socket) -> tuple[int, int]:
    """The bytes that the kernel charges to a socket: of what has come, and of what is to go (Linux, SO_MEMINFO)."""
    numbers = struct.unpack("9I", sock.getsockopt(socket.SOL_SOCKET, 55, 36))
    return numbers[0], numbers[5]


def kernel_backlog() -> int:
    """The most that the kernel lets wait, whatever a program asks for."""
    return int(Path("/proc/sys/net/core/somaxconn").read_text())


async def test_a_herd_may_wait_to_be_accepted(start_gateway: StartGateway) -> None:
    """While the gateway has no CPU, the kernel takes as many connections as was asked for, without making anybody try
    again; then all of them are served."""
    gateway = await start_gateway()
    herd = min(BACKLOG, kernel_backlog()) - 500
    mob = Mob(gateway.host, gateway.port)
    with frozen(gateway.pid):
        await asyncio.to_thread(
            mob.open, herd, b"GET /events?subject=repo.limits.%3E HTTP/1.1\r\nHost: x\r\n\r\n", within_s=0.9
        )  # the first repetition of a lost SYN comes after a second
        assert (len(mob.sockets), mob.failed) == (herd, 0)
    try:
        await until_counts(gateway, 30, open=herd)
    finally:
        mob.close()


def test_many_are_accepted_in_one_turn() -> None:
    """While events go to thousands of clients a turn of the loop is long: a herd that came in at one connection a turn
    would wait for minutes."""

    async def serve() -> int:
        limits = Limits(
            0, 0, 0, time.monotonic, lambda *_: None, Turns(lambda work: None, time.monotonic, lambda error: None)
        )
        server = HttpServer(None, limits, on_signal=None, graceful_s=0)
        listening = bind("127.0.0.1", 0)
        serving = asyncio.create_task(server.serve([listening]))

        async def started() -> bool:
            return server.started

        await eventually(started, "the server has started")
        with contextlib.ExitStack() as stack:
            for _ in range(HERD):
                stack.enter_context(socket.create_connection(listening.getsockname()))
            taken = 0
            while len(limits.waiting) < HERD:
                await asyncio.sleep(0)  # turns of the loop are what is counted
                taken += 1
        server.should_exit = True
        await serving
        return taken

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(serve()) <= 2 * HERD / ACCEPTS_A_TURN
