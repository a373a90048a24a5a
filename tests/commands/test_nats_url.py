"""`--nats-url`: which NATS a command talks to, given on its command line."""

from __future__ import annotations

import asyncio

import pytest

from tests.commands.own_stream import OwnStream
from tests.support.command import natsgate

ELSEWHERE = "nats://127.0.0.1:1"


async def test_it_wins_over_the_environment(own: OwnStream) -> None:
    """Each command for operators goes where `--nats-url` says, whatever the environment says."""
    url = str(own.settings["NATS_URL"])
    for arguments in (
        ("provision",),
        ("check",),
        ("publish", f"{own.a}.1.x", '{"type":"x"}'),
        ("revoke", f"nobody-{own.name}"),
        ("revoke", "--lift", f"nobody-{own.name}"),
    ):
        done = await own.run(*arguments, "--nats-url", url, NATS_URL=ELSEWHERE)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    assert (await own.api("INFO"))["state"]["messages"] == 1


@pytest.mark.parametrize("command", ["provision", "check", "publish repo.1.x {}", "revoke alice"])
async def test_a_wrong_one_is_named_as_it_was_given_and_shows_no_login(command: str) -> None:
    """What is no NATS URL: exit code 2, the option's name, and nothing of what may be a password."""
    arguments = (*command.split(), "--nats-url", "http://gate:shibboleth@127.0.0.1")
    done = await asyncio.to_thread(natsgate, *arguments, settings={"AUTH": "none", "NATS_URL": ELSEWHERE})
    assert done.returncode == 2
    assert "--nats-url" in done.stderr
    assert "nats://host:4222" in done.stderr
    assert "shibboleth" not in done.stdout + done.stderr
