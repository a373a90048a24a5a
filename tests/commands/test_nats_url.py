"""`--nats-url`: which NATS a command talks to, given on its command line."""

from __future__ import annotations

import asyncio

import pytest

from gateway.core.errors import ConfigError
from gateway.settings import load_settings
from tests.commands.own_stream import OwnStream
from tests.support.command import natsgate
from tests.support.nats_server import NatsServer

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


IMPOSSIBLE = {
    "nats://127.0.0.1:70000": "its port is none from 1 to 65535",
    "nats://127.0.0.1:0": "its port is none from 1 to 65535",
    "nats://127.0.0.1:abc": "its port is none from 1 to 65535",
    "nats://gate:shibboleth": "its port is none from 1 to 65535",
    "nats://:4222": "its host is missing or cannot be read",
    "nats://": "its host is missing or cannot be read",
    "nats://gate:shibboleth@": "its host is missing or cannot be read",
    "nats://None:4222": "its host is missing or cannot be read",
    "nats://[::1": "brackets are for IPv6: nats://[::1]:4222",
    "nats://[::1]x:4222": "brackets are for IPv6: nats://[::1]:4222",
    "nats://::1:4222": "brackets are for IPv6: nats://[::1]:4222",
    "nats://gate:shibbo[leth@127.0.0.1": "brackets are for IPv6: nats://[::1]:4222",
    "nats://127.0.0.1:4222?tls=no": "something stands behind its port",
    "nats://127.0.0.1:4222#a": "something stands behind its port",
    "nats://gate:shibbo/leth@127.0.0.1": "goes into NATS_USER and NATS_PASSWORD",
    "127.0.0.1:4222": "give NATS servers as nats://host:4222",
}


@pytest.mark.parametrize("url", IMPOSSIBLE)
def test_a_server_that_cannot_be_is_refused(url: str) -> None:
    """One server that nobody can connect to is named by its place among those that are given, with what is wrong, and
    without what may be a password."""
    with pytest.raises(ConfigError) as caught:
        load_settings({"NATSGATE_AUTH": "none", "NATSGATE_NATS_URL": f"nats://127.0.0.1:4222,{url}"})
    (line,) = str(caught.value).splitlines()
    assert line.startswith("NATSGATE_NATS_URL[1]: ")
    assert IMPOSSIBLE[url] in line
    assert "give NATS servers as nats://host:4222 or tls://host:4222" in line
    assert "shibbo" not in line


def test_servers_that_can_be_are_taken() -> None:
    """Names, addresses of both kinds, with or without a port, a login or a slash at the end."""
    urls = "nats://a", "tls://a.example.com:4222/", "nats://[::1]:4222", "nats://u:p@ss@127.0.0.1", "nats://t0k3n@b:1"
    settings = load_settings({"NATSGATE_AUTH": "none", "NATSGATE_NATS_URL": ", ".join(urls)})
    assert settings.nats_url == urls


@pytest.mark.parametrize("command", ["serve", "check"])
@pytest.mark.parametrize("url", ["nats://127.0.0.1:70000", "nats://[::1", "nats://:4222"])
async def test_a_good_server_beside_it_changes_nothing(nats_server: NatsServer, command: str, url: str) -> None:
    """Commands do not wait for a NATS that they would never reach: one line about settings, and exit code 2."""
    settings = {"AUTH": "none", "LISTEN": "127.0.0.1:0", "NATS_URL": f"{url},{nats_server.url}"}
    done = await asyncio.to_thread(natsgate, command, settings=settings)
    assert done.returncode == 2, done
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "NATSGATE_NATS_URL[0]: " in done.stderr
