"""Every way to log in to NATS that settings offer, against a nats-server that demands it: `serve` and `check`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import nkeys  # type: ignore[import-untyped]
import pytest

from tests.publishers.logins import certificates, new_key, operator_config
from tests.support.command import natsgate
from tests.support.gateway import Gateway
from tests.support.nats_server import NatsServer


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An authority, and certificates of a server and of a client."""
    return certificates(tmp_path_factory.mktemp("certificates"))


def server(folder: Path, config: str) -> NatsServer:
    """A nats-server with a configuration of its own; not started."""
    (folder / "nats.conf").write_text(config)
    return NatsServer(folder / "nats", arguments=["-c", str(folder / "nats.conf")])


async def checked(url: str, login: Mapping[str, object], *, secret: str) -> None:
    """`provision` and `check` work with the login and do not tell the secret."""
    settings = {"NATS_URL": url, "AUTH": "none", **login}
    for command in ("provision", "check"):
        done = await asyncio.to_thread(natsgate, command, settings=settings)
        assert done.returncode == 0, (command, done)
        assert secret not in done.stdout + done.stderr


async def let_in(url: str, login: Mapping[str, object], folder: Path, *, secret: str) -> None:
    """`provision`, `check` and `serve` work with the login, and nobody tells the secret."""

    async def served() -> None:
        async with Gateway(folder / "gateway", url, login) as gateway:
            await asyncio.to_thread(gateway.wait_ready)
            assert secret not in gateway.log_text + gateway.get("/readyz").body.decode()

    await asyncio.gather(checked(url, login, secret=secret), served())


async def kept_out(url: str, login: Mapping[str, object], *, secret: str) -> None:
    """`check` ends with 3 and one problem about NATS, without a secret."""
    settings = {"NATS_URL": url, "AUTH": "none", "START_TIMEOUT_S": "0.7", **login}
    done = await asyncio.to_thread(natsgate, "check", "--json", settings=settings)
    assert done.returncode == 3, done
    problems = [each for each in json.loads(done.stdout)["findings"] if each["level"] == "problem"]
    assert [each["about"] for each in problems] == ["nats"]
    assert secret not in done.stdout + done.stderr


async def test_user_and_password(tmp_path: Path) -> None:
    """User and password, as settings and in the URL."""
    async with server(tmp_path, 'authorization { user: alice, password: "shibboleth" }') as nats:
        await let_in(nats.url, {"NATS_USER": "alice", "NATS_PASSWORD": "shibboleth"}, tmp_path, secret="shibboleth")
        await checked(nats.url.replace("//", "//alice:shibboleth@"), {}, secret="shibboleth")
        await kept_out(nats.url, {"NATS_USER": "alice", "NATS_PASSWORD": "sibboleth"}, secret="sibboleth")


async def test_token(tmp_path: Path) -> None:
    """A token, from a file."""
    secret = tmp_path / "token"
    secret.write_text("shibboleth\n")
    async with server(tmp_path, 'authorization { token: "shibboleth" }') as nats:
        await let_in(nats.url, {"NATS_TOKEN_FILE": secret}, tmp_path, secret="shibboleth")
        await kept_out(nats.url, {"NATS_TOKEN": "sibboleth"}, secret="sibboleth")


async def test_nkey(tmp_path: Path) -> None:
    """The seed of an nkey, from a file."""
    key, other = new_key(nkeys.PREFIX_BYTE_USER), new_key(nkeys.PREFIX_BYTE_USER)
    (tmp_path / "seed").write_text(key.seed.decode() + "\n")
    config = f"authorization {{ users: [ {{ nkey: {key.public_key.decode()} }} ] }}"
    async with server(tmp_path, config) as nats:
        await let_in(nats.url, {"NATS_NKEY_FILE": tmp_path / "seed"}, tmp_path, secret=key.seed.decode())
        await kept_out(nats.url, {"NATS_NKEY": other.seed.decode()}, secret=other.seed.decode())


async def test_creds(tmp_path: Path) -> None:
    """A credentials file, in operator mode."""
    config, creds = operator_config(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    _, foreign = operator_config(tmp_path / "elsewhere")
    seed = creds.read_text().split("-----\n")[3].split("\n")[0]
    async with server(tmp_path, config) as nats:
        await let_in(nats.url, {"NATS_CREDS": creds}, tmp_path, secret=seed)
        await kept_out(nats.url, {"NATS_CREDS": foreign}, secret=seed)


async def test_tls_with_a_client_certificate(tmp_path: Path, files: dict[str, Path]) -> None:
    """An own authority and a client's certificate that the server verifies; without one of them, no way in."""
    names = {"cert_file": "server.pem", "key_file": "server.key", "ca_file": "ca.pem"}
    config = {**{name: str(files[file]) for name, file in names.items()}, "verify": True}
    login = {"NATS_CA": files["ca.pem"], "NATS_CERT": files["client.pem"], "NATS_KEY": files["client.key"]}
    without_authority = {name: value for name, value in login.items() if name != "NATS_CA"}
    async with server(tmp_path, f"tls {json.dumps(config)}") as nats:
        url = nats.url.replace("nats:", "tls:")
        await let_in(url, login, tmp_path, secret="PRIVATE KEY")
        await asyncio.gather(
            checked(nats.url, login, secret="PRIVATE KEY"),
            kept_out(url, {"NATS_CA": files["ca.pem"]}, secret="PRIVATE KEY"),
            kept_out(url, without_authority, secret="PRIVATE KEY"),
        )


async def test_several_servers_of_which_the_first_is_dead(tmp_path: Path) -> None:
    """The first one refuses, the second one takes us."""
    async with server(tmp_path, 'authorization { token: "shibboleth" }') as nats:
        url = f"nats://127.0.0.1:1,{nats.url}"
        await let_in(url, {"NATS_TOKEN": "shibboleth"}, tmp_path, secret="shibboleth")


@pytest.fixture
def broken(tmp_path: Path) -> dict[str, tuple[dict[str, object], str]]:
    """Logins that cannot be loaded, and the setting to be named."""
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("shibboleth\n")
    return {
        "a missing creds file": ({"NATS_CREDS": tmp_path / "none"}, "NATSGATE_NATS_CREDS"),
        "a creds file of something else": ({"NATS_CREDS": nonsense}, "NATSGATE_NATS_CREDS"),
        "no seed": ({"NATS_NKEY_FILE": nonsense}, "NATSGATE_NATS_NKEY"),
        "no certificate": ({"NATS_CA": nonsense}, "NATSGATE_NATS_CA"),
        "a certificate without its key": ({"NATS_CERT": nonsense}, "NATS_KEY"),
    }


async def test_a_login_that_cannot_be_loaded_is_named(broken: dict[str, tuple[dict[str, object], str]]) -> None:
    """`check`, and `serve` alike: exit code 2 and one line with the setting, never its content."""

    async def named(command: str, login: dict[str, object], name: str) -> None:
        settings = {"AUTH": "none", "LISTEN": "127.0.0.1:0", **login}
        done = await asyncio.to_thread(natsgate, command, settings=settings)
        assert done.returncode == 2, done
        assert name in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "shibboleth" not in done.stderr

    await asyncio.gather(*(named("check", *each) for each in broken.values()), named("serve", *broken["no seed"]))
