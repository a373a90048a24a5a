"""`natsgate revoke` writes who is revoked into an ordinary KV bucket, says what it did, and weakens nothing unasked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from subprocess import CompletedProcess

import nats
import pytest
from nats.aio.client import Client
from nats.js.errors import ServiceUnavailableError
from nats.js.kv import KeyValue

from gateway.core.bucket import BUCKET_SHAPE, MAX_BYTES
from gateway.core.revoked import BUCKET
from tests.auth.following import Following, create_bucket
from tests.support.command import natsgate
from tests.support.nats_server import NatsServer


class Place:
    """A nats-server of the test's own, and the command against it."""

    def __init__(self, server: NatsServer, nc: Client) -> None:
        self.server = server
        self.nc = nc

    async def run(self, *arguments: str, **settings: object) -> CompletedProcess[str]:
        given = {"NATS_URL": self.server.url, **settings}
        return await asyncio.to_thread(natsgate, *arguments, settings=given, timeout_s=40)

    async def ok(self, *arguments: str) -> str:
        """The command has to end with 0; what it printed."""
        done = await self.run(*arguments)
        assert done.returncode == 0, done
        return done.stdout

    async def refused(self, *arguments: str, **settings: object) -> str:
        """The command has to end with 2, with one line; that line."""
        done = await self.run(*arguments, **settings)
        assert done.returncode == 2, done
        assert len(done.stderr.splitlines()) == 1, done.stderr
        return done.stderr

    async def kv(self) -> KeyValue:
        return await self.nc.jetstream().key_value(BUCKET)

    async def value(self, key: str) -> str:
        return ((await (await self.kv()).get(key)).value or b"").decode()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """A nats-server without any stream."""
    async with NatsServer(tmp_path / "nats") as server:
        nc = await nats.connect(server.url)
        yield Place(server, nc)
        await nc.close()


async def test_it_revokes_and_says_so(place: Place) -> None:
    """The time is the next whole second, so that no token of this second counts; the bucket is made when it lacks."""
    before = time.time()
    said = await place.ok("revoke", "alice")
    assert f"there was no bucket of revoked users at 127.0.0.1:{place.server.port}; made it" in said
    told = said.splitlines()[-1]
    assert told.startswith("alice's tokens issued before ")
    assert told.endswith(f" are refused from now on (at 127.0.0.1:{place.server.port})")
    value = await place.value("alice")
    assert value in told
    time_ = datetime.fromisoformat(value).timestamp()
    assert before < time_ <= time.time() + 1
    assert time_ == int(time_)


async def test_replicas_follow_it(place: Place) -> None:
    """Revoked, moved by `--at`, lifted: what the command does is what replicas know; ids of any kind are encoded."""
    async with Following(place.server.url) as replica:
        await place.ok("revoke", "owner/repo.js é", "--at", "2026-01-01T00:00:00Z")
        await place.ok("revoke", "alice", "--at", "1767225600")
        await replica.holds({"owner/repo.js é": 1767225600.0, "alice": 1767225600.0})
        await place.ok("revoke", "alice", "--at", "2026-01-01T01:00:00Z")
        await replica.holds({"owner/repo.js é": 1767225600.0, "alice": 1767229200.0})
        assert "taken again" in await place.ok("revoke", "--lift", "alice")
        await replica.holds({"owner/repo.js é": 1767225600.0})
        assert f"not revoked at 127.0.0.1:{place.server.port}; nothing to do" in await place.ok(
            "revoke", "--lift", "alice"
        )


async def test_a_revocation_is_never_weakened_unasked(place: Place) -> None:
    """Who is shut out until 2099 stays so, whoever revokes again; the way to it is told. Lifted first, it goes."""
    await place.ok("revoke", "alice", "--at", "2099-01-01T00:00:00Z")
    for arguments in (["alice"], ["alice", "--at", "2030-01-01T00:00:00Z"]):
        said = await place.ok("revoke", *arguments)
        assert "before 2099-01-01T00:00:00Z are refused already" in said
        assert "--lift" in said
        assert await place.value("alice") == "2099-01-01T00:00:00Z"
    await place.ok("revoke", "--lift", "alice")
    await place.ok("revoke", "alice", "--at", "2030-01-01T00:00:00Z")
    assert await place.value("alice") == "2030-01-01T00:00:00Z"


async def test_of_two_at_once_the_later_time_stays(place: Place) -> None:
    """Commands write the same entry at one moment, each another time: the latest one is what counts at the end."""
    await create_bucket(place.nc)
    done = await asyncio.gather(
        *(place.run("revoke", "alice", "--at", f"{2030 + n}-01-01T00:00:00Z") for n in (1, 2, 0))
    )
    assert [each.returncode for each in done] == [0] * 3, done
    assert await place.value("alice") == "2032-01-01T00:00:00Z"


async def test_the_list(place: Place) -> None:
    """A line each, sorted, without deleted ones; what is nobody's, or holds no time, is told aside."""
    done = await place.run("revoke", "--list")
    assert (done.returncode, done.stdout) == (0, "")
    assert "nobody is revoked" in done.stderr
    for sub, at in (("bob", "1767225600"), ("alice", "2026-01-01T00:00:00.5Z"), ("a\x1b[31m", "5"), ("carol", "6")):
        await place.ok("revoke", sub, "--at", at)
    await place.ok("revoke", "--lift", "carol")
    kv = await place.kv()
    await kv.put("not.ours", b"5")
    await kv.put("dave", b"soon")
    done = await place.run("revoke", "--list")
    assert done.returncode == 0
    lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
    assert [sub for _, sub in lines] == ["a\\u001b[31m", "alice", "bob", "dave"]
    assert lines[1][0] == "2026-01-01T00:00:00.500000Z"
    assert lines[2][0] == "2026-01-01T00:00:00Z"
    assert "not.ours" in done.stderr
    assert "'dave' holds no time" in done.stderr


async def test_a_long_list(place: Place) -> None:
    """More entries than one answer of NATS takes."""
    await create_bucket(place.nc)
    kv = await place.kv()
    for start in range(0, 2500, 100):
        await asyncio.gather(*(kv.put(f"u{n}", b"5") for n in range(start, start + 100)))
    assert len((await place.ok("revoke", "--list")).splitlines()) == 2500


async def test_the_bucket_is_an_ordinary_one(place: Place) -> None:
    """nats-py's KV client opens it and does everything with it; its size is bounded, and it refuses when it is full."""
    await place.ok("revoke", "alice")
    kv = await place.kv()
    status = await kv.status()
    assert status.history == 1
    config = status.stream_info.config
    assert config.max_bytes == MAX_BYTES
    assert config.allow_direct is True
    revision = await kv.put("bob", b"5")
    await kv.update("bob", b"6", last=revision)
    assert (await kv.get("bob")).value == b"6"
    await kv.delete("bob")
    await kv.create("bob", b"7", msg_ttl=3600)
    await kv.purge("bob")
    assert await kv.keys() == ["alice"]  # by a watcher
    assert [entry.operation for entry in await kv.history("bob")] == ["PURGE"]


async def test_a_full_bucket_is_told_and_lifting_works_there(place: Place) -> None:
    """No room: exit code 2 and what would make some. `--lift` works, though its mark would need room, too."""
    await create_bucket(place.nc, max_bytes=1000)
    kv, n = await place.kv(), 0
    with contextlib.suppress(ServiceUnavailableError):
        while True:
            await kv.put(f"u{n}", b"2026-01-01T00:00:00Z")
            n += 1
    said = await place.refused("revoke", "alice")
    assert "full" in said
    assert "--max-bytes" in said
    async with Following(place.server.url) as replica:
        await replica.until(lambda: len(replica.table) == n, "all are revoked")
        await place.ok("revoke", "--lift", "u0")
        await replica.until(lambda: replica.table.not_before("u0") is None, "u0 is not revoked any more")
    await kv.put("x0", b"2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["alice", "--at", "soon"], "RFC 3339"),
        (["alice", "--at", "2026-01-31"], "--at"),
        (["alice", "--at", "1767225600000"], "--at"),
        (["alice", "--lift", "--at", "5"], "--at out"),
        (["--list", "alice"], "--list"),
        ([""], "empty"),
        ([], "SUB"),
        (["a" * 257], "SUB is longer than 256 bytes; no gateway takes a token of it"),
        (["é" * 129], "256 bytes"),
        (["--lift", "é" * 400], "1024"),
    ],
)
async def test_what_makes_no_sense_is_said(place: Place, arguments: list[str], said: str) -> None:
    """Exit code 2, one line with what is wrong, and nothing is written."""
    assert said in await place.refused("revoke", *arguments)
    assert "error" in json.loads((await place.nc.request(f"$JS.API.STREAM.INFO.{BUCKET_SHAPE.name}")).data)


async def test_a_sub_that_no_gateway_takes_is_lifted_all_the_same(place: Place) -> None:
    """Others may have written it; what `--list` shows can go."""
    await place.ok("revoke", "a" * 256)
    await (await place.kv()).put("a" * 257, b"2026-01-01T00:00:00Z")
    assert "a" * 257 in await place.ok("revoke", "--list")
    await place.ok("revoke", "--lift", "a" * 257)
    assert "a" * 257 not in await place.ok("revoke", "--list")


async def test_a_bucket_of_another_make_is_not_written(place: Place) -> None:
    """It forgets entries, or cannot be read by replicas: exit code 2 and what mends it; mended, it is written."""
    await create_bucket(place.nc, discard="old", max_bytes=-1)
    said = await place.refused("revoke", "alice")
    assert "natsgate provision" in said
    assert (await place.run("provision", "--yes")).returncode == 0
    await place.ok("revoke", "alice")


async def test_nats_that_is_not_there_is_exit_code_3() -> None:
    """Nothing listens: exit code 3, one line."""
    settings = {"NATS_URL": "nats://127.0.0.1:1", "START_TIMEOUT_S": "0.5"}
    done = await asyncio.to_thread(natsgate, "revoke", "alice", settings=settings)
    assert done.returncode == 3, done
    assert len(done.stderr.splitlines()) == 1


async def test_a_server_without_jetstream_is_told(tmp_path: Path) -> None:
    """An account without JetStream: exit code 2, and the mend."""
    config = 'accounts { A { users: [ { user: "a", password: "b" } ] } }\n'
    (tmp_path / "nats.conf").write_text(config)
    async with NatsServer(tmp_path / "nats", arguments=["-c", str(tmp_path / "nats.conf")]) as server:
        settings = {"NATS_URL": server.url, "NATS_USER": "a", "NATS_PASSWORD": "b"}
        done = await asyncio.to_thread(natsgate, "revoke", "alice", settings=settings)
    assert done.returncode == 2, done
    assert "JetStream" in done.stderr
    assert "Traceback" not in done.stderr
