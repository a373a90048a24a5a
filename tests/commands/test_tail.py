"""`natsgate tail` follows a real gateway, across its restarts, and says what happens."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from tests.commands.tailing import tailing
from tests.support.command import NATSGATE, environment, natsgate
from tests.support.gateway import Gateway, routes
from tests.support.nats_server import NatsServer
from tests.support.ports import free_port
from tests.support.producer import burst


def all_of(url: str, subject: str, *options: str) -> list[dict[str, Any]]:
    """Everything stored so far, by `--since all --until-head --json`."""
    done = natsgate("tail", subject, "--url", url, "--since", "all", "--until-head", "--json", *options, settings={})
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.removesuffix("\n").split("\n")]


async def test_until_head_shows_what_is_stored_and_ends(gateway: Gateway, nc: Client, own_id: str) -> None:
    """One JSON line per event with cursor, type and the event as it is; then exit code 0."""
    subject = f"repo.{own_id}.x"
    texts = ['{"type":"x","n":1.50}', '{"n":2}', '{"type":"\\u001b[2J","s":"\u2028"}']
    await burst(nc, subject, texts)
    await nc.jetstream().publish(subject, b'{"type":"end"}')
    lines = await asyncio.to_thread(all_of, gateway.url, f"repo.{own_id}.>")
    assert [line["type"] for line in lines] == ["x", "x", "\x1b[2J", "end"]
    assert [line["event"] for line in lines[:3]] == [json.loads(text) for text in texts]
    sequences = [int(line["cursor"].rpartition("-")[2]) for line in lines]
    assert sequences == sorted(sequences)


async def test_an_event_without_a_type_is_named_by_its_subject(gateway: Gateway, nc: Client, own_id: str) -> None:
    """The type is the event's own, whatever it is, else the subject's tail, else null, or `-`: nothing is called as the
    gateway's own events or a browser's are."""
    for tail, text in (
        ("task.progress", '{"type":"own"}'),
        ("task.progress", '{"n":1}'),
        ("task.progress", '{"type":7}'),
        ("task.progress", '{"type":""}'),
        ("x", '{"type":"natsgate.ready"}'),
        ("x", '{"type":"message"}'),
        ("natsgate.ready", '{"n":2}'),
        ("message", '{"n":3}'),
    ):
        await nc.jetstream().publish(f"repo.{own_id}.{tail}", text.encode())
    subject = f"repo.{own_id}.>"
    lines = await asyncio.to_thread(all_of, gateway.url, subject)
    names = ["own", "task.progress", "task.progress", "task.progress", "natsgate.ready", "message", None, None]
    assert [line["type"] for line in lines] == names
    options = ("--url", gateway.url, "--since", "all", "--until-head")
    done = await asyncio.to_thread(natsgate, "tail", subject, *options, settings={})
    assert [line.split()[1] for line in done.stdout.splitlines()] == [name or "-" for name in names]


async def test_it_follows_and_comes_back_after_a_crash(
    nats_server: NatsServer, nc: Client, tmp_path: Path, own_id: str
) -> None:
    """The gateway is killed and started anew on its port: nothing lost, nothing twice; standard error tells of it."""
    settings = {"LISTEN": f"127.0.0.1:{free_port()}"}
    subject = f"repo.{own_id}.x"
    stream = nc.jetstream()
    gateway = Gateway(tmp_path, nats_server.url, settings)
    await asyncio.to_thread(gateway.start)
    try:
        await asyncio.to_thread(gateway.wait_ready)
        await stream.publish(subject, b'{"n":0}')
        async with tailing(f"repo.{own_id}.>", "--url", gateway.url, "--json", "--since", "all") as tail:
            assert (await tail.event())["event"] == {"n": 0}
            for round_ in range(2):
                await asyncio.to_thread(gateway.kill)
                await stream.publish(subject, b'{"n":%d}' % (2 * round_ + 1))
                await tail.told("again in")
                await asyncio.to_thread(gateway.start)
                assert (await tail.event())["event"] == {"n": 2 * round_ + 1}
                await tail.told("connected again")
                await stream.publish(subject, b'{"n":%d}' % (2 * round_ + 2))
                assert (await tail.event())["event"] == {"n": 2 * round_ + 2}
            assert await tail.end() == 0
    finally:
        await asyncio.to_thread(gateway.stop)


async def test_a_graceful_end_of_the_gateway_is_told(own_nats: NatsServer, tmp_path: Path) -> None:
    """`draining` and an outage of NATS are told; a gateway that is gone is waited for."""
    gateway = Gateway(tmp_path, own_nats.url)
    await asyncio.to_thread(gateway.start)
    await asyncio.to_thread(gateway.wait_ready)
    done = natsgate("publish", "repo.1.x", '{"n":1}', settings={"NATS_URL": own_nats.url})
    assert done.returncode == 0, done.stderr
    async with tailing("repo.>", "--url", gateway.url, "--json", "--since", "all") as tail:
        await tail.event()
        await asyncio.to_thread(own_nats.kill)
        await tail.told("NATS is down")
        await asyncio.to_thread(own_nats.start)
        await tail.told("NATS is up")
        await asyncio.to_thread(gateway.stop)
        await tail.told("again in")
        assert await tail.end(signal.SIGTERM) == 0


async def test_a_gap_is_told(own_nats: NatsServer, tmp_path: Path) -> None:
    """A stream of another life while the tail was away: the gap stands on standard error."""
    gateway = Gateway(tmp_path, own_nats.url, {"LISTEN": f"127.0.0.1:{free_port()}"})
    await asyncio.to_thread(gateway.start)
    await asyncio.to_thread(gateway.wait_ready)
    command = partial(natsgate, settings={"NATS_URL": own_nats.url})
    assert (await asyncio.to_thread(command, "publish", "repo.1.x", '{"n":1}')).returncode == 0
    async with tailing("repo.>", "--url", gateway.url, "--json", "--since", "all") as tail:
        await tail.event()
        await asyncio.to_thread(gateway.kill)
        await tail.told("again in")
        assert (await asyncio.to_thread(command, "provision", "--new-epoch", "--yes")).returncode == 0
        await asyncio.to_thread(gateway.start)
        assert "recreated" in await tail.told("gap")
        assert await tail.end() == 0
    await asyncio.to_thread(gateway.stop)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("moon.1.>",), "400"),
        (("repo.42",), "repo.42.>"),
        (("inbox.>",), "403"),
        (("--route", "/nowhere"), "404"),
        (("repo.1.>", "--since", "soon"), "since"),
        (("repo.1.>", "--route", "/x"), "one of the two"),
        ((), "one of the two"),
        (("--route", "x"), "--route"),
        (("repo.1.>", "--token", "a b"), "token"),
        (("repo.1.>", "--url", "ftp://127.0.0.1"), "--url"),
    ],
)
def test_a_refusal_ends_it(gateway: Gateway, arguments: tuple[str, ...], said: str) -> None:
    """What asking again cannot mend: exit code 2 and one line with the gateway's own words."""
    url = () if "--url" in arguments else ("--url", gateway.url)
    done = natsgate("tail", *arguments, *url, settings={})
    assert done.returncode == 2, done
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


async def test_a_route_and_a_token(nats_server: NatsServer, nc: Client, tmp_path: Path, own_id: str) -> None:
    """`--route` takes a configured path, with a query of its own, which may say `named`, too; the token goes out as a
    header and is never shown."""
    config = routes(['name = "r"', 'path = "/api/r/{id}/events"', 'transports = ["sse"]', 'subjects = ["repo.{id}.>"]'])
    await nc.jetstream().publish(f"repo.{own_id}.x", b'{"n":1}')
    async with Gateway(tmp_path, nats_server.url, config=config) as gateway:
        await asyncio.to_thread(gateway.wait_ready)
        for query, name in (("", "x"), ("?named=true", "x"), ("?named", "x"), ("?a=b", "x"), ("?named=false", None)):
            options = ("--route", f"/api/r/{own_id}/events{query}", "--since", "all", "--until-head", "--json")
            done = await asyncio.to_thread(
                natsgate, "tail", *options, "--url", gateway.url, settings={"TOKEN": "shibboleth"}
            )
            assert done.returncode == 0, done.stderr
            assert [json.loads(line)["type"] for line in done.stdout.splitlines()] == [name]
            assert "shibboleth" not in done.stdout + done.stderr


async def test_a_reader_that_goes_ends_it_quietly(gateway: Gateway, nc: Client, own_id: str) -> None:
    """As in `natsgate tail … | head -1`: no complaint."""
    for n in range(3):
        await nc.jetstream().publish(f"repo.{own_id}.x", b'{"n":%d}' % n)
    process = await asyncio.to_thread(
        subprocess.run,
        f"'{NATSGATE}' tail 'repo.{own_id}.>' --url {gateway.url} --since all --until-head | head -1",
        shell=True,
        env=environment({}),
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert process.stdout.count(b"\n") == 1
    assert b'{"n":0}' in process.stdout
    assert process.stderr == b""


async def test_nothing_in_an_event_reaches_the_terminal(gateway: Gateway, nc: Client, own_id: str) -> None:
    """Control characters of a type or a text are shown as escapes, C1 ones too."""
    text = '{"type":"\\u001b[2J\\u009b31m","s":"\u009b31m\u202e"}'
    await nc.jetstream().publish(f"repo.{own_id}.x", text.encode())
    options = ("--url", gateway.url, "--since", "all", "--until-head")
    done = await asyncio.to_thread(natsgate, "tail", f"repo.{own_id}.>", *options, settings={})
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip("\n").isprintable()
    assert "\\u001b[2J" in done.stdout
    assert "\\u202e" in done.stdout
