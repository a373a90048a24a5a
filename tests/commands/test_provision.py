"""`natsgate provision` on an existing stream: shows what would change, asks, and touches nothing else."""

from __future__ import annotations

import asyncio
import os
import pty

import pytest

from tests.commands.own_stream import OwnStream
from tests.support.command import NATSGATE, environment

HOUR_NS = 3600 * 10**9


async def test_options_shape_a_new_stream(own: OwnStream) -> None:
    """Age, size and epoch as given; the rest as always."""
    await own.ok("provision", "--max-age", "1h30m", "--max-bytes", "8MiB", "--replicas", "1", "--new-epoch")
    config = await own.config()
    assert config["max_age"] == 5400 * 10**9
    assert config["max_bytes"] == 8 * 2**20
    assert config["num_replicas"] == 1
    assert config["duplicate_window"] == 120 * 10**9
    assert config["metadata"]["natsgate_epoch"]


async def test_without_a_terminal_a_change_needs_yes(own: OwnStream) -> None:
    """The difference is shown, nothing is changed, exit code 2 says how; with `--yes` it is changed."""
    await own.make()
    before = await own.config()
    done = await own.run("provision", "--max-age", "48h")
    assert done.returncode == 2
    assert "max_age: 1d -> 2d" in done.stdout
    assert "--yes" in done.stderr
    assert await own.config() == before
    await own.ok("provision", "--max-age", "48h", "--yes")
    assert await own.config() == {**before, "max_age": 48 * HOUR_NS}


async def test_it_is_idempotent(own: OwnStream) -> None:
    """A second run with the same options, and one without any, find nothing to do."""
    await own.ok("provision", "--max-bytes", "10MiB")
    before = await own.config()
    assert "nothing to do" in await own.ok("provision", "--max-bytes", "10MiB")
    assert "nothing to do" in await own.ok("provision")
    assert await own.config() == before


async def test_settings_made_by_hand_stay(own: OwnStream) -> None:
    """Description, limits, further subjects and metadata outlive a mend of what natsgate needs."""
    kept = {
        "description": "by hand",
        "max_msg_size": 5000,
        "max_msgs": 777,
        "max_age": 2 * HOUR_NS,
        "compression": "s2",
        "deny_delete": True,
    }
    await own.api("CREATE", subjects=[f"{own.a}.42.>", "by-hand." + own.a], metadata={"team": "x"}, **kept)
    await own.ok("provision", "--yes")
    config = await own.config()
    assert {name: config[name] for name in kept} == kept
    assert config["metadata"]["team"] == "x"
    assert set(config["subjects"]) == {"by-hand." + own.a, f"{own.a}.>", f"{own.b}.>"}
    assert config["allow_direct"] is True
    assert config["republish"]["dest"] == f"{own.live}.>"


async def test_a_new_epoch_changes_the_metadata_only(own: OwnStream) -> None:
    """Each `--new-epoch` writes another value beside the metadata that is there; events stay."""
    await own.make()
    await own.nc.jetstream().publish(f"{own.a}.1.x", b"{}")
    await own.api("UPDATE", **{**await own.config(), "metadata": {"team": "x"}})
    epochs = set()
    for _ in range(2):
        before = await own.api("INFO")
        assert "natsgate_epoch" in await own.ok("provision", "--new-epoch", "--yes")
        after = await own.api("INFO")
        epochs.add(after["config"]["metadata"].pop("natsgate_epoch"))
        before["config"]["metadata"].pop("natsgate_epoch", None)
        assert after["config"] == before["config"]
        assert after["state"]["messages"] == 1
    assert len(epochs) == 2


async def test_what_jetstream_cannot_change_is_said_plainly(own: OwnStream) -> None:
    """A stream in memory works and stays in memory, and the way to a file is told; a work queue is refused."""
    await own.api("CREATE", subjects=[f"{own.a}.>"], storage="memory")
    done = await own.run("provision", "--yes")
    assert done.returncode == 0, done
    assert "cannot move an existing stream to file" in done.stderr
    assert (await own.config())["storage"] == "memory"
    await own.api("DELETE")
    await own.api("CREATE", subjects=[f"{own.a}.>"], retention="workqueue")
    done = await own.run("provision", "--yes")
    assert done.returncode == 2
    assert "work queue" in done.stderr
    assert f"nats stream rm {own.name}" in done.stderr


async def test_what_the_server_refuses_is_one_line_with_a_mend(own: OwnStream) -> None:
    """Copies without a cluster: exit code 2, the server's words and what would do."""
    await own.make()
    done = await own.run("provision", "--replicas", "3", "--yes")
    assert done.returncode == 2
    assert "--replicas 1" in done.stderr
    assert "Traceback" not in done.stderr
    await own.nc.jetstream().add_stream(name=f"{own.name}-other", subjects=[f"{own.a}x.>"])
    done = await own.run("provision", "--yes", ROOTS=f"{own.a},{own.b},{own.a}x")
    assert done.returncode == 2
    assert "overlap" in done.stderr


async def test_a_short_age_is_done_and_warned_of(own: OwnStream) -> None:
    """Ten seconds of retention: it is the operator's will, and it is said what it means."""
    done = await own.run("provision", "--max-age", "10s")
    assert done.returncode == 0, done
    assert "10s" in done.stderr
    assert (await own.config())["duplicate_window"] == 10 * 10**9


@pytest.mark.parametrize(("answer", "code", "age_h"), [("y", 0, 48), ("n", 2, 24)])
async def test_a_person_is_asked(own: OwnStream, answer: str, code: int, age_h: int) -> None:
    """On a terminal it asks, and does what the answer says."""
    await own.make()
    ours, theirs = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            NATSGATE,
            *("provision", "--max-age", "48h"),
            env=environment(own.settings),
            stdin=theirs,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        os.write(ours, f"{answer}\n".encode())
        shown, _ = await asyncio.wait_for(process.communicate(), 15)
    finally:
        os.close(ours)
        os.close(theirs)
    assert b"max_age: 1d -> 2d" in shown
    assert process.returncode == code, shown
    assert (await own.config())["max_age"] == age_h * HOUR_NS


@pytest.mark.parametrize("option", [("--max-age", "soon"), ("--max-bytes", "lots"), ("--replicas", "0")])
async def test_a_malformed_option_is_named(own: OwnStream, option: tuple[str, str]) -> None:
    """Exit code 2 and the option's name, and no stream."""
    done = await own.run("provision", *option)
    assert done.returncode == 2
    assert option[0] in done.stderr
