"""Every way to log in, against a nats-server that demands it, right and wrong."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import nats
import nkeys  # type: ignore[import-untyped]
import pytest
from nats.js.api import StreamConfig

from publishers import Ack, NatsUnreachable, Publisher, Refused, Settings
from tests.publishers.broker import Broker
from tests.publishers.logins import certificates, new_key, operator_config


async def _provision(settings: Settings) -> None:
    """Makes the stream with the publisher's own login."""
    tls = None
    if settings.tls_ca and settings.tls_cert:
        tls = ssl.create_default_context(cafile=settings.tls_ca)
        tls.load_cert_chain(settings.tls_cert, settings.tls_key)
    client = await nats.connect(
        settings.servers,
        user=settings.user,
        password=settings.password,
        token=settings.token,
        nkeys_seed_str=settings.nkey_seed,
        user_credentials=settings.creds,
        tls=tls,
    )
    await client.jetstream().add_stream(StreamConfig(name="EVENTS", subjects=["repo.>"]))
    await client.close()


async def _works(right: Settings, wrong: dict[str, Any], secret: str) -> None:
    await _provision(right)
    async with Publisher(right) as publisher:
        assert (await publisher.emit("repo", "1", "x")).sequence == 1
    async with Publisher(Settings(servers=right.servers, **wrong)) as publisher:
        with pytest.raises(NatsUnreachable, match=r"127\.0\.0\.1") as failure:
            await publisher.wait_connected(0.5)
    assert secret not in str(failure.value)
    assert secret not in repr(right)


def _broker(folder: Path, config: str) -> Broker:
    (folder / "nats.conf").write_text(config)
    return Broker(folder / "nats", arguments=["-c", str(folder / "nats.conf")])


async def test_user_and_password(tmp_path: Path) -> None:
    """User and password, as settings and in the URL; the password is never told."""
    with _broker(tmp_path, 'authorization { user: alice, password: "s3cret-1" }') as broker:
        right = Settings(servers=broker.url, user="alice", password="s3cret-1")
        await _works(right, {"user": "alice", "password": "wrong"}, "s3cret-1")
        url = broker.url.replace("//", "//alice:s3cret-1@")
        async with Publisher(url) as publisher:
            await publisher.emit("repo", "1", "x")
        bad = broker.url.replace("//", "//alice:s3cret-2@")
        async with Publisher(bad) as publisher:
            with pytest.raises(NatsUnreachable, match="Authorization") as failure:
                await publisher.wait_connected(0.3)
        assert "s3cret-2" not in str(failure.value)


async def test_missing_permission(tmp_path: Path) -> None:
    """A login that may not publish the subject is refused, at once and for good; what it may publish goes on."""
    rights = '{ publish: ["$JS.API.>", "repo.1.>"] }'
    with _broker(
        tmp_path, f'authorization {{ users: [ {{ user: a, password: "b", permissions: {rights} }} ] }}'
    ) as broker:
        settings = Settings(
            servers=broker.url, user="a", password="b", ack_wait_s=0.1, retry_for_s=0.3, backoff_max_s=0.1
        )
        await _provision(settings)
        async with Publisher(settings) as publisher:
            with pytest.raises(Refused, match=r"may not publish to repo\.2\.x: it is not stored"):
                await publisher.emit("repo", "2", "x")
            await publisher.emit("repo", "1", "x")


async def test_token(tmp_path: Path) -> None:
    """A token."""
    with _broker(tmp_path, 'authorization { token: "s3cret-2" }') as broker:
        await _works(Settings(servers=broker.url, token="s3cret-2"), {"token": "wrong"}, "s3cret-2")


async def test_nkey(tmp_path: Path) -> None:
    """An nkey seed."""
    key, other = new_key(nkeys.PREFIX_BYTE_USER), new_key(nkeys.PREFIX_BYTE_USER)
    config = f"authorization {{ users: [ {{ nkey: {key.public_key.decode()} }} ] }}"
    with _broker(tmp_path, config) as broker:
        seed = key.seed.decode()
        await _works(Settings(servers=broker.url, nkey_seed=seed), {"nkey_seed": other.seed.decode()}, seed)


async def test_creds(tmp_path: Path) -> None:
    """A `.creds` file in operator mode."""
    config, creds = operator_config(tmp_path)
    with _broker(tmp_path, config) as broker:
        seed = creds.read_text().split("-----\n")[3].split("\n")[0]
        await _works(Settings(servers=broker.url, creds=str(creds)), {}, seed)


async def test_tls(tmp_path: Path) -> None:
    """TLS with an own authority and a client certificate; without the authority the server is not trusted."""
    files = certificates(tmp_path)
    config = {
        "cert_file": str(files["server.pem"]),
        "key_file": str(files["server.key"]),
        "ca_file": str(files["ca.pem"]),
        "verify": True,
    }
    with _broker(tmp_path, f"tls {json.dumps(config)}") as broker:
        right = Settings(
            servers=broker.url.replace("nats://", "tls://"),
            tls_ca=str(files["ca.pem"]),
            tls_cert=str(files["client.pem"]),
            tls_key=str(files["client.key"]),
        )
        await _works(right, {}, "PRIVATE KEY")
        await _works_not_without_client(right)


async def _works_not_without_client(right: Settings) -> None:
    async with Publisher(Settings(servers=right.servers, tls_ca=right.tls_ca)) as publisher:
        with pytest.raises(NatsUnreachable):
            await publisher.wait_connected(0.5)


def test_settings_from_environment(tmp_path: Path) -> None:
    """The variables of natsgate give the settings, secrets also as files, and both at once is an error."""
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    settings = Settings.from_env(
        {
            "NATSGATE_NATS_URL": "nats://a:1, nats://b:2",
            "NATSGATE_NATS_USER": "alice",
            "NATSGATE_NATS_PASSWORD_FILE": str(secret),
        }
    )
    assert settings.server_urls == ["nats://a:1", "nats://b:2"]
    assert (settings.user, settings.password) == ("alice", "s3cret")
    assert Settings.from_env({}) == Settings()
    with pytest.raises(ValueError, match="unset one"):
        Settings.from_env({"NATSGATE_NATS_TOKEN": "a", "NATSGATE_NATS_TOKEN_FILE": str(secret)})
    with pytest.raises(ValueError, match="NATSGATE_NATS_TOKEN_FILE: cannot read"):
        Settings.from_env({"NATSGATE_NATS_TOKEN_FILE": str(tmp_path / "none")})
    for content, said in ((b"\n", "is empty"), (b"\xff", "is not UTF-8")):
        secret.write_bytes(content)
        with pytest.raises(ValueError, match=f"NATSGATE_NATS_TOKEN_FILE: .* {said}"):
            Settings.from_env({"NATSGATE_NATS_TOKEN_FILE": str(secret)})


async def test_a_subject_that_is_not_ones_own(tmp_path: Path) -> None:
    """What the login may not publish is refused at once, by name and with the mend; it is not stored, and what it may
    publish goes on, also behind it."""
    rights = 'permissions: { publish: { allow: ["repo.>", "$JS.API.>"] }, subscribe: ["_INBOX.>"] }'
    with _broker(tmp_path, f"authorization {{ users: [ {{ user: a, password: b, {rights} }} ] }}") as broker:
        settings = Settings(servers=broker.url, user="a", password="b")
        await _provision(settings)
        async with Publisher(settings) as publisher:
            with pytest.raises(Refused, match=r"may not publish to task\.1\.X: .*deploy/nats") as refused:
                await publisher.publish("task.1.X", {})
            assert (refused.value.code, refused.value.err_code) == (403, 0)
            futures = [await publisher.enqueue(each, {}) for each in ("task.1.x", "repo.1.x", "task.1.x", "repo.2.x")]
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
            assert [type(each) for each in outcomes] == [Refused, Ack, Refused, Ack]
            assert publisher.stats.buffered_events == 0
