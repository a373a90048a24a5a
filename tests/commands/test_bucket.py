"""The bucket of revoked users under `natsgate provision` and `natsgate check`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from gateway.commands.bucket import look_at_bucket, plan_bucket_change
from gateway.core.bucket import BUCKET_SHAPE, MAX_BYTES
from gateway.core.revoked import BUCKET
from tests.auth.following import create_bucket
from tests.commands.own_stream import OwnStream
from tests.support.nats_server import NatsServer

JWT: dict[str, object] = {"AUTH": "jwt", "JWT_SECRET": "x" * 32}


@pytest.fixture
async def alone(tmp_path: Path, own_id: str) -> AsyncIterator[OwnStream]:
    """The place of a stream on a nats-server of the test's own: there is one bucket per server."""
    async with NatsServer(tmp_path / "nats") as server:
        client: Client = await nats.connect(server.url)
        yield OwnStream(server.url, f"S{own_id}", f"r{own_id}", client)
        await client.close()


async def config_of(nc: Client) -> dict[str, Any]:
    """The bucket's configuration as the server tells it."""
    config: dict[str, Any] = json.loads((await nc.request(f"$JS.API.STREAM.INFO.{BUCKET_SHAPE.name}")).data)["config"]
    return config


async def test_provision_makes_it_once(alone: OwnStream) -> None:
    """Beside the stream: a KV bucket with a limit. A second run finds nothing to do, and keeps what is in it."""
    said = await alone.ok("provision")
    assert f"stream {BUCKET_SHAPE.name} created" in said
    config = await config_of(alone.nc)
    assert BUCKET_SHAPE.problems(config) == []
    assert (config["max_msgs_per_subject"], config["max_bytes"], config["num_replicas"]) == (1, MAX_BYTES, 1)
    await (await alone.nc.jetstream().key_value(BUCKET)).put("alice", b"5")
    assert f"stream {BUCKET_SHAPE.name} is there and usable at " in await alone.ok("provision")
    assert await config_of(alone.nc) == config
    assert (await (await alone.nc.jetstream().key_value(BUCKET)).get("alice")).value == b"5"


async def test_one_made_by_a_kv_client_is_changed_after_showing(alone: OwnStream) -> None:
    """It has no limit: the difference is shown and, without `--yes`, not made; with it, the rest stays as it was."""
    kv = await alone.nc.jetstream().create_key_value(bucket=BUCKET, history=5, ttl=30 * 86400, direct=False)
    await kv.put("alice", b"5")
    await alone.make()
    before = await config_of(alone.nc)
    done = await alone.run("provision")
    assert done.returncode == 2
    assert "max_bytes: no limit -> 8MiB" in done.stdout
    assert "--yes" in done.stderr
    assert await config_of(alone.nc) == before
    await alone.ok("provision", "--yes")
    assert await config_of(alone.nc) == {**before, "max_bytes": MAX_BYTES, "allow_direct": True}
    assert (await kv.get("alice")).value == b"5"


async def test_a_larger_limit_stays(alone: OwnStream) -> None:
    """What an operator gave it is not taken back."""
    await create_bucket(alone.nc, max_bytes=4 * MAX_BYTES)
    await alone.ok("provision")
    assert (await config_of(alone.nc))["max_bytes"] == 4 * MAX_BYTES


async def test_one_that_cannot_be_changed_is_said_plainly(alone: OwnStream) -> None:
    """A work queue: exit code 2, and the way to another one."""
    await create_bucket(alone.nc, retention="workqueue", max_msgs_per_subject=-1)
    done = await alone.run("provision", "--yes")
    assert done.returncode == 2
    assert "work queue" in done.stderr
    assert f"nats stream rm {BUCKET_SHAPE.name}" in done.stderr


def test_it_has_as_many_copies_as_the_stream_or_more() -> None:
    """Fewer are raised, more are left."""

    def copies(now: int, stream: int) -> int:
        config = BUCKET_SHAPE.config(replicas=now)
        return int(plan_bucket_change(BUCKET_SHAPE, config, replicas=stream).config["num_replicas"])

    assert [copies(1, 1), copies(1, 3), copies(3, 3), copies(5, 3)] == [1, 3, 3, 5]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"subjects": ["$KV.natsgate_revoked.a"]}, "does not store"),
        ({"allow_direct": False}, "direct gets"),
        ({"max_bytes": -1}, "no max_bytes"),
        ({"max_msgs_per_subject": -1}, "not that of a KV bucket"),
        ({"allow_rollup_hdrs": False}, "not that of a KV bucket"),
        ({"discard": "old"}, "forgets the oldest"),
        ({"no_ack": True}, "acknowledge"),
        ({"retention": "interest"}, "keep"),
    ],
)
def test_what_is_wrong_is_named_and_planned(wrong: dict[str, Any], said: str) -> None:
    """Each thing that is wrong is one problem whose mend is `natsgate provision`, which changes it and nothing else."""
    config = {**BUCKET_SHAPE.config(), **wrong}
    (problem,) = look_at_bucket(BUCKET_SHAPE, config)
    assert said in problem.text
    assert problem.mend == "run: natsgate provision"
    plan = plan_bucket_change(BUCKET_SHAPE, config, replicas=1)
    assert [change.key for change in plan.changes] == list(wrong)
    assert look_at_bucket(BUCKET_SHAPE, plan.config) == []


async def test_check_looks_at_it(alone: OwnStream) -> None:
    """Where tokens are asked for: missing is worth knowing, wrong is a problem with its mend, right is one line."""
    await alone.make()

    async def about_bucket() -> list[dict[str, str]]:
        _, found = await alone.findings(**JWT)
        return [each for each in found if each["about"] == "bucket"]

    (missing,) = await about_bucket()
    assert missing["level"] == "note"
    assert "natsgate provision" in missing["mend"]
    await create_bucket(alone.nc, discard="old", storage="memory", max_age=3600 * 10**9)
    found = await about_bucket()
    assert [each["level"] for each in found] == ["problem", "note", "note"]
    assert "forgets the oldest" in found[0]["text"]
    assert "in memory" in found[1]["text"]
    assert "1h" in found[2]["text"]
    await alone.nc.jetstream().delete_key_value(BUCKET)
    await alone.ok("provision")
    (right,) = await about_bucket()
    assert right["level"] == "ok"
    _, found = await alone.findings()
    assert not [each for each in found if each["about"] == "bucket"]
