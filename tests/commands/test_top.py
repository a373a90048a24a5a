"""`natsgate top` looks at real gateways, says what they do, and which of them it cannot see."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import pty
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.client import Client

from gateway.commands.scrape import Look, increase, observed, quantile
from gateway.commands.top import Screen
from tests.conftest import StartGateway
from tests.support.command import NATSGATE, environment, natsgate
from tests.support.fleet import Fleet
from tests.support.flow import Flow
from tests.support.frozen import frozen
from tests.support.jwks_server import Answer, JwksServer, endless, raw, whole
from tests.support.nats_server import NatsServer
from tests.support.ports import free_port
from tests.support.sse import SseClient

PATIENCE_S = 15.0


def read_table(text: str) -> dict[str, dict[str, str]]:
    """The last table in a text: by replica, the cells by their heads; what is no row of cells has a `trouble`."""
    lines = text.strip().split("\n\n")[-1].splitlines()
    heads = lines[0].replace("lag p99", "lag_p99").split()
    rows = {}
    for line in lines[1:]:
        name, *cells = line.split()
        whole = len(cells) == len(heads) - 1
        rows[name] = dict(zip(heads[1:], cells, strict=True)) if whole else {"trouble": " ".join(cells)}
    return rows


def place(url: str) -> str:
    return url.removeprefix("http://")


async def test_once_shows_every_replica_and_all_of_them(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """Two replicas with clients under a flow, and one that is not there: connections, rates and latency of each, their
    sum, and why the third is not seen, which is exit code 3."""
    one, two = await start_gateway(), await start_gateway()
    nobody = f"http://127.0.0.1:{free_port()}"
    urls = [each for url in (one.url, two.url, nobody) for each in ("--url", url)]
    async with (
        SseClient(one.url, f"repo.{own_id}.>") as page,
        Fleet(lambda: two.url, [f"repo.{own_id}.>"], each=1) as pair,
    ):
        await page.ready()
        await pair.until_ready()
        async with Flow(nc, [f"repo.{own_id}.x"], pause_s=0.02, each=2):
            done = await asyncio.to_thread(natsgate, "top", "--once", "--interval", "1", *urls, settings={})
    assert done.returncode == 3, done.stderr
    shown = read_table(done.stdout)
    assert shown.keys() == {place(one.url), place(two.url), place(nobody), "all"}
    assert shown[place(nobody)] == {"trouble": "connection refused"}
    mine, other, both = shown[place(one.url)], shown[place(two.url)], shown["all"]
    assert [(row["sse"], row["ws"]) for row in (mine, other, both)] == [("1", "0"), ("1", "1"), ("2", "1")]
    for row in (mine, other, both):
        assert float(row["events/s"]) > 5
        assert row["p50"].endswith("s")
        assert row["p99"].endswith("s")
        assert (row["behind"], row["gaps"], row["nats"]) == ("0", "0", "up")
    assert float(other["writes/s"]) > float(mine["writes/s"]) > 5


async def test_once_of_replicas_that_are_there_is_a_success(start_gateway: StartGateway) -> None:
    """Exit code 0; `/metrics` may be named, or be somewhere of its own."""
    port = free_port()
    gateway = await start_gateway(METRICS_LISTEN=f"127.0.0.1:{port}")
    urls = ["--url", f"http://127.0.0.1:{port}", "--url", f"http://127.0.0.1:{port}/metrics"]
    done = await asyncio.to_thread(natsgate, "top", "--once", "--interval", "0.2", *urls, settings={})
    assert done.returncode == 0, done.stderr
    assert read_table(done.stdout)["all"]["nats"] == "up"
    moved = await asyncio.to_thread(natsgate, "top", "--once", "--url", gateway.url, settings={})
    assert moved.returncode == 3
    assert "METRICS_LISTEN" in moved.stdout


async def test_what_is_no_gateway_is_said_to_be_none(own_nats: NatsServer) -> None:
    """Another program's page is no replica; a URL that is none is exit code 2."""
    port = own_nats.monitor_port
    done = await asyncio.to_thread(natsgate, "top", "--once", "--url", f"http://127.0.0.1:{port}/varz", settings={})
    assert done.returncode == 3
    assert "metrics" in done.stdout.splitlines()[1]
    wrong = await asyncio.to_thread(natsgate, "top", "--once", "--url", "127.0.0.1:8080", settings={})
    assert wrong.returncode == 2
    assert "http://" in wrong.stderr


async def test_numbers_that_are_none_are_no_metrics() -> None:
    """A page that counts connections with `+Inf` is not one of a replica, and the command ends."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        page = b'natsgate_build_info 1\nnatsgate_connections{transport="sse"} +Inf\n'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(page), page))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        done = await asyncio.to_thread(natsgate, "top", "--once", "--url", f"http://127.0.0.1:{port}", settings={})
    assert done.returncode == 3
    assert "no metrics" in done.stdout.splitlines()[1]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (raw(b""), "no HTTP, or half an answer"),
        (raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "no HTTP, or half an answer"),
        (whole(b"", status="307 Elsewhere", headers="location: /metrics/\r\n"), "it answers 307"),
        (endless(b"HTTP/1.1 200 OK\r\n\r\n", b"#" * 2**20), "has no end"),
    ],
)
async def test_answers_that_are_no_page(answer: Answer, said: str) -> None:
    """Each way to be no page is told in a few words, and no proxy of the environment is asked."""
    async with JwksServer() as server, JwksServer() as proxy:
        server.answer = answer
        url, variables = server.url.removesuffix("/jwks.json"), {"http_proxy": proxy.url}
        done = await asyncio.to_thread(
            natsgate, "top", "--once", "--interval", "0.1", "--url", url, settings={}, variables=variables
        )
        assert proxy.requests == 0
    assert done.returncode == 3, done
    assert said in done.stdout


@pytest.mark.parametrize("lines", [1, 2])
def test_the_smallest_terminal_shows_the_heads(monkeypatch: pytest.MonkeyPatch, lines: int) -> None:
    """Where a terminal has room for one line only, that is the one that is shown."""
    monkeypatch.setenv("LINES", str(lines))
    monkeypatch.setenv("COLUMNS", "80")
    out = io.StringIO()
    Screen(out, tty=True).show(["heads", "one", "two"])
    assert "heads" in out.getvalue()
    assert "one" not in out.getvalue()


class Topping:
    """A running `natsgate top` whose output is no terminal."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stdout is not None
        self._out = process.stdout

    async def until(self, name: str, **cells: str) -> dict[str, str]:
        """Read tables until one has a row with these cells."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                text = (await self._out.readuntil(b"\n\n")).decode()
                row = read_table(text).get(name, {})
                if cells.items() <= row.items():
                    return row


@asynccontextmanager
async def topping(*arguments: str) -> AsyncIterator[Topping]:
    process = await asyncio.create_subprocess_exec(
        NATSGATE, "top", *arguments, env=environment({}), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Topping(process)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_live_it_follows_what_happens(own_nats: NatsServer, start_gateway: StartGateway, own_id: str) -> None:
    """A client comes, NATS goes and comes back, the replica goes: each shows in a table soon after. Ctrl-C is a good
    end."""
    gateway = await start_gateway(nats_url=own_nats.url)
    where = place(gateway.url)
    async with topping("--interval", "0.2", "--url", gateway.url) as top:
        await top.until(where, sse="0", nats="up")
        async with SseClient(gateway.url, f"repo.{own_id}.>") as page:
            await page.ready()
            await top.until(where, sse="1")
            await asyncio.to_thread(own_nats.kill)
            await top.until(where, nats="DOWN")
            await asyncio.to_thread(own_nats.start)
            await top.until(where, nats="up")
        await asyncio.to_thread(gateway.stop)
        await top.until(where, trouble="connection refused")


async def test_a_replica_that_hangs_is_said_to(start_gateway: StartGateway) -> None:
    """One that accepts connections and says nothing does not hold up the others' rows."""
    hung, well = await start_gateway(), await start_gateway()
    async with topping("--interval", "0.2", "--url", hung.url, "--url", well.url) as top:
        await top.until(place(hung.url), nats="up")
        with frozen(hung.pid):
            await top.until(place(hung.url), trouble="no answer in time")
            await top.until(place(well.url), nats="up")
        await top.until(place(hung.url), nats="up")


async def test_once_ends_also_when_an_answer_never_does() -> None:
    """Something that sends its page a byte at a time, for ever, is told of as one that does not answer."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(b"#")
                await writer.drain()
                await asyncio.sleep(0.2)  # the pace of the drip

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        done = await asyncio.to_thread(natsgate, "top", "--once", "--url", f"http://127.0.0.1:{port}", settings={})
    assert done.returncode == 3, done
    assert "no answer in time" in done.stdout


async def test_on_a_terminal_the_table_stays_in_its_place(start_gateway: StartGateway) -> None:
    """On a terminal the screen is cleared once, then written over, and given back with its cursor."""
    gateway = await start_gateway()
    master, slave = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        NATSGATE, "top", "--interval", "0.2", "--url", gateway.url, env=environment({}), stdout=slave
    )
    os.close(slave)
    shown = b""

    def read_more() -> bytes:
        try:
            return os.read(master, 65536)
        except OSError:
            return b""  # the other end is closed

    try:
        async with asyncio.timeout(PATIENCE_S):
            while shown.count(b"\x1b[H") < 3:
                shown += await asyncio.to_thread(read_more)
            process.send_signal(signal.SIGTERM)
            while piece := await asyncio.to_thread(read_more):
                shown += piece
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(master)
    assert shown.count(b"\x1b[2J") == 1
    assert shown.count(b"\x1b[?25l") == 1
    assert shown.endswith(b"\x1b[?25h")
    assert place(gateway.url).encode() in shown


@given(st.lists(st.floats(0, 20), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
@example([1.0, 0.0078125], 0.5)
def test_a_quantile_lies_in_the_bucket_of_the_true_one(observations: list[float], share: float) -> None:
    """What is read from a histogram's buckets lies within the bucket that holds the observation of that rank."""
    bounds = [0.001, 0.01, 0.1, 1.0, 10.0, float("inf")]
    buckets = {bound: float(sum(each <= bound for each in observations)) for bound in bounds}
    ascending = sorted(observations)
    rank = next(n for n in range(1, len(ascending) + 1) if n >= share * len(ascending))
    true = ascending[rank - 1]
    upper = next(bound for bound in bounds if true <= bound)
    lower = max((bound for bound in bounds if bound < upper), default=0.0)
    found = quantile(share, buckets)
    assert found is not None
    assert lower <= found <= upper


def test_a_restart_is_no_negative_rate() -> None:
    """Counters and histograms that began anew count from nothing."""
    before, after = Look(0.0), Look(1.0)
    before.sums["n_total"], after.sums["n_total"] = 100, 7
    before.buckets["h"], after.buckets["h"] = {1.0: 50.0, float("inf"): 60.0}, {1.0: 3.0, float("inf"): 4.0}
    assert increase("n_total", before, after) == 7
    assert observed("h", before, after) == {1.0: 3.0, float("inf"): 4.0}
    assert quantile(0.5, {}) is None
    assert quantile(0.99, {1.0: 1.0, float("inf"): 9.0}) == float("inf")
