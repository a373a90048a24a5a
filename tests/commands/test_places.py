"""Which NATS a command has worked on stands in what it says, and which one it is for in the mends that are printed."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

import pytest

from gateway.nats_settings import bucket_of, place_of, provision_command, shape_of
from gateway.settings import Settings, load_settings
from tests.support.command import natsgate
from tests.support.eventually import wait_until
from tests.support.gateway import Gateway
from tests.support.nats_server import NatsServer

EVENT = "repo.1.x"


def of(url: str) -> Settings:
    """The settings of a gateway there."""
    return load_settings({"NATSGATE_AUTH": "none", "NATSGATE_NATS_URL": url})


async def run(*arguments: str) -> str:
    """A command that has to end with 0; what it printed."""
    done = await asyncio.to_thread(natsgate, *arguments, settings={})
    assert done.returncode == 0, done
    return done.stdout + done.stderr


async def test_each_command_says_where_it_has_worked(tmp_path: Path) -> None:
    """Every line of success names the server as host:port, and nothing of the login that stands in its URL."""
    (tmp_path / "nats.conf").write_text("authorization { user: alice, password: shibboleth }")
    async with NatsServer(tmp_path / "nats", arguments=["-c", str(tmp_path / "nats.conf")]) as server:
        config = tmp_path / "natsgate.toml"
        config.write_text(f'nats_url = "nats://alice:shibboleth@127.0.0.1:{server.port}"\n')
        place = f"127.0.0.1:{server.port}"
        for arguments, said in (
            (("revoke", "--list"), [f"nobody is revoked: there is no bucket of revoked users at {place}"]),
            (("revoke", "--lift", "bob"), [f"there is no bucket of revoked users at {place}"]),
            (("revoke", "bob", "--at", "5"), [f"there was no bucket of revoked users at {place}; made it",
                                              f"are refused from now on (at {place})"]),
            (("revoke", "bob", "--at", "5"), [f"are refused already (at {place})"]),
            (("revoke", "--lift", "bob"), [f"whenever they were issued (at {place})"]),
            (("revoke", "--lift", "bob"), [f"bob is not revoked at {place}"]),
            (("revoke", "--list"), [f"nobody is revoked at {place}"]),
            (("provision",), [f"stream EVENTS created at {place}: {{",
                              f"stream KV_natsgate_revoked is there and usable at {place}"]),
            (("provision", "--max-age", "3h", "--yes"), [f"stream EVENTS at {place}, to be changed:",
                                                         f"stream EVENTS changed at {place}"]),
            (("publish", EVENT, "{}", "--id", "a"), [f"stored 1 at {place}"]),
            (("publish", EVENT, "{}", "--id", "a"), [f"duplicate of 1 at {place}"]),
        ):  # fmt: skip
            told = await run(*arguments, "--config", str(config))
            assert all(each in told for each in said), (arguments, told)
            assert "shibboleth" not in told


async def test_the_mend_that_is_printed_mends_the_nats_that_is_meant(tmp_path: Path) -> None:
    """What `check` and `serve` tell to run makes the stream where the gateway looks for it, with NATS_URL in a TOML
    file or in the environment, in a shell that has neither."""
    async with NatsServer(tmp_path / "nats") as server:
        config = tmp_path / "natsgate.toml"
        config.write_text(f'nats_url = "{server.url}"\nauth = "none"\n')
        done = await asyncio.to_thread(natsgate, "check", "--config", str(config), settings={})
        assert done.returncode == 2
        (command,) = [line.partition("run: ")[2] for line in done.stdout.splitlines() if "no stream EVENTS" in line]
        assert command == f"natsgate provision --config {config}"
        command = f"natsgate provision --nats-url {server.url}"
        async with Gateway(tmp_path / "gateway", server.url, {"AUTH": "none"}) as gateway:
            said = [f"there is no stream EVENTS; run: {command}"]
            await asyncio.to_thread(
                wait_until,
                lambda: said in [line["reasons"] for line in gateway.logs("not_usable")],
                "serve says what check says",
            )
            told = await run(*shlex.split(command)[1:])
            assert f"stream EVENTS created at 127.0.0.1:{server.port}" in told
            await asyncio.to_thread(gateway.wait_ready)


@pytest.mark.parametrize(
    ("url", "place", "command"),
    [
        ("nats://127.0.0.1:4222", "127.0.0.1:4222", "natsgate provision --nats-url nats://127.0.0.1:4222"),
        ("nats://a:pw@[::1]", "[::1]:4222", "natsgate provision --nats-url 'nats://USER:PASSWORD@[::1]'"),
        ("nats://a,tls://b:5", "one of a:4222 b:5", "natsgate provision --nats-url nats://a,tls://b:5"),
    ],
)
def test_servers_in_words(url: str, place: str, command: str) -> None:
    """Servers are named for a shell, with a place for the login; of several it is said that it is one of them."""
    settings = of(url)
    assert place_of(settings) == place
    assert {shape_of(settings).provision, bucket_of(settings).provision} == {command}


def test_the_command_names_what_the_settings_came_from(tmp_path: Path) -> None:
    """The default server needs no option; a TOML file is named, and has the stream's name too; what wins over it is
    named beside it."""
    config = tmp_path / "natsgate.toml"
    config.write_text('nats_url = "nats://n1"\nstream = "OTHER"\n')
    none = {"NATSGATE_AUTH": "none"}
    assert provision_command(load_settings(none)) == "natsgate provision"
    assert provision_command(load_settings(none, config)) == f"natsgate provision --config {config}"
    both = provision_command(load_settings(none, config, {"nats_url": "nats://n2"}))
    assert both == f"natsgate provision --config {config} --nats-url nats://n2"
