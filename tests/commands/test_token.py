"""`natsgate token` mints what section 5 of the protocol describes."""

from __future__ import annotations

import time
from pathlib import Path

import jwt
import pytest

from gateway.core.rights import principal_of
from tests.support.command import natsgate

SECRET = "a-secret-of-at-least-32-bytes-for-tests"


def test_its_claims(tmp_path: Path) -> None:
    """Signed with the secret, with subject, times and rights; the secret may come from a file."""
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    options = ("--subscribe", "repo.42.>", "--subscribe", "user.{sub}.>", "--publish", "inbox.project.*", "--ttl", "2h")
    done = natsgate("token", "--sub", "al ice", *options, settings={"JWT_SECRET_FILE": file})
    assert done.returncode == 0, done.stderr
    claims = jwt.decode(done.stdout.strip(), SECRET, algorithms=["HS256"], options={"require": ["exp", "iat", "sub"]})
    assert claims["sub"] == "al ice"
    assert claims["natsgate"] == {"subscribe": ["repo.42.>", "user.{sub}.>"], "publish": ["inbox.project.*"]}
    assert claims["exp"] - claims["iat"] == 7200
    assert abs(claims["iat"] - time.time()) < 30
    assert not {"iss", "aud"} & claims.keys()


def test_issuer_and_audience() -> None:
    """`iss` and `aud` for gateways that check them."""
    done = natsgate("token", "--sub", "a", "--issuer", "me", "--audience", "you", settings={"JWT_SECRET": SECRET})
    claims = jwt.decode(done.stdout.strip(), SECRET, algorithms=["HS256"], audience="you", issuer="me")
    assert claims["natsgate"] == {"subscribe": [], "publish": []}


@pytest.mark.parametrize(
    ("settings", "options", "said"),
    [
        ({}, (), "NATSGATE_JWT_SECRET"),
        ({"JWT_SECRET": "shibboleth"}, (), "32"),
        ({"JWT_SECRET": SECRET}, ("--subscribe", "repo.>.x"), "repo.>.x"),
        ({"JWT_SECRET": SECRET}, ("--publish", "repo..x"), "empty"),
        ({"JWT_SECRET": SECRET}, ("--subscribe", "repo.a b.>"), "not encoded"),
        ({"JWT_SECRET": SECRET}, ("--ttl", "0"), "--ttl"),
        ({"JWT_SECRET": SECRET}, ("--ttl", "ever"), "--ttl"),
        ({"JWT_SECRET": SECRET}, ("--sub", "a" * 257), "--sub is longer than 256 bytes; no gateway takes such a token"),
        ({"JWT_SECRET": SECRET}, ("--sub", "é" * 129), "--sub is longer than 256 bytes"),
        ({"JWT_SECRET": SECRET, "HEARTBEAT_S": "soon"}, (), "NATSGATE_HEARTBEAT_S"),
    ],
)
def test_what_is_wrong_is_named(settings: dict[str, object], options: tuple[str, ...], said: str) -> None:
    """No secret, a short one, a bad pattern, time or user: exit code 2, the mend and nothing else, no token, and never
    the secret."""
    done = natsgate("token", "--sub", "a", *options, settings=settings)
    assert done.returncode == 2
    assert said in done.stderr
    assert "gives no rights" not in done.stderr
    assert done.stdout == ""
    assert "shibboleth" not in done.stderr


def test_the_longest_sub_is_one_that_gateways_take() -> None:
    """256 bytes are taken, by the command and by gateways."""
    done = natsgate("token", "--sub", "é" * 128, "--subscribe", "repo.>", settings={"JWT_SECRET": SECRET})
    assert done.returncode == 0, done.stderr
    claims = jwt.decode(done.stdout.strip(), SECRET, algorithms=["HS256"])
    assert principal_of(claims).sub == "é" * 128


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--subscribe", "foo.>"), "--subscribe foo.> gives no right where NATSGATE_ROOTS is repo,mine: foo is none"),
        (("--publish", "task.*"), "--publish task.* gives no right"),
        (("--subscribe", "inbox.>"), "nobody may subscribe to inbox"),
        (("--subscribe", "mine.>", "--subscribe", "*.7.>", "--publish", "repo.1.x"), ""),
    ],
)
def test_rights_that_give_nothing_are_told(options: tuple[str, ...], said: str) -> None:
    """The token is made, and what of its rights no gateway of these settings serves is named beside it."""
    done = natsgate("token", "--sub", "a", *options, settings={"JWT_SECRET": SECRET, "ROOTS": "repo,mine"})
    assert done.returncode == 0
    assert jwt.decode(done.stdout.strip(), SECRET, algorithms=["HS256"])["sub"] == "a"
    assert said in done.stderr
    assert bool(said) == bool(done.stderr)
